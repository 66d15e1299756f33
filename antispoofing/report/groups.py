"""Recordings in groups: by format, sample rate, duration, subfolder, and what a list of labels tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from antispoofing.data.labels import LABEL_WORDS, plain
from antispoofing.scoring.scored import Scored
from data_utils import CLIP_SAMPLES, LABELS, SAMPLE_RATE

MOST_GROUPS = 12  # of one property; the rest are taken together


def clip_properties(scored: Scored) -> dict[str, list[str]]:
    """For each property the group that each recording is in, or "" where it is in none.

    Properties are format, sample rate, duration and subfolder, and the columns of a list of labels (attack,
    codec, ...) that do not tell nearly every recording from every other. What could not be read has the
    last two only.
    """
    utterances, infos = scored.utterances, scored.infos
    properties = {
        "format": _named(infos["format"], bytes.decode),
        "sample rate": _named(infos["sample_rate"], lambda rate: f"{rate} Hz" if rate else ""),
        "duration": _duration_groups(infos),
        "subfolder": [_subfolder(utterance.name.rpartition("/")[0]) for utterance in utterances],
    }
    for name in dict.fromkeys(name for utterance in utterances for name in utterance.columns):
        values = [utterance.columns.get(name, "") for utterance in utterances]
        if len(set(values)) <= len(values) / 4:
            properties[name] = values
    return properties


def property_groups(
    scored: Scored, properties: dict[str, list[str]], fewest: int = 2, most: int | None = MOST_GROUPS
) -> dict[str, dict[str, np.ndarray]]:
    """Property -> group -> which recordings [n] are in it, of those with label and score.

    Properties with fewer than `fewest` groups are left out; of more than `most` the smallest are one.
    """
    usable = scored.labelled
    result = {}
    for title, values in properties.items():
        values = np.array(values, dtype=object)  # not as wide as the longest
        counts = Counter(filter(None, values[usable].tolist()))
        if len(counts) < fewest:
            continue
        common = [group for group, _ in counts.most_common(most)]
        groups = {group: usable & (values == group) for group in sorted(common, key=_natural)}
        if len(counts) > len(common):
            groups[f"{len(counts) - len(common)} others"] = usable & ~np.isin(values, ["", *common])
        result[title] = groups
    return result


def with_other_class(scored: Scored, members: np.ndarray) -> np.ndarray:
    """A group [n]; where it has clips of one class only, with all clips of the other."""
    for label in LABELS:
        if not (members & scored.mask(label)).any():
            members = members | scored.mask(label)
    return members


def is_whole(scored: Scored, members: np.ndarray) -> bool:
    """Whether a group [n] is all there is, so that its figures are the overall ones."""
    return bool(members[scored.labelled].all())


def _named(values: np.ndarray, name_of: Callable[[Any], str]) -> list[str]:
    """The name of each value [n]; equal ones share one string."""
    distinct, places = np.unique(values, return_inverse=True)
    names = [name_of(value) for value in distinct.tolist()]
    return [names[place] for place in places.tolist()]


def _duration_groups(infos: np.ndarray) -> list[str]:
    """Of what the network hears: half of its clip length or less, up to all of it, more (cut)."""
    clip = CLIP_SAMPLES / SAMPLE_RATE
    names = (f"0 to {clip / 2:.1f} s", f"{clip / 2:.1f} to {clip:.1f} s", f"{clip:.1f} s and more", "")
    places = np.where(infos["sample_rate"] > 0, np.searchsorted([clip / 2, clip], infos["seconds"]), 3)
    return [names[place] for place in places.tolist()]


@lru_cache  # recordings come folder by folder
def _subfolder(folders: str) -> str:
    """Those of a recording's folders that are no label, or "(none)"."""
    return "/".join(f for f in folders.split("/") if plain(f) not in LABEL_WORDS) or "(none)"


def _natural(text: str) -> list[str | int]:
    """A key that sorts 8000 before 16000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
