"""A recording's score does not depend on the batch, the workers or the order."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from antispoofing import distributed
from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.loading import for_scoring, load_detector
from antispoofing.project import SAMPLES
from antispoofing.scoring import score
from antispoofing.scoring.score import score_recordings

TOLERANCE = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.05}  # the stand-in's scores run from -6 to 6


@pytest.fixture(scope="module")
def utterances():
    """Samples, and one file that cannot be read, so that one batch is not full."""
    some = find_recordings([SAMPLES / "custom"]).utterances[::5]
    return [*some[:7], *find_recordings([__file__]).utterances, *some[7:]]


@pytest.mark.parametrize("precision", TOLERANCE)
def test_batches_workers_and_order(precision, utterances):
    detector = for_scoring(load_detector(STAND_IN, device="cpu", precision=precision))
    alone = score_recordings(detector, utterances, batch_size=1)
    assert set(alone.failures) == {7}
    assert alone.scores[np.isfinite(alone.scores)].std() > 1
    for batch_size, workers in ((2, 0), (8, 2), (len(utterances), 1)):
        scored = score_recordings(detector, utterances, batch_size=batch_size, workers=workers)
        np.testing.assert_allclose(scored.logits, alone.logits, atol=TOLERANCE[precision], rtol=0)
        assert scored.failures == alone.failures
    backwards = score_recordings(detector, utterances[::-1], batch_size=4)
    np.testing.assert_allclose(backwards.logits[::-1], alone.logits, atol=TOLERANCE[precision], rtol=0)


def test_the_number_of_cores_moves_no_bit(utterances):
    detector = for_scoring(load_detector(STAND_IN, device="cpu"))
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(score_recordings(detector, utterances, batch_size=1).logits)
            with ThreadPoolExecutor(1) as later:  # a thread that starts later has all cores again
                assert torch.get_num_threads() == later.submit(torch.get_num_threads).result() == number
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_an_error_while_computing_is_raised(utterances, monkeypatch):
    detector = load_detector(STAND_IN, device="cpu")
    monkeypatch.setattr(detector, "forward", lambda waves: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_recordings(detector, utterances, batch_size=1)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_with_xlsr_no_bit_depends_on_batch_order_or_cores(precision, small_pth, small_config, utterances):
    detector = for_scoring(load_detector(small_pth, device="cpu", config=small_config, precision=precision))
    alone, *batched = (score_recordings(detector, utterances, batch_size=n).logits for n in (1, 3, 8))
    for logits in batched:
        np.testing.assert_array_equal(logits, alone)
    np.testing.assert_array_equal(score_recordings(detector, utterances[::-1]).logits[::-1], alone)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            other = load_detector(small_pth, device="cpu", config=small_config, precision=precision)
            logits = score_recordings(for_scoring(other), utterances).logits
            np.testing.assert_array_equal(logits, alone)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)


def test_batches_become_smaller_once_memory_has_run_out():
    sizes = []

    def compute(waves):
        sizes.append(len(waves))
        if len(waves) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 2 * waves

    fitting = score._Fitting(compute)
    waves = torch.arange(14.0).view(7, 2)
    assert torch.equal(fitting(waves), 2 * waves)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    sizes.clear()
    assert torch.equal(fitting(waves[:2]), 2 * waves[:2])
    assert sizes == [1, 1]


def test_a_clip_that_is_too_large_is_an_error():
    def compute(waves):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        score._Fitting(compute)(torch.ones(2, 2))


@pytest.mark.parametrize(("gigabytes", "clips"), [(80, 64), (7.4, 40), (0, 3)])
def test_a_batch_fits_the_free_memory(gigabytes, clips, monkeypatch):
    cached = 10**9  # of which 0.6 GB are free, too
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(gigabytes * 1e9), 100 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: cached)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: cached - 6 * 10**8)
    assert score.default_batch_size(torch.device("cuda")) == clips


@pytest.mark.parametrize(
    ("device", "cores", "workers"), [("cpu", 2, 1), ("cpu", 48, 3), ("cuda", 4, 4), ("cuda", 48, 8)]
)
def test_workers_by_default(device, cores, workers, monkeypatch):
    monkeypatch.setattr(distributed, "cores", lambda: cores)
    assert score.default_workers(torch.device(device)) == workers
