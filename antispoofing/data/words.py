"""The words that label recordings, as names of folders and in lists of labels.

A word is compared in lower case and without punctuation: "Bona-Fide" is "bonafide". What is not in this table
is told by the user (`Words.of`); 0 and 1 are among that, since some data sets have 1 = real, others 1 = fake.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from antispoofing.errors import DataError
from data_utils import BONAFIDE, LABELS, SPOOF

REAL, FAKE = LABELS[BONAFIDE], LABELS[SPOOF]

# The words of the field, which decide.
_FIRST = {
    REAL: ("real", "bonafide", "genuine"),
    FAKE: ("fake", "spoof"),
}
# Words that also mean other things ("original" recordings may be real and fake ones before normalising): as
# names of folders, they count only where no folder has one of the first.
_ALSO = {
    REAL: (
        "human original authentic natural gt groundtruth bona reals realaudio realspeech realclean realnoisy "
        "realcodec realvoice bonafideaudio genuineaudio originalaudio humanvoice humanspeech "
        "echt auténtico autentico verdadero vrai réel authentique vero reale verdadeiro autêntico "
        "真 真实 真人 真實 本物 진짜 настоящий реальный"
    ).split(),
    FAKE: (
        "spoofed fakes deepfake deepfakes synthetic synthetics synthesized synthesised synthesis generated "
        "artificial ai aigenerated tts vc cloned clone machine fakeaudio fakespeech fakeclean fakenoisy "
        "fakecodec fakevoice spoofaudio deepfakeaudio generatedaudio syntheticaudio syntheticspeech aivoice "
        "gefälscht falsch falso falsificado faux falsifié sintetico sintético synthétique falsificato "
        "假 伪造 偽造 合成 偽物 フェイク 가짜 합성 подделка поддельный фальшивый"
    ).split(),
}
UNKNOWN = ("unknown", "unlabelled", "unlabeled")  # words in lists for "not known"


@lru_cache(maxsize=2**16)  # labels and folders have few different names
def plain(word: str) -> str:
    """Return a word in lower case, letters composed, without punctuation: "Bona-Fide" -> "bonafide"."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", word).lower())


@dataclass(frozen=True)
class Words:
    """Which words mean real, and which fake.

    Attributes:
        first: The labels of the words that decide, "bonafide" or "spoof", by word.
        also: Those of the other words.
    """

    first: Mapping[str, str]
    also: Mapping[str, str]

    @classmethod
    def of(cls, real: Iterable[str] = (), fake: Iterable[str] = ()) -> Words:
        """Return the known words, with the user's in addition, which decide.

        Raises:
            DataError: If a word is to mean both, or has no letters or digits.
        """
        added = {label: {plain(word) for word in words} for label, words in ((REAL, real), (FAKE, fake))}
        if both := added[REAL] & added[FAKE]:
            raise DataError(f"--real-words and --fake-words: {both.pop()} cannot mean both")
        if "" in added[REAL] | added[FAKE]:
            raise DataError("--real-words and --fake-words: a word needs letters or digits")
        own = {word: label for label, words in added.items() for word in words}
        first = {word: label for label, words in _FIRST.items() for word in words}
        also = {plain(word): label for label, words in _ALSO.items() for word in words}
        return cls(first | own, {word: label for word, label in also.items() if word not in own})

    def label(self, word: str) -> str | None:
        """Return the label that a word in a list means: "bonafide", "spoof", "" (unknown); None if none."""
        known = plain(word)
        return "" if known in UNKNOWN else self.first.get(known, self.also.get(known))

    def labels_of(self, folders: Sequence[str], only_first: bool = False) -> set[str]:
        """Return the labels that the names of folders mean; if there are two, they contradict each other."""
        names = [plain(folder) for folder in folders]
        found = {self.first[name] for name in names if name in self.first}
        return found if found or only_first else {self.also[name] for name in names if name in self.also}

    def __contains__(self, word: str) -> bool:
        return plain(word) in self.first or plain(word) in self.also


KNOWN = Words.of()
SHORT_LIST = ", ".join(word for words in _FIRST.values() for word in words)  # for messages
