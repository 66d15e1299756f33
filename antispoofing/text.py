"""Text for people: escaped control characters, aligned columns, times and numbers of things."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def printable(text: str) -> str:
    """Escape the control characters that a file name may contain, so that one line stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, rounded down: 65.25 -> "1:05.2"."""
    tenths = int(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 speaker", "2 speakers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def with_interval(value: str, interval: Sequence[float] | None, shown: Callable[[float], str]) -> str:
    """Return a figure with its interval, if it has one: "0.9590 [0.9290, 0.9860]".

    Args:
        value: The figure, as text.
        interval: Its lower and upper bound.
        shown: Writes a bound.
    """
    return value if interval is None else f"{value} [{shown(interval[0])}, {shown(interval[1])}]"


def auc_text(auc: float, interval: Sequence[float] | None = None) -> str:
    """Write an AUC with four decimals, since those of good detectors differ in the third and fourth."""
    return with_interval(f"{auc:.4f}", interval, "{:.4f}".format)


def eer_text(eer: float, interval: Sequence[float] | None = None) -> str:
    """Write an EER in per cent, without the sign, with two decimals as in publications."""
    return with_interval(f"{100 * eer:.2f}", interval, lambda bound: f"{100 * bound:.2f}")
