"""What the texts on detectors have in common: the levels of their tests, shares of clips, and tables.

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from antispoofing import uncertainty
from antispoofing.classes import FAKE, REAL
from antispoofing.progress import bar
from antispoofing.scoring.clusters import Clustering
from antispoofing.scoring.scored import Scored
from antispoofing.text import clock, counted, printable, with_interval

HEARS_ALL = "evaluate_custom.py --timeline hears all"
LEVEL = 0.05  # of the tests behind sentences with a direction
UNDIRECTED = 0.025  # of those behind sentences without one


def at_level(comparisons: int) -> str:
    """Describe the level at which each of several comparisons is tested."""
    level = f"at {100 * LEVEL:g} %"
    return f"{level}, Bonferroni-corrected for {comparisons} comparisons" if comparisons > 1 else level


def with_progress(title: str, groups: Mapping[str, np.ndarray]) -> tqdm:
    """Return a property's groups and their members, with a progress bar if they take long."""
    return bar(groups.items(), what=f"analysis, {printable(title)}", unit="group")


def heard_in_part(scored: Scored) -> str:
    """Say of how many recordings only the beginning was heard; "" if all were heard to their end."""
    part = scored.infos[scored.is_heard_in_part]
    if len(part) == 0:
        return ""
    heard, longest = part["heard"].max(), clock(part["seconds"].max())
    return f"Of {counted(len(part), 'recording')}, only {heard:.3g} s were heard (the longest has {longest})"


def misjudged(scored: Scored, threshold: float) -> np.ndarray:
    """Return a mask [n] of the recordings on the wrong side of a threshold."""
    real, fake = scored.mask(REAL.label), scored.mask(FAKE.label)
    return (real & (scored.scores < threshold)) | (fake & (scored.scores >= threshold))


def share(hits: np.ndarray, members: np.ndarray, clustering: Clustering) -> str:
    """Write how many of some clips are hits, with a 95 % interval: "12 of 60 (20 % [12, 32])".

    Args:
        hits: bool [n].
        members: The clips, bool [n].
        clustering: Which of the n clips belong together.
    """
    inside = hits[members]
    k, n = int(inside.sum()), len(inside)
    interval = uncertainty.share_interval(inside, clustering.among(members))
    bounds = interval and (math.floor(100 * interval[0]), math.ceil(100 * interval[1]))
    return f"{k} of {n} ({with_interval(f'{hundredths(k / n)} %', bounds, str)})"


def hundredths(part: float) -> str:
    """Write a fraction as a whole number of hundredths: only 1 becomes "100", and only 0 becomes "0"."""
    rounded = round(100 * part)
    if rounded == 100 and part < 1:
        return "more than 99"
    return "less than 1" if rounded == 0 and part > 0 else str(rounded)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows, the first of which is the heading, as a Markdown table with aligned columns."""
    cells = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in cells]
    return "\n".join([lines[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *lines[1:]])
