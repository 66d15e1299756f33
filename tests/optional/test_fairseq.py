"""Both front ends against the published outputs, and against a fairseq that none of our modules built.

At both sizes, in evaluation and in training, and from what fairseq's pre-training writes, with settings that
OmegaConf itself has pickled.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_as_published, features, filled, read_metrics, read_scores
from weights import official_shapes

import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing import project
from antispoofing.detectors import loading
from antispoofing.detectors.checkpoints import FRONT, PRETRAINING_ONLY, official_name
from antispoofing.detectors.loading import (
    check_detector,
    export_official,
    load_detector,
    load_front_end,
    save_detector,
)
from antispoofing.errors import CheckpointError
from model import Detector

FRONTENDS = ("transformers", "fairseq")


@pytest.fixture(scope="module")
def files(small_official, tmp_path_factory):
    """A folder with an official file of each size."""
    folder = tmp_path_factory.mktemp("official")
    torch.save(small_official, folder / "small.pth")
    torch.save(filled(official_shapes()), folder / "xlsr300m.pth")
    yield folder
    (folder / "xlsr300m.pth").unlink()


@pytest.fixture(params=FRONTENDS)
def pair(request, small_pth, small_config, tmp_path):
    """A detector, and fairseq's wav2vec 2.0, built here, with what the detector exported."""
    import fairseq.models.wav2vec as wav2vec

    detector = load_detector(small_pth, device="cpu", config=small_config, engine=request.param)
    assert export_official(detector, tmp_path / "exported.pth") == []
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


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("size", ["small", "xlsr300m"])
def test_published_outputs(size, frontend, files, small_config):
    config = small_config if size == "small" else None
    detector = load_detector(files / f"{size}.pth", device="cpu", config=config, engine=frontend)
    assert_as_published(detector, size)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("samples", [1040, 5000, 16000, 64600, 100000])
def test_features(samples, training, pair):
    detector, theirs = (module.train(training) for module in pair)
    waves = 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    with torch.no_grad():
        expected = features_of(theirs, waves)
        torch.testing.assert_close(detector.features(waves), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("namespace", [None, argparse.Namespace(arch="wav2vec2", seed=1)])
def test_a_pretraining_file(namespace, pair, small_config, tmp_path):
    from omegaconf import OmegaConf

    detector, theirs = pair
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
    path = tmp_path / "xlsr2_300m.pt"
    torch.save(content, path)
    detector = load_front_end(path, device="cpu", config=small_config, engine=detector.engine)
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = features_of(theirs.eval(), waves)
        torch.testing.assert_close(detector.features(waves), expected, atol=1e-5, rtol=0)
    assert export_official(detector, tmp_path / "exported.pth") == []


def test_a_hugging_face_folder(hugging_face):
    ours, theirs = (load_front_end(hugging_face, device="cpu", engine=name) for name in FRONTENDS)
    torch.testing.assert_close(features(theirs), features(ours), atol=1e-5, rtol=0)


def test_gradients(pair):
    detector, theirs = (module.train() for module in pair)
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(0, 1, 64)
    for output in (detector.features(waves), features_of(theirs, waves)):
        (output.square() * weight).mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    ours = {
        official_name(name).removeprefix(FRONT): p.grad
        for name, p in detector.state_dict(keep_vars=True).items()
        if p.grad is not None
    }
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1e-6)
        torch.testing.assert_close(ours[name] / scale, gradient / scale, atol=1e-3, rtol=0)


@pytest.mark.parametrize("pretraining", [True, False])
def test_either_front_end_writes_the_same_files_and_reads_them(
    pretraining,
    pair,
    small_official,
    small_config,
    tmp_path,
):
    detector, _ = pair
    save_detector(detector, tmp_path / "own.safetensors")
    if not pretraining:
        detector.pretraining_tensors.clear()
    export_official(detector, tmp_path / "official.pth")
    exported = torch.load(tmp_path / "official.pth", weights_only=True)
    expected = {k: v for k, v in small_official.items() if pretraining or k not in PRETRAINING_ONLY}
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[key], value) for key, value in expected.items())
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    for path in ("own.safetensors", "official.pth"):
        for frontend in FRONTENDS:
            again = load_detector(tmp_path / path, device="cpu", config=small_config, engine=frontend)
            torch.testing.assert_close(again.score(waves), detector.score(waves), atol=1e-4, rtol=0)
            assert list(again.state_dict()) == list(detector.state_dict())
            assert [v.requires_grad for v in again.state_dict(keep_vars=True).values()] == [
                v.requires_grad for v in detector.state_dict(keep_vars=True).values()
            ]


def test_a_projection_between_equal_sizes(small_config, tmp_path):
    front_end = dataclasses.replace(small_config.front_end, conv_channels=small_config.front_end.width)
    save_detector(
        Detector(dataclasses.replace(small_config, front_end=front_end)), tmp_path / "own.safetensors"
    )
    ours, theirs = (load_detector(tmp_path / "own.safetensors", device="cpu", engine=x) for x in FRONTENDS)
    torch.testing.assert_close(features(theirs), features(ours), atol=1e-5, rtol=0)


def test_fairseq_is_loaded_as_strictly(small_official, small_config, tmp_path):
    path = tmp_path / "wrong.pth"
    name = FRONT + "encoder.pos_conv.0.weight_g"
    torch.save({k: v for k, v in small_official.items() if k != name}, path)
    with pytest.raises(CheckpointError, match=rf"^{path}: missing key {name} \(read as"):
        load_detector(path, device="cpu", config=small_config, engine="fairseq")


def test_scoring_on_the_command_line(files, small_config, tmp_path, monkeypatch):
    # an official file would be taken for XLS-R 300M
    for function in (load_detector, check_detector):
        monkeypatch.setattr(loading, function.__name__, partial(function, config=small_config))
    clips = [*map(str, sorted((project.SAMPLES / "custom").glob("*/*"))[::8])]
    for frontend in FRONTENDS:
        options = ["--frontend", frontend, "--output", str(tmp_path / frontend), "--workers", "0"]
        assert (
            evaluate_custom.main(["--data", *clips, "--checkpoint", str(files / "small.pth"), *options]) == 0
        )
        assert read_metrics(tmp_path / frontend / "small")["detector"]["frontend"] == frontend
    ours, theirs = (read_scores(tmp_path / frontend / "small") for frontend in FRONTENDS)
    assert len(clips) == len(ours) == len(theirs) > 4
    for name, row in ours.items():
        assert float(theirs[name]["score"]) == pytest.approx(float(row["score"]), abs=1e-4)
    assert "fairseq" in read_metrics(tmp_path / "fairseq" / "small")["versions"]


def test_training_on_the_command_line(workplace, small_pth, small_config):
    save_detector(load_detector(small_pth, device="cpu", config=small_config), "xlsr.safetensors")
    options = ["--frontend", "fairseq", "--workers", "0"]
    train = ["--checkpoint", "xlsr.safetensors", "--epochs", "1", "--no-wandb"]
    assert fine_tune_for.main([*train, *options]) == 0
    assert evaluate_custom_for.main(["--data", "for-2seconds/testing", *options]) == 0
    folders = [
        Path("results/for/testing"),
        *(Path("results/custom_for", x) for x in ("before", "fine-tuned")),
    ]
    assert {read_metrics(folder)["detector"]["frontend"] for folder in folders} == {"fairseq"}
    ours, theirs = (load_detector("results/for/final_model.safetensors", engine=x) for x in FRONTENDS)
    waves = 0.3 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.score(waves), ours.score(waves), atol=1e-4, rtol=0)
