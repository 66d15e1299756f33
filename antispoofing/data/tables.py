"""Tables of text, whatever separates their columns: CSV, TSV, columns between blanks, JSON lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from antispoofing.data.words import plain
from antispoofing.errors import DataError
from antispoofing.files import in_its_place

DELIMITERS = "\t,;|"  # besides blanks, in this order in case of doubt


@dataclass(frozen=True)
class Table:
    """A table of text: its header as it stands in the file, () if it has none, and its numbered rows."""

    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    def column(self, names: Sequence[str]) -> int | None:
        """Return the index of the column that has one of these names, the first name that is there."""
        header = [plain(name) for name in self.header]
        return next((header.index(name) for name in names if name in header), None)


def read_table(path: Path, known: Collection[str], separator: str = "") -> Table:
    """Read a table of text, with or without a header, or JSON lines (.jsonl), whose keys are the header.

    Columns are separated by tabs, commas, semicolons, vertical bars or blanks, and may be quoted.

    Args:
        path: The file.
        known: Names of columns, in the spelling of `words.plain`. The first row is a header if any of its
            cells is one of them, and none is a number.
        separator: The character between columns; "" to find it.

    Raises:
        DataError: If the file is empty, or is not a table of text.
        OSError: If it cannot be read.
    """
    if reason := in_its_place(path):
        raise DataError(f"{path} is {reason}")
    text = text_of(path)
    if path.suffix.lower() == ".jsonl":
        return _json_lines(path, text)
    first = re.sub('"[^"]*"', "", text.split("\n", 1)[0])  # what is quoted does not set columns apart
    there = [d for d in DELIMITERS if d in first]
    headers = [d for d in there if any(plain(cell) in known for cell in first.split(d))]
    delimiter = separator.strip(" ") or next(iter(headers or there), "")
    known_cells: dict[str, str] = {}
    shared = known_cells.setdefault  # one object for equal cells: in half a million rows, most are equal
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        try:
            rows = [
                (n, [shared(cell, cell) for cell in cells]) for n, cells in _rows(text, delimiter, quoting)
            ]
            break
        except csv.Error as error:
            if quoting == csv.QUOTE_NONE or delimiter != "\t":
                raise DataError(f"{path} is not a table of text ({error})") from error
            # Otherwise they are those of a transcript, since tables with tabs need no quotes.
    if not rows:
        raise DataError(f"{path} is empty")
    names = tuple(rows[0][1])
    # A recording may be called "audio", but a header has no numbers.
    has_header = any(plain(name) in known for name in names) and not any(map(_is_number, names))
    return Table(names if has_header else (), rows[1:] if has_header else rows)


def text_of(path: Path) -> str:
    """Return a file's text, with line feeds for line ends of any kind.

    Raises:
        DataError: If it is in no known encoding, or no text.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a table of text in UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    if "\0" in text:
        raise DataError(f"{path} is not a table of text (it contains NUL characters)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _rows(text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    """Yield the numbered rows that are not empty; with the delimiter "", of columns set apart by blanks."""
    if not delimiter:
        for n, line in enumerate(text.split("\n"), start=1):
            cells = _QUOTED.findall(line) if '"' in line else line.split()
            if cells:
                yield n, [_unquoted(cell) for cell in cells]
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, quoting=quoting)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield reader.line_num, cells


_QUOTED = re.compile(r'"(?:[^"]|"")*"(?!\S)|\S+')  # a cell that is quoted, or has no blanks


def _unquoted(cell: str) -> str:
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _json_lines(path: Path, text: str) -> Table:
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    objects = []
    for n, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, row {n}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {n}: not a JSON object")
        objects.append((n, row))
    if not objects:
        raise DataError(f"{path} is empty")
    header = tuple(dict.fromkeys(key for _, row in objects for key in row))
    cells = [(n, ["" if row.get(key) is None else str(row[key]) for key in header]) for n, row in objects]
    return Table(header, cells)
