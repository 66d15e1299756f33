"""Files of scores, written and read in the field's formats.

A score is higher = more likely real, as in all these formats.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from antispoofing.data.labels import (
    LABEL_COLUMNS,
    LABEL_WORDS,
    NAME_COLUMNS,
    SCORE_COLUMNS,
    LabelFile,
    Trial,
    distinct_rows,
    other_columns,
    plain,
    read_table,
    refuse,
)
from antispoofing.data.recordings import Utterance
from antispoofing.errors import DataError
from antispoofing.scoring.scored import Scored
from data_utils import AUDIO_SUFFIXES, BONAFIDE

# Format: the file's name, what sets its columns apart, its header.
FORMATS = {
    "asvspoof": ("scores.txt", " ", ()),  # UTT SCORE, of ASVspoof 2019 and 2021
    "asvspoof5": ("scores.tsv", "\t", ("filename", "cm-score")),  # of its evaluation package
    "arena": ("scores_arena.txt", " ", ()),  # of the Speech DF Arena toolkit: the file names of its CSV
}

SCORES_CSV_HEADER = ("path", "label", "score", "spoof_logit", "verdict")  # then what a list of labels tells
LARGEST = 1e100  # a score; sums and differences of larger ones are no numbers any more
NO_SCORE = "no score"  # why a trial of the keys fails


@dataclass(frozen=True)
class FiledScore:
    """One row: the recording as the file names it, score and spoof logit (NaN: none), what else it tells."""

    name: str
    score: float
    spoof_logit: float = math.nan
    label: str = ""
    columns: dict[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------- writing


def names_in(format_: str, utterances: Sequence[Utterance]) -> list[str]:
    """What a format calls the recordings: as their list of labels does, else by path or utterance id.

    Raises:
        DataError: two would have one name, or a name has a blank that the format cannot hold.
    """
    if format_ == "arena":
        names = [u.trial if Path(u.trial).is_absolute() else str(Path(u.path)) for u in utterances]
    else:
        names = [utterance_id(u.trial or u.name) for u in utterances]
        if blank := next((name for name in names if len(name.split()) != 1), None):
            raise DataError(f"--scores-as {format_}: its names hold no blanks, but {blank!r} does")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(f"--scores-as {format_}: {times} recordings would be called {name}")
    return names


def write_scores(folder: Path, format_: str, scored: Scored) -> Path:
    """Write the scores of what has one in one of FORMATS, higher = more likely real; the file."""
    file_name, delimiter, header = FORMATS[format_]
    rows = zip(names_in(format_, scored.utterances), scored.scores, strict=True)
    with open(folder / file_name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([header] if header else [])
        writer.writerows((name, repr(float(score))) for name, score in rows if np.isfinite(score))
    return folder / file_name


def utterance_id(name: str) -> str:
    """The file name without its folder and its audio suffix: "flac/LA_E_1.flac" -> "LA_E_1"."""
    last = PurePosixPath(name.replace("\\", "/"))
    return last.stem if last.suffix.lower() in AUDIO_SUFFIXES else last.name


# ------------------------------------------------------------------------- reading


def read_scores(path: Path) -> list[FiledScore]:
    """Any file of scores: the formats above, this project's scores.csv, ASVspoof 2019's UTT ATTACK KEY SCORE.

    A CSV or TSV file needs a header with a column of recordings (path, filename, ...) and one called score or
    cm-score; a column label (or key) and all others are kept.

    Raises:
        DataError: it is none of these; or a row has another number of columns, a score that is no number, an
            unknown label, or a recording that stands there before (a line for each such row).
    """
    table = read_table(path)
    if table.header:
        columns = [name.lower() for name in table.header]
        places = [table.column(names) for names in (NAME_COLUMNS, SCORE_COLUMNS, LABEL_COLUMNS)]
    else:
        width = len(table.rows[0][1])
        columns = {2: ["name", "score"], 4: ["name", "attack", "label", "score"]}.get(width, [])
        places = [columns.index(name) if name in columns else None for name in ("name", "score", "label")]
    name_at, score_at, label_at = places
    ours = {name: columns.index(name) for name in SCORES_CSV_HEADER[3:] if name in columns}
    if name_at is None or score_at is None:
        raise DataError(
            f"{path}: no known file of scores. It needs a header with columns path and score, or the two or "
            "four columns of ASVspoof's UTT SCORE and UTT ATTACK KEY SCORE"
        )
    scores: list[FiledScore] = []
    problems: list[str] = []
    for row, cells in distinct_rows(path, table, len(columns), name_at, problems):
        text, word = cells[score_at], cells[label_at] if label_at is not None else ""
        score, label = _number(text), LABEL_WORDS.get(plain(word), "")
        if score is None:
            problems.append(f"{path}, row {row}: the score {text!r} is not a number to work with")
        elif word and not label:
            problems.append(f"{path}, row {row}: unknown label {word!r}")
        else:
            spoof_logit = _number(cells[ours["spoof_logit"]]) if "spoof_logit" in ours else math.nan
            told = other_columns(columns, cells, [*places, *ours.values()], label)
            scores.append(
                FiledScore(
                    cells[name_at], score, math.nan if spoof_logit is None else spoof_logit, label, told
                )
            )
    refuse(problems)
    return scores


def _number(text: str) -> float | None:
    """NaN where there is none (of a recording without a score); None where it is no number to work with."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if abs(number) < LARGEST or not text else None


def with_keys(scores: Sequence[FiledScore], keys: LabelFile) -> tuple[Scored, int]:
    """The trials of a list of labels with their scores, and how many scores are of no such trial.

    A trial's score is found by the name as it stands, else by the utterance id, where only one trial and one
    score have it. A trial without a score fails.

    Raises:
        DataError: no trial has a score.
    """
    by_name = {score.name: score for score in scores}
    trials_of = Counter(utterance_id(trial.name) for trial in keys.trials)
    by_id: dict[str, list[str]] = {}
    for score in scores:
        by_id.setdefault(utterance_id(score.name), []).append(score.name)

    def name_of(trial: Trial) -> str | None:
        if trial.name in by_name:
            return trial.name
        id_ = utterance_id(trial.name)
        names = by_id.get(id_, [])
        return names[0] if len(names) == trials_of[id_] == 1 else None

    names = [name_of(trial) for trial in keys.trials]
    if not any(names):
        raise DataError(
            f"{keys.path}: none of its trials has a score; the first is {keys.trials[0].name}, the first "
            f"score is of {scores[0].name if scores else 'nothing'}"
        )
    none = FiledScore("", math.nan)
    found = [none if name is None else by_name[name] for name in names]
    utterances = [Utterance(t.name, t.name, t.label, t.name, t.columns) for t in keys.trials]
    return as_scored(utterances, found), len(scores) - len({name for name in names if name is not None})


def as_scored(utterances: Sequence[Utterance], scores: Sequence[FiledScore]) -> Scored:
    """Take scores as if they were made here."""
    logits = np.array([(score.spoof_logit, score.score) for score in scores], dtype=float).reshape(-1, 2)
    return Scored(
        utterances, logits, {int(i): NO_SCORE for i in np.flatnonzero(np.isnan(logits[:, BONAFIDE]))}
    )
