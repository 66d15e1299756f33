"""A recording heard in full, window by window: where it sounds real, and where synthetic.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from antispoofing.errors import DataError
from antispoofing.scoring.decision import FAKE, REAL, Rule
from data_utils import BONAFIDE

if TYPE_CHECKING:
    from model import DetectorConfig

MIXED = "mixed"
SHORT = 1.0  # seconds
SILENT = 2e-3  # between the lowest and the highest sample: -60 dB of full scale
COLUMNS = ("start_seconds", "end_seconds", "score", "threshold", "margin", "verdict")  # of a window


@dataclass(frozen=True)
class Stretch:
    """A part of a recording that is on the fake side.

    Attributes:
        start, end: in seconds.
        score: the lowest of its windows.
        is_sure: whether its windows are judged fake by themselves, or only lean that way.
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
    def verdicts(self) -> list[str]:
        """Of each window by itself [n]."""
        return [self.rule.verdict(margin) for margin in self.margins.tolist()]

    @property
    def verdict(self) -> str:
        """Of the whole recording, by what `overall` tells."""
        if self.rule.threshold is None and {REAL, FAKE} <= set(self.verdicts):
            return MIXED
        return self.rule.verdict(float(self.margins.mean()))

    def rows(self) -> list[tuple]:
        """What is to be said of each window, as COLUMNS has it."""
        thresholds = self.rule.thresholds(self.logits)
        numbers = (self.starts, self.ends, self.scores, thresholds, self.margins)
        return list(zip(*(column.tolist() for column in numbers), self.verdicts, strict=True))

    def suspicious(self) -> list[Stretch]:
        """The stretches that sound synthetic, in their order.

        Each window stands for the time that is nearest to its middle. A stretch is of neighbours whose
        margins are below 0, either all judged fake by themselves or none.
        """
        middles = (self.starts + self.ends) / 2
        edges = [self.starts[0], *(middles[1:] + middles[:-1]) / 2, self.ends[-1]]
        kinds = [
            (margin < 0, verdict == FAKE) for margin, verdict in zip(self.margins, self.verdicts, strict=True)
        ]
        stretches = []
        for (is_fake, is_sure), group in groupby(range(len(kinds)), key=kinds.__getitem__):
            if is_fake:
                members = list(group)
                first, last = members[0], members[-1]
                score = self.scores[first : last + 1].min()
                stretches.append(
                    Stretch(float(edges[first]), float(edges[last + 1]), float(score), bool(is_sure))
                )
        return stretches


def overall(rule: Rule) -> str:
    """How a whole recording is judged by its windows, in words."""
    if rule.threshold is not None:
        return "real or fake by the mean margin of all windows"
    return (
        "mixed where some windows are surely real and some surely fake; else it goes by the mean margin of "
        "all windows: real or fake where that is sure, else not sure"
    )


def cautions(wave: np.ndarray, sample_rate: int) -> list[str]:
    """What makes any verdict on a recording worthless, in words."""
    found = []
    if len(wave) < SHORT * sample_rate:
        found.append(f"it lasts less than {SHORT:g} s: too little to judge by")
    if np.ptp(wave) < SILENT:
        found.append("it is silent, or all but silent")
    return found


def hop_samples(config: DetectorConfig, hop: float | None) -> int:
    """A hop of so many seconds, in samples; of None half a window.

    Raises:
        DataError: it is less than a sample or more than a window.
    """
    rate, window = config.sample_rate, config.clip_samples
    step = window // 2 if hop is None else round(hop * rate)
    if not 1 <= step <= window:
        raise DataError(
            f"a hop of {hop:g} s: it must be from {1 / rate:g} to {window / rate:g} s, one window"
        )
    return step


def window_starts(n_samples: int, window: int, hop: int) -> np.ndarray:
    """int64 [n]: 0, hop, 2 hop, ..., and the last that fits: all is heard, and nothing is padded.

    Of a recording that is no longer than a window 0 alone.
    """
    last = max(0, n_samples - window)
    return np.append(np.arange(0, last, hop), last)
