"""Layouts of published data sets: where they keep their lists of labels, and their recordings.

What the lists themselves look like is in `labels.py`. A set is added by a line in LISTS, and by one in
AUDIO_FOLDERS where its recordings lie elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from antispoofing.data.labels import EVAL, LabelFile, plain, read_labels, read_table
from antispoofing.errors import DataError
from data_utils import AUDIO_SUFFIXES

SPLITS = ("training", "validation", "testing")  # folders of Fake-or-Real

# Where the published sets keep their lists below their folder. A folder that holds nothing but another, as
# archives bring one, is as good as that.
LISTS = (
    "meta.csv",  # In-the-Wild
    "metadata.csv",  # Speech DF Arena
    "trial_metadata.txt",  # ASVspoof 2021
    "CM/trial_metadata.txt",
    "*/CM/trial_metadata.txt",
    "*/*/CM/trial_metadata.txt",
    "*/keys/*/CM/trial_metadata.txt",
    "ASVspoof2019.*.cm.*.txt",
    "*/ASVspoof2019.*.cm.*.txt",
    "ASVspoof5.train.tsv",
    "ASVspoof5.*.track_1.tsv",
    "*/ASVspoof5.train.tsv",
    "*/ASVspoof5.*.track_1.tsv",
)
# Where the recordings may be, from the list's folder or one of the three above it.
AUDIO_FOLDERS = ("", "flac", "wav", "*/flac", "*/wav", "flac_*", "*/flac_*", "*/*/flac")
AUDIO_ENDINGS = (".flac", ".wav", "")  # that a list may leave out


def published_lists(folder: Path, phase: str | None) -> list[Path]:
    """Find the lists of labels that a published set keeps in its folder, of the phase asked for."""
    lists = [p for pattern in LISTS for p in matches(folder, pattern) if _is_list(p)]
    inside = [p for p in matches(folder, "*") if p.name != "__MACOSX"]
    if not lists and len(inside) == 1 and inside[0].is_dir():
        return published_lists(inside[0], phase)
    if not lists:
        return []
    sets = {p.parent.parent if p.parent.name == "CM" else p.parent for p in lists}
    if len(sets) > 1:
        raise DataError(f"{folder} holds several lists of labels: {', '.join(map(str, lists))}; name one")
    of_phase = by_phase(lists)
    if not of_phase or phase == "all":
        return lists
    chosen = [p for p in lists if of_phase.get(p) == (phase or EVAL)]
    if not chosen:
        raise DataError(f"{folder} has no phase {phase or EVAL}, only {', '.join(sorted(of_phase.values()))}")
    return chosen


def by_phase(lists: Sequence[Path]) -> dict[Path, str]:
    """ASVspoof 2019 and 5 have a list for each phase, and say so in its name."""
    return {p: phase for p in lists for phase in p.name.split(".") if phase in ("train", "dev", "eval")}


def _is_list(path: Path) -> bool:
    """Whether a file with a list's name is one: others call a file meta.csv too."""
    if path.suffix != ".csv":
        return True
    try:
        header = {plain(name) for name in read_table(path).header}
        return bool(header & {"file", "filename"}) and bool(read_labels(path).trials)
    except DataError:
        return False


def audio_folders(path: Path, labels: LabelFile, root: Path | None, above: Path, inside: bool) -> list[Path]:
    """Where the recordings of a list are; of an archive inside it.

    Paths are relative to one folder. Utterance ids are looked for in the published places, those of
    ASVspoof also above the list's folder; what holds a few of them only is another set, with ids like these.
    """
    some = [trial.name for trial in labels.trials[:: len(labels.trials) // 200 + 1]]
    if any(suffix(name) in AUDIO_SUFFIXES for name in some):
        return [root or path.parent]
    bases = [path.parent, *(path.parent.parents[:3] if labels.layout.startswith("ASVspoof") else []), above]
    if inside:
        bases = [base for base in bases if base.is_relative_to(above)]
    for base in [root] if root else bases:
        folders = [f for pattern in AUDIO_FOLDERS for f in matches(base, pattern) if f.is_dir()]
        hits = Counter(home for name in some for home, _ in locate(name, folders))
        if hits:
            return [folder for folder, count in hits.most_common() if count >= hits.total() / 20]
    return [root or path.parent]


def locate(name: str, folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each folder that has the recording, as what its name is relative to, and the file.

    Of an id only the first of AUDIO_ENDINGS that any folder has counts.
    """
    for ending in ("",) if suffix(name) in AUDIO_SUFFIXES else AUDIO_ENDINGS:
        files = ((folder, os.path.join(folder, name + ending)) for folder in folders)
        found = [(folder, file) for folder, file in files if os.path.isfile(file)]
        if found:
            return [(Path(file).parent, file) for _, file in found] if os.path.isabs(name) else found
    return []


def leads_out(name: str, folder: Path, above: Path) -> bool:
    """Whether a name in a list in a folder is of something that is not below the one above."""
    if os.path.isabs(name) or not Path(os.path.abspath(folder / name)).is_relative_to(above):
        return True
    # ids are looked for in other folders, too
    return ".." in Path(name).parts and suffix(name) not in AUDIO_SUFFIXES


def suffix(path: str) -> str:
    """Return what a path ends in, in lower case: ".wav"."""
    return os.path.splitext(path)[1].lower()


def matches(folder: Path, pattern: str) -> list[Path]:
    """What a pattern finds below a folder; hidden ones are passed over."""
    found = sorted(folder.glob(pattern)) if pattern else [folder]
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
