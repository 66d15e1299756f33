"""A recording heard in full, window by window: where it sounds real, and where synthetic.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from tqdm import tqdm

from data_utils import pad
from decision import FAKE, Rule
from detector import Detector
from evaluation import computer
from model import BONAFIDE

BATCH = 4  # windows computed together

COLUMNS = ("start_seconds", "end_seconds", "score", "threshold", "margin", "verdict")  # of a window

OVERALL = (
    "MIXED where some windows are surely real and some surely fake; else by the mean margin of all windows: "
    "real or fake where that is sure, else not sure"
)


@dataclass(frozen=True)
class Stretch:
    """A part of a recording that is on the fake side.

    Attributes:
        start, end: in seconds.
        score: the lowest of the windows over it.
        is_sure: whether it would be judged fake by itself, or only leans that way.
    """

    start: float
    end: float
    score: float
    is_sure: bool

    @property
    def says(self) -> str:
        return "sounds synthetic" if self.is_sure else "leans towards synthetic"


@dataclass(frozen=True)
class Timeline:
    """What a detector made of a recording's n windows, in their order, and what a rule makes of that.

    Attributes:
        starts, ends: float64 [n], in seconds from the recording's beginning. They overlap.
        logits: float64 [n, 2], column 0 = spoof, column 1 = bona fide.
        rule: what decides.
    """

    starts: np.ndarray
    ends: np.ndarray
    logits: np.ndarray
    rule: Rule

    @property
    def scores(self) -> np.ndarray:
        """[n], higher = more likely real."""
        return self.logits[:, BONAFIDE]

    @cached_property
    def margins(self) -> np.ndarray:
        """[n], see `Rule.margins`; positive speaks for real."""
        return self.rule.margins(self.logits)

    @property
    def verdict(self) -> str:
        """Of the whole recording, by OVERALL."""
        return self.rule.verdict(self.margins)

    def verdicts(self) -> list[str]:
        """Of each window by itself [n]."""
        return [self.rule.verdict(self.margins[i : i + 1]) for i in range(len(self.margins))]

    def rows(self) -> list[tuple]:
        """What is to be said of each window, as COLUMNS has it."""
        thresholds = self.rule.thresholds(self.logits)
        numbers = (self.starts, self.ends, self.scores, thresholds, self.margins)
        return list(zip(*(column.tolist() for column in numbers), self.verdicts(), strict=True))

    def suspicious(self) -> list[Stretch]:
        """The stretches that sound synthetic, in their order.

        At any time the margin is the mean of the windows over it. A stretch is where that is below 0, and is
        judged alike: either fake by itself, or not sure.
        """
        edges = np.unique(np.concatenate([self.starts, self.ends]))
        stretches: list[Stretch] = []
        for start, end in pairwise(edges.tolist()):
            first, last = np.searchsorted(self.ends, end), np.searchsorted(self.starts, start, "right")
            over = slice(first, last)
            margin = self.margins[over].mean(keepdims=True)
            if margin >= 0:
                continue
            score, is_sure = float(self.scores[over].min()), self.rule.verdict(margin) == FAKE
            if stretches and (stretches[-1].end, stretches[-1].is_sure) == (start, is_sure):
                before = stretches.pop()
                start, score = before.start, min(before.score, score)
            stretches.append(Stretch(start, end, score, is_sure))
        return stretches


def window_starts(n_samples: int, window: int, hop: int) -> np.ndarray:
    """int64 [n]: 0, hop, 2 hop, ..., and the last that fits: all is heard, and nothing is padded.

    Of a recording that is no longer than a window 0 alone.
    """
    last = max(0, n_samples - window)
    return np.append(np.arange(0, last, hop), last)


def score_windows(detector: Detector, wave: np.ndarray, rule: Rule, hop: float | None = None) -> Timeline:
    """Score each window as a recording of its own: the scores that `Detector.score` gives them.

    A recording shorter than a window is one window, repeated end to end as published. On a CPU it has all
    cores, and is not to be called in two threads at a time.

    Args:
        wave: float32 [n], n >= 1, of the detector's sample rate.
        rule: what decides.
        hop: seconds from the start of a window to that of the next; None for half a window.

    Raises:
        ValueError: the hop is less than a sample.
    """
    rate, window = detector.config.sample_rate, detector.config.clip_samples
    step = window // 2 if hop is None else round(hop * rate)
    if step < 1:
        raise ValueError(f"a hop of {hop} s is less than a sample")
    starts = window_starts(len(wave), window, step)

    def clips(batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([pad(wave[start : start + window], window) for start in batch]))

    with computer(detector) as (compute, lanes):
        size = max(1, min(BATCH, len(starts) // lanes))  # every core has work
        batches = np.split(starts, range(size, len(starts), size))
        computed = compute((len(batch), clips(batch)) for batch in batches)
        with tqdm(total=len(starts), unit="window", leave=False, delay=1, disable=None) as progress:
            logits = []
            for count, of_batch in computed:
                logits.append(of_batch)
                progress.update(count)
    ends = np.minimum(starts + window, len(wave))
    return Timeline(starts / rate, ends / rate, np.concatenate(logits).astype(np.float64), rule)
