"""Whole recordings, window by window: told on screen, and written among a detector's results."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing.data.recordings import Utterance
from antispoofing.report import results, screen
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.timeline import cautions, overall
from antispoofing.text import printable
from data_utils import AudioError, load_audio

if TYPE_CHECKING:
    from model import Detector

FOLDER = "timelines"  # in a detector's results
MOST_SHOWN = 20  # recordings, on screen


def remove_timelines(results_folder: Path) -> None:
    """Remove an earlier run's timelines: they must not stay beside new scores. Raises OSError."""
    if (folder := results_folder / FOLDER).exists():
        shutil.rmtree(folder)


def write_timelines(
    name: str,
    detector: Detector,
    rule: Rule,
    utterances: Sequence[Utterance],
    results_folder: Path,
    hop: float | None,
) -> None:
    """Write each recording's windows as CSV and picture, and tell of the first few on screen.

    Args:
        name: of the detector, for the pictures.
        results_folder: the detector's.
        hop: seconds from one window to the next; None for half a window.
    """
    from antispoofing.scoring.score import score_windows

    folder, rate = results_folder / FOLDER, detector.config.sample_rate
    print(f"\nTimelines, {name}: {printable(rule.describe())}.")
    print(f"The whole recording is {overall(rule)}.")
    for number, utterance in enumerate(utterances):
        try:
            wave = load_audio(utterance.path, rate)
            timeline = score_windows(detector, wave, rule, hop)
        except AudioError as error:
            lines = [printable(f"no timeline: {utterance.name}: {error}")]
        else:
            results.write_timeline(folder, utterance.name, wave, rate, timeline, name)
            lines = screen.timeline_lines(utterance.name, timeline, cautions(wave, rate))
        if number < MOST_SHOWN:
            print("\n".join(lines))
    left = len(utterances) - MOST_SHOWN
    if left > 0:
        print(f"... and {left} more")
    print(f"Windows and pictures are in {folder}")
