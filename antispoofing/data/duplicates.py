"""Duplicates: the same audio more than once in a data set, in both of its classes or in two of its splits.

A test recording that is also in the training split makes the result look better than it is; one that is both
real and fake has a wrong label in one place. Recordings are compared by what they decode to, at 16 bits and
their own sample rate, whatever their names and formats; those of more than a minute by their first minute and
their length. A lossy copy, or one at another sample rate, does not count as the same recording.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antispoofing import distributed
from antispoofing.data.recordings import Utterance
from antispoofing.progress import bar
from antispoofing.text import counted, printable
from data_utils import AudioError, mono, open_audio

DUPLICATES = "duplicates.csv"  # the file of duplicates, among the results
LISTED = 10  # how many groups are shown on screen
DECODED_SECONDS = 60  # longer recordings are compared by their beginning and their length


@dataclass(frozen=True)
class Member:
    """One recording and the split that it is in ("" where there are no splits)."""

    split: str
    utterance: Utterance

    @property
    def name(self) -> str:
        """The recording's name, after that of its split."""
        return "/".join(filter(None, (self.split, self.utterance.name)))


@dataclass(frozen=True)
class Audit:
    """What `find_duplicates` found.

    Attributes:
        groups: Groups of two or more recordings with the same audio; first those in both classes, then those
            in two splits.
        n_compared: The number of recordings that could be decoded.
        n_failed: The number of recordings that could not.
    """

    groups: list[list[Member]]
    n_compared: int
    n_failed: int

    def describe(self) -> str:
        """Return a line that sums up the audit, and one for each of the first groups."""
        unread = f"; {self.n_failed} could not be read" if self.n_failed else ""
        compared = counted(self.n_compared, "recording")
        if not self.groups:
            return f"Audit: no duplicates among {compared}{unread}."
        worst = [f"{n} {words}" for words, is_so in _KINDS if (n := sum(map(is_so, self.groups)))]
        groups = counted(len(self.groups), "group") + (f" ({', '.join(worst)})" if worst else "")
        n_sharing = sum(map(len, self.groups))
        lines = [f"AUDIT: {n_sharing} of {compared} share their audio with another one, in {groups}{unread}:"]
        for group in self.groups[:LISTED]:
            where = ", ".join(words for words, is_so in _KINDS if is_so(group))
            names = " = ".join(member.name for member in group)
            lines.append(printable(f"{f'the same audio {where}'.rstrip()}: {names}"))
        left = len(self.groups) - LISTED
        return "\n".join(lines + ([f"... and {left} more"] if left > 0 else []))

    def write(self, path: Path) -> None:
        """Write a CSV file with a row for each recording of each group."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("group", "split", "path", "label"))
            for number, group in enumerate(self.groups, start=1):
                writer.writerows((number, m.split, m.utterance.name, m.utterance.label) for m in group)


def find_duplicates(splits: Mapping[str, Sequence[Utterance]], threads: int | None = None) -> Audit:
    """Compare all recordings of one or several splits with each other, except those that cannot be read.

    Args:
        splits: The recordings by the name of their split, which is "" in a set without splits.
        threads: How many threads decode at once; None for one per processor core.
    """
    members = [Member(split, utterance) for split, utterances in splits.items() for utterance in utterances]
    found: dict[bytes, list[Member]] = {}
    with (
        ThreadPoolExecutor(threads or distributed.cores()) as pool,
        bar(what="audit", unit="clip", total=len(members)) as progress,
    ):
        for start in range(0, len(members), 1000):  # so that the pool never holds a million tasks
            chunk = members[start : start + 1000]
            for member, digest in zip(chunk, pool.map(_fingerprint_or_empty, chunk), strict=True):
                found.setdefault(digest, []).append(member)
                progress.update()
    failed = found.pop(b"", [])
    groups = [group for group in found.values() if len(group) > 1]
    groups.sort(key=lambda group: (*(not is_so(group) for _, is_so in _KINDS), group[0].name))
    return Audit(groups, len(members) - len(failed), len(failed))


def _in_both_classes(group: Sequence[Member]) -> bool:
    return len({member.utterance.label for member in group} - {""}) > 1


def _in_two_splits(group: Sequence[Member]) -> bool:
    return len({member.split for member in group}) > 1


_KINDS = (("in both classes", _in_both_classes), ("in two splits", _in_two_splits))  # the worse kind first


def _fingerprint_or_empty(member: Member) -> bytes:
    """Return a recording's fingerprint, or b"" if it cannot be read: scoring or training will say why."""
    try:
        return fingerprint(member.utterance.path)
    except AudioError:
        return b""


def fingerprint(path: str | Path) -> bytes:
    """Return a digest that is equal for recordings that decode to the same samples.

    Raises:
        AudioError: If the recording cannot be read.
    """
    with open_audio(path) as file:
        rate = file.info.sample_rate
        block = file.read(0, DECODED_SECONDS * rate)
        seconds = round(file.info.seconds) if len(block) == DECODED_SECONDS * rate else 0
    if not len(block):
        raise AudioError("it has no samples")
    with np.errstate(over="ignore", invalid="ignore"):  # samples that are not finite are compared as well
        wave = mono(block)
        samples = np.rint(wave * np.float32(32768)).clip(-32768, 32767).astype("<i2")
    digest = hashlib.sha256(f"{rate} {seconds}:".encode())
    digest.update(samples.data)
    return digest.digest()
