"""The network: against the outputs of the published implementation, and in training."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import PRESETS, assert_as_published
from weights import official_shapes, reference

from antispoofing.detectors.checkpoints import official_name
from antispoofing.detectors.devices import PRECISIONS, resolve_device
from antispoofing.detectors.loading import load_detector
from antispoofing.errors import DeviceError
from model import Detector, DetectorConfig, XLSRConfig


@pytest.mark.parametrize("prefix", ["", "module."])
def test_small_network_matches_the_published_one(prefix, small_official, small_config, tmp_path):
    path = tmp_path / "detector.pth"
    torch.save({prefix + key: value for key, value in small_official.items()}, path)
    detector = load_detector(path, device="cpu", config=small_config)
    assert_as_published(detector, "small")
    waves = torch.from_numpy(reference("small")["waves"])
    with torch.inference_mode():
        np.testing.assert_array_equal(detector.score(waves), detector(waves)[:, 1])


def test_default_architecture_has_the_official_names_and_shapes():
    with torch.device("meta"):
        state = Detector().state_dict()
    ours = {official_name(name): tuple(value.shape) for name, value in state.items()}
    pretraining = ("quantizer.", "project_q.", "final_proj.")
    published = {
        name: shape
        for name, shape in official_shapes().items()
        if not name.removeprefix("ssl_model.model.").startswith(pretraining)
    }
    assert ours == published
    assert len(ours) == 667


def test_training_without_dropout_gives_the_features_of_evaluation(small_pth, small_config):
    detector = load_detector(small_pth, device="cpu", config=small_config)
    waves = torch.from_numpy(reference("small")["waves"])
    evaluation = detector.features(waves)
    for seed in range(3):  # a mask or a dropped layer would be drawn at random
        torch.manual_seed(seed)
        training = detector.train().features(waves)
        torch.testing.assert_close(training, evaluation, atol=1e-5, rtol=0)


def test_dropout_acts_in_training_when_asked_for(small_pth, small_config):
    front_end = dataclasses.replace(small_config.front_end, dropout=0.1)
    config = dataclasses.replace(small_config, front_end=front_end)
    detector = load_detector(small_pth, device="cpu", config=config)
    waves = torch.from_numpy(reference("small")["waves"])
    evaluation = detector.features(waves)
    assert (detector.train().features(waves) - evaluation).abs().max() > 1e-2


@pytest.mark.parametrize("preset", ["small-xlsr", "small"])
def test_every_weight_that_matters_gets_a_gradient(preset, small_config):
    torch.manual_seed(0)
    detector = Detector(small_config if preset == "small-xlsr" else PRESETS[preset]).train()
    logits = detector(0.1 * torch.randn(4, 16000))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
    for name, parameter in detector.named_parameters():
        published_without_effect = ".bn1." in name or name.endswith("masked_spec_embed")
        assert (parameter.grad is None) == published_without_effect, name
        assert parameter.requires_grad != published_without_effect, name


def test_unused_batch_norm_has_no_effect(small_official, small_config, tmp_path):
    changed = {k: v + 1 if ".bn1." in k else v for k, v in small_official.items()}
    torch.save(changed, tmp_path / "changed.pth")
    detector = load_detector(tmp_path / "changed.pth", device="cpu", config=small_config)
    expected = reference("small")
    scores = detector.score(torch.from_numpy(expected["waves"]))
    np.testing.assert_allclose(scores, expected["logits"][:, 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [DetectorConfig(XLSRConfig(32, 64, 1, 4, 128, 16, 4)), PRESETS["small"]])
@pytest.mark.parametrize(("samples", "frames"), [(1040, 3), (16000, 49), (64600, 201)])
def test_front_ends_share_one_time_grid(config, samples, frames):
    detector = Detector(config).eval()
    waves = torch.zeros(2, samples)
    assert detector.features(waves).shape == (2, frames, config.front_end.width)
    assert detector(waves).shape == (2, 2)


def test_too_short_or_misshapen_waves_are_refused():
    detector = Detector(PRESETS["small"]).eval()
    for waves in (torch.zeros(1, 1039), torch.zeros(64600)):
        with pytest.raises(ValueError, match="1040"):
            detector(waves)


def test_bf16_runs_the_back_end_in_float32_and_stays_close():
    torch.manual_seed(0)
    exact = Detector(PRESETS["small"]).eval()
    lower = Detector(PRESETS["small"], precision="bf16").eval()
    lower.load_state_dict(exact.state_dict())
    waves = 0.1 * torch.randn(2, 64600)
    assert lower.features(waves).dtype == torch.float32
    difference = (lower.features(waves) - exact.features(waves)).abs().max()
    assert 0 < difference < 0.1
    with pytest.raises(ValueError, match="tf32"):
        Detector(PRESETS["small"], precision="tf32")


def test_the_spectrogram_front_end_ignores_the_level():
    front_end = Detector(PRESETS["small"]).eval().front_end
    waves = 0.05 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(front_end(4 * waves), front_end(waves), rtol=0, atol=1e-3)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_configuration_survives_json(preset):
    config = PRESETS[preset]
    assert DetectorConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["bonafide", "spoof"]}, "label order"),
        ({"front_end": {"kind": "hubert"}}, "hubert"),
        ({"front_end": {"kind": "xlsr", "depth": 3}}, "depth"),
        ({"clip_length": 1}, "clip_length"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"front_end": {"kind": "xlsr", "width": "64"}}, "width is '64'"),
        ({"front_end": {"kind": "spectrogram", "channels": -1}}, "channels is -1"),
        ({"front_end": None}, "configuration"),
    ],
)
def test_unknown_configurations_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        DetectorConfig.from_dict(PRESETS["xlsr-300m"].to_dict() | change)


def test_a_missing_device_is_reported_in_one_line():
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "warp-drive", "meta"):
        with pytest.raises(DeviceError, match=f"--device '{name}' .*: choose .*auto"):
            resolve_device(name)


def test_the_network_knows_every_precision_of_the_command_line():
    for precision in PRECISIONS:
        assert Detector(PRESETS["small"], precision).precision == precision
    with pytest.raises(ValueError, match=f"precision must be one of {', '.join(PRECISIONS)}, not 'fp8'"):
        Detector(PRESETS["small"], "fp8")
