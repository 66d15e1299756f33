"""The front end against fairseq itself, in evaluation and in training, through an exported file.

And as fairseq's pre-training writes it, with settings that OmegaConf itself has pickled.
"""

import argparse

import numpy as np
import pytest
import torch
from conftest import small_config, small_official, small_pth  # noqa: F401 (fixtures)

from checkpoints import official_name
from detector import load_detector, load_front_end

FRONT = "ssl_model.model."


@pytest.fixture
def pair(small_pth, small_config, tmp_path):  # noqa: F811
    """Our detector, and fairseq's wav2vec 2.0 with what the detector exported."""
    import fairseq.models.wav2vec as wav2vec

    detector = load_detector(small_pth, device="cpu", config=small_config)
    assert detector.export_official(tmp_path / "exported.pth") == []
    exported = torch.load(tmp_path / "exported.pth", weights_only=True)
    sizes = small_config.front_end
    config = wav2vec.Wav2Vec2Config(
        extractor_mode="layer_norm",
        conv_feature_layers="[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] * 2",
        conv_bias=True,
        encoder_embed_dim=sizes.width,
        encoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads,
        encoder_ffn_embed_dim=sizes.ffn,
        conv_pos=sizes.pos_kernel,
        conv_pos_groups=sizes.pos_groups,
        layer_norm_first=True,
        quantize_targets=True,
        final_dim=32,
        latent_vars=8,
        latent_groups=2,
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop"), 0.0),
        **dict.fromkeys(("dropout_input", "dropout_features"), 0.0),
    )
    theirs = wav2vec.Wav2Vec2Model(config)
    front_end = {k.removeprefix(FRONT): v for k, v in exported.items() if k.startswith(FRONT)}
    theirs.load_state_dict(front_end, strict=True)
    return detector, theirs


def features_of(theirs, waves):
    return theirs(waves, mask=False, features_only=True)["x"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("samples", [1040, 5000, 16000, 64600, 100000])
def test_features(samples, training, pair):
    detector, theirs = (module.train(training) for module in pair)
    waves = 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    with torch.no_grad():
        expected = features_of(theirs, waves)
        torch.testing.assert_close(detector.features(waves), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("namespace", [None, argparse.Namespace(arch="wav2vec2", seed=1)])
def test_a_pretraining_file(namespace, pair, small_config, tmp_path):  # noqa: F811
    from omegaconf import OmegaConf

    _, theirs = pair
    settings = {"common": {"seed": 1, "log": None}, "lr": [5e-4, "${common.seed}", {}], "length": 2**40}
    cfg = OmegaConf.create(settings, flags={"allow_objects": True})
    cfg.task = namespace
    OmegaConf.set_struct(cfg, True)
    content = {
        "args": namespace,
        "cfg": cfg,
        "model": theirs.state_dict(),
        "extra_state": {"metrics": [(0, "loss", "AverageMeter", {"val": np.float64(0.5)})]},
        "last_optimizer_state": torch.optim.Adam(theirs.parameters()).state_dict(),
    }
    torch.save(content, tmp_path / "xlsr2_300m.pt")
    detector = load_front_end(tmp_path / "xlsr2_300m.pt", device="cpu", config=small_config)
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = features_of(theirs.eval(), waves)
        torch.testing.assert_close(detector.features(waves), expected, atol=1e-5, rtol=0)
    assert detector.export_official(tmp_path / "exported.pth") == []


def test_gradients(pair):
    detector, theirs = (module.train() for module in pair)
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(0, 1, 64)
    for features in (detector.features(waves), features_of(theirs, waves)):
        (features.square() * weight).mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    ours = {
        official_name(name).removeprefix(FRONT): p.grad
        for name, p in detector.named_parameters()
        if p.grad is not None
    }
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1e-6)
        torch.testing.assert_close(ours[name] / scale, gradient / scale, atol=1e-3, rtol=0)
