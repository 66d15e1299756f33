"""Lists of labels as the field publishes them: ASVspoof's protocols and keys, CSV and TSV files.

These are recognised by their columns:
  ASVspoof 2019   SPEAKER UTT ENVIRONMENT ATTACK LABEL
  ASVspoof 2021   LA's and DF's trial_metadata.txt, with codec, attack, label, phase and more
  ASVspoof 5      ASVspoof5.*.tsv (separated by spaces), and the evaluation package's filename, cm-label
  any CSV or TSV whose header names a column of recordings and one of labels (In-the-Wild's meta.csv,
  Speech DF Arena's file_name,label), or that has just these two columns and no header
  recordings alone, one per line, without labels (ASVspoof 2021's evaluation lists)

Labels are "bonafide" (real), "spoof" (fake) and, if a list has none, "".
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
from antispoofing.files import in_its_place
from antispoofing.text import counted
from data_utils import BONAFIDE, LABELS, SPOOF

# The words that label recordings, as folder names and in lists, in lower case without punctuation.
LABEL_WORDS = dict.fromkeys(("real", "bonafide", "genuine"), LABELS[BONAFIDE]) | dict.fromkeys(
    ("fake", "spoof"), LABELS[SPOOF]
)

# The names that columns may have, in lower case without punctuation.
NAME_COLUMNS = ("path", "filename", "file", "filepath", "audio", "audiopath", "utterance", "utt", "trialanon")
LABEL_COLUMNS = ("label", "cmlabel", "key")
SCORE_COLUMNS = ("score", "cmscore")

EVAL = "eval"  # the phase of ASVspoof's headline figures
PHASES = ("train", "dev", "progress", "eval", "hidden", "all")

MOST_PROBLEMS = 10  # how many are reported, one per line

# The columns of tables without a header, separated by spaces, by the number of columns.
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


@dataclass(frozen=True, slots=True)  # there may be half a million
class Trial:
    """One row of a list of labels.

    Attributes:
        row: Its number in the file.
        name: The recording's name as it stands there.
        label: "bonafide", "spoof" or "".
        columns: The other columns that are not empty (speaker, attack, codec, ...), by name in lower case; a
            bona fide recording has no attack.
    """

    row: int
    name: str
    label: str
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFile:
    """A list of labels, as `read_labels` returns it.

    Attributes:
        path: The file.
        layout: The name of its layout.
        trials: The rows of the phase that was asked for.
        phase: That phase; "" if the layout has no phases.
        n_rows: The number of rows in the file, of all phases together.
    """

    path: Path
    layout: str
    trials: list[Trial]
    phase: str
    n_rows: int

    def describe(self) -> str:
        """Return what was read, in one line."""
        phase = f" of phase {self.phase} (out of {self.n_rows})" if self.phase else ""
        return f"{self.path}: {self.layout}, {counted(len(self.trials), 'row')}{phase}"


@dataclass(frozen=True)
class Table:
    """A table of text: its header as it stands in the file, () if it has none, and its numbered rows."""

    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    def column(self, names: Sequence[str]) -> int | None:
        """Return the index of the column that has one of these names, the first name that is there."""
        header = [plain(name) for name in self.header]
        return next((header.index(name) for name in names if name in header), None)


@lru_cache  # labels and folders have few different names
def plain(word: str) -> str:
    """Return a word in lower case and without punctuation: "Bona-Fide" -> "bonafide"."""
    return re.sub(r"[\W_]", "", word.lower())


def refuse(problems: Sequence[str]) -> None:
    """Raise a DataError with a line for each problem with a file's rows, if there are any."""
    if problems:
        left = len(problems) - MOST_PROBLEMS
        rest = [f"... and {counted(left, 'more such row')}"] if left > 0 else []
        raise DataError(*problems[:MOST_PROBLEMS], *rest)


def read_table(path: Path) -> Table:
    """Read a table of text, separated by tabs, commas, semicolons or spaces, with or without a header.

    Cells may be quoted. The first row is a header if any of its cells is a known name of a column.

    Raises:
        DataError: If the file is empty, or is not a table of text.
        OSError: If it cannot be read.
    """
    if reason := in_its_place(path):
        raise DataError(f"{path} is {reason}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = io.StringIO(file.read(), newline="")
        if "\0" in lines.getvalue():
            raise csv.Error("it contains NUL characters")
        first = re.sub('"[^"]*"', "", lines.readline())  # what is quoted does not set columns apart
        delimiter = next((d for d in "\t,;" if d in first), None)
        lines.seek(0)
        parsed: Iterator[tuple[int, list[str]]]
        if delimiter is None and '"' not in lines.getvalue():
            parsed = ((n, line.split()) for n, line in enumerate(lines, start=1) if line.strip())
        else:
            reader = csv.reader(
                lines, delimiter=delimiter or " ", skipinitialspace=not delimiter, strict=True
            )
            cells = (([cell.strip() for cell in row], reader.line_num) for row in reader if any(row))
            parsed = ((n, row if delimiter else list(filter(None, row))) for row, n in cells)
        known_cells: dict[str, str] = {}
        shared = known_cells.setdefault  # one object for equal cells: in half a million rows, most are equal
        rows = [(n, [shared(cell, cell) for cell in cells]) for n, cells in parsed]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table of text in UTF-8 ({error})") from error
    if not rows:
        raise DataError(f"{path} is empty")
    names = tuple(rows[0][1])
    known = NAME_COLUMNS + LABEL_COLUMNS + SCORE_COLUMNS
    has_header = any(plain(name) in known for name in names)
    return Table(names if has_header else (), rows[1:] if has_header else rows)


def distinct_rows(
    path: Path, table: Table, width: int, name_at: int, problems: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that have the right number of columns and a name that no earlier row has.

    Args:
        path: The file, for the messages.
        table: The table.
        width: The right number of columns.
        name_at: The index of the column of names.
        problems: Where a line is added for each of the other rows.
    """
    seen: dict[str, int] = {}
    for row, cells in table.rows:
        if len(cells) != width:
            problems.append(f"{path}, row {row}: {counted(len(cells), 'column')} instead of {width}")
        elif not cells[name_at]:
            problems.append(f"{path}, row {row}: no recording is named")
        elif (before := seen.setdefault(cells[name_at], row)) != row:
            problems.append(f"{path}, row {row}: {cells[name_at]} is already in row {before}")
        else:
            yield row, cells


def read_labels(path: Path, phase: str | None = None) -> LabelFile:
    """Read all rows of a list of labels, or those of one phase.

    Args:
        path: The list.
        phase: The phase, one of PHASES, if the layout has phases (ASVspoof 2021); None for "eval".

    Raises:
        DataError: If the layout is not known, or there are no rows of that phase; or, with a line for each
            such row, if a row has the wrong number of columns, no name, an unknown label, or the name of an
            earlier row.
        OSError: If the file cannot be read.
    """
    table = read_table(path)
    layout, columns = _layout(path, table)
    name_at = columns.index("utterance")
    label_at = columns.index("label") if "label" in columns else None
    trials: list[Trial] = []
    equal: dict[tuple, dict[str, str]] = {}  # equal rows share one dictionary
    problems: list[str] = []
    for row, cells in distinct_rows(path, table, len(columns), name_at, problems):
        word = "" if label_at is None else cells[label_at]
        label = "" if label_at is None else LABEL_WORDS.get(plain(word))
        if label is None:
            known = ", ".join(LABEL_WORDS)
            problems.append(f"{path}, row {row}: unknown label {word!r} (known labels: {known})")
        else:
            rest = other_columns(columns, cells, (name_at, label_at), label)
            rest = equal.setdefault(tuple(rest.items()), rest)
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
    """Return the name of a table's layout, and its columns' names, "utterance" and "label" among them."""
    width = len(table.rows[0][1]) if table.rows else 0
    if table.header:
        columns = [name.lower() for name in table.header]
        name_at, label_at = table.column(NAME_COLUMNS), table.column(LABEL_COLUMNS)
        if name_at is None:
            raise _missing_column(path, table, NAME_COLUMNS)
        if label_at is None and len(columns) > 1:
            raise _missing_column(path, table, LABEL_COLUMNS)
        columns = [f"{name} (2)" if name in ("utterance", "label") else name for name in columns]
        columns[name_at] = "utterance"
        if label_at is None:
            return "list without labels", columns
        columns[label_at] = "label"
        return ("In-the-Wild" if path.name == "meta.csv" else "list of labels"), columns
    if width in _PROTOCOLS:
        layout, names = _PROTOCOLS[width]
        return layout, names.split()
    if width == 2:
        return "list of labels", ["utterance", "label"]
    if width == 1:
        return "list without labels", ["utterance"]
    raise DataError(
        f"{path} is not a list of labels: it needs a header with the columns path and label, or just these "
        f"two columns, or ASVspoof's {', '.join(map(str, sorted(_PROTOCOLS)))} columns, but has {width}"
    )


def _missing_column(path: Path, table: Table, names: Sequence[str]) -> DataError:
    header = ", ".join(table.header)
    return DataError(f"{path}: none of its columns ({header}) is called {', '.join(names)}")


def other_columns(
    columns: Sequence[str], cells: Sequence[str], known: Sequence[int | None], label: str
) -> dict[str, str]:
    """Return a row's other cells by column name, without the empty ones.

    "-" counts as empty, except that as a codec it means "none". A bona fide recording has no attack.

    Args:
        columns: The columns' names.
        cells: The row.
        known: The indices of the columns to leave out.
        label: The row's label.
    """
    others = {}
    for i, (name, cell) in enumerate(zip(columns, cells, strict=True)):
        if name == "codec" and cell in ("", "-"):
            cell = "none"
        no_attack = label == "bonafide" and name in ("attack", "attack_tag", "vocoder")
        if i not in known and cell not in ("", "-") and not no_attack:
            others[name] = cell
    return others
