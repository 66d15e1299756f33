"""Which clips belong together: of one speaker, of one source recording, or of one synthesis system.

What tells is a column of a list of labels, or else how the file names begin. Each class is looked at by
itself, since often only one of them names its speakers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np

from antispoofing.classes import CLASSES
from antispoofing.data.labels import LABEL_WORDS, plain
from antispoofing.data.recordings import Utterance
from antispoofing.scoring.scored import Scored
from antispoofing.text import counted
from antispoofing.uncertainty import FEWEST_CLUSTERS, effective_number

# Columns that name what clips have in common, as `plain` writes them, the most telling first.
COLUMNS = (
    *("speaker", "speakerid", "spk", "spkid", "clientid"),
    *("source", "sourceid", "sourcefile", "recording", "recordingid", "session", "video", "originalfile"),
    *("attack", "attacktag", "system", "systemid", "generator", "model", "vocoder", "algorithm", "method"),
)
FILE_NAMES = "how their file names begin"
_MOSTLY = 0.9  # a column tells nothing about a class if it is empty for more than the rest of its clips

_COUNTER = re.compile(r"[-_. ]*\d+$")


class Clustering:
    """Recordings that belong together.

    Attributes:
        numbers: int64 [n]; recordings with the same number belong together, whichever class they are in.
        told_by: For each label, the column or FILE_NAMES; "" if nothing tells, so that each recording of that
            class is by itself.
    """

    def __init__(self, numbers: np.ndarray, told_by: dict[str, str]):
        self.numbers = numbers
        self.told_by = told_by

    def of(self, scored: Scored) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the scored recordings of each class, bona fide first."""
        real, fake = (self.numbers[scored.mask(label)] for label, _, _ in CLASSES)
        return real, fake

    def subset(self, members: np.ndarray) -> Clustering:
        """Return the clustering of the recordings that a mask [n] selects."""
        return Clustering(self.numbers[members], self.told_by)

    def describe(self, scored: Scored) -> str:
        """Say by what the clips of each class are taken together, and how many clusters that makes."""
        parts = []
        for (label, word, _), numbers in zip(CLASSES, self.of(scored), strict=True):
            told_by = self.told_by[label]
            if told_by:
                groups = counted(len(np.unique(numbers)), "group")
                parts.append(f"the {len(numbers)} {word} clips form {groups} by {told_by}")
            else:
                parts.append(f"nothing tells which of the {len(numbers)} {word} clips belong together")
        return "; ".join(parts)

    def is_enough(self, scored: Scored) -> bool:
        """Whether there are enough clusters for intervals, in each class."""
        return all(effective_number(numbers) >= FEWEST_CLUSTERS for numbers in self.of(scored))


def find_clusters(utterances: Sequence[Utterance], without: Collection[str] = ()) -> Clustering | None:
    """Find out which recordings belong together.

    Args:
        utterances: The recordings.
        without: Columns that are not to tell, such as the one by whose groups recordings are compared: in
            such a comparison, the groups are what they are.

    Returns:
        The clustering; None if nothing tells, in neither class, that any recordings belong together.
    """
    keys: list[tuple[str, ...]] = [("", str(i)) for i in range(len(utterances))]  # each by itself
    told_by = {}
    columns = {plain(name): name for u in utterances for name in u.columns if name not in without}
    candidates = [columns[name] for name in COLUMNS if name in columns]
    for label, _, _ in CLASSES:
        members = [i for i, u in enumerate(utterances) if u.label == label]
        told_by[label] = ""
        for name in (*candidates, FILE_NAMES):
            if name == FILE_NAMES:
                values = [_beginning(utterances[i].name) for i in members]
                least = 2  # since all may begin alike, and it means nothing
            else:
                values = [utterances[i].columns.get(name, "") for i in members]
                least = 1
            named = [value for value in values if value]
            if len(named) < _MOSTLY * len(values) or not least <= len(set(named)) < len(values):
                continue
            told_by[label] = name
            # Speakers and the like are the same in both classes, and so are beginnings of names.
            kind = FILE_NAMES if name == FILE_NAMES else plain(name)
            for i, value in zip(members, values, strict=True):
                keys[i] = (kind, value) if value else keys[i]
            break
    if not any(told_by.values()):
        return None
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return Clustering(np.array([numbers[key] for key in keys], dtype=np.int64), told_by)


def _beginning(name: str) -> str:
    """Return a recording's name without the counter at its end, and without folders that name its label."""
    folders, _, last = name.rpartition("/")
    stem = last.rpartition(".")[0] or last
    return f"{unlabelled(folders)}/{_COUNTER.sub('', stem)}"


@lru_cache  # many recordings are in the same folder
def unlabelled(folders: str) -> str:
    """Return those of a recording's folders that do not name its label."""
    return "/".join(folder for folder in folders.split("/") if plain(folder) not in LABEL_WORDS)
