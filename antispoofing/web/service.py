"""The work behind the web page and its HTTP interface: scoring strangers' recordings, within limits.

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

MOST_COLUMNS = 5  # columns of an archive's list of labels that are analysed
NOTHING = "upload a recording, or record one, first"


@dataclass(frozen=True)
class NamedDetector:
    """A detector, and the rule by which its scores become verdicts."""

    name: str
    detector: Detector
    rule: Rule


@dataclass(frozen=True)
class HeardRecording:
    """A recording that was scored in full.

    Attributes:
        name: The file's name.
        wave: Samples, float32 [n].
        sample_rate: Of the samples, in Hz.
        info: The properties of the file.
        timelines: By the detector's name.
    """

    name: str
    wave: np.ndarray
    sample_rate: int
    info: AudioInfo
    timelines: dict[str, Timeline]


class Service:
    """Detectors that score recordings, one request at a time.

    Args:
        detectors: Detectors in evaluation mode, by name.
        sandbox: Reads the files.
        limits: Limits of each request.
    """

    def __init__(self, detectors: dict[str, Detector], sandbox: Sandbox, limits: Limits):
        self.detectors = {
            name: NamedDetector(name, detector, Rule.from_detector(detector))
            for name, detector in detectors.items()
        }
        self.sandbox, self.limits = sandbox, limits

    def chosen(self, names: Sequence[str]) -> list[NamedDetector]:
        """Return the detectors of these names, in their usual order.

        Raises:
            DataError: If no name is given, or there is no such detector.
        """
        if not names:
            raise DataError("choose a detector")
        if unknown := next((name for name in names if name not in self.detectors), None):
            raise DataError(f"there is no detector {unknown!r}: choose from {', '.join(self.detectors)}")
        return [named for name, named in self.detectors.items() if name in names]

    def hear(self, path: str | Path, names: Sequence[str]) -> HeardRecording:
        """Score a whole recording, window by window, with each of the named detectors.

        Raises:
            DataError: If the recording cannot be read or exceeds a limit, or as in `chosen`.
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
        """Score the first clip of each recording with the named detectors, as evaluate_custom.py does.

        Raises:
            DataError: If there are too many recordings, or as in `chosen`.
        """
        if len(utterances) > self.limits.files:
            raise DataError(f"{len(utterances)} recordings, but the limit here is {self.limits.files}")
        from antispoofing.scoring.score import score_recordings

        detectors, load = self.chosen(names), _Loader(self.sandbox, self.limits)
        return {named.name: score_recordings(named.detector, utterances, load=load) for named in detectors}

    def uploaded(self, paths: Sequence[str | Path]) -> list[Utterance]:
        """Return uploaded files as recordings without labels, under their own names.

        Raises:
            DataError: If a file is too large, or has been deleted.
        """
        for path in paths:
            self._check_size(path)
        # str(Path()) makes a plain string: gradio's own kind would make the sandbox import all of gradio.
        return [Utterance(str(Path(path)), Path(path).name, "") for path in paths]

    @contextmanager
    def unpacked(self, archive: str | Path) -> Iterator[Recordings]:
        """Unpack an archive; yield the recordings in it, which are there until the block ends.

        Raises:
            DataError: If it cannot be unpacked or exceeds a limit; the message names no folder of this
                machine.
        """
        self._check_size(archive)
        limits, name = self.limits, Path(archive).name
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(archive, Path(folder) / name)
            most = round(limits.unpacked_megabytes * 1e6)
            try:
                found = self.sandbox.call(limits.seconds_per_file, _unpack, copy, most, limits.files)
            except (DataError, SandboxError, OSError) as error:
                words = str(error)
                if isinstance(error, OSError):
                    words = f"cannot be unpacked: {error.strerror or error}"
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
    """Reads the files of one request within its limits, by `data_utils.load_with_info` in the sandbox."""

    def __init__(self, sandbox: Sandbox, limits: Limits):
        self.sandbox, self.limits = sandbox, limits
        self.left = limits.seconds

    def __call__(
        self, path: str, sample_rate: int, max_samples: int | None, offset: float
    ) -> tuple[np.ndarray, AudioInfo]:
        if self.left <= 0:
            raise AudioError(
                f"no time left to read it: the files before it took {self.limits.seconds:g} s, the limit here"
            )
        seconds, started = min(self.limits.seconds_per_file, self.left), time.monotonic()
        try:
            return self.sandbox.call(seconds, load_with_info, path, sample_rate, max_samples, offset)
        except SandboxError as error:
            raise AudioError(str(error)) from error
        finally:
            self.left -= time.monotonic() - started


def _unpack(archive: Path, most_bytes: int, most_files: int) -> Recordings:
    """Extract an archive and find the recordings in it, with the first columns of their list of labels."""
    archives.extract(archive, most_bytes, most_files)
    found = find_recordings([archive])  # this also refuses lists that name files outside the archive
    utterances = []
    for utterance in found.utterances:
        columns = dict(islice(utterance.columns.items(), MOST_COLUMNS))
        utterances.append(replace(utterance, columns=columns))
    return replace(found, utterances=utterances)
