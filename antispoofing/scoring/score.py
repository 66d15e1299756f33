"""Run a detector over recordings, and sum up what came out.

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from antispoofing import distributed, metrics
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.loading import Detector
from data_utils import Load, default_workers, load_with_info, make_loader
from decoding import AUDIO_INFO
from model import BONAFIDE, SPOOF

Batch = tuple[Any, Tensor]  # what it is of, and waves [B, T]
Computed = tuple[Any, np.ndarray]  # what it is of, and logits float32 [B, 2]

LABELS = ("bonafide", "spoof")
NOT_A_NUMBER = "the detector's output is not a number"  # why a recording has no score


@dataclass
class Scored:
    """What a detector made of a list of recordings.

    Attributes:
        utterances: the n recordings.
        logits: float64 [n, 2], column 0 = spoof, column 1 = bona fide; NaN where there is none.
        failures: why there is none, by index.
        infos: `decoding.AUDIO_INFO` [n], of what could be read.
    """

    utterances: Sequence[Utterance]
    logits: np.ndarray
    failures: dict[int, str]
    infos: np.ndarray | None = None

    def __post_init__(self):
        if self.infos is None:  # scored elsewhere
            self.infos = np.zeros(len(self.utterances), AUDIO_INFO)

    @property
    def scores(self) -> np.ndarray:
        """[n], higher = more likely real; NaN where there is none."""
        return self.logits[:, BONAFIDE]

    def mask(self, label: str) -> np.ndarray:
        """Which recordings [n] have this label ("bonafide", "spoof" or "") and a score."""
        return (self._labels == label.encode()) & np.isfinite(self.scores)

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.array([u.label for u in self.utterances], dtype="S8")

    def scores_of(self, label: str) -> np.ndarray:
        """The scores of the recordings that have this label."""
        return self.scores[self.mask(label)]

    def subset(self, members: np.ndarray) -> Scored:
        """Of the recordings chosen by a mask [n], with their scores but without reasons of failures."""
        chosen = np.flatnonzero(members)
        return Scored([self.utterances[i] for i in chosen], self.logits[chosen], {}, self.infos[chosen])

    def verdicts(self, threshold: float | None = None) -> list[str]:
        """ "bonafide" or "spoof" for each recording, "" where there is no score.

        Args:
            threshold: score >= threshold is bona fide. None: whichever of the two logits is larger,
                the network's own decision, which nobody has calibrated.
        """
        limit = self.logits[:, SPOOF] if threshold is None else threshold
        words = np.where(self.scores >= limit, "bonafide", "spoof")
        return np.where(np.isfinite(self.scores), words, "").tolist()


@contextmanager
def computer(detector: Detector) -> Iterator[tuple[Callable[[Iterable[Batch]], Iterator[Computed]], int]]:
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


def default_batch_size(device: torch.device) -> int:
    """The most clips computed together, unless told otherwise."""
    return 4 if device.type == "cpu" else 32


def score_utterances(
    detector: Detector,
    utterances: Sequence[Utterance],
    *,
    batch_size: int | None = None,
    workers: int | None = 0,
    start_method: str | None = None,
    offset: float = 0.0,
    load: Load = load_with_info,
) -> Scored:
    """Score every recording; one that cannot be read costs no other its score.

    In a group of processes each scores its share, and all get the whole. On a CPU it has all cores, and is
    not to be called in two threads at a time.

    Args:
        batch_size: the most clips computed together; None for what suits the device.
        workers: processes that decode ahead; 0 decodes in this one, None is as many as suit the device.
        start_method, offset, load: see `data_utils.make_loader`.
    """
    config = detector.config
    batch_size = batch_size or default_batch_size(detector.device)
    workers = default_workers(detector.device) if workers is None else workers
    scored = Scored(utterances, np.full((len(utterances), 2), np.nan), {})
    unread: dict[int, str] = {}

    def batches_of(loader: DataLoader, progress: tqdm) -> Iterator[Batch]:
        for indices, waves, failures, infos in loader:
            unread.update(failures)
            if indices:
                scored.infos[indices] = infos
                yield indices, waves
            progress.update(len(indices) + len(failures))

    with computer(detector) as (compute, lanes):
        batches = distributed.share(len(utterances), batch_size, distributed.exchange(lanes))
        loader = make_loader(
            utterances,
            batches,
            config.sample_rate,
            config.clip_samples,
            workers,
            start_method,
            offset,
            load=load,
        )
        mine = np.array([i for batch in batches for i in batch], dtype=np.int64)
        silent = None if distributed.is_main() else True  # None: where there is no terminal
        with tqdm(total=len(mine), unit="clip", disable=silent) as progress:
            for indices, logits in compute(batches_of(loader, progress)):
                scored.logits[indices] = logits
    distributed.merge(scored.logits, mine)
    distributed.merge(scored.infos, mine)
    for of_process in distributed.exchange(unread):
        scored.failures.update(of_process)
    scored.failures = dict(sorted(scored.failures.items()))
    for i in np.flatnonzero(~np.isfinite(scored.logits).all(axis=1)).tolist():
        scored.failures.setdefault(i, NOT_A_NUMBER)
        scored.logits[i] = np.nan
    return scored


def summarise(scored: Scored, *, threshold: float | None = None, seed: int = 0) -> dict:
    """Counts, metrics and intervals, as JSON types.

    Args:
        threshold: one chosen elsewhere, for accuracy and confusion; None leaves them out.
        seed: of the bootstrap.

    Returns:
        "counts" and "failures" (how many for each reason) always. Where both classes have scores
        also "metrics", "intervals_95", "better_than_chance" and "reversed" (see
        `metrics.shown_direction`) with "if_reversed", what the opposite direction would give; and,
        for a given threshold, "at_threshold".
    """
    bonafide, spoof = scored.scores_of("bonafide"), scored.scores_of("spoof")
    summary = {
        "counts": {
            "files": len(scored.utterances),
            "scored": int(np.isfinite(scored.scores).sum()),
            "failed": len(scored.failures),
            "bonafide_scored": len(bonafide),
            "spoof_scored": len(spoof),
            "unlabelled_scored": len(scored.scores_of("")),
        },
        "failures": dict(Counter(scored.failures.values()).most_common()),
    }
    if len(bonafide) == 0 or len(spoof) == 0:
        return summary
    values = metrics.compute_metrics(bonafide, spoof)
    intervals = metrics.bootstrap_intervals(bonafide, spoof, seed=seed)
    direction = metrics.shown_direction(bonafide, spoof, intervals["auc"])
    opposite = metrics.compute_metrics(-bonafide, -spoof)
    summary |= {
        "metrics": {
            "auc": values["auc"],
            "eer": values["eer"],
            "threshold_at_eer_chosen_on_this_set": values["threshold"],
            "min_dcf": values["min_dcf"],
            "act_dcf_uncalibrated": values["act_dcf"],
            "cllr_uncalibrated": values["cllr"],
        },
        "intervals_95": {
            "method": f"stratified percentile bootstrap, {metrics.N_RESAMPLES} resamples, seed {seed}"
        }
        | {name: list(interval) for name, interval in intervals.items()},
        "better_than_chance": direction > 0,
        "reversed": direction < 0,
        "if_reversed": {name: opposite[name] for name in ("auc", "eer")},
    }
    if threshold is not None:
        summary["at_threshold"] = metrics.confusion_at(bonafide, spoof, threshold)
    return summary
