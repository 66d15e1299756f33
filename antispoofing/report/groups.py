"""Groups of recordings: by format, sample rate, duration, subfolder, and columns of a list of labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from antispoofing import metrics
from antispoofing.classes import REAL
from antispoofing.scoring.clusters import unlabelled
from antispoofing.scoring.score_files import HEARD
from antispoofing.scoring.scored import Scored
from data_utils import CLIP_SAMPLES, LABELS, SAMPLE_RATE

MOST_GROUPS = 12  # the largest groups of a property; the rest are merged into one


def clip_properties(scored: Scored) -> dict[str, list[str]]:
    """Return, for each property, the group of each recording, or "" if it is in none.

    The properties are format, sample rate, duration, subfolder, and those columns of a list of labels
    (attack, codec, ...) whose values do not differ for nearly every recording. Recordings that could not be
    read have only a subfolder and these columns.
    """
    utterances, infos = scored.utterances, scored.infos
    properties = {
        "format": _named(infos["format"], bytes.decode),
        "sample rate": _named(infos["sample_rate"], lambda rate: f"{rate} Hz" if rate else ""),
        "duration": _duration_groups(infos),
        "subfolder": [unlabelled(utterance.name.rpartition("/")[0]) or "(none)" for utterance in utterances],
    }
    for name in dict.fromkeys(name for utterance in utterances for name in utterance.columns):
        values = [utterance.columns.get(name, "") for utterance in utterances]
        if len(set(values)) <= len(values) / 4 and name not in HEARD:
            properties[name] = values
    return properties


def property_groups(
    scored: Scored,
    properties: Mapping[str, Sequence[str]],
    fewest: int = 2,
    most: int | None = MOST_GROUPS,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the groups of recordings that have a label and a score.

    Args:
        scored: The recordings.
        properties: For each property the group of each recording, see `clip_properties`.
        fewest: Properties with fewer groups are left out.
        most: The largest groups to keep; smaller ones are merged into one. None keeps all.

    Returns:
        For each property and group, a mask [n] of the recordings in it.
    """
    usable = scored.labelled
    result = {}
    for title, group_of_each in properties.items():
        values = np.array(group_of_each, dtype=object)  # an array of str pads all to the longest
        counts = Counter(filter(None, values[usable].tolist()))
        if len(counts) < fewest:
            continue
        common = [group for group, _ in counts.most_common(most)]
        groups = {group: usable & (values == group) for group in sorted(common, key=_natural)}
        if len(counts) > len(common):
            left = len(counts) - len(common)
            others = "1 other" if left == 1 else f"{left} others"
            groups[others] = usable & ~np.isin(values, ["", *common])
        result[title] = groups
    return result


def crossed(scored: Scored, rows: str, columns: str) -> dict[str, dict[str, float | None]]:
    """Return the EER of each value of one column of a list within each value of another.

    Args:
        scored: The recordings.
        rows: A column that only fakes have, such as "attack"; its groups are compared with all real ones.
        columns: A column that all recordings have, such as "codec".

    Returns:
        The EERs by both values, None where a class has no clips; {} unless both columns have several.
    """
    values = {name: [u.columns.get(name, "") for u in scored.utterances] for name in (rows, columns)}
    groups = property_groups(scored, values, most=None)
    if groups.keys() != values.keys():
        return {}
    real = scored.mask(REAL.label)
    table: dict[str, dict[str, float | None]] = {}
    for row, members in groups[rows].items():
        table[row] = {}
        for column, within in groups[columns].items():
            bonafide, spoof = scored.scores[real & within], scored.scores[members & within & ~real]
            table[row][column] = (
                metrics.compute_eer(bonafide, spoof).eer if len(bonafide) and len(spoof) else None
            )
    return table


def with_other_class(scored: Scored, members: np.ndarray) -> np.ndarray:
    """Add to a group [n] that has clips of only one class all clips of the other."""
    for label in LABELS:
        if not (members & scored.mask(label)).any():
            members = members | scored.mask(label)
    return members


def is_whole(scored: Scored, members: np.ndarray) -> bool:
    """Check whether a group [n] has all recordings, so that its figures are the overall ones."""
    return bool(members[scored.labelled].all())


def _named(values: np.ndarray, name_of: Callable[[Any], str]) -> list[str]:
    """Return the name of each value [n]; equal values share one string."""
    distinct, places = np.unique(values, return_inverse=True)
    names = [name_of(value) for value in distinct.tolist()]
    return [names[place] for place in places.tolist()]


def _duration_groups(infos: np.ndarray) -> list[str]:
    """Group recordings by duration: up to half of a clip, up to a whole clip, or longer (and so cut)."""
    clip = CLIP_SAMPLES / SAMPLE_RATE
    names = (f"0 to {clip / 2:.1f} s", f"{clip / 2:.1f} to {clip:.1f} s", f"{clip:.1f} s and more", "")
    places = np.where(infos["sample_rate"] > 0, np.searchsorted([clip / 2, clip], infos["seconds"]), 3)
    return [names[place] for place in places.tolist()]


def _natural(text: str) -> list[str | int]:
    """Return a sorting key that puts 8000 before 16000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
