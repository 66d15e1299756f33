"""Run a detector over recordings: the beginning of each of many, or one in full, window by window.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from antispoofing import distributed
from antispoofing.data.recordings import Utterance
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import NOT_A_NUMBER, Scored
from antispoofing.scoring.timeline import Timeline, hop_samples, window_starts
from data_utils import BONAFIDE, AudioError, Clips, Load, load_with_info, make_loader, pad
from model import Detector

Batch = tuple[Any, Tensor]  # what it is of, and waves [B, T]
Computed = tuple[Any, np.ndarray]  # what it is of, and logits float32 [B, 2]


@contextmanager
def parallel_batches(
    detector: Detector,
) -> Iterator[tuple[Callable[[Iterable[Batch]], Iterator[Computed]], int]]:
    """What computes the logits of batches, in their order, and how many of them at once.

    On a CPU each core computes a batch by itself: faster than all of them together on one, where there are
    as many batches; and what comes out is the same for any number of cores. Elsewhere a batch is handed to
    the device at once. Meanwhile PyTorch's number of threads is another: not in two threads at a time.

    A batch is what it is of (anything) and waves [B, T]; given back are the same and logits [B, 2].
    """

    @torch.inference_mode()
    def logits(waves: Tensor) -> Tensor:
        return detector(waves)

    def handed_over(waves: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        future.set_result(logits(waves))
        return future

    if detector.device.type != "cpu":
        yield partial(_in_order, handed_over, 2), 1
        return
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield partial(_in_order, partial(pool.submit, logits), 2 * cores), cores
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, no batch that nobody waits for
        torch.set_num_threads(cores)  # for threads that begin later


def _in_order(
    submit: Callable[[Tensor], Future[Tensor]], most: int, batches: Iterable[Batch]
) -> Iterator[Computed]:
    """At most so many batches are computed, or wait for it, while the next one is taken."""
    computing: deque[tuple[Any, Future[Tensor]]] = deque()
    for what, waves in batches:
        computing.append((what, submit(waves)))
        if len(computing) > most:
            what, logits = computing.popleft()
            yield what, logits.result().cpu().numpy()
    for what, logits in computing:
        yield what, logits.result().cpu().numpy()


def default_workers(device: torch.device) -> int:
    """Return how many processes decode for it: a CPU computes many times more slowly than it decodes."""
    return max(1, distributed.cores() // 16) if device.type == "cpu" else min(8, distributed.cores())


def default_batch_size(device: torch.device) -> int:
    """The most clips computed together, unless told otherwise."""
    return 4 if device.type == "cpu" else 32


def score_recordings(
    detector: Detector,
    utterances: Sequence[Utterance],
    *,
    batch_size: int | None = None,
    workers: int | None = 0,
    offset: float = 0.0,
    load: Load = load_with_info,
) -> Scored:
    """Score every recording; one that cannot be read costs no other its score.

    In a group of processes each scores its share, and all get the whole. On a CPU it has all cores, and is
    not to be called in two threads at a time.

    Args:
        batch_size: the most clips computed together; None for what suits the device.
        workers: processes that decode ahead; 0 decodes in this one, None is as many as suit the device.
        offset, load: see `data_utils.Clips`.
    """
    config = detector.config
    batch_size = batch_size or default_batch_size(detector.device)
    workers = default_workers(detector.device) if workers is None else workers
    scored = Scored(utterances, np.full((len(utterances), 2), np.nan), {})
    unread: dict[int, str] = {}

    def readable_batches(loader: DataLoader, progress: tqdm) -> Iterator[Batch]:
        for indices, waves, failures, infos in loader:
            unread.update(failures)
            if indices:
                scored.infos[indices] = infos
                yield indices, waves
            progress.update(len(indices) + len(failures))

    with parallel_batches(detector) as (compute, streams):
        batches = distributed.shard(len(utterances), batch_size, distributed.all_gather(streams))
        paths = [utterance.path for utterance in utterances]
        clips = Clips(paths, config.sample_rate, config.clip_samples, offset, load)
        loader = make_loader(clips, batches, workers)
        mine = np.array([i for batch in batches for i in batch], dtype=np.int64)
        silent = None if distributed.is_main() else True  # None: where there is no terminal
        with tqdm(total=len(mine), unit="clip", disable=silent) as progress:
            for indices, logits in compute(readable_batches(loader, progress)):
                scored.logits[indices] = logits
    distributed.all_merge(scored.logits, mine)
    distributed.all_merge(scored.infos, mine)
    for from_process in distributed.all_gather(unread):
        scored.failures.update(from_process)
    scored.failures = dict(sorted(scored.failures.items()))
    for i in np.flatnonzero(~np.isfinite(scored.logits).all(axis=1)).tolist():
        scored.failures.setdefault(i, NOT_A_NUMBER)
        scored.logits[i] = np.nan
    return scored


def score_windows(detector: Detector, wave: np.ndarray, rule: Rule, hop: float | None = None) -> Timeline:
    """Score each window as a recording of its own: the scores that `Detector.score` gives them.

    A recording shorter than a window is one window, repeated end to end as published. On a CPU it has all
    cores, and is not to be called in two threads at a time.

    Args:
        wave: float32 [n], n >= 1, of the detector's sample rate.
        rule: what decides.
        hop: seconds from the start of a window to that of the next; None for half a window.

    Raises:
        DataError: the hop is less than a sample or more than a window.
        AudioError: the detector gives no numbers of it.
    """
    rate, window = detector.config.sample_rate, detector.config.clip_samples
    starts = window_starts(len(wave), window, hop_samples(detector.config, hop))
    logits = _logits(detector, [wave[start : start + window] for start in starts], "window")
    if not np.isfinite(logits).all():
        raise AudioError(NOT_A_NUMBER)
    ends = np.minimum(starts + window, len(wave))
    return Timeline(starts / rate, ends / rate, logits, rule)


def score_waves(detector: Detector, waves: Sequence[np.ndarray]) -> np.ndarray:
    """Score the beginning of each wave: the scores that `score_recordings` gives such recordings.

    On a CPU it has all cores, and is not to be called in two threads at a time.

    Args:
        waves: n of them, each float32 [samples], of the detector's sample rate, in [-1, 1].

    Returns:
        float64 [n], higher = more likely real; NaN where the detector gives no number.

    Raises:
        ValueError: a wave has no samples.
    """
    return _logits(detector, waves, "clip")[:, BONAFIDE]


def _logits(detector: Detector, waves: Sequence[np.ndarray], unit: str) -> np.ndarray:
    """Logits float64 [n, 2] of n waves, each cut or repeated to a clip."""
    samples = detector.config.clip_samples
    if len(waves) == 0:
        return np.empty((0, 2))
    with parallel_batches(detector) as (compute, streams):
        most = default_batch_size(detector.device)
        size = max(1, min(most, len(waves) // streams))  # every core has work
        starts = range(0, len(waves), size)
        batches = ([pad(wave, samples) for wave in waves[start : start + size]] for start in starts)
        computed = compute((len(batch), torch.from_numpy(np.stack(batch))) for batch in batches)
        with tqdm(total=len(waves), unit=unit, leave=False, delay=1, disable=None) as progress:
            logits = []
            for count, batch_logits in computed:
                logits.append(batch_logits)
                progress.update(count)
    return np.concatenate(logits).astype(np.float64)
