"""A whole recording, judged window by window: where it sounds real, and where it sounds synthetic.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from antispoofing.errors import DataError
from antispoofing.scoring.calibration import LIMIT, SURE
from antispoofing.scoring.decision import FAKE, REAL, Rule
from data_utils import BONAFIDE

if TYPE_CHECKING:
    from model import DetectorConfig

MIXED = "mixed"
COLUMNS = ("start_seconds", "end_seconds", "score", "threshold", "margin", "verdict")  # of `Timeline.rows`


@dataclass(frozen=True)
class Stretch:
    """A part of a recording whose windows are all on the fake side.

    Attributes:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds.
        margin: The lowest margin of its windows, by `Rule.margins`.
        is_sure: Whether each of its windows is surely fake, rather than only leaning that way.
    """

    start: float
    end: float
    margin: float
    is_sure: bool

    @property
    def says(self) -> str:
        """How it sounds, in words that follow its times."""
        return "sounds synthetic" if self.is_sure else "leans towards synthetic"


@dataclass(frozen=True)
class Timeline:
    """The n windows of a recording in order of time, and the rule that judges them.

    Attributes:
        starts: float64 [n], where each window begins, in seconds.
        ends: float64 [n], where each window ends, in seconds; windows may overlap.
        logits: float64 [n, 2], column 0 = spoof, column 1 = bona fide.
        rule: The rule that turns logits into margins and verdicts.
    """

    starts: np.ndarray
    ends: np.ndarray
    logits: np.ndarray
    rule: Rule

    @property
    def scores(self) -> np.ndarray:
        """The scores [n] of the windows, higher = more likely real."""
        return self.logits[:, BONAFIDE]

    @cached_property
    def margins(self) -> np.ndarray:
        """The margins [n] of the windows by `Rule.margins`; above 0 means more likely real."""
        return self.rule.margins(self.logits)

    @property
    def verdicts(self) -> list[str]:
        """The verdict on each window, which is that on a clip of the same samples."""
        return self.rule.verdicts(self.logits)

    @property
    def overall(self) -> str:
        """The judgement of the whole recording, not the verdict on any clip; see `describe_overall`."""
        least = self._longest_by_chance
        if self.rule.can_be_sure and all(self._longest(verdict) >= least for verdict in (REAL, FAKE)):
            return MIXED
        return self.rule.verdict(float(self.margins.mean()))

    def _longest(self, verdict: str) -> float:
        """Return the longest stretch of windows with a verdict, in window lengths."""
        runs: list[float] = [0.0]
        at = 0
        for found, group in groupby(self.verdicts):
            last = at + len(list(group)) - 1
            if found == verdict:
                runs.append(float((self.ends[last] - self.starts[at]) / (self.ends[0] - self.starts[0])))
            at = last + 1
        return max(runs)

    @property
    def _longest_by_chance(self) -> float:
        """How many windows in a row, without overlap, chance alone makes sure, and wrong, in 5 % of cases.

        Of windows that are sure, 1 in 19 may be wrong. The longer the recording, the more of them there are.
        """
        windows = (self.ends[-1] - self.starts[0]) / (self.ends[0] - self.starts[0])
        # The least number for which windows * ((1 - SURE) / SURE) ** number is at most 1 - SURE.
        least = max(2, math.ceil(math.log(windows / (1 - SURE)) / LIMIT))
        return least - 1e-6  # lengths are computed with rounding

    def rows(self) -> list[tuple]:
        """Return a row for each window, with the columns COLUMNS."""
        thresholds = self.rule.thresholds(self.logits)
        numbers = (self.starts, self.ends, self.scores, thresholds, self.margins)
        return list(zip(*(column.tolist() for column in numbers), self.verdicts, strict=True))

    def suspicious(self) -> list[Stretch]:
        """Return the stretches that sound synthetic, in order of time.

        Each window stands for the time that is nearer to its middle than to any other's. A stretch is a run
        of neighbouring windows with margins below 0, all of which have the verdict fake, or none.
        """
        middles = (self.starts + self.ends) / 2
        edges = [self.starts[0], *(middles[1:] + middles[:-1]) / 2, self.ends[-1]]
        can_be_sure = self.rule.can_be_sure
        kinds = [
            (margin < 0, can_be_sure and verdict == FAKE)
            for margin, verdict in zip(self.margins, self.verdicts, strict=True)
        ]
        stretches = []
        for (is_fake, is_sure), group in groupby(range(len(kinds)), key=kinds.__getitem__):
            if is_fake:
                members = list(group)
                first, last = members[0], members[-1]
                lowest = self.margins[first : last + 1].min()
                stretches.append(
                    Stretch(float(edges[first]), float(edges[last + 1]), float(lowest), bool(is_sure))
                )
        return stretches


def describe_overall(rule: Rule) -> str:
    """Describe how the windows decide on a recording, in words that follow "the whole recording is"."""
    if not rule.can_be_sure:
        return "real or fake by the mean margin of all windows"
    return (
        "mixed where windows in a row, at least two without overlap, are surely real, and others surely fake "
        "(three in recordings of more than 18 windows without overlap, four of more than 342); otherwise "
        "real, fake or not sure by the mean margin of all windows"
    )


def hop_samples(config: DetectorConfig, hop: float | None) -> int:
    """Convert a hop from seconds to samples.

    Args:
        config: The detector's configuration, which sets the sample rate and the length of a window.
        hop: From the start of one window to the start of the next, in seconds; None is half a window.

    Raises:
        DataError: If the hop is less than a sample or more than a window.
    """
    rate, window = config.sample_rate, config.clip_samples
    step = window // 2 if hop is None else round(hop * rate)
    if not 1 <= step <= window:
        raise DataError(
            f"--hop {hop:g}: it must be from {1 / rate:g} s, one sample, to {window / rate:g} s, one window"
        )
    return step


def window_starts(n_samples: int, window: int, hop: int) -> np.ndarray:
    """Return where windows start, int64 [n] in samples: at 0, hop, 2 * hop, ..., and as late as possible.

    So every sample lies in a window, and no window reaches beyond the recording. A recording that is no
    longer than a window has one, which starts at 0.

    Args:
        n_samples: The length of the recording, in samples.
        window: The length of a window, in samples.
        hop: From the start of one window to the start of the next, in samples.
    """
    last = max(0, n_samples - window)
    return np.append(np.arange(0, last, hop), last)
