"""Write and read files of scores in the field's formats.

In all of them, higher = more likely real.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from antispoofing.data.labels import (
    LABEL_COLUMNS,
    NAME_COLUMNS,
    SCORE_COLUMNS,
    LabelFile,
    Trial,
    distinct_rows,
    other_columns,
    read_list,
    refuse,
)
from antispoofing.data.recordings import Utterance
from antispoofing.data.words import KNOWN
from antispoofing.errors import DataError
from antispoofing.scoring.scored import Scored
from antispoofing.text import writable
from data_utils import AUDIO_SUFFIXES, BONAFIDE

# Each format's file name, delimiter and header.
FORMATS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "asvspoof": ("scores.txt", " ", ()),  # ASVspoof 2019 and 2021: UTT SCORE
    "asvspoof5": ("scores.tsv", "\t", ("filename", "cm-score")),  # ASVspoof 5's evaluation package
    "arena": ("scores_arena.txt", " ", ()),  # the Speech DF Arena toolkit, with the file names of its CSV
}

# The columns of scores.csv, which those of a list of labels follow.
DECISIONS = ("verdict", "margin", "rule")
HEARD = ("heard_seconds", "note")
SCORES_CSV_HEADER = ("path", "label", "score", "spoof_logit", *DECISIONS, *HEARD)
LARGEST = 1e100  # no score may be this large, since sums and products of such scores could overflow
NO_SCORE = "no score"  # the reason given in failures.csv for a trial of the keys without one


@dataclass(frozen=True, slots=True)
class FiledScore:
    """A row of a score file.

    Attributes:
        name: The recording, as the file names it.
        score: Higher = more likely real; NaN if there is none.
        spoof_logit: The detector's spoof logit; NaN if there is none.
        label: "bonafide", "spoof", or "" if the file does not say.
        columns: The row's other columns by name.
    """

    name: str
    score: float
    spoof_logit: float = math.nan
    label: str = ""
    columns: dict[str, str] = field(default_factory=dict)


def names_in(format_: str, utterances: Sequence[Utterance]) -> list[str]:
    """Return the recordings' names in a format: those of their list of labels, else paths or utterance ids.

    Args:
        format_: One of FORMATS.
        utterances: The recordings.

    Raises:
        DataError: If two recordings would have the same name, or if a name has a space and the format does
            not allow that.
    """
    if format_ == "arena":
        names = [writable(u.trial if Path(u.trial).is_absolute() else str(Path(u.path))) for u in utterances]
    else:
        names = [utterance_id(u.trial) if u.trial else _stem(u.name) for u in utterances]
        if blank := next((name for name in names if re.search(r"\s", name)), None):
            raise DataError(
                f"--scores-as {format_}: names cannot contain spaces, but {blank!r} does: rename it, or "
                "choose arena"
            )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"--scores-as {format_}: {times} recordings would have the same name, {name}: rename them, or "
            "choose another format"
        )
    return names


def write_scores(folder: Path, format_: str, scored: Scored) -> Path:
    """Write the scores of the recordings that have one, and return the file's path.

    Args:
        folder: Where to write the file.
        format_: One of FORMATS, which also decides the file's name.
        scored: The recordings and their scores.

    Raises:
        DataError: If the format cannot hold the recordings' names.
        OSError: If the file cannot be written.
    """
    file_name, delimiter, header = FORMATS[format_]
    rows = zip(names_in(format_, scored.utterances), scored.scores, strict=True)
    with open(folder / file_name, "w", newline="", encoding="utf-8") as file:
        if header:
            file.write(delimiter.join(header) + "\n")
        for name, score in rows:
            if np.isfinite(score):
                file.write(f"{_quoted(name)}{delimiter}{float(score)!r}\n")
    return folder / file_name


def _quoted(name: str) -> str:
    """Quote a name that contains a quote or anything that sets columns or rows apart, in whatever format."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[\s,;"]', name) else name


def utterance_id(name: str) -> str:
    """Strip the folder and the audio suffix from a file name: "flac/LA_E_1.flac" -> "LA_E_1"."""
    return _stem(_with_slashes(name))


def _stem(name: str) -> str:
    last = PurePosixPath(name)
    return last.stem if last.suffix.lower() in AUDIO_SUFFIXES else last.name


def read_scores(path: Path) -> list[FiledScore]:
    """Read a score file in one of FORMATS, ASVspoof 2019's UTT ATTACK KEY SCORE, or any CSV or TSV.

    A CSV or TSV file, such as this project's scores.csv, needs a header with a column of recordings (path,
    filename, ...) and one called score or cm-score; a column label (or key) is read too, and the others kept.

    Raises:
        DataError: If the file has none of these formats, or if a row has the wrong number of columns, a score
            that is not a number, an unknown label, or a recording that an earlier row has. The message has
            a line for each such row.
        OSError: If the file cannot be read.
    """
    table = read_list(path)
    if table.header:
        columns = [name.lower() for name in table.header]
        places = [table.column(names) for names in (NAME_COLUMNS, SCORE_COLUMNS, LABEL_COLUMNS)]
    else:
        width = len(table.rows[0][1])
        columns = {2: ["name", "score"], 4: ["name", "attack", "label", "score"]}.get(width, [])
        places = [columns.index(name) if name in columns else None for name in ("name", "score", "label")]
    name_at, score_at, label_at = places
    spoof_at = columns.index("spoof_logit") if "spoof_logit" in columns else None
    if name_at is None or score_at is None:
        raise DataError(
            f"{path}: not a score file in a known format. It needs a header with the columns path and score, "
            "or the columns of ASVspoof's UTT SCORE or UTT ATTACK KEY SCORE"
        )
    scores: list[FiledScore] = []
    problems: list[str] = []
    equal: dict[tuple, dict[str, str]] = {}  # equal rows share one dictionary
    for row, cells in distinct_rows(path, table, len(columns), name_at, problems):
        text, word = cells[score_at], cells[label_at] if label_at is not None else ""
        score, label = _number(text), KNOWN.label(word) or ""
        if score is None:
            problems.append(f"{path}, row {row}: the score {text!r} is not a usable number")
        elif word and not label:
            problems.append(f"{path}, row {row}: unknown label {word!r}")
        else:
            spoof_logit = None if spoof_at is None else _number(cells[spoof_at])
            rest = other_columns(columns, cells, [*places, spoof_at], label)
            rest = equal.setdefault(tuple(rest.items()), rest)
            scores.append(
                FiledScore(
                    cells[name_at], score, math.nan if spoof_logit is None else spoof_logit, label, rest
                )
            )
    refuse(problems)
    return scores


def _number(text: str) -> float | None:
    """Return the number, NaN for an empty cell, or None if it is not a usable number."""
    if "_" in text or not text.isascii():  # Python would read these as numbers
        return None
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if abs(number) < LARGEST or not text else None


def with_keys(scores: Sequence[FiledScore], keys: LabelFile) -> tuple[Scored, int]:
    """Look up the score of each trial in a list of labels.

    A score belongs to a trial if both have the same name; or else the same but for the form of letters and
    separators, the same ending of a path, or the same utterance id, provided that no other trial and no other
    score has that. A trial without a score counts as failed.

    Args:
        scores: The scores, each for a different recording.
        keys: The list of labels.

    Returns:
        The trials with their scores and the columns of both files; and how many scores belong to none of
        them.

    Raises:
        DataError: If no trial has a score.
    """
    by_name = {score.name: score for score in scores}
    names = [trial.name if trial.name in by_name else None for trial in keys.trials]
    for key in (_normal, _ending(keys.trials), _id):
        if None not in names:
            break
        lookup = _Lookup(by_name, keys.trials, key)
        names = [n or lookup.find(trial.name) for n, trial in zip(names, keys.trials, strict=True)]
    if not any(names):
        first = f"the first score is for {scores[0].name}" if scores else "there are no scores"
        raise DataError(
            f"{keys.path}: none of its trials has a score; its first trial is {keys.trials[0].name}, {first}"
        )
    missing = FiledScore("", math.nan)
    found = [missing if name is None else by_name[name] for name in names]
    utterances = [
        Utterance(trial.name, trial.name, trial.label, trial.name, _merged(score.columns, trial.columns))
        for trial, score in zip(keys.trials, found, strict=True)
    ]
    return as_scored(utterances, found), len(scores) - len({name for name in names if name is not None})


class _Lookup:
    """Finds names by what they have in common with others, if only one score and one trial have it."""

    def __init__(self, names: Iterable[str], trials: Sequence[Trial], key: Callable[[str], str]):
        self.key = key
        self.trials = Counter(key(trial.name) for trial in trials)
        self.names: dict[str, list[str]] = {}
        for name in names:
            self.names.setdefault(key(name), []).append(name)

    def find(self, name: str) -> str | None:
        """Return the name of the score that belongs to a trial; None if there is none, or several."""
        found = self.names.get(key := self.key(name), [])
        return found[0] if len(found) == self.trials[key] == 1 else None


def _normal(name: str) -> str:
    """Return a name with composed letters, slashes for the backslashes of Windows, and no "./"."""
    return os.path.normpath(unicodedata.normalize("NFC", _with_slashes(name))).replace(os.sep, "/")


def _ending(trials: Sequence[Trial]) -> Callable[[str], str]:
    """Return a key for paths that begin elsewhere: as many last parts as the trials have at most."""
    depth = max((len(PurePosixPath(_normal(trial.name)).parts) for trial in trials), default=1)
    return lambda name: "/".join(PurePosixPath(_normal(name)).parts[-depth:])


def _id(name: str) -> str:
    return utterance_id(unicodedata.normalize("NFC", name))


def _with_slashes(name: str) -> str:
    """Replace backslashes by slashes, but for those of `text.writable`, which stand for a byte."""
    return re.sub(r"\\(?!x[0-9a-f]{2})", "/", name)


def _merged(ours: dict[str, str], theirs: dict[str, str]) -> dict[str, str]:
    """Return the columns of both; the second's come first in case of doubt."""
    return theirs if not ours else ours | theirs  # equal rows share one dictionary


def as_scored(utterances: Sequence[Utterance], scores: Sequence[FiledScore]) -> Scored:
    """Combine recordings with their scores from a file, in the same order."""
    logits = np.array([(score.spoof_logit, score.score) for score in scores], dtype=float).reshape(-1, 2)
    return Scored(
        utterances, logits, {int(i): NO_SCORE for i in np.flatnonzero(np.isnan(logits[:, BONAFIDE]))}
    )
