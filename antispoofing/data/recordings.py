"""Data sets: which recordings there are, and what they are labelled.

A data set is a folder with real and fake subfolders, a list of labels (`labels.py`), a folder that holds
such a list in its published place (`layouts.py`), or any of these packed (`archives.py`). Labels are
"bonafide" (real), "spoof" (fake) or "" (not known).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from antispoofing.data import archives
from antispoofing.data.labels import LABEL_WORDS, MOST_PROBLEMS, Trial, plain, read_labels
from antispoofing.data.layouts import (
    SPLITS,
    audio_folders,
    by_phase,
    leads_out,
    locate,
    matches,
    published_lists,
    suffix,
)
from antispoofing.errors import DataError
from data_utils import AUDIO_SUFFIXES

LABEL_SUFFIXES = (".csv", ".tsv", ".txt")  # of a list of labels

_progress = partial(tqdm, desc="finding recordings", unit="file", leave=False, delay=2, disable=None)

_NOTHING_TOLD: Mapping[str, str] = {}  # one for all recordings


@dataclass(frozen=True, slots=True)  # of half a million
class Utterance:
    """One recording.

    Attributes:
        path: the file.
        name: relative to the data set's root, with slashes.
        label: "bonafide", "spoof" or "".
        trial: what a list of labels calls it (an utterance id, or a path); "" where there is no list.
        columns: what else the list tells of it (speaker, attack, codec, ...), by column name.
    """

    path: str
    name: str
    label: str
    trial: str = ""
    columns: Mapping[str, str] = field(default_factory=lambda: _NOTHING_TOLD)


def list_sha256(utterances: Sequence[Utterance]) -> str:
    """Return the SHA-256 of a list of recordings: of all names and labels, not of what is in them."""
    return hashlib.sha256("\0".join(f"{u.name}\0{u.label}" for u in utterances).encode()).hexdigest()


@dataclass(frozen=True)
class Recordings:
    """What `find_recordings` found.

    Attributes:
        root: the folder that names are relative to.
        utterances: the recordings, each once, by name.
        ignored: files that are no recordings.
        notes: what is to be said of the lists of labels: which they are and where their recordings are,
            then a line for each row whose recording is not there. (It is among the utterances all the
            same, and fails.)
    """

    root: Path
    utterances: list[Utterance]
    ignored: list[str]
    notes: list[str] = field(default_factory=list)

    def sha256(self) -> str:
        """Return `list_sha256` of the recordings."""
        return list_sha256(self.utterances)

    def shown_notes(self) -> list[str]:
        """The notes, or the first of many and how many are left."""
        left = len(self.notes) - MOST_PROBLEMS - 1
        return self.notes[: MOST_PROBLEMS + 1] + ([f"... and {left} more"] if left > 0 else [])


@dataclass
class _Source:
    """One of the given paths, read: each recording's file and, from a list of labels, its trial."""

    root: Path
    files: list[tuple[str, Trial | None]]
    ignored: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)  # a description of each
    missing: list[str] = field(default_factory=list)  # a line for each row without a recording
    has_phases: bool = False


def find_recordings(
    paths: Sequence[str | Path], root: str | Path | None = None, phase: str | None = None
) -> Recordings:
    """All recordings of the given files, folders, lists of labels and archives, each once, sorted by name.

    A folder that holds a published set's list of labels is read by that list, and no other file in it. Any
    other is searched to any depth, links included; hidden files and `__MACOSX` are passed over. Then the
    label comes from the folders between the root and the file: real, bonafide, bona-fide, genuine; fake,
    spoof (any case). A recording named directly is taken whatever its suffix, unless that is one of an
    archive or of a list of labels (csv, tsv, txt).

    Args:
        paths: one folder (then the root), or several paths (their common parent is the root).
        root: where the recordings of a list of labels are; else they are looked for beside it.
        phase: of ASVspoof's sets, one of `labels.PHASES`; None is "eval".

    Raises:
        DataError: a path does not exist, a folder cannot be read, an archive or a list is refused, no
            recording is found, or one is both real and fake by its folders.
    """
    if not all(map(str, paths)):
        raise DataError("an empty path")
    paths = [Path(os.path.abspath(p)) for p in paths]
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if root:
        root = _unpacked(Path(os.path.abspath(root)))
        if not root.is_dir():
            raise DataError(f"--root {root}: no such folder")
    sources = [_read(path, root, phase) for path in paths]
    if root and not any(source.lists for source in sources):
        raise DataError("--root is where the recordings of a list of labels are, and no list is given")
    if phase and not any(source.has_phases for source in sources):
        raise DataError("--phase is of ASVspoof's sets, and these data have no phases")
    common = _common_root([source.root for source in sources])
    root_prefix = os.path.join(common, "")
    utterances: dict[str, Utterance] = {}  # by what a path leads to
    real_folders: dict[str, str] = {}
    for source in sources:
        listed: set[str] = set()
        for path, trial in _progress(source.files):
            utterance, real = _utterance(path, root_prefix, trial), _real_path(path, real_folders)
            if trial and real in listed:
                raise DataError(f"{trial.name} is listed twice, once by another name: {path}")
            listed.add(real)
            known = utterances.setdefault(real, utterance)
            if known.label and utterance.label and known.label != utterance.label:
                raise DataError(f"{path} and {known.path} are one file, called real and fake")
            if utterance.label and not known.label:
                utterances[real] = utterance
    if not utterances:
        raise DataError(f"no recordings in {', '.join(map(str, paths))}")
    return Recordings(
        common,
        sorted(utterances.values(), key=lambda u: u.name),
        [path for source in sources for path in source.ignored],
        [line for source in sources for line in source.lists]
        + [line for source in sources for line in source.missing],
    )


def find_splits(path: Path) -> Path | None:
    """The folder that holds Fake-or-Real's three splits: the given one, or one at most two folders deeper.

    Args:
        path: a folder, or an archive of one.

    Returns:
        The folder with SPLITS in it; None where there is none.

    Raises:
        DataError: the path does not exist, or there is more than one.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    folder = _unpacked(path)
    for pattern in ("", "*", "*/*"):
        found = [f for f in matches(folder, pattern) if all((f / name).is_dir() for name in SPLITS)]
        if len(found) > 1:
            raise DataError(f"{path} holds several data sets: {', '.join(map(str, found))}; name one")
        if found:
            return found[0]
    return None


def find_phases(path: Path) -> set[str]:
    """Which of ASVspoof's train, dev and eval a folder, or an archive of one, has a list of labels for."""
    folder = _unpacked(path)
    return set(by_phase(published_lists(folder, "all")).values()) if folder.is_dir() else set()


def _unpacked(path: Path) -> Path:
    return archives.extract(path) if archives.is_archive(path) else path


def _common_root(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError as error:  # Windows: two drives
        raise DataError("the given paths have no folder in common") from error


def _real_path(path: str, real_folders: dict[str, str]) -> str:
    """`os.path.realpath`; what it is of folders is kept in `real_folders`, since it looks at each part."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    real = os.path.join(real_folders[folder], name)
    return path if path == real else real  # one string for both, mostly


def _utterance(path: str, root: str, trial: Trial | None) -> Utterance:
    """Of a file; `root` ends in a separator."""
    name = os.path.normpath(path)
    name = name.removeprefix(root) if name.startswith(root) else os.path.relpath(path, root)
    # A name whose bytes are no text must still be printed and written.
    text = os.fsencode(name.replace(os.sep, "/")).decode("utf-8", errors="backslashreplace")
    if trial:
        return Utterance(path, text, trial.label, trial.name, trial.columns)
    labels = {LABEL_WORDS[word] for word in map(plain, name.split(os.sep)[:-1]) if word in LABEL_WORDS}
    if len(labels) > 1:
        raise DataError(f"{path} lies under both a real and a fake folder: its label is not clear")
    return Utterance(path, text, labels.pop() if labels else "")


# ------------------------------------------------------------------- one given path


def _read(path: Path, root: Path | None, phase: str | None) -> _Source:
    given, path = path, _unpacked(path)
    if path.is_dir():
        lists = published_lists(path, phase)
        archive = given if path != given and not root else None
        source = _read_lists(lists, root, phase, path, archive) if lists else _read_folder(path)
    elif path.suffix.lower() in LABEL_SUFFIXES:
        source = _read_lists([path], root, phase, path.parent)
    else:
        source = _Source(path.parent, [(str(path), None)])
    return source


def _read_folder(folder: Path) -> _Source:
    source = _Source(folder, [])
    for path in _progress(_walk(str(folder))):
        if suffix(path) in AUDIO_SUFFIXES:
            source.files.append((path, None))
        else:
            source.ignored.append(path)
    return source


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Files below a folder; a link that leads back to a folder it stands in is not followed."""
    above += (os.path.realpath(folder),)
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be searched: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if not is_folder and not (entry.is_symlink() and os.path.isdir(entry)):
            yield entry.path
        elif os.path.realpath(entry) not in above:
            yield from _walk(entry.path, above)


# ------------------------------------------------------------------ lists of labels


def _read_lists(
    lists: Sequence[Path], root: Path | None, phase: str | None, above: Path, archive: Path | None = None
) -> _Source:
    """Of an archive, unpacked above, a stranger's list: it may not name this machine's other files."""
    source = _Source(above, [])
    homes: set[Path] = set()
    for path in lists:
        labels = read_labels(path, phase)
        if archive:  # and nothing is looked for before this is known, or it would tell what there is
            for trial in labels.trials:
                if leads_out(name := trial.name, path.parent, above):
                    raise DataError(f"{archive} is refused: its list of labels names {name}, outside it")
        folders = audio_folders(path, labels, root, above, inside=archive is not None)
        there = 0
        for trial in _progress(labels.trials):
            match locate(trial.name, folders):
                case []:
                    source.missing.append(f"{path}, row {trial.row}: there is no recording {trial.name}")
                    source.files.append((os.path.join(folders[0], trial.name), trial))
                case [(home, file)]:
                    homes.add(home)
                    source.files.append((file, trial))
                    there += 1
                case several:
                    places = ", ".join(str(file) for _, file in several)
                    raise DataError(
                        f"{path}, row {trial.row}: {trial.name} may be {places}; name one by --root"
                    )
        found = f"{there} of them in {', '.join(map(str, folders))}" if there else "none of them found"
        source.lists.append(f"{labels.describe()}, {found}")
        source.has_phases |= bool(labels.phase) or path.name.startswith("ASVspoof")
    if not homes:
        where = root or above
        raise DataError(
            f"{lists[0]}: none of its {len(source.files)} recordings is in {where} (the first is "
            f"{source.files[0][1].name}); name their folder with --root"
        )
    source.root = _common_root(sorted(homes))
    return source
