"""The scores of a list of recordings.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from antispoofing.data.recordings import Utterance
from data_utils import AUDIO_INFO, BONAFIDE, LABELS, SPOOF

UNSAID = 0.1  # seconds of a recording that may be left out without a word
NOT_A_NUMBER = "the detector's output is not a number"  # why a recording has no score


class Scored:
    """A list of n recordings with their scores.

    Attributes:
        utterances: The recordings.
        logits: float64 [n, 2], column 0 = spoof, column 1 = bona fide; NaN for a recording without a score.
        failures: By index, why a recording has no score.
        infos: `data_utils.AUDIO_INFO` [n]; zeros for recordings that were not read, or were scored elsewhere.
        notes: By index, what is to be said of a recording: what of it could not be heard, and cautions.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        logits: np.ndarray,
        failures: dict[int, str],
        infos: np.ndarray | None = None,
    ):
        self.utterances = utterances
        self.logits = logits
        self.failures = failures
        self.notes: dict[int, str] = {}
        self.infos = np.zeros(len(utterances), AUDIO_INFO) if infos is None else infos

    def heard(self, i: int) -> tuple[str, str]:
        """Return how many seconds of recording i were heard, in words, and what is to be said of it."""
        heard, seconds = float(self.infos["heard"][i]), float(self.infos["seconds"][i])
        in_part = f"only {heard:.3g} of {seconds:.1f} s were heard" if self.is_heard_in_part[i] else ""
        return f"{heard:.4f}" if heard else "", "; ".join(filter(None, (in_part, self.notes.get(i, ""))))

    @cached_property
    def is_heard_in_part(self) -> np.ndarray:
        """Whether more than UNSAID was left out of each recording, bool [n]; asked once all are scored."""
        heard = self.infos["heard"]
        return (heard > 0) & (self.infos["seconds"] - heard > UNSAID)

    @property
    def scores(self) -> np.ndarray:
        """The scores float64 [n], higher = more likely real; NaN for a recording without one."""
        return self.logits[:, BONAFIDE]

    def mask(self, label: str) -> np.ndarray:
        """Return a mask bool [n] of the recordings that have a score and this label, one of LABELS or ""."""
        return (self._labels == label.encode()) & np.isfinite(self.scores)

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.array([u.label for u in self.utterances], dtype="S8")

    def scores_with_label(self, label: str) -> np.ndarray:
        """Return the scores of the recordings that have this label and a score."""
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
        """A mask bool [n] of the recordings that have a score and either label."""
        return self.mask(LABELS[BONAFIDE]) | self.mask(LABELS[SPOOF])

    def subset(self, members: np.ndarray) -> Scored:
        """Return the recordings that a mask [n] selects, with their scores but without `failures`."""
        chosen = np.flatnonzero(members).tolist()
        return Scored([self.utterances[i] for i in chosen], self.logits[chosen], {}, self.infos[chosen])
