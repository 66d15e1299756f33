"""Scoring on CUDA: XLS-R in large matrix products, and CUDA graphs, as far as a CPU can tell."""

import dataclasses
from contextlib import contextmanager, nullcontext

import pytest
import torch
from helpers import assert_as_published, features

from antispoofing.detectors import batched
from antispoofing.detectors.batched import BatchedXLSR, Replayed
from antispoofing.detectors.loading import for_scoring, load_detector, save_detector
from antispoofing.errors import DeviceError
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


def test_the_shapes_used_last_are_kept(replayed):
    sizes = range(batched.MOST_SHAPES + 1)
    for size in (*sizes, *sizes[:-1], 0, sizes[-1]):
        replayed(torch.ones(size))
    assert [len(graph[1]) for graph in replayed.recorded.values()] == [*sizes[2:-1], 0, sizes[-1]]


@pytest.fixture
def failing(replayed, monkeypatch):
    """Return a function that makes the recordings of `replayed` fail with an error when they end."""

    def fail_with(error):
        @contextmanager
        def graph(graph, capture_error_mode):
            yield
            raise error

        monkeypatch.setattr(torch.cuda, "graph", graph)

    return fail_with


def test_where_graphs_do_not_work_the_module_is_called(replayed, failing, caplog):
    failing(RuntimeError("operation not permitted when stream is capturing\nand more"))
    assert [replayed(torch.ones(1)).item() for _ in range(4)] == [2, 2, 2, 2]
    assert replayed(torch.ones(2)).tolist() == [2, 2]
    (record,) = caplog.records
    assert record.getMessage().endswith("take longer: operation not permitted when stream is capturing")


def test_a_shape_for_whose_graph_memory_runs_out_is_called_as_it_is(replayed, failing, monkeypatch):
    failing(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert [replayed(torch.ones(1)).item() for _ in range(4)] == [2, 2, 2, 2]
    assert replayed.module.calls == 4 + 1
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    for _ in range(3):
        replayed(torch.ones(2))
    assert replayed.recorded[torch.Size([2])] is not None


def test_a_detector_on_cuda_is_made_of_these(detector, monkeypatch):
    monkeypatch.setattr(Detector, "device", torch.device("cuda"))
    detector.precision = "fp16"
    for_scoring(detector)
    assert isinstance(detector.front_end, Replayed)
    assert detector.front_end.module.dtype == torch.float16
    assert isinstance(detector.back_end, Replayed)
    assert detector.back_end.module.out_layer.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="prepared for scoring only"):
        save_detector(detector, "nowhere")


def test_int8_is_refused_on_cuda(detector, monkeypatch):
    monkeypatch.setattr(Detector, "device", torch.device("cuda"))
    detector.precision = "int8"
    with pytest.raises(DeviceError, match="int8 needs cpu"):
        for_scoring(detector)
    assert not detector.scores_only
