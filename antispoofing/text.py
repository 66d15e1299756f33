"""Text for people: escaped control characters, aligned columns, times and numbers of things."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence


def printable(text: str) -> str:
    """Escape the control characters that a file name may contain, so that one line stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def writable(path: str) -> str:
    r"""Return a file's path as text that a row of any table can hold.

    Bytes that are not UTF-8 are escaped (as `\xe4`), and so are control characters, line separators, and
    blanks at either end, which readers of tables strip.
    """
    name = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return re.sub(r"^\s+|\s+$|[\0-\x1f\x7f-\x9f\u2028\u2029]", _escaped, name)


def _escaped(match: re.Match[str]) -> str:
    return "".join("\\x20" if c == " " else c.encode("unicode_escape").decode() for c in match[0])


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
    return with_interval(_between(auc, 1, 4), interval, lambda bound: _between(bound, 1, 4))


def eer_text(eer: float, interval: Sequence[float] | None = None) -> str:
    """Write an EER in per cent, without the sign, with two decimals as in publications."""
    return with_interval(per_cent(eer, 2), interval, lambda bound: per_cent(bound, 2))


def per_cent(share: float, decimals: int = 1) -> str:
    """Write a share in per cent, without the sign: only 0 is written as 0, and only 1 as 100."""
    return _between(100 * share, 100, decimals)


def _between(value: float, most: int, decimals: int) -> str:
    """Write a number from 0 to `most`; one that only rounding would make 0 or `most` is given a bound."""
    text, step = f"{value:.{decimals}f}", 10.0**-decimals
    if value > 0 and float(text) == 0:
        return f"<{step:.{decimals}f}"
    return f">{most - step:.{decimals}f}" if value < most == float(text) else text
