"""Lists of labels as the field publishes them: protocols and keys, CSV, TSV, JSON lines, Kaldi's utt2lab.

What a column holds is told by the header, by the number of columns (`sets.py`) or, of lists without a header,
by the content: exactly one column must have nothing but words for labels, and one be different in each row.
What is in doubt is an error, and the user can tell (`Reading`).

Labels are "bonafide" (real), "spoof" (fake) and, if a list has none, "".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from antispoofing.data.sets import SETS
from antispoofing.data.tables import Table, read_table, text_of
from antispoofing.data.words import KNOWN, SHORT_LIST, Words, plain
from antispoofing.errors import DataError
from antispoofing.text import counted
from data_utils import AUDIO_SUFFIXES

# The names that columns may have, in lower case without punctuation; the first that is there counts.
NAME_COLUMNS = (
    "path filename file filepath audio audiopath utterance utt utteranceid uttid trialanon wav wavpath clip "
    "recording id"
).split()
LABEL_COLUMNS = ("label", "cmlabel", "key", "target", "class", "groundtruth")
SCORE_COLUMNS = ("score", "cmscore")

COLUMNS = ("path", "label")  # those that the user can name
EVAL = "eval"  # the phase of ASVspoof's headline figures
PHASES = ("train", "dev", "progress", "eval", "hidden", "all")

MOST_PROBLEMS = 10  # how many are reported, one per line


@dataclass(frozen=True)
class Reading:
    """What the user says of lists and folders that they do not say themselves.

    Attributes:
        words: The words that label recordings.
        columns: The name, or the number from 1 on, of each of COLUMNS that the user names.
        separator: The character between columns; "" to find it.
    """

    words: Words = KNOWN
    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str = ""


USUAL = Reading()


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


def read_list(path: Path, reading: Reading = USUAL) -> Table:
    """Read a list of labels or of scores as a table; `tables.read_table` says what it raises."""
    own = map(plain, reading.columns.values())
    return read_table(path, {*NAME_COLUMNS, *LABEL_COLUMNS, *SCORE_COLUMNS, *own}, reading.separator)


def refuse(problems: Sequence[str], remedy: str = "") -> None:
    """Raise a DataError with a line for each problem with a file's rows, if there are any, and a remedy."""
    if problems:
        left = len(problems) - MOST_PROBLEMS
        rest = [f"... and {counted(left, 'more such row')}"] if left > 0 else []
        raise DataError(*problems[:MOST_PROBLEMS], *rest, *([remedy] if remedy else []))


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


def read_labels(path: Path, phase: str | None = None, reading: Reading = USUAL) -> LabelFile:
    """Read all rows of a list of labels, or those of one phase.

    Args:
        path: The list.
        phase: The phase, one of PHASES, if the rows have phases (ASVspoof 2021); None for "eval".
        reading: What the user says of it.

    Raises:
        DataError: If the layout is not known, or there are no rows of that phase; or, with a line for each
            such row, if a row has the wrong number of columns, no name, an unknown label, or the name of an
            earlier row.
        OSError: If the file cannot be read.
    """
    table = _kaldi_table(path) if path.name in KALDI else read_list(path, reading)
    layout = _layout(path, table, reading)
    columns = layout.columns
    name_at = columns.index("utterance")
    label_at = columns.index("label") if "label" in columns else None
    trials: list[Trial] = []
    equal: dict[tuple, dict[str, str]] = {}  # equal rows share one dictionary
    problems: list[str] = []
    unknown: set[str] = set()
    for row, cells in distinct_rows(path, table, len(columns), name_at, problems):
        word, label = layout.label(cells, reading.words)
        if label is None:
            unknown.add(word)
            problems.append(f"{path}, row {row}: unknown label {word!r} (known are {SHORT_LIST}, ...)")
        else:
            rest = other_columns(columns, cells, (name_at, label_at), label)
            rest = equal.setdefault(tuple(rest.items()), rest)
            trials.append(Trial(row, _without_root(cells[name_at]), label, rest))
    words = ", ".join(sorted(unknown)[:5])
    refuse(problems, f"what {words} means, say with --real-words and --fake-words" if unknown else "")
    if not trials:
        raise DataError(f"{path} has a header but no rows")
    if "phase" not in columns or not layout.has_phases:
        return LabelFile(path, layout.name, trials, "", len(trials))
    phase = phase or EVAL
    chosen = [trial for trial in trials if phase in ("all", trial.columns.get("phase"))]
    if not chosen:
        phases = sorted({trial.columns.get("phase", "-") for trial in trials})
        raise DataError(f"{path} has no rows of phase {phase}, only of {', '.join(phases)}")
    return LabelFile(path, layout.name, chosen, phase, len(trials))


KALDI = ("utt2lab", "utt2label")  # Kaldi's lists, beside which wav.scp names the files


def _kaldi_table(path: Path) -> Table:
    """Return utt2lab as a table of paths, labels and utterance ids.

    Raises:
        DataError: If wav.scp is missing, lacks an utterance, or has a command in place of a file.
    """
    scp = path.with_name("wav.scp")
    if not scp.is_file():
        raise DataError(f"{path}: there is no wav.scp beside it, which names the recordings")
    files: dict[str, str] = {}
    for line in text_of(scp).split("\n"):
        id_, _, file = line.strip().partition(" ")
        if file.endswith("|"):
            raise DataError(f"{scp}: {id_} is a command, not a file; commands of a list are not run")
        files[id_] = file.strip()
    rows, problems = [], []
    for n, cells in read_list(path).rows:
        if len(cells) != 2 or not files.get(cells[0]):
            problems.append(f"{path}, row {n}: {cells[0]} is not in {scp.name}, or has no label")
        else:
            rows.append((n, [files[cells[0]], cells[1], cells[0]]))
    refuse(problems)
    return Table(("path", "label", "id"), rows)


def _without_root(name: str) -> str:
    """Return a path without a variable for the data set's root: "$ROOT//a.wav" -> "a.wav"."""
    return re.sub(r"^\$\{?\w+\}?[/\\\\]+", "", name)


@dataclass(frozen=True)
class _Layout:
    """What the columns of a list are.

    Attributes:
        name: The layout's name.
        columns: The columns' names, "utterance" and perhaps "label" among them.
        has_phases: Whether rows have phases of which one is chosen.
        label_by: As in `sets.DataSet`.
    """

    name: str
    columns: list[str]
    has_phases: bool = False
    label_by: tuple[str, Mapping[str, str]] | None = None

    def label(self, cells: Sequence[str], words: Words) -> tuple[str, str | None]:
        """Return what tells the label of a row, and the label: "" if the list has none, None if unknown."""
        if "label" in self.columns:
            word = cells[self.columns.index("label")]
            return word, words.label(word)
        if self.label_by is None:
            return "", ""
        column, patterns = self.label_by
        value = cells[self.columns.index(column)]
        return value, next((label for known, label in patterns.items() if re.fullmatch(known, value)), None)


def _layout(path: Path, table: Table, reading: Reading) -> _Layout:
    width = len(table.rows[0][1]) if table.rows else 0
    if reading.columns:
        return _told(path, table, width, reading)
    if table.header:
        return _by_header(path, table)
    for data_set in SETS:
        if width in data_set.columns:
            named = data_set.columns[width].split()
            if _are_labels(table, named.index("label"), reading.words):
                return _Layout(data_set.name, named, "phase" in named)
    if width == 1:
        return _Layout("list without labels", ["utterance"])
    return _by_content(path, table, width, reading.words)


def _by_header(path: Path, table: Table) -> _Layout:
    header = [plain(name) for name in table.header]
    for data_set in SETS:
        if data_set.header and set(data_set.header) <= set(header):
            if data_set.label_by and table.column(LABEL_COLUMNS) is not None:
                continue  # it says itself what is real
            columns = [
                data_set.header.get(name, own.lower()) for name, own in zip(header, table.header, strict=True)
            ]
            return _Layout(data_set.name, columns, label_by=data_set.label_by)
    columns = [name.lower() for name in table.header]
    name_at, label_at = table.column(NAME_COLUMNS), table.column(LABEL_COLUMNS)
    if name_at is None:
        raise _missing_column(path, table, "path", NAME_COLUMNS)
    if label_at is None and len(columns) > 1:
        raise _missing_column(path, table, "label", LABEL_COLUMNS)
    columns = [f"{name} (2)" if name in ("utterance", "label") else name for name in columns]
    columns[name_at] = "utterance"
    if label_at is None:
        return _Layout("list without labels", columns)
    columns[label_at] = "label"
    return _Layout("In-the-Wild" if path.name == "meta.csv" else "list of labels", columns)


def _told(path: Path, table: Table, width: int, reading: Reading) -> _Layout:
    """Return the layout that the user tells."""
    columns = [name.lower() for name in table.header] or [f"column {i}" for i in range(1, width + 1)]
    columns = [f"{name} (2)" if name in ("utterance", "label") else name for name in columns]
    for what, where in reading.columns.items():
        names = [plain(name) for name in table.header]
        if plain(where) in names:
            at = names.index(plain(where))
        elif where.isdecimal() and 1 <= int(where) <= width:
            at = int(where) - 1
        else:
            header = (
                f"it has {', '.join(table.header)}" if table.header else f"it has {counted(width, 'column')}"
            )
            raise DataError(f"{path}: --columns {what}={where}: there is no such column ({header})")
        columns[at] = {"path": "utterance"}.get(what, what)
    if "utterance" not in columns:
        raise DataError(f"{path}: --columns needs path=..., the column that names the recordings")
    return _Layout("list of labels" if "label" in columns else "list without labels", columns)


def _are_labels(table: Table, at: int, words: Words) -> bool:
    return all(at < len(cells) and words.label(cells[at]) is not None for _, cells in table.rows)


def _by_content(path: Path, table: Table, width: int, words: Words) -> _Layout:
    """Return the layout of a list without a header, of an unknown number of columns."""
    labels = [at for at in range(width) if _are_labels(table, at, words)]
    if width == 2 and not labels:
        return _Layout("list of labels", ["utterance", "label"])  # whose rows will be named
    names = [
        at
        for at in range(width)
        if at not in labels
        and len({cells[at] for _, cells in table.rows if at < len(cells)} - {"-"}) == len(table.rows)
    ]
    files = [at for at in names if all(_is_audio(cells[at]) for _, cells in table.rows if at < len(cells))]
    names = files or names
    if len(labels) != 1 or len(names) != 1:
        raise DataError(
            f"{path}: it has {counted(width, 'column')}, no header, and which of them names the recordings "
            "and which has the labels is not clear: say it, with --columns path=1 label=2, for example"
        )
    columns = [f"column {at + 1}" for at in range(width)]
    columns[names[0]], columns[labels[0]] = "utterance", "label"
    return _Layout("list of labels", columns)


def _is_audio(name: str) -> bool:
    return PurePath(name).suffix.lower() in AUDIO_SUFFIXES


def _missing_column(path: Path, table: Table, what: str, names: Sequence[str]) -> DataError:
    header = ", ".join(table.header)
    return DataError(
        f"{path}: none of its columns ({header}) is called {', '.join(names)}: say which it is, with "
        f"--columns {what}=NAME"
    )


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
