"""The two classes, the positive one first: what results call them, and what people are told."""

from __future__ import annotations

from typing import NamedTuple

from data_utils import BONAFIDE, LABELS, SPOOF


class SpeechClass(NamedTuple):
    """One class.

    Attributes:
        label: in lists, results and `Utterance.label`.
        word: to people.
        error: what becomes of a clip of it that is judged wrongly.
    """

    label: str
    word: str
    error: str


REAL = SpeechClass(LABELS[BONAFIDE], "real", "rejected")
FAKE = SpeechClass(LABELS[SPOOF], "fake", "accepted")
CLASSES = (REAL, FAKE)
