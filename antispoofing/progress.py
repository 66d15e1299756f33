"""Bars on a terminal that show how far work is and how long it still takes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tqdm import tqdm

HIDDEN = "TQDM_DISABLE"  # the environment variable by which tqdm hides all bars; --quiet sets it


def bar(
    items: Iterable | None = None,
    *,
    what: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    is_shown: bool = True,
) -> tqdm:
    """Return a bar of work in progress, which shows on a terminal after two seconds and leaves nothing there.

    Args:
        items: What to iterate over; None to call `update` instead.
        what: The work, in a word or two.
        unit: What is counted; "B" is written as kB, MB and so on.
        total: How many there are, if the items do not tell.
        initial: How many were done before.
        is_shown: False to show nothing, as in the other processes of a group.
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
        disable=True if os.environ.get(HIDDEN) or not is_shown else None,  # None hides it without a terminal
    )
