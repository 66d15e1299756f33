"""The training, validation and testing splits of one or several data sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from antispoofing.data.labels import USUAL, Reading
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import Recordings, Utterance, find_phases, find_recordings, find_splits
from antispoofing.errors import DataError
from antispoofing.text import counted
from data_utils import LABELS

PHASE_OF = {"training": "train", "validation": "dev", "testing": "eval"}  # ASVspoof's names
EACH = "recording"  # instead of a column: hold out single recordings, whatever they share with others
FRACTION = 0.2  # the default fraction of each class to hold out


@dataclass
class Splits:
    """The splits of all data sets together, except that each keeps its own testing split.

    Attributes:
        training: The recordings to train on.
        validation: The recordings that the weights are chosen by.
        sets: For each training recording, the number of its data set.
        testing: The recordings to test on, by the name of their data set, if it has a testing split.
        notes: Notes for the user, on lists of labels and on missing recordings.
    """

    training: list[Utterance] = field(default_factory=list)
    validation: list[Utterance] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    testing: dict[str, Recordings] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def groups(self) -> list[tuple[int, str]]:
        """Return the data set and the class of each training recording, for balanced sampling."""
        return [(number, u.label) for number, u in zip(self.sets, self.training, strict=True)]


def find_training_data(
    paths: Sequence[Path],
    held_out_by: str | None = None,
    fraction: float = FRACTION,
    seed: int = 0,
    reading: Reading = USUAL,
) -> Splits:
    """Find the splits of each given path: Fake-or-Real's three folders, or lists for train, dev and eval.

    If a data set has no splits, a part of it is held out for validation, and there is no testing split.

    Args:
        paths: Folders, lists of labels or archives, as in `recordings.find_recordings`.
        held_out_by: How to hold out that part: by a column of the lists of labels (speaker, attack, ...),
            where recordings with the same value are held out together or not at all; or by EACH.
        fraction: The fraction of each class to hold out, as in `hold_out`.
        seed: The seed of the random choice.
        reading: What the user says of labels and lists.

    Raises:
        DataError: If a path cannot be used; if a data set has no validation split and `held_out_by` is None,
            or if all have one and it is given; or if a split lacks a class.
    """
    splits = Splits()
    has_held_out = False
    for number, (path, name) in enumerate(zip(paths, _names(paths), strict=True)):
        own = _published_splits(path, splits.notes, reading)
        if own is None:
            own = _held_out(path, held_out_by, fraction, seed, splits.notes, reading)
            has_held_out = True
        for split, found in own.items():
            _check_classes(f"{path}: {split}", found)
        for split, found in own.items():
            shared = shared_values(own["training"].utterances, found.utterances, "speaker")
            if shared and split != "training":  # then it is no test of unknown speakers
                splits.notes.append(
                    f"AUDIT: {path}: training and {split} have {counted(len(shared), 'speaker')} in common"
                )
        prefix = f"{name}/" if len(paths) > 1 else ""
        for split, utterances in (("training", splits.training), ("validation", splits.validation)):
            utterances += [replace(u, name=prefix + u.name) for u in own[split].utterances]
        splits.sets += [number] * len(own["training"].utterances)
        if "testing" in own:
            splits.testing[name] = own["testing"]
    if held_out_by is not None and not has_held_out:
        raise DataError("leave out --validation-split: the data already come with a validation split")
    return splits


def hold_out(
    utterances: Sequence[Utterance], by: str, fraction: float, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Split recordings into those to train on and those held out, with no value of a column in both.

    Args:
        utterances: Labelled recordings.
        by: The column, or EACH. Recordings without a value there (bona fide ones have no attack) are held out
            one by one.
        fraction: The fraction of each class to hold out, at most a half. It is rounded to 1/k, where k is at
            most the number of values of either class. Since recordings with the same value stay together, the
            fraction held out is only about 1/k.
        seed: The seed of the random choice.

    Returns:
        The recordings to train on, and those held out.

    Raises:
        DataError: If no recording has such a column, or a class cannot be in both parts.
    """
    columns = sorted({name for u in utterances for name in u.columns})
    if by != EACH and by not in columns:
        known = ", ".join([*columns, EACH])
        raise DataError(f"--validation-split {by}: no list of labels has that column; choose from {known}")
    numbers: dict[object, int] = {}
    values = [u.columns.get(by, "") or i for i, u in enumerate(utterances)]
    groups = [numbers.setdefault(value, len(numbers)) for value in values]
    for part in _folds([u.label for u in utterances], groups, fraction, seed):
        training, held_out = ([utterances[i] for i in indices] for indices in part)
        if all({u.label for u in side} == set(LABELS) for side in (training, held_out)):
            return training, held_out
    remedy = "add recordings" if by == EACH else f"choose another column, or {EACH}"
    raise DataError(
        f"--validation-split {by}: too few values to have real and fake recordings on both sides; {remedy}"
    )


def _folds(
    labels: Sequence[str], groups: Sequence[int], fraction: float, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ways to split recordings, each as the indices of those to train on and of those held out.

    About the same fraction of both classes is held out, and groups stay whole. There is no way if a class is
    in one group only, which cannot be on both sides.
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split  # takes half a second

    n_groups = Counter(label for label, _ in set(zip(labels, groups, strict=True)))  # by class
    n_folds = min(max(2, round(1 / fraction)), *(n_groups[label] for label in LABELS))
    if n_folds < 2:
        return []
    indices = np.arange(len(labels))
    if len(set(groups)) == len(groups):
        parts = train_test_split(indices, test_size=1 / n_folds, random_state=seed, stratify=labels)
        return [(np.sort(parts[0]), np.sort(parts[1]))]
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = list(splitter.split(indices, labels, groups))
    # Whatever the seed, the first fold has the group whose classes are least balanced; so they are shuffled.
    return [folds[i] for i in np.random.default_rng(seed).permutation(n_folds)]


def shared_values(a: Sequence[Utterance], b: Sequence[Utterance], column: str) -> set[str]:
    """Return the values of a column of the lists of labels (speaker, ...) that two splits have in common."""
    seen, others = ({u.columns.get(column, "") for u in split} for split in (a, b))
    return (seen & others) - {""}


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each data set: the part of its path that others do not share, without slashes."""
    if len(paths) == 1:
        return [paths[0].name]
    full = [os.path.abspath(path) for path in paths]
    try:
        common = os.path.commonpath(full)
    except ValueError:  # on Windows, they may be on different drives
        names = [path.replace(":", "") for path in full]
    else:
        if common in full:  # one lies in another
            common = os.path.split(common)[0]
        names = [os.path.relpath(path, common) for path in full]
    names = [name.replace(os.sep, "-") for name in names]
    if len(set(names)) < len(names):
        raise DataError("the same data set is named twice: name it once")
    return names


def _published_splits(path: Path, notes: list[str], reading: Reading) -> dict[str, Recordings] | None:
    """Return the splits that a data set comes with, or None; notes for the user are added to `notes`."""
    folder = find_splits(path)
    if folder is not None:
        return {name: find_recordings([folder / name], reading=reading) for name in SPLITS}
    phases = find_phases(path, reading)
    if not phases >= {PHASE_OF["training"], PHASE_OF["validation"]}:
        return None
    found = {}
    for name, phase in PHASE_OF.items():
        if phase not in phases:
            continue
        try:
            found[name] = find_recordings([path], phase=phase, reading=reading)
        except DataError as error:
            if name != "testing":
                raise
            notes.append(f"nothing to test on: {error}")  # training does not need the testing split
            continue
        notes += found[name].shown_notes()
    return found


def _check_classes(where: str, found: Recordings) -> None:
    """Raise a DataError unless all recordings are labelled and both classes are present."""
    if {u.label for u in found.utterances} != set(LABELS):
        raise DataError(
            f"{where} needs both real and fake recordings, all with labels; if a list holds the labels, "
            "name that list with --data"
        )


def _held_out(
    path: Path, by: str | None, fraction: float, seed: int, notes: list[str], reading: Reading
) -> dict[str, Recordings]:
    """Return training and validation splits of a data set that has none; notes are added to `notes`."""
    if by is None:
        raise DataError(
            f"{path} has neither the folders {', '.join(SPLITS)} nor ASVspoof's phases: to hold out a part "
            "for validation, use --validation-split with a column of the list (speaker, attack, ...) or "
            f"{EACH}"
        )
    found = find_recordings([path], reading=reading)
    notes += found.shown_notes()
    _check_classes(str(path), found)
    parts = hold_out(found.utterances, by, fraction, seed)
    names = ("training", "validation")
    return {name: replace(found, utterances=part) for name, part in zip(names, parts, strict=True)}
