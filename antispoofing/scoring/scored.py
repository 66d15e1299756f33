"""What a detector made of a list of recordings.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from antispoofing.data.recordings import Utterance
from data_utils import AUDIO_INFO, BONAFIDE, LABELS, SPOOF

NOT_A_NUMBER = "the detector's output is not a number"  # why a recording has no score


@dataclass
class Scored:
    """What a detector made of a list of recordings.

    Attributes:
        utterances: the n recordings.
        logits: float64 [n, 2], column 0 = spoof, column 1 = bona fide; NaN where there is none.
        failures: why there is none, by index.
        infos: `data_utils.AUDIO_INFO` [n], of what could be read.
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
        """Which recordings [n] have this label (one of LABELS, or "") and a score."""
        return (self._labels == label.encode()) & np.isfinite(self.scores)

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.array([u.label for u in self.utterances], dtype="S8")

    def scores_with_label(self, label: str) -> np.ndarray:
        """The scores of the recordings that have this label."""
        return self.scores[self.mask(label)]

    @property
    def bonafide(self) -> np.ndarray:
        """The scores of the bona fide (real) recordings."""
        return self.scores_with_label(LABELS[BONAFIDE])

    @property
    def spoof(self) -> np.ndarray:
        """The scores of the spoof (fake) recordings."""
        return self.scores_with_label(LABELS[SPOOF])

    @property
    def labelled(self) -> np.ndarray:
        """Which recordings [n] have either label and a score."""
        return self.mask(LABELS[BONAFIDE]) | self.mask(LABELS[SPOOF])

    def subset(self, members: np.ndarray) -> Scored:
        """Of the recordings chosen by a mask [n], with their scores but without reasons of failures."""
        chosen = np.flatnonzero(members)
        return Scored([self.utterances[i] for i in chosen], self.logits[chosen], {}, self.infos[chosen])

    def verdicts(self, threshold: float | None = None) -> list[str]:
        """ "bonafide" or "spoof" for each recording, "" where there is nothing to decide by.

        Args:
            threshold: score >= threshold is bona fide. None: whichever of the two logits is larger,
                the network's own decision, which nobody has calibrated.
        """
        limit = self.logits[:, SPOOF] if threshold is None else threshold
        words = np.where(self.scores >= limit, LABELS[BONAFIDE], LABELS[SPOOF])
        return np.where(np.isfinite(self.scores) & np.isfinite(limit), words, "").tolist()
