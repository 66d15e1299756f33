"""The two classes, the positive one first, and what they are called in results and in sentences."""

from __future__ import annotations

from typing import NamedTuple

from data_utils import BONAFIDE, LABELS, SPOOF


class SpeechClass(NamedTuple):
    """One class.

    Attributes:
        label: Its name in lists, results and `Utterance.label`.
        word: Its name in sentences.
        error: What happens to a clip of it that is classified wrongly.
    """

    label: str
    word: str
    error: str


REAL = SpeechClass(LABELS[BONAFIDE], "real", "rejected")
FAKE = SpeechClass(LABELS[SPOOF], "fake", "accepted")
CLASSES = (REAL, FAKE)
