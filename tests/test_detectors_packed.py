"""Scoring on a CPU: XLS-R from packed weights gives the published outputs, the same in every batch."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import PRESETS, assert_as_published
from weights import reference

from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.devices import PRECISIONS, resolve_precision
from antispoofing.detectors.loading import export_official, for_scoring, load_detector, save_detector
from antispoofing.detectors.packed import Int8Linear, Linear, PackedXLSR
from antispoofing.errors import CheckpointError, DeviceError
from model import Detector

CPU = torch.device("cpu")
CPU_PRECISIONS = ("fp32", "bf16", "int8")


@pytest.fixture
def waves() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat(
        [torch.from_numpy(reference("small")["waves"]), 0.1 * torch.randn(4, 64600, generator=generator)]
    )


@pytest.fixture
def load(small_pth, small_config):
    return lambda precision="fp32": load_detector(
        small_pth, device="cpu", precision=precision, config=small_config
    )


def test_the_published_outputs(load):
    detector = for_scoring(load())
    assert isinstance(detector.front_end, PackedXLSR)
    assert_as_published(detector, "small")


def test_without_onednn_the_same(load, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_as_published(for_scoring(load()), "small")


@pytest.mark.parametrize("samples", [1040, 1041, 16000])
@pytest.mark.parametrize("pos_kernel", [15, 16])
def test_other_sizes(samples, pos_kernel, small_config):
    front_end = dataclasses.replace(small_config.front_end, pos_kernel=pos_kernel)
    torch.manual_seed(0)
    detector = Detector(dataclasses.replace(small_config, front_end=front_end)).eval()
    waves = 0.1 * torch.randn(2, samples)
    with torch.inference_mode():
        expected = detector.features(waves)
        torch.testing.assert_close(for_scoring(detector).features(waves), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-6), ("bf16", 0.025), ("int8", 0.06)])
def test_lower_precision_moves_the_features_little(precision, bound, load, waves):
    with torch.inference_mode():
        exact = load().features(waves)
        features = for_scoring(load(precision)).features(waves)
    assert features.dtype == torch.float32
    moved = (features - exact).abs().mean() / exact.abs().mean()
    assert 0 < moved <= bound


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_features_are_the_same_in_every_batch_and_order(precision, load, waves):
    detector = for_scoring(load(precision))
    alone = torch.cat([detector.features(wave[None]) for wave in waves])
    for size in (2, 3, len(waves)):
        batches = torch.cat([detector.features(batch) for batch in waves.split(size)])
        assert torch.equal(batches, alone)
    assert torch.equal(detector.features(waves.flip(0)).flip(0), alone)


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_spectrograms_in_every_precision(precision):
    torch.manual_seed(0)
    exact = Detector(PRESETS["small"]).eval()
    lower = Detector(PRESETS["small"], precision=precision)
    lower.load_state_dict(exact.state_dict())
    waves = 0.1 * torch.randn(3, 64600)
    features, expected = for_scoring(lower).features(waves), exact.features(waves)
    moved = (features - expected).abs().mean() / expected.abs().mean()
    assert (moved == 0) if precision == "fp32" else (0 < moved < 0.05)


def test_int8_against_its_formula():
    """Activations are asymmetric 8-bit per clip, weights symmetric 8-bit per output, and sums exact."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((24, 64)), rng.standard_normal(24)
    clips = rng.standard_normal((2, 10, 64)) * [[[1]], [[30]]] + [[[0]], [[5]]]
    weight, bias, clips = (x.astype(np.float32) for x in (weight, bias, clips))
    layer = Int8Linear(torch.from_numpy(weight), torch.from_numpy(bias))
    assert not layer.reduce_range or not torch.cpu.get_capabilities().get("avx512_vnni")
    levels = 127 if layer.reduce_range else 255
    weight_scale = np.abs(weight).max(1) / 127
    whole_weight = np.rint(weight / weight_scale[:, None])
    for clip, result in zip(clips, layer(torch.from_numpy(clips)), strict=True):
        scale = (max(clip.max(), 0) - min(clip.min(), 0)) / levels
        zero = np.rint(-min(clip.min(), 0) / scale)
        whole = np.clip(np.rint(clip / scale) + zero, 0, levels) - zero
        expected = whole @ whole_weight.T * scale * weight_scale + bias
        np.testing.assert_allclose(result, expected, atol=np.abs(expected).max() * 2e-3, rtol=0)


def test_rows_that_are_zero_stay_finite():
    layer = Int8Linear(torch.zeros(3, 8), torch.ones(3))
    assert torch.equal(layer(torch.zeros(1, 2, 8)), torch.ones(1, 2, 3))


def test_weights_are_copied_and_the_originals_given_up(load, waves):
    detector = load()
    weights = [p.data for p in detector.front_end.parameters()]
    front_end = detector.front_end
    for_scoring(detector)
    scores = detector.score(waves)
    for weight in weights:
        weight.fill_(torch.nan)
    assert torch.equal(detector.score(waves), scores)
    assert all(p.is_meta for p in front_end.parameters())
    linear = Linear(torch.ones(2, 2), torch.zeros(2), torch.float32)
    assert torch.equal(linear(torch.ones(1, 2)), torch.full((1, 2), 2.0))


def test_what_only_scores_is_not_saved(load, tmp_path):
    detector = for_scoring(load())
    with pytest.raises(ValueError, match="load it again"):
        save_detector(detector, tmp_path / "detector.safetensors")
    with pytest.raises(ValueError, match="load it again"):
        export_official(detector, tmp_path / "detector.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]
    with pytest.raises(ValueError, match="for_scoring"):
        load("int8").features(torch.zeros(1, 64600))


def test_devices_have_their_precisions():
    for device in ("cpu", "cuda", "mps"):
        for precision in PRECISIONS:
            wanted = {"fp16": "cuda", "int8": "cpu"}.get(precision, device)
            if wanted == device:
                assert resolve_precision(precision, torch.device(device)) == precision
            else:
                with pytest.raises(
                    DeviceError, match=f"{precision} needs {wanted}, but the device is {device}"
                ):
                    resolve_precision(precision, torch.device(device))


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"architecture": "aarch64", "bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_processor_has_it(capabilities, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) == chosen


def test_fairseq_has_no_int8(small_pth, small_config):
    with pytest.raises(CheckpointError, match="fairseq does not support int8"):
        load_detector(small_pth, device="cpu", config=small_config, precision="int8", engine="fairseq")


def test_no_int8_is_one_line(load, monkeypatch):
    monkeypatch.setattr(type(torch.backends.quantized), "engine", "none")
    with pytest.raises(DeviceError, match="does not support int8 on this processor"):
        for_scoring(load("int8"))


def test_precision_of_the_results(load):
    assert for_scoring(load("int8")).describe()["precision"] == "int8"
    again = for_scoring(load_detector(STAND_IN, device="cpu", precision="int8"))
    assert for_scoring(again) is again
