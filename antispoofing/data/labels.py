"""Lists of labels as the field publishes them: ASVspoof's protocols and keys, CSV and TSV files.

Known are, by their columns,
  ASVspoof 2019   SPEAKER UTT ENVIRONMENT ATTACK LABEL
  ASVspoof 2021   LA and DF's trial_metadata.txt, with codec, attack, label, phase and more
  ASVspoof 5      ASVspoof5.*.tsv (set apart by blanks), and the evaluation package's filename, cm-label
  any CSV or TSV whose header names a column of recordings and one of labels (In-the-Wild's meta.csv,
  Speech DF Arena's file_name,label), or that has just these two columns and no header
  recordings alone, one a line, without labels (ASVspoof 2021's evaluation lists).

Labels are "bonafide" (real), "spoof" (fake) and, where a list has none, "".
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from antispoofing.errors import DataError
from data_utils import BONAFIDE, LABELS, SPOOF

# Words that label, of folders and in lists, in lower case without punctuation.
LABEL_WORDS = dict.fromkeys(("real", "bonafide", "genuine"), LABELS[BONAFIDE]) | dict.fromkeys(
    ("fake", "spoof"), LABELS[SPOOF]
)

# What columns may be called, in lower case without punctuation.
NAME_COLUMNS = ("path", "filename", "file", "filepath", "audio", "audiopath", "utterance", "utt", "trialanon")
LABEL_COLUMNS = ("label", "cmlabel", "key")
SCORE_COLUMNS = ("score", "cmscore")

EVAL = "eval"  # the phase of ASVspoof's headline figures
PHASES = ("train", "dev", "progress", "eval", "hidden", "all")

MOST_PROBLEMS = 10  # that are named, a line each

# Tables without a header, set apart by blanks, by their number of columns: what each column is.
_PROTOCOLS = {
    5: ("ASVspoof 2019", "speaker utterance environment attack label"),
    8: ("ASVspoof 2021 LA", "speaker utterance codec transmission attack label trim phase"),
    13: (
        "ASVspoof 2021 DF",
        "speaker utterance codec source attack label trim phase vocoder task team pair language",
    ),
    10: (
        "ASVspoof 5",
        "speaker utterance gender codec codec_quality codec_seed attack_tag attack label unused",
    ),
}


@dataclass(frozen=True, slots=True)  # of half a million
class Trial:
    """One row: its number in the file, the recording as the file names it, its label, what else it tells.

    `columns` holds what is known by column name, lower case (speaker, attack, codec, ...); of a bona
    fide recording no attack.
    """

    row: int
    name: str
    label: str
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFile:
    """What `read_labels` gives: which layout it is, the rows of the phase asked for, and how many there are.

    Attributes:
        phase: of the rows in `trials`; "" where the layout knows no phases.
        n_rows: in the whole file, of all phases.
    """

    path: Path
    layout: str
    trials: list[Trial]
    phase: str
    n_rows: int

    def describe(self) -> str:
        of_phase = f" of phase {self.phase} (of {self.n_rows})" if self.phase else ""
        return f"{self.path}: {self.layout}, {len(self.trials)} rows{of_phase}"


@dataclass(frozen=True)
class Table:
    """Rows of text with their numbers in the file; `header` as it stands there, () where there is none."""

    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    def column(self, names: Sequence[str]) -> int | None:
        """The place of the first column whose header is one of the names, the first name first."""
        header = [plain(name) for name in self.header]
        return next((header.index(name) for name in names if name in header), None)


@lru_cache  # the words of labels and folders are few
def plain(word: str) -> str:
    """In lower case, without punctuation: "Bona-Fide" -> "bonafide"."""
    return re.sub(r"[\W_]", "", word.lower())


def refuse(problems: Sequence[str]) -> None:
    """Raise what is wrong with a file's rows, a line each; nothing if there is nothing."""
    if problems:
        left = len(problems) - MOST_PROBLEMS
        raise DataError(*problems[:MOST_PROBLEMS], *([f"... and {left} more such rows"] if left > 0 else []))


def read_table(path: Path) -> Table:
    """A table of text set apart by tabs, commas, semicolons or blanks, with or without a header.

    A header is a first row that has any of the names that columns may be called.

    Raises:
        DataError: it is empty, no text, or not a table. (OSError if it cannot be read.)
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = io.StringIO(file.read(), newline="")
        if "\0" in lines.getvalue():
            raise csv.Error("it holds NUL")
        first = lines.readline()
        delimiter = next((d for d in "\t,;" if d in first), None)
        lines.seek(0)
        if delimiter is None:
            rows = ((n, line.split()) for n, line in enumerate(lines, start=1) if line.strip())
        else:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row))
        shared = {}.setdefault  # of half a million rows, most say the same
        rows = [(n, [shared(cell, cell) for cell in cells]) for n, cells in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of text in UTF-8 ({error})") from error
    if not rows:
        raise DataError(f"{path} is empty")
    names = tuple(rows[0][1])
    known = NAME_COLUMNS + LABEL_COLUMNS + SCORE_COLUMNS
    has_header = any(plain(name) in known for name in names)
    return Table(names if has_header else (), rows[1:] if has_header else rows)


def distinct_rows(
    path: Path, table: Table, width: int, name_at: int, problems: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """The rows that have `width` columns and a name that no row before has.

    What is wrong with the others is added to `problems`, a line each.
    """
    seen: dict[str, int] = {}
    for row, cells in table.rows:
        if len(cells) != width:
            problems.append(f"{path}, row {row}: {len(cells)} columns instead of {width}")
        elif not cells[name_at]:
            problems.append(f"{path}, row {row}: no recording is named")
        elif (before := seen.setdefault(cells[name_at], row)) != row:
            problems.append(f"{path}, row {row}: {cells[name_at]} stands in row {before} already")
        else:
            yield row, cells


def read_labels(path: Path, phase: str | None = None) -> LabelFile:
    """All rows of a list of labels, or those of one phase.

    Args:
        phase: of a layout that knows phases (ASVspoof 2021): one of PHASES; None is "eval".

    Raises:
        DataError: the layout is not known, a row has another number of columns, no name, an unknown label
            or one that stands there before (a line for each such row); or there are no rows of that phase.
    """
    table = read_table(path)
    layout, columns = _layout(path, table)
    name_at = columns.index("utterance")
    label_at = columns.index("label") if "label" in columns else None
    trials: list[Trial] = []
    alike: dict[tuple, dict[str, str]] = {}  # one for all rows that tell the same
    problems: list[str] = []
    for row, cells in distinct_rows(path, table, len(columns), name_at, problems):
        label = LABEL_WORDS.get(plain(cells[label_at])) if label_at is not None else ""
        if label is None:
            known = ", ".join(LABEL_WORDS)
            problems.append(f"{path}, row {row}: unknown label {cells[label_at]!r}: known are {known}")
        else:
            rest = other_columns(columns, cells, (name_at, label_at), label)
            rest = alike.setdefault(tuple(rest.items()), rest)
            trials.append(Trial(row, cells[name_at], label, rest))
    refuse(problems)
    if not trials:
        raise DataError(f"{path} has a header but no rows")
    if "phase" not in columns or not layout.startswith("ASVspoof"):
        return LabelFile(path, layout, trials, "", len(trials))
    phase = phase or EVAL
    chosen = [trial for trial in trials if phase in ("all", trial.columns.get("phase"))]
    if not chosen:
        phases = sorted({trial.columns.get("phase", "-") for trial in trials})
        raise DataError(f"{path} has no rows of phase {phase}, only of {', '.join(phases)}")
    return LabelFile(path, layout, chosen, phase, len(trials))


def _layout(path: Path, table: Table) -> tuple[str, list[str]]:
    """What the table is called, and its columns' names, "utterance" and "label" among them."""
    width = len(table.rows[0][1]) if table.rows else 0
    if table.header:
        columns = [name.lower() for name in table.header]
        name_at, label_at = table.column(NAME_COLUMNS), table.column(LABEL_COLUMNS)
        for at, known in ((name_at, NAME_COLUMNS), (label_at, LABEL_COLUMNS)):
            if at is None and not (known is LABEL_COLUMNS and len(columns) == 1):
                there = ", ".join(table.header)
                raise DataError(f"{path}: none of its columns ({there}) is called {', '.join(known)}")
        columns = [f"{name} (2)" if name in ("utterance", "label") else name for name in columns]
        columns[name_at] = "utterance"
        if label_at is None:
            return "list without labels", columns
        columns[label_at] = "label"
        return ("In-the-Wild" if path.name == "meta.csv" else "list of labels"), columns
    if width in _PROTOCOLS:
        layout, columns = _PROTOCOLS[width]
        return layout, columns.split()
    if width == 2:
        return "list of labels", ["utterance", "label"]
    if width == 1:
        return "list without labels", ["utterance"]
    raise DataError(
        f"{path}: no known list of labels. It needs a header with columns path and label, or these two "
        f"columns alone, or ASVspoof's {', '.join(map(str, sorted(_PROTOCOLS)))} columns; it has {width}"
    )


def other_columns(
    columns: Sequence[str], cells: Sequence[str], known: Sequence[int | None], label: str
) -> dict[str, str]:
    """What a row tells beside the known places, by column name, where it tells anything.

    "-" is nothing, but as a codec it is "none". A bona fide recording has no attack.
    """
    told = {}
    for i, (name, cell) in enumerate(zip(columns, cells, strict=True)):
        if name == "codec" and cell in ("", "-"):
            cell = "none"
        no_attack = label == "bonafide" and name in ("attack", "attack_tag", "vocoder")
        if i not in known and cell not in ("", "-") and not no_attack:
            told[name] = cell
    return told
