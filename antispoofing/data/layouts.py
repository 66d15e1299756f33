"""Finding the lists of labels and the recordings of data sets that lie as they were published (`sets.py`)."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from antispoofing.data.labels import EVAL, LABEL_COLUMNS, USUAL, LabelFile, Reading, read_list
from antispoofing.data.sets import AUDIO_FOLDERS, SETS, DataSet
from antispoofing.data.words import plain
from antispoofing.errors import DataError
from data_utils import AUDIO_SUFFIXES

SPLITS = ("training", "validation", "testing")  # Fake-or-Real's folders

AUDIO_ENDINGS = (".flac", ".wav", "")  # the suffixes that a list may leave out


def published_lists(
    folder: Path, phase: str | None, notes: list[str], reading: Reading = USUAL
) -> list[Path]:
    """Find the lists of labels that a published data set keeps in its folder.

    If a folder contains nothing but another folder, as those from archives often do, the inner one is
    searched instead.

    Args:
        folder: The data set's folder.
        phase: The phase whose lists are wanted, if they are divided by phases: "all", or None for "eval", or
            for all if there is no such list.
        notes: Where a line is added for each file that has the name of a list, but is none.
        reading: What the user says of the lists.

    Raises:
        DataError: If the folder contains several data sets' lists, or none of that phase; or if a list is
            damaged.
    """
    patterns = dict.fromkeys(pattern for data_set in SETS for pattern in data_set.lists)
    candidates = dict.fromkeys(p for pattern in patterns for p in matches(folder, pattern) if p.is_file())
    lists = [p for p in candidates if _is_list(p, notes, reading)]
    inside = [p for p in matches(folder, "*") if p.name != "__MACOSX"]
    if not lists and len(inside) == 1 and inside[0].is_dir():
        return published_lists(inside[0], phase, notes, reading)
    if not lists:
        return []
    homes = {p.parent.parent if p.parent.name == "CM" else p.parent for p in lists}
    if len(homes) > 1:
        raise DataError(
            f"{folder} contains several lists of labels, so name one: {', '.join(map(str, lists))}"
        )
    phases = phases_of(lists)
    if not phases or phase == "all" or (phase is None and EVAL not in phases.values()):
        return lists
    chosen = [p for p in lists if phases.get(p) == (phase or EVAL)]
    if not chosen:
        raise DataError(
            f"{folder} has no phase {phase or EVAL}, only {', '.join(sorted(set(phases.values())))}"
        )
    return chosen


# What the names of lists and folders call the phases.
_PHASE_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "valid", "validation"), "dev"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), EVAL),
}


def phases_of(lists: Sequence[Path]) -> dict[Path, str]:
    """Return the phases of lists by the words in their names: "ch_eval.txt" -> "eval".

    If some lists have one, others are further sets to evaluate on.
    """
    words = {
        p: [_PHASE_WORDS[w] for w in re.split(r"[._-]", p.name.lower()) if w in _PHASE_WORDS] for p in lists
    }
    if not any(words.values()):
        return {}
    return {p: found[0] if found else EVAL for p, found in words.items()}


def _is_list(path: Path, notes: list[str], reading: Reading) -> bool:
    """Return whether a file with a list's name is one, since other data have files called meta.csv, too."""
    if path.suffix not in (".csv", ".jsonl"):
        return True
    try:
        header = {plain(name) for name in read_list(path, reading).header}
    except DataError as error:
        notes.append(f"not used as a list of labels: {error}")
        return False
    if any(s.header and set(s.header) <= header for s in SETS):
        return True
    if not header & {"file", "filename", "path", "audiopath"}:
        return False
    if header & set(LABEL_COLUMNS) or reading.columns:
        return True
    notes.append(
        f"not used as a list of labels: {path}: none of its columns is called {', '.join(LABEL_COLUMNS)}"
    )
    return False


class AudioFolders(NamedTuple):
    """Where a list's recordings are: `audio_folders`.

    Attributes:
        most: The folders with most of them, at least one.
        others: Folders in which to look for those that are not there.
        left_out: Folders that have some of them, but belong to another data set.
    """

    most: list[Path]
    others: list[Path]
    left_out: list[Path]

    def locate(self, name: str) -> list[tuple[Path, str]]:
        """Return what `locate` finds in the folders with most recordings, or else in the others."""
        return locate(name, self.most) or (locate(name, self.others) if self.others else [])


def audio_folders(
    path: Path, labels: LabelFile, root: Path | None, above: Path, inside: bool
) -> AudioFolders:
    """Find the folders of a list's recordings, by looking for some of these.

    Paths in a list are relative to one folder. Utterance ids are looked for in AUDIO_FOLDERS, and those of
    ASVspoof also above the list's folder. A folder with far fewer of them than another one, and another
    edition of ASVspoof in its path, is taken to belong to that, whose ids are similar, unless the user named
    the folder above both.

    Args:
        path: The list.
        labels: Its content.
        root: The folder of the recordings, if the user named it.
        above: The folder that was given, or the list's own.
        inside: Whether to stay inside `above`, as in an archive.
    """
    if any(suffix(name) in AUDIO_SUFFIXES for name in _sample(labels, 200)):
        first = [root or path.parent]
        if root or any(locate(name, first) for name in _sample(labels, 200)):
            return AudioFolders(first, [], [])
    bases = [path.parent, *(path.parent.parents[:3] if labels.layout.startswith("ASVspoof") else []), above]
    if inside:
        bases = [base for base in bases if base.is_relative_to(above)]
    own = [
        pattern.format(stem=glob.escape(path.stem))
        for s in SETS
        if _is_of(path, labels, s)
        for pattern in s.audio
    ]
    for base in [root] if root else bases:
        patterns = [*(own if base == path.parent else ()), *AUDIO_FOLDERS]
        folders = list(dict.fromkeys(f for pattern in patterns for f in _folders(base, pattern)))
        if inside:
            folders = [f for f in folders if f.is_relative_to(above)]
        sample = _sample(labels, max(200, 20 * len(folders)))  # enough even if each speaker has a folder
        hits = Counter(home for name in sample for home, _ in locate(name, folders)).most_common()
        if hits:
            most = [folder for folder, count in hits if count >= hits[0][1] / 20]
            years = {year for folder in most for year in _editions(folder, base)}
            rest = [f for f in folders if f not in most]
            others = [f for f in rest if root or _editions(f, base) <= years]
            return AudioFolders(most, others, [f for f, _ in hits if f in rest and f not in others])
    return AudioFolders([root or path.parent], [], [])


def _is_of(path: Path, labels: LabelFile, data_set: DataSet) -> bool:
    """Return whether a list is one of a data set's, by what it is or by its place."""
    return labels.layout == data_set.name or any(path.match(pattern) for pattern in data_set.lists)


def _folders(base: Path, pattern: str) -> list[Path]:
    """Return the folders that match a pattern, which may begin with ".."."""
    while pattern == ".." or pattern.startswith("../"):
        base, pattern = base.parent, pattern[3:]
    return [f for f in matches(base, pattern) if f.is_dir()]


def _editions(folder: Path, base: Path) -> set[str]:
    """Return the editions of ASVspoof in a folder's path below `base`: "ASVspoof2021_LA_eval" -> {"2021"}."""
    return set(re.findall(r"(?<=ASVspoof)20\d\d", os.path.relpath(folder, base)))


def _sample(labels: LabelFile, most: int) -> list[str]:
    """Return the names of at most `most` of a list's recordings, evenly spread over the list."""
    return [trial.name for trial in labels.trials[:: len(labels.trials) // most + 1]]


def locate(name: str, folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the folders that have a recording: for each, what its name is relative to, and the file.

    A name without a suffix is tried with each of AUDIO_ENDINGS, until any folder has it. A name that no
    folder has is tried with slashes for backslashes, and with accented letters in other forms: composed
    (NFC), and decomposed as in archives from macOS (NFD).
    """
    names = [name]
    if "\\" in name and os.sep == "/":
        names.append(name := name.replace("\\", "/"))
    if not name.isascii():
        names += [unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]
    return next((found for name in names if (found := _locate_exactly(name, folders))), [])


def _locate_exactly(name: str, folders: Sequence[Path]) -> list[tuple[Path, str]]:
    for ending in ("",) if suffix(name) in AUDIO_SUFFIXES else AUDIO_ENDINGS:
        files = ((folder, os.path.join(folder, name + ending)) for folder in folders)
        found = [(folder, file) for folder, file in files if os.path.isfile(file)]
        if found:
            return [(Path(found[0][1]).parent, found[0][1])] if os.path.isabs(name) else found
    return []


def leads_out(name: str, folder: Path, above: Path) -> bool:
    """Return whether a name in a list in `folder` leads to a place that is not below `above`."""
    name = name.replace("\\", "/")  # as `locate` reads it
    if os.path.isabs(name) or not Path(os.path.abspath(folder / name)).is_relative_to(above):
        return True
    # An id is looked for in other folders as well, from which ".." might lead out.
    return ".." in Path(name).parts and suffix(name) not in AUDIO_SUFFIXES


def suffix(path: str) -> str:
    """Return a path's suffix in lower case: ".wav"."""
    return os.path.splitext(path)[1].lower()


def matches(folder: Path, pattern: str) -> list[Path]:
    """Return the paths below a folder that match a pattern, except hidden ones."""
    found = sorted(folder.glob(pattern)) if pattern else [folder]
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
