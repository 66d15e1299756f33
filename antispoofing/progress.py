"""What is said while work goes on: bars with the time left, and warnings that --quiet leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from tqdm import tqdm

from antispoofing import distributed

_is_quiet = False


@contextmanager
def quiet() -> Iterator[None]:
    """Print nothing on stdout, and show no bars, until the block ends; warnings go to stderr."""
    global _is_quiet
    before, _is_quiet = _is_quiet, True
    try:
        with (
            open(os.devnull, "w", encoding="utf-8", errors="backslashreplace") as nowhere,
            redirect_stdout(nowhere),
        ):
            yield
    finally:
        _is_quiet = before


def warn(text: str) -> None:
    """Print a warning, on stdout or, in a quiet run, on stderr."""
    tqdm.write(text, file=sys.stderr if _is_quiet and distributed.is_main() else sys.stdout)


def is_quiet() -> bool:
    """Return whether only warnings and errors are to be printed."""
    return _is_quiet


def bar(
    items: Iterable | None = None, *, what: str, unit: str, total: int | None = None, initial: int = 0
) -> tqdm:
    """Return a bar of work in progress, which shows on a terminal after two seconds and leaves nothing there.

    In a group of processes, only the main one shows it.

    Args:
        items: What to iterate over; None to call `update` instead.
        what: The work, in a word or two.
        unit: What is counted; "B" is written as kB, MB and so on.
        total: How many there are, if the items do not tell.
        initial: How many were done before.
    """
    return tqdm(
        items,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        total=total,
        initial=initial,
        leave=False,
        delay=2,
        disable=True if _is_quiet or not distributed.is_main() else None,  # None hides it without a terminal
    )
