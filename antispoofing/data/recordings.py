"""Finding the recordings of a data set, and their labels.

A data set is a folder with real and fake subfolders, a list of labels (`labels.py`), a folder with such a
list in its published place (`layouts.py`), or an archive of any of these (`archives.py`). Labels are
"bonafide" (real), "spoof" (fake) or "" (not known).
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from antispoofing.data import archives
from antispoofing.data.labels import KALDI, MOST_PROBLEMS, USUAL, Reading, Trial, read_labels
from antispoofing.data.layouts import (
    SPLITS,
    audio_folders,
    leads_out,
    matches,
    phases_of,
    published_lists,
    suffix,
)
from antispoofing.data.sets import matching, note_on
from antispoofing.data.words import Words
from antispoofing.errors import DataError
from antispoofing.progress import bar
from antispoofing.text import counted, writable
from data_utils import AUDIO_SUFFIXES

LABEL_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")  # the suffixes of lists of labels

_progress = partial(bar, what="finding recordings", unit="file")

_NO_COLUMNS: Mapping[str, str] = {}  # shared by all recordings without a list


@dataclass(frozen=True, slots=True)  # there may be half a million
class Utterance:
    """One recording.

    Attributes:
        path: The file.
        name: Its path relative to the data set's root, with slashes.
        label: "bonafide", "spoof" or "".
        trial: Its name in a list of labels (an utterance id, or a path); "" without a list.
        columns: What else the list says of it (speaker, attack, codec, ...), by column name.
    """

    path: str
    name: str
    label: str
    trial: str = ""
    columns: Mapping[str, str] = field(default_factory=lambda: _NO_COLUMNS)


def list_sha256(utterances: Sequence[Utterance]) -> str:
    """Return the SHA-256 of the names and labels of recordings; their content does not count."""
    return hashlib.sha256("\0".join(f"{u.name}\0{u.label}" for u in utterances).encode()).hexdigest()


@dataclass(frozen=True)
class Recordings:
    """What `find_recordings` found.

    Attributes:
        root: The folder that the names are relative to.
        utterances: The recordings, each once, sorted by name.
        ignored: The files that are not recordings.
        notes: Notes for the user: for each list of labels, what it is and where its recordings are, then a
            line for each row without a recording. (Its utterance is in the list nevertheless, and will fail
            when it is read.)
    """

    root: Path
    utterances: list[Utterance]
    ignored: list[str]
    notes: list[str] = field(default_factory=list)

    def sha256(self) -> str:
        """Return `list_sha256` of the recordings."""
        return list_sha256(self.utterances)

    def shown_notes(self) -> list[str]:
        """Return the notes, or the first of many and how many are left."""
        left = len(self.notes) - MOST_PROBLEMS - 1
        return self.notes[: MOST_PROBLEMS + 1] + ([f"... and {left} more"] if left > 0 else [])


@dataclass
class _Source:
    """What one of the given paths contains: each recording's file and, from a list of labels, its trial."""

    root: Path
    files: list[tuple[str, Trial | None]]
    ignored: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)  # one line for each list
    layouts: list[str] = field(default_factory=list)  # the name of each list's layout
    missing: list[str] = field(default_factory=list)  # one line for each row without a recording
    has_phases: bool = False


def find_recordings(
    paths: Sequence[str | Path],
    root: str | Path | None = None,
    phase: str | None = None,
    reading: Reading = USUAL,
) -> Recordings:
    """Find all recordings of the given files, folders, lists of labels and archives, each once.

    In a folder that contains a published data set's list of labels, only what is in the list counts. Other
    folders are searched to any depth, links included, but without hidden files and `__MACOSX`; the label then
    comes from the folders between the root and the file, by the words of `words.py` or the layouts of
    `sets.py`. A recording that is given directly may have any suffix but those of archives and of lists of
    labels (LABEL_SUFFIXES).

    Args:
        paths: One folder, which is then the root, or several paths, whose common parent is the root.
        root: The folder (or archive) of a list's recordings; None to look for them beside the list.
        phase: The phase of an ASVspoof data set, one of `labels.PHASES`; None for "eval".
        reading: What the user says of labels and lists.

    Raises:
        DataError: If a path does not exist, a folder cannot be read, an archive or a list is refused, there
            are no recordings, or the label of one is ambiguous.
    """
    if not all(map(str, paths)):
        raise DataError("an empty path was given: name a file or folder")
    given = [Path(os.path.abspath(path)) for path in paths]
    for path in given:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    root_folder = _unpacked(Path(os.path.abspath(root))) if root else None
    if root_folder and not root_folder.is_dir():
        raise DataError(f"--root {root_folder}: no such folder")
    sources = [_read(path, root_folder, phase, reading) for path in given]
    if root_folder and not any(source.lists for source in sources):
        raise DataError(
            "leave out --root: it is for the recordings of a list of labels, but no list was given"
        )
    if phase and not any(source.has_phases for source in sources):
        raise DataError("leave out --phase: these data have no phases")
    common = _common_root([source.root for source in sources])
    by_folders: Counter[str] = Counter()
    utterances = _utterances(sources, common, reading.words, by_folders)
    layouts = dict.fromkeys(layout for source in sources for layout in source.layouts)
    ignored = [path for source in sources for path in source.ignored]
    if not utterances:
        inner = archives.other_archives(ignored)
        inner += [name for path in given if archives.is_archive(path) for name in archives.archives_in(path)]
        remedy = f", but {archives.described(inner)}, to be unpacked first" if inner else ""
        raise DataError(f"no recordings in {', '.join(map(str, given))}{remedy}")
    return Recordings(
        common,
        utterances,
        ignored,
        [line for source in sources for line in source.lists]
        + [f"{name}: {counted(n, 'recording')} labelled by its folders" for name, n in by_folders.items()]
        + [note for name in (*by_folders, *layouts) if (note := note_on(name))]
        + [line for source in sources for line in source.missing],
    )


def _utterances(
    sources: Sequence[_Source], common: Path, words: Words, by_folders: Counter[str]
) -> list[Utterance]:
    """Return the recordings of all sources, each once, sorted by name.

    A recording is its path, with the links of its folders resolved, so that one that is reached in two ways
    is one. Links of files are recordings of their own: a cache that keeps equal files as links to one file
    counts as what it stands for. How many are labelled by the folders of which data set, `by_folders` counts.
    """
    root = os.path.join(common, "")
    utterances: dict[str, Utterance] = {}  # by real path
    real_folders: dict[str, str] = {}
    for source in sources:
        listed: set[str] = set()
        for path, trial in _progress(source.files):
            utterance, real = _utterance(path, root, trial, words, by_folders), _real_path(path, real_folders)
            if trial and real in listed:
                raise DataError(f"{trial.name} is listed twice, once under another name: {path}")
            listed.add(real)
            known = utterances.setdefault(real, utterance)
            if known.label and utterance.label and known.label != utterance.label:
                raise DataError(f"{path} and {known.path} are the same file, labelled both real and fake")
            if known is not utterance:
                first, second = (
                    (utterance, known) if utterance.label and not known.label else (known, utterance)
                )
                columns = first.columns
                if not second.columns.items() <= columns.items():
                    columns = {**second.columns, **columns}
                utterances[real] = replace(first, trial=first.trial or second.trial, columns=columns)
    return _by_distinct_names(utterances.values())


def _by_distinct_names(utterances: Iterable[Utterance]) -> list[Utterance]:
    """Return recordings sorted by names, each of which is a different one even where letters are composed."""
    named: dict[str, Utterance] = {}
    composed = ((unicodedata.normalize("NFC", utterance.name), utterance) for utterance in utterances)
    for name, utterance in sorted(composed, key=lambda pair: pair[0] != pair[1].name):
        if name in named:  # a file system can hold both forms
            name = utterance.name
        # A backslash where the other's escapes something; or paths like "link/../a.wav" and "a.wav".
        while name in named:
            name = name.replace("\\", "\\\\") if "\\" in name else f"_/{name}"
        named[name] = utterance if name == utterance.name else replace(utterance, name=name)
    return [named[name] for name in sorted(named)]


def find_splits(path: Path) -> Path | None:
    """Find the folder with Fake-or-Real's three splits: the given one, or one at most two levels deeper.

    Args:
        path: A folder, or an archive of one.

    Returns:
        The folder that contains SPLITS; None if there is none.

    Raises:
        DataError: If the path does not exist, or there is more than one such folder.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    folder = _unpacked(path)
    for pattern in ("", "*", "*/*"):
        found = [f for f in matches(folder, pattern) if all((f / name).is_dir() for name in SPLITS)]
        if len(found) > 1:
            raise DataError(
                f"{path} contains several data sets: {', '.join(map(str, found))}; name those that you want"
            )
        if found:
            return found[0]
    return None


def find_phases(path: Path, reading: Reading = USUAL) -> set[str]:
    """Return the phases (train, dev, eval) for which a folder, or an archive of one, has a list of labels."""
    folder = _unpacked(path)
    return set(phases_of(published_lists(folder, "all", [], reading)).values()) if folder.is_dir() else set()


def _unpacked(path: Path) -> Path:
    return archives.extract(path) if archives.is_archive(path) else path


def _common_root(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError as error:  # on Windows, they are on different drives
        raise DataError(
            "the given paths are on different drives: give those of one drive at a time"
        ) from error


def _real_path(path: str, real_folders: dict[str, str]) -> str:
    """Return a path with its folder's links resolved, which takes so long that `real_folders` keeps it."""
    folder, name = os.path.split(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    real = os.path.join(real_folders[folder], name)
    return path if path == real else real  # mostly they are equal, and then share one string


def _utterance(
    path: str, root: str, trial: Trial | None, words: Words, by_folders: Counter[str]
) -> Utterance:
    """Return the utterance of a file below `root`, which ends in a separator."""
    name = os.path.normpath(path)
    name = name.removeprefix(root) if name.startswith(root) else os.path.relpath(path, root)
    text = writable(name.replace(os.sep, "/"))
    if trial:
        return Utterance(path, text, trial.label, trial.name, trial.columns)
    *folders, last = name.split(os.sep)
    labels, columns = words.labels_of(folders), _NO_COLUMNS
    # The root's own name counts here, since it is often the published one.
    if found := matching("/".join([os.path.basename(root[:-1]), *folders, last])):
        label, columns = found.label, found.columns
        by_folders[found.data_set.name] += 1
        labels = words.labels_of(folders, only_first=True) | {label}
    if len(labels) > 1:
        raise DataError(f"{path} is below both a real and a fake folder, so its label is ambiguous")
    return Utterance(path, text, labels.pop() if labels else "", columns=columns)


def _read(path: Path, root: Path | None, phase: str | None, reading: Reading) -> _Source:
    """Read one of the given paths."""
    given, path = path, _unpacked(path)
    if path.is_dir():
        notes: list[str] = []
        lists = published_lists(path, phase, notes, reading)
        archive = given if path != given and not root else None
        source = _read_lists(lists, root, phase, path, reading, archive) if lists else _read_folder(path)
        source.lists += notes
    elif path.suffix.lower() in LABEL_SUFFIXES or path.name in KALDI:
        source = _read_lists([path], root, phase, path.parent, reading)
    elif archives.other_archives([path.name]):
        raise DataError(
            f"{path}: archives of this kind are not read (only {', '.join(archives.SUFFIXES)}): unpack it "
            "yourself, and name its folder"
        )
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
    """Yield the files below a folder; links that lead back to a parent folder are not followed."""
    above += (os.path.realpath(folder),)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
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


def _read_lists(
    lists: Sequence[Path],
    root: Path | None,
    phase: str | None,
    above: Path,
    reading: Reading,
    archive: Path | None = None,
) -> _Source:
    """Read lists of labels and find their recordings.

    Args:
        lists: The lists.
        root: The folder of their recordings, if the user named it.
        phase: As in `find_recordings`.
        above: The folder that was given, or the list's own.
        reading: As in `find_recordings`.
        archive: The archive that was unpacked to `above`, if it was one. Its lists are not trusted: they may
            not name other files of this machine.
    """
    source = _Source(above, [])
    homes: set[Path] = set()
    for path in lists:
        labels = read_labels(path, phase, reading)
        if archive:  # this comes before any search, which would reveal what other files there are
            for trial in labels.trials:
                if leads_out(name := trial.name, path.parent, above):
                    raise DataError(f"{archive} is refused: its list of labels names {name}, outside it")
        folders = audio_folders(path, labels, root, above, inside=archive is not None)
        found_in: Counter[Path] = Counter()
        for trial in _progress(labels.trials):
            match folders.locate(trial.name):
                case []:
                    source.missing.append(f"{path}, row {trial.row}: there is no recording {trial.name}")
                    source.files.append((os.path.join(folders.most[0], trial.name), trial))
                case [(home, file)]:
                    source.files.append((file, trial))
                    found_in[home] += 1
                case several:
                    places = ", ".join(str(file) for _, file in several)
                    raise DataError(
                        f"{path}, row {trial.row}: {trial.name} is in several places ({places}); "
                        "choose one with --root, if the command has that option"
                    )
        homes.update(found_in)
        found = f"{found_in.total()} of them in {_some(list(found_in))}" if found_in else "none of them found"
        if folders.left_out:
            found += f"; not used, since that seems to be another data set: {_some(folders.left_out)}"
        source.lists.append(f"{labels.describe()}, {found}")
        source.layouts.append(labels.layout)
        source.has_phases |= bool(labels.phase or phases_of([path]))
    if not homes:
        _, first = source.files[0]
        assert first is not None  # since each file of a list has its trial
        raise DataError(
            f"{lists[0]}: none of its recordings are in {root or above} (the first is {first.name}); write "
            "paths relative to the list's folder, or name the recordings' folder with --root, if the command "
            "has that option"
        )
    source.root = _common_root(sorted(homes))
    return source


def _some(folders: Sequence[Path]) -> str:
    """Return folders as text: all of a few, or the first of many."""
    left = len(folders) - MOST_PROBLEMS
    return ", ".join(map(str, folders[:MOST_PROBLEMS])) + (f" and {left} more" if left > 0 else "")
