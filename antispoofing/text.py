"""Text for people: one line stays one line, columns stand straight, times read as minutes and seconds."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape control characters, as file names may have them: one line stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Join rows of equal length to lines with straight columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Write a time as minutes and seconds, never later than it is: 65.25 -> "1:05.2"."""
    tenths = int(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
