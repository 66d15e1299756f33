"""Run a detector over recordings: over the beginning of each of many, or over all windows of one.

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
from antispoofing.progress import bar
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import NOT_A_NUMBER, Scored
from antispoofing.scoring.timeline import Timeline, hop_samples, window_starts
from data_utils import BONAFIDE, AudioError, Clips, Load, load_with_info, make_loader
from model import Detector

CLIP_BYTES = 200 * 10**6  # of GPU memory: twice what the 300M network takes at most

Batch = tuple[Any, Tensor]  # a tag, which may be anything, and waves [B, T]
Computed = tuple[Any, np.ndarray]  # the batch's tag, and logits float32 [B, 2]


@contextmanager
def parallel_batches(
    detector: Detector,
) -> Iterator[tuple[Callable[[Iterable[Batch]], Iterator[Computed]], int]]:
    """Provide a function that computes the logits of batches, several at once, and yields them in order.

    On a CPU each core computes a batch by itself. If there are enough batches, that is faster than all cores
    computing one together, and the logits do not depend on the number of cores. Other devices get one batch
    after the other. PyTorch's number of threads is changed for as long as the context lasts, so two threads
    must not enter it at the same time.

    Yields:
        The function, and how many batches it computes at once.
    """

    @torch.inference_mode()
    def logits(waves: Tensor) -> Tensor:
        return detector(waves)

    fitting = _Fitting(logits)

    def compute_now(waves: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        future.set_result(fitting(waves))
        return future

    if detector.device.type != "cpu":
        yield partial(_in_order, compute_now, 2), 1
        return
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))

    def compute_in_pool(waves: Tensor) -> Future[Tensor]:
        return pool.submit(logits, waves)

    try:
        yield partial(_in_order, compute_in_pool, 2 * cores), cores
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody waits for the remaining batches
        torch.set_num_threads(cores)  # a thread that starts later would have one core only


class _Fitting:
    """A function of batches that computes them in smaller parts once GPU memory has run out.

    Args:
        compute: The function: waves [B, T] -> [B, ...].
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]):
        self.compute = compute
        self.most: int | None = None  # clips in a part

    def __call__(self, waves: Tensor) -> Tensor:
        size = min(len(waves), self.most or len(waves))
        try:
            return torch.cat([self.compute(part) for part in waves.split(size)])
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
        self.most = size // 2
        torch.cuda.empty_cache()
        return self(waves)


def _in_order(
    submit: Callable[[Tensor], Future[Tensor]], most_pending: int, batches: Iterable[Batch]
) -> Iterator[Computed]:
    """Submit batches, at most so many ahead of the one that is awaited, and yield results in their order."""
    pending: deque[tuple[Any, Future[Tensor]]] = deque()
    for tag, waves in batches:
        pending.append((tag, submit(waves)))
        if len(pending) > most_pending:
            first_tag, logits = pending.popleft()
            yield first_tag, logits.result().cpu().numpy()
    for tag, logits in pending:
        yield tag, logits.result().cpu().numpy()


def default_workers(device: torch.device) -> int:
    """Return how many processes should decode; few for a CPU, which decodes much faster than it computes."""
    return max(1, distributed.cores() // 16) if device.type == "cpu" else min(8, distributed.cores())


def default_batch_size(device: torch.device) -> int:
    """Return how many clips to compute together at most: on CUDA, as many as the free memory holds."""
    if device.type != "cuda":
        return 4 if device.type == "cpu" else 32
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's own
    return max(1, min(64, free // CLIP_BYTES))


def score_recordings(
    detector: Detector,
    utterances: Sequence[Utterance],
    *,
    batch_size: int | None = None,
    workers: int | None = 0,
    offset: float = 0.0,
    load: Load = load_with_info,
) -> Scored:
    """Score the beginning of every recording; one that cannot be read does not affect the others.

    In a group of processes each scores its share, and all get the scores of all recordings. On a CPU this
    uses every core and must not be called from two threads at the same time.

    Args:
        detector: The detector.
        utterances: The recordings.
        batch_size: How many clips to compute together at most; None is what suits the device.
        workers: How many processes decode ahead; 0 decodes in this one, None is what suits the device.
        offset: Where in each recording its clip begins, in seconds.
        load: What reads a file; see `data_utils.Clips`.

    Raises:
        ProcessError: If another process of the group has ended or cannot be reached.
    """
    config = detector.config
    if config.hears_whole:
        batch_size = 1  # clips differ in length
    batch_size = min(distributed.all_gather(batch_size or default_batch_size(detector.device)))
    workers = default_workers(detector.device) if workers is None else workers
    scored = Scored(utterances, np.full((len(utterances), 2), np.nan), {})
    unread: dict[int, str] = {}
    noted: dict[int, str] = {}

    def readable_batches(loader: DataLoader, progress: tqdm) -> Iterator[Batch]:
        for batch in loader:
            unread.update(batch.failures)
            noted.update(batch.notes)
            if batch.indices:
                scored.infos[batch.indices] = batch.infos
                yield batch.indices, batch.waves
            progress.update(len(batch.indices) + len(batch.failures))

    with parallel_batches(detector) as (compute, streams):
        batches = distributed.shard(len(utterances), batch_size, distributed.all_gather(streams))
        paths = [utterance.path for utterance in utterances]
        clips = Clips(paths, config.sample_rate, config.heard_samples, offset, load, config.prepare)
        loader = make_loader(clips, batches, workers)
        mine = np.array([i for batch in batches for i in batch], dtype=np.int64)
        with bar(what="scoring", unit="clip", total=len(mine)) as progress:
            for indices, logits in compute(readable_batches(loader, progress)):
                scored.logits[indices] = logits
    distributed.all_merge(scored.logits, mine)
    distributed.all_merge(scored.infos, mine)
    for failures in distributed.all_gather(unread):
        scored.failures.update(failures)
    for notes in distributed.all_gather(noted):
        scored.notes.update(notes)
    scored.failures = dict(sorted(scored.failures.items()))
    scored.notes = dict(sorted(scored.notes.items()))
    for i in np.flatnonzero(~np.isfinite(scored.logits).all(axis=1)).tolist():
        scored.failures.setdefault(i, NOT_A_NUMBER)
        scored.logits[i] = np.nan
    return scored


def score_windows(detector: Detector, wave: np.ndarray, rule: Rule, hop: float | None = None) -> Timeline:
    """Score each window of a recording as `Detector.score` would score it alone.

    A recording shorter than a window is one window, repeated end to end as published. On a CPU this uses
    every core and must not be called from two threads at the same time.

    Args:
        detector: The detector.
        wave: float32 [n], n >= 1, at the detector's sample rate, in [-1, 1].
        rule: The rule for the verdicts.
        hop: From the start of one window to the start of the next, in seconds; None is half a window.

    Raises:
        DataError: If the hop is less than a sample or more than a window.
        AudioError: If an output of the detector is not a number.
    """
    rate, window = detector.config.sample_rate, detector.config.clip_samples
    starts = window_starts(len(wave), window, hop_samples(detector.config, hop))
    logits = _logits(detector, [wave[start : start + window] for start in starts], "window")
    if not np.isfinite(logits).all():
        raise AudioError(NOT_A_NUMBER)
    ends = np.minimum(starts + window, len(wave))
    return Timeline(starts / rate, ends / rate, logits, rule)


def score_waves(detector: Detector, waves: Sequence[np.ndarray]) -> np.ndarray:
    """Score the beginning of each wave as `score_recordings` scores that of a file.

    On a CPU this uses every core and must not be called from two threads at the same time.

    Args:
        detector: The detector.
        waves: n waves, each float32 [samples], at the detector's sample rate, in [-1, 1].

    Returns:
        float64 [n], higher = more likely real; NaN if the detector's output is not a number.

    Raises:
        ValueError: If a wave has no samples.
    """
    return _logits(detector, waves, "clip")[:, BONAFIDE]


def _logits(detector: Detector, waves: Sequence[np.ndarray], unit: str) -> np.ndarray:
    """Return the logits float64 [n, 2] of n waves, each cut or repeated to the length of a clip."""
    prepare = detector.config.prepare
    if len(waves) == 0:
        return np.empty((0, 2))
    with parallel_batches(detector) as (compute, streams):
        most = 1 if detector.config.hears_whole else default_batch_size(detector.device)
        size = max(1, min(most, len(waves) // streams))  # small enough that every core has work
        starts = range(0, len(waves), size)
        batches = ([prepare(wave) for wave in waves[start : start + size]] for start in starts)
        computed = compute((len(batch), torch.from_numpy(np.stack(batch))) for batch in batches)
        with bar(what="scoring", unit=unit, total=len(waves)) as progress:
            logits = []
            for count, batch_logits in computed:
                logits.append(batch_logits)
                progress.update(count)
    return np.concatenate(logits).astype(np.float64)
