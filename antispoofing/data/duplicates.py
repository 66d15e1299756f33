"""The same audio more than once: in a data set, in both of its classes, or in two of its splits.

A recording that is also in the training split flatters a test; one that is both real and fake is
labelled wrongly once. Recordings are compared by what they decode to, at 16 bits and their own sample rate,
whatever their names and formats; those of more than a minute by their first minute and their length. A lossy
copy, or one at another sample rate, is another recording here.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from antispoofing import distributed
from antispoofing.data.recordings import Utterance
from antispoofing.text import printable
from data_utils import AudioError, mono, open_audio

DUPLICATES = "duplicates.csv"  # the listing, among results
LISTED = 10  # groups on screen
# Of longer recordings only the beginning is decoded; the rest counts by its length.
DECODED_SECONDS = 60


@dataclass(frozen=True)
class Member:
    """One recording: the split it is in ("" where there are none), and what it is."""

    split: str
    utterance: Utterance

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.split, self.utterance.name)))


@dataclass(frozen=True)
class Audit:
    """What `find_duplicates` found: groups of recordings that are the same, the worst first.

    Attributes:
        groups: of two or more each; those in both classes come first, then those in two splits.
        n_compared: how many recordings could be decoded.
        n_failed: how many could not.
    """

    groups: list[list[Member]]
    n_compared: int
    n_failed: int

    def describe(self) -> str:
        """A line on the whole, and one for each of the first groups."""
        unread = f" ({self.n_failed} could not be read)" if self.n_failed else ""
        if not self.groups:
            return f"Audit: none of {self.n_compared} recordings{unread} is there twice."
        worst = [f"{n} {words}" for words, is_so in _KINDS if (n := sum(map(is_so, self.groups)))]
        what = f"{sum(map(len, self.groups))} are there more than once, in {len(self.groups)} groups"
        lines = [f"AUDIT: of {self.n_compared} recordings{unread}, {', '.join([what, *worst])}:"]
        for group in self.groups[:LISTED]:
            where = ", ".join(words for words, is_so in _KINDS if is_so(group))
            names = " = ".join(member.name for member in group)
            lines.append(printable(f"{f'the same audio {where}'.rstrip()}: {names}"))
        left = len(self.groups) - LISTED
        return "\n".join(lines + ([f"... and {left} more"] if left > 0 else []))

    def write(self, path: Path) -> None:
        """A CSV file, a row for each recording of each group."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("group", "split", "path", "label"))
            for number, group in enumerate(self.groups, start=1):
                writer.writerows((number, m.split, m.utterance.name, m.utterance.label) for m in group)


def find_duplicates(splits: Mapping[str, Sequence[Utterance]], threads: int | None = None) -> Audit:
    """Compare all recordings of one or several splits with each other. What cannot be read is left out.

    Args:
        splits: recordings by the name of their split; of a set without splits by "".
        threads: that decode at once; None for as many as there are cores.
    """
    members = [Member(split, utterance) for split, utterances in splits.items() for utterance in utterances]
    found: dict[bytes, list[Member]] = {}
    with (
        ThreadPoolExecutor(threads or distributed.cores()) as pool,
        tqdm(total=len(members), desc="audit", unit="clip", disable=None) as progress,
    ):
        for start in range(0, len(members), 1000):  # not a million of tasks at once
            some = members[start : start + 1000]
            for member, print_ in zip(some, pool.map(_fingerprint_or_empty, some), strict=True):
                found.setdefault(print_, []).append(member)
                progress.update()
    failed = found.pop(b"", [])
    groups = [group for group in found.values() if len(group) > 1]
    groups.sort(key=lambda group: (*(not is_so(group) for _, is_so in _KINDS), group[0].name))
    return Audit(groups, len(members) - len(failed), len(failed))


def _in_both_classes(group: Sequence[Member]) -> bool:
    return len({member.utterance.label for member in group} - {""}) > 1


def _in_two_splits(group: Sequence[Member]) -> bool:
    return len({member.split for member in group}) > 1


_KINDS = (("in both classes", _in_both_classes), ("in two splits", _in_two_splits))  # the worse first


def _fingerprint_or_empty(member: Member) -> bytes:
    """b"" for what cannot be read: it is named where it is needed, as a failure there."""
    try:
        return fingerprint(member.utterance.path)
    except AudioError:
        return b""


def fingerprint(path: str | Path) -> bytes:
    """Equal for two recordings that decode to the same samples. Raises AudioError for what cannot be read."""
    with open_audio(path) as file:
        rate = file.info.sample_rate
        block = file.read(0, DECODED_SECONDS * rate)
        seconds = round(file.info.seconds) if len(block) == DECODED_SECONDS * rate else 0
    if not len(block):
        raise AudioError("no samples in it")
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that no sample should be are still compared
        wave = mono(block)
        samples = np.rint(wave * np.float32(32768)).clip(-32768, 32767).astype("<i2")
    digest = hashlib.sha256(f"{rate} {seconds}:".encode())
    digest.update(samples)
    return digest.digest()
