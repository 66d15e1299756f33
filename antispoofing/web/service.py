"""What the web page and its HTTP interface do: score strangers' recordings, within limits.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antispoofing.data import archives
from antispoofing.data.recordings import Recordings, Utterance, find_recordings
from antispoofing.errors import DataError
from antispoofing.sandbox import Sandbox, SandboxError
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.web.limits import Limits
from data_utils import AudioError, AudioInfo, load_with_info

if TYPE_CHECKING:
    from model import Detector

MOST_COLUMNS = 5  # of an archive's list of labels, each of which is analysed
NOTHING = "upload a recording, or record one, first"


@dataclass(frozen=True)
class NamedDetector:
    """A detector, and the rule by which its scores become verdicts."""

    name: str
    detector: Detector
    rule: Rule


@dataclass(frozen=True)
class HeardRecording:
    """A recording that was heard in full.

    Attributes:
        wave: [n] samples.
        timelines: by the detector's name.
    """

    name: str
    wave: np.ndarray
    sample_rate: int
    info: AudioInfo
    timelines: dict[str, Timeline]


class Service:
    """The detectors, ready to score: one request at a time.

    Args:
        detectors: in evaluation mode, by name.
    """

    def __init__(self, detectors: dict[str, Detector], sandbox: Sandbox, limits: Limits):
        self.detectors = {
            name: NamedDetector(name, detector, Rule.from_detector(detector))
            for name, detector in detectors.items()
        }
        self.sandbox, self.limits = sandbox, limits

    def chosen(self, names: Sequence[str]) -> list[NamedDetector]:
        """The detectors of these names, in their usual order. Raises DataError."""
        if not names:
            raise DataError("choose a detector")
        if unknown := next((name for name in names if name not in self.detectors), None):
            raise DataError(f"there is no detector {unknown!r}: there are {', '.join(self.detectors)}")
        return [named for name, named in self.detectors.items() if name in names]

    def hear(self, path: str | Path, names: Sequence[str]) -> HeardRecording:
        """Score a whole recording window by window.

        Raises:
            DataError: it cannot be read, or is longer than the limit; the message names it.
        """
        from antispoofing.scoring.score import score_windows

        detectors, name, load = self.chosen(names), Path(path).name, _Loader(self.sandbox, self.limits)
        self._check_size(path)
        waves: dict[int, tuple[np.ndarray, AudioInfo]] = {}  # by sample rate
        timelines = {}
        for named in detectors:
            rate = named.detector.config.sample_rate
            most = round(60 * self.limits.minutes * rate)
            try:
                if rate not in waves:
                    waves[rate] = load(str(Path(path)), rate, most + 1, 0.0)
            except AudioError as error:
                raise DataError(f"{name} cannot be read: {error}") from error
            wave, _ = waves[rate]
            if len(wave) > most:
                raise DataError(
                    f"{name} is longer than {self.limits.minutes:g} minutes, the limit here: cut it, or run "
                    "evaluate_custom.py --timeline on your own machine"
                )
            try:
                timelines[named.name] = score_windows(named.detector, wave, named.rule)
            except AudioError as error:
                raise DataError(f"{name}: {error}") from error
        rate, (wave, info) = next(iter(waves.items()))
        return HeardRecording(name, wave, rate, info, timelines)

    def score(self, utterances: Sequence[Utterance], names: Sequence[str]) -> dict[str, Scored]:
        """Each recording's first clip, as evaluate_custom.py scores it, by each detector.

        Raises:
            DataError: there are more than the limit.
        """
        if len(utterances) > self.limits.files:
            raise DataError(f"{len(utterances)} recordings, but at most {self.limits.files} are allowed here")
        from antispoofing.scoring.score import score_recordings

        detectors, load = self.chosen(names), _Loader(self.sandbox, self.limits)
        return {named.name: score_recordings(named.detector, utterances, load=load) for named in detectors}

    def uploaded(self, paths: Sequence[str | Path]) -> list[Utterance]:
        """Files without labels, as they were called. Raises DataError for one that is too large."""
        for path in paths:
            self._check_size(path)
        # str(Path()): gradio's own kind of string would bring all of gradio into the sandbox
        return [Utterance(str(Path(path)), Path(path).name, "") for path in paths]

    @contextmanager
    def unpacked(self, archive: str | Path) -> Iterator[Recordings]:
        """What is in an archive, until the end of the block.

        Raises:
            DataError: it is refused; the message names no folder of this machine.
        """
        self._check_size(archive)
        limits, name = self.limits, Path(archive).name
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(archive, Path(folder) / name)
            most = round(limits.unpacked_megabytes * 1e6)
            try:
                found = self.sandbox.call(limits.seconds_per_file, _unpack, copy, most, limits.files)
            except (DataError, SandboxError, OSError) as error:
                words = f"cannot be unpacked: {error.strerror}" if isinstance(error, OSError) else str(error)
                for inside in (f"{copy}.extracted{os.sep}", f"{folder}{os.sep}"):
                    words = words.replace(inside, "")
                words = words.replace(f"{name}.extracted", name)
                raise DataError(words if name in words else f"{name}: {words}") from error
            yield found

    def _check_size(self, path: str | Path) -> None:
        try:
            size = Path(path).stat().st_size
        except OSError as error:
            raise DataError(f"{Path(path).name} is no longer here: upload it again") from error
        if size > 1e6 * self.limits.megabytes:
            raise DataError(f"{Path(path).name} is larger than {self.limits.megabytes:g} MB, the limit here")


class _Loader:
    """`data_utils.load_with_info` for the files of one request, within its limits."""

    def __init__(self, sandbox: Sandbox, limits: Limits):
        self.sandbox, self.limits = sandbox, limits
        self.left = limits.seconds

    def __call__(
        self, path: str, sample_rate: int, max_samples: int | None, offset: float
    ) -> tuple[np.ndarray, AudioInfo]:
        if self.left <= 0:
            raise AudioError(f"the files before it took {self.limits.seconds:g} s to read, the limit here")
        seconds, started = min(self.limits.seconds_per_file, self.left), time.monotonic()
        try:
            return self.sandbox.call(seconds, load_with_info, path, sample_rate, max_samples, offset)
        except SandboxError as error:
            raise AudioError(str(error)) from error
        finally:
            self.left -= time.monotonic() - started


def _unpack(archive: Path, most_bytes: int, most_files: int) -> Recordings:
    archives.extract(archive, most_bytes, most_files)
    found = find_recordings([archive])  # which also refuses what its lists may not name
    utterances = []
    for utterance in found.utterances:
        columns = dict(islice(utterance.columns.items(), MOST_COLUMNS))
        utterances.append(replace(utterance, columns=columns))
    return replace(found, utterances=utterances)
