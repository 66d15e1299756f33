"""Which clips belong together: of one speaker, of one source recording, or of one synthesis system.

What tells is a column of a list of labels, or else how the file names begin. Each class is looked at by
itself, since often only one of them names its speakers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import numpy as np

from antispoofing.classes import CLASSES
from antispoofing.data.recordings import Utterance
from antispoofing.data.words import KNOWN, plain
from antispoofing.scoring.scored import Scored
from antispoofing.text import counted
from antispoofing.uncertainty import effective_number
from data_utils import BONAFIDE, LABELS

# Columns that name what clips have in common, as `plain` writes them, the most telling first.
SYSTEMS = (
    "attack",
    "attacktag",
    "system",
    "systemid",
    "generator",
    "model",
    "vocoder",
    "algorithm",
    "method",
)
COLUMNS = (
    *("speaker", "speakerid", "spk", "spkid", "clientid"),
    *("source", "sourceid", "sourcefile", "recording", "recordingid", "session", "video", "originalfile"),
    *SYSTEMS,
)
FILE_NAMES = "how their file names begin"
INDEPENDENT = (
    "the clips are taken as independent, since neither a column that most of them have nor their file names "
    "tell which belong together"
)
_MOSTLY = 0.5  # the share of a class's clips in which a column must be filled to tell anything

_COUNTER = re.compile(r"[-_. ]*\d+([-_]mic\d+)?$")  # VCTK has two microphones


class Clustering:
    """Which recordings belong together, as far as that is known.

    Attributes:
        told_by: For each label, the column or FILE_NAMES; "" if nothing tells, so that each recording of that
            class is by itself.
    """

    def __init__(self, numbers: np.ndarray, is_told: np.ndarray, told_by: dict[str, str]):
        self._numbers = numbers
        self._is_told = is_told  # a column may have gaps
        self.told_by = told_by

    @property
    def is_known(self) -> bool:
        """Whether anything tells, in one class at least, that recordings belong together."""
        return any(self.told_by.values())

    def among(self, members: np.ndarray) -> np.ndarray | None:
        """Return the clusters of some recordings; None if it is not known which belong together.

        Args:
            members: The recordings, bool [n].

        Returns:
            int64 [members]; recordings with the same number belong together, whichever class they are in.
        """
        return self._numbers[members] if self.is_known else None

    def of(self, scored: Scored) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the clusters of the scored recordings of each class, bona fide first, as `among` does."""
        return self.of_classes([scored.mask(label) for label, _, _ in CLASSES])

    def of_classes(self, masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the clusters of some recordings of each class, bona fide first, as `among` does."""
        real, fake = (self._numbers[members] for members in masks)
        return (real, fake) if self.is_known else None

    def subset(self, members: np.ndarray) -> Clustering:
        """Return the clustering of the recordings that a mask [n] selects."""
        return Clustering(self._numbers[members], self._is_told[members], self.told_by)

    def describe(self, scored: Scored) -> str:
        """Say by what the clips of each class are taken together, and how many clusters that makes."""
        together, parts = self.of(scored), []
        if together is None:
            return INDEPENDENT
        for (label, word, _), numbers in zip(CLASSES, together, strict=True):
            told_by = self.told_by[label]
            if told_by:
                number, equal = len(np.unique(numbers)), effective_number(numbers)
                worth = f", worth {equal:.1f} of equal size," if equal < 0.9 * number else ""
                groups = counted(number, "group")
                parts.append(f"the {len(numbers)} {word} clips form {groups}{worth} by {told_by}")
                untold = int((~self._is_told[scored.mask(label)]).sum())
                if untold:
                    parts[-1] += f" (each of the {untold} without one by itself)"
            else:
                parts.append(f"it is not known which of the {len(numbers)} {word} clips belong together")
        return "; ".join(parts)


def find_clusters(utterances: Sequence[Utterance], without: Collection[str] = ()) -> Clustering:
    """Find out which recordings belong together.

    Args:
        utterances: The recordings.
        without: Columns (or "subfolder") that are not to tell, such as the one by whose groups recordings are
            compared: in such a comparison, the groups are what they are. If it is one that could tell, file
            names do not tell either, since they often say the same.
    """
    numbers = np.arange(len(utterances))  # each by itself
    is_told = np.zeros(len(utterances), bool)
    of_value: dict[tuple[str, str], int] = {}
    told_by = {}
    columns = {plain(name): name for name in _column_names(utterances) if name not in without}
    candidates = [columns[name] for name in COLUMNS if name in columns]
    if not {"subfolder", *COLUMNS} & set(map(plain, without)):
        candidates.append(FILE_NAMES)
    for label, _, _ in CLASSES:
        members = [i for i, u in enumerate(utterances) if u.label == label]
        told_by[label] = ""
        for name in candidates:
            if plain(name) in SYSTEMS and label == LABELS[BONAFIDE]:
                continue  # whatever it says of real clips, no system made them
            if name == FILE_NAMES:
                values = [_beginning(utterances[i].name) for i in members]
                most = len(members) / 2  # that most, or all, names begin alike means nothing
            else:
                values = [utterances[i].columns.get(name, "") for i in members]
                most = len(members)
            named = Counter(filter(None, values))
            if named.total() < _MOSTLY * len(values) or len(named) == len(values):
                continue
            if not named or max(named.values()) > most:
                continue
            told_by[label] = name
            for i, value in zip(members, values, strict=True):
                if value:  # a speaker is the same one in both classes
                    kind = plain(name) if name != FILE_NAMES else ""
                    numbers[i] = of_value.setdefault((kind, value), len(utterances) + len(of_value))
                    is_told[i] = True
            break
    return Clustering(numbers, is_told, told_by)


def _column_names(utterances: Sequence[Utterance]) -> Iterable[str]:
    return dict.fromkeys(name for utterance in utterances for name in utterance.columns)


def _beginning(name: str) -> str:
    """Return a recording's name without the counter at its end, and without folders that name its label."""
    folders, _, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return f"{unlabelled(folders)}/{_COUNTER.sub('', stem)}"


@lru_cache  # many recordings are in the same folder
def unlabelled(folders: str) -> str:
    """Return those of a recording's folders that do not name its label."""
    return "/".join(folder for folder in folders.split("/") if folder not in KNOWN)
