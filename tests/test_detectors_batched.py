"""Scoring on CUDA: XLS-R in large matrix products, and CUDA graphs, as far as a CPU can tell."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from helpers import assert_as_published, features

from antispoofing.detectors import batched
from antispoofing.detectors.batched import BatchedXLSR, Replayed
from antispoofing.detectors.loading import load_detector
from model import Detector


@pytest.fixture
def detector(small_pth, small_config) -> Detector:
    return load_detector(small_pth, device="cpu", config=small_config)


def test_the_published_outputs(detector):
    detector.front_end = BatchedXLSR(detector.front_end, torch.float32)
    assert_as_published(detector, "small")


@pytest.mark.parametrize("samples", [1040, 1041, 16000])
@pytest.mark.parametrize("pos_kernel", [15, 16])
def test_other_sizes(samples, pos_kernel, small_config):
    front_end = dataclasses.replace(small_config.front_end, pos_kernel=pos_kernel)
    torch.manual_seed(0)
    detector = Detector(dataclasses.replace(small_config, front_end=front_end)).eval()
    waves = 0.1 * torch.randn(3, samples)
    with torch.inference_mode():
        expected, logits = detector.features(waves), detector(waves)
        detector.front_end = BatchedXLSR(detector.front_end, torch.float32)
        torch.testing.assert_close(detector.features(waves), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(detector(waves), logits, atol=5e-5, rtol=0)


def test_a_clip_does_not_depend_on_its_neighbours(detector):
    waves = 0.1 * torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    front_end = BatchedXLSR(detector.front_end, torch.float32)
    alone = torch.cat([front_end(wave[None]) for wave in waves])
    torch.testing.assert_close(front_end(waves), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(front_end(waves.flip(0)).flip(0), alone, atol=1e-5, rtol=0)


def test_bf16_moves_the_features_little(detector):
    exact = features(detector)
    detector.precision = "bf16"
    detector.front_end = BatchedXLSR(detector.front_end, torch.bfloat16)
    lower = features(detector)
    assert lower.dtype == torch.float32
    assert 0 < (lower - exact).abs().mean() / exact.abs().mean() < 0.025


class Doubling(torch.nn.Module):
    """Counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return 2 * x


@pytest.fixture
def replayed(monkeypatch) -> Replayed:
    """Return a module whose graphs are made by a stand-in: replaying one computes nothing."""

    class Graph:
        replays = 0

        def replay(self):
            self.replays += 1

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    return Replayed(Doubling())


def test_a_shape_is_recorded_when_it_comes_again(replayed):
    for value, calls in ((1.0, 1), (2.0, 2), (3.0, 2), (4.0, 2)):
        result = replayed(torch.full((2,), value))
        assert replayed.module.calls == calls
    graph, given, static = replayed.recorded[torch.Size([2])]
    assert graph.replays == 3
    assert given.tolist() == [4, 4]  # the graph's kernels would find the last input here
    assert result is not static  # which the next replay overwrites
    assert result.tolist() == static.tolist()


def test_few_shapes_are_recorded(replayed):
    for _ in range(3):
        for size in range(batched.MOST_SHAPES + 2):
            replayed(torch.ones(size))
    assert len(replayed.recorded) == batched.MOST_SHAPES
    assert replayed.module.calls == 3 * 2 + 2 * batched.MOST_SHAPES


def test_where_graphs_do_not_work_the_module_is_called(replayed, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    assert [replayed(torch.ones(1)).item() for _ in range(4)] == [2, 2, 2, 2]
    (record,) = caplog.records
    assert record.getMessage().endswith("take longer: operation not permitted when stream is capturing")


def test_memory_that_runs_out_is_left_to_the_caller(replayed, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    replayed(torch.ones(1))
    monkeypatch.setattr(torch.cuda, "graph", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        replayed(torch.ones(1))
    assert replayed.works
