"""What to train on, what to choose by and what to test on: the splits of one or several data sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import Recordings, Utterance, find_phases, find_recordings, find_splits
from antispoofing.errors import DataError
from data_utils import LABELS

PHASE_OF = {"training": "train", "validation": "dev", "testing": "eval"}  # ASVspoof's names
EACH = "recording"  # to hold out recordings, whatever they have in common with others
FRACTION = 0.2  # held out of each class


@dataclass
class Splits:
    """The splits of all data sets together; only those to test on are kept apart.

    Attributes:
        training, validation: the recordings.
        sets: for each of training, the number of the data set that it is of.
        testing: by the data set's name, of those that have such a split.
        notes: what is to be said of lists of labels, and of what is not there.
    """

    training: list[Utterance] = field(default_factory=list)
    validation: list[Utterance] = field(default_factory=list)
    sets: list[int] = field(default_factory=list)
    testing: dict[str, Recordings] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def groups(self) -> list[tuple[int, str]]:
        """Data set and class of each of training, for balanced sampling."""
        return [(number, u.label) for number, u in zip(self.sets, self.training, strict=True)]


def find_training_data(
    paths: Sequence[Path], held_out_by: str | None = None, fraction: float = FRACTION, seed: int = 0
) -> Splits:
    """The splits of each given path: Fake-or-Real's three folders, or ASVspoof's train, dev and eval.

    Of a data set without any, a part is held out for validation, and there is nothing to test on.

    Args:
        paths: folders, lists of labels or archives, as for `recordings.find_recordings`.
        held_out_by: a column of the lists of labels (speaker, attack, ...): what has one value there is
            held out, or not, as a whole. Or EACH.
        fraction: of such a set that is held out, of each class, as for `hold_out`.
        seed: of what that is.

    Raises:
        DataError: a path is not what it should be; a set has no validation split, and nothing is to be held
            out, or all have, and something is; a split lacks a class.
    """
    splits = Splits()
    has_held_out = False
    for number, (path, name) in enumerate(zip(paths, _names(paths), strict=True)):
        of_set = _published_splits(path, splits.notes)
        if of_set is None:
            of_set = _held_out(path, held_out_by, fraction, seed, splits.notes)
            has_held_out = True
        for split, found in of_set.items():
            _check_classes(f"{path}: {split}", found)
        for split, found in of_set.items():
            shared = shared_values(of_set["training"].utterances, found.utterances, "speaker")
            if shared and split != "training":  # who is heard in training is no test of a stranger
                splits.notes.append(f"AUDIT: {path}: {len(shared)} speakers are in training and in {split}")
        prefix = f"{name}/" if len(paths) > 1 else ""
        for split, known in (("training", splits.training), ("validation", splits.validation)):
            known += [replace(u, name=prefix + u.name) for u in of_set[split].utterances]
        splits.sets += [number] * len(of_set["training"].utterances)
        if "testing" in of_set:
            splits.testing[name] = of_set["testing"]
    if held_out_by is not None and not has_held_out:
        raise DataError("--validation-split: the data have validation splits of their own")
    return splits


def hold_out(
    utterances: Sequence[Utterance], by: str, fraction: float, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Part recordings into those to train on and those held out, no value of a column in both.

    Args:
        utterances: labelled ones.
        by: the column; what has no value there (bona fide recordings have no attack) goes by itself. Or EACH.
        fraction: of each class that is held out, up to a half. It is rounded to 1/k, and k is never more than
            either class has values. Values are held out as a whole, so the share is only about 1/k.
        seed: of which.

    Raises:
        DataError: no recording has such a column, or a class is in one part only.
    """
    columns = sorted({name for u in utterances for name in u.columns})
    if by != EACH and by not in columns:
        there = ", ".join([*columns, EACH])
        raise DataError(f"--validation-split {by}: nothing tells that of these recordings; there is {there}")
    numbers: dict[object, int] = {}
    values = [u.columns.get(by, "") or i for i, u in enumerate(utterances)]
    groups = [numbers.setdefault(value, len(numbers)) for value in values]
    for part in _folds([u.label for u in utterances], groups, fraction, seed):
        training, held_out = ([utterances[i] for i in indices] for indices in part)
        if all({u.label for u in side} == set(LABELS) for side in (training, held_out)):
            return training, held_out
    raise DataError(f"--validation-split {by}: too few values to have real and fake on both sides")


def _folds(
    labels: Sequence[str], groups: Sequence[int], fraction: float, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ways to part recordings, each as the indices of those to train on and of those held out.

    About the same share of both classes is held out, and groups stay whole. A class of a single group cannot
    be on both sides: then there is no way.
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split  # half a second: only here

    of_class = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    n_folds = min(max(2, round(1 / fraction)), *(of_class[label] for label in LABELS))
    if n_folds < 2:
        return []
    indices = np.arange(len(labels))
    if len(set(groups)) == len(groups):
        parts = train_test_split(indices, test_size=1 / n_folds, random_state=seed, stratify=labels)
        return [(np.sort(parts[0]), np.sort(parts[1]))]
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = list(splitter.split(indices, labels, groups))
    # Whatever the seed, the first fold has the group whose classes are least balanced.
    return [folds[i] for i in np.random.default_rng(seed).permutation(n_folds)]


def shared_values(a: Sequence[Utterance], b: Sequence[Utterance], column: str) -> set[str]:
    """What two splits have in common of a column of the lists of labels (speaker, ...)."""
    seen, others = ({u.columns.get(column, "") for u in split} for split in (a, b))
    return (seen & others) - {""}


def _names(paths: Sequence[Path]) -> list[str]:
    """What the data sets are called: what their paths do not have in common, without slashes."""
    if len(paths) == 1:
        return [paths[0].name]
    full = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath(full)
    if common in full:  # one lies in another
        common = str(Path(common).parent)
    names = [os.path.relpath(path, common).replace(os.sep, "-") for path in full]
    if len(set(names)) < len(names):
        raise DataError("the same data set is named twice")
    return names


def _published_splits(path: Path, notes: list[str]) -> dict[str, Recordings] | None:
    """The splits that a set has; None where it has none. What is to be said of them is added to the notes."""
    folder = find_splits(path)
    if folder is not None:
        return {name: find_recordings([folder / name]) for name in SPLITS}
    phases = find_phases(path)
    if not phases >= {PHASE_OF["training"], PHASE_OF["validation"]}:
        return None
    found = {}
    for name, phase in PHASE_OF.items():
        if phase not in phases:
            continue
        try:
            found[name] = find_recordings([path], phase=phase)
        except DataError as error:
            if name != "testing":
                raise
            notes.append(f"nothing to test on: {error}")  # those who train need not have it
            continue
        notes += found[name].shown_notes()
    return found


def _check_classes(where: str, found: Recordings) -> None:
    """Raise a DataError unless all recordings are labelled, and both classes there."""
    if {u.label for u in found.utterances} != set(LABELS):
        raise DataError(f"{where} must hold real and fake recordings, and only such")


def _held_out(
    path: Path, by: str | None, fraction: float, seed: int, notes: list[str]
) -> dict[str, Recordings]:
    """Training and validation of a set without splits. What is to be said of it is added to the notes."""
    if by is None:
        raise DataError(
            f"{path} has no {', '.join(SPLITS)}, nor ASVspoof's phases: to hold out a part for "
            f"validation, say by what with --validation-split: speaker, attack, ..., or {EACH}"
        )
    found = find_recordings([path])
    notes += found.shown_notes()
    _check_classes(str(path), found)
    parts = hold_out(found.utterances, by, fraction, seed)
    names = ("training", "validation")
    return {name: replace(found, utterances=part) for name, part in zip(names, parts, strict=True)}
