"""Timelines of whole recordings: printed, and written among a detector's results."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing.audio import cautions
from antispoofing.data.recordings import Utterance
from antispoofing.report import results, screen
from antispoofing.report.detector_card import verdict_note
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.timeline import describe_overall
from antispoofing.text import printable
from data_utils import AudioError, load_with_info

if TYPE_CHECKING:
    from model import Detector

FOLDER = "timelines"  # within a detector's results
MOST_SHOWN = 20  # recordings on screen


def remove_timelines(results_folder: Path) -> None:
    """Remove the timelines of an earlier run, which must not stay beside new scores.

    Raises:
        OSError: If they cannot be removed.
    """
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
    """Score each recording window by window, write its timeline as CSV and plot, and print the first few.

    Args:
        name: The detector's name, for the plots.
        detector: In evaluation mode.
        rule: How its scores become verdicts.
        utterances: The recordings.
        results_folder: The folder of the detector's results.
        hop: Seconds from one window to the next; None for half a window.
    """
    from antispoofing.scoring.score import score_windows

    folder, rate = results_folder / FOLDER, detector.config.sample_rate
    words = (
        f"Timelines, {name}: a window is {rule.describe()}. The whole recording is {describe_overall(rule)}."
    )
    print(f"\n{screen.analysis_text([printable(words), printable(verdict_note(detector))])}\n")
    for number, utterance in enumerate(utterances):
        try:
            wave, info = load_with_info(utterance.path, rate, None, 0.0)
            timeline = score_windows(detector, wave, rule, hop)
        except AudioError as error:
            lines = [printable(f"no timeline: {utterance.name}: {error}")]
        else:
            results.write_timeline(folder, utterance.name, wave, rate, timeline, name)
            lines = screen.timeline_lines(utterance.name, timeline, cautions(wave, rate, info.note))
        if number < MOST_SHOWN:
            print("\n".join(lines))
    left = len(utterances) - MOST_SHOWN
    if left > 0:
        print(f"... and {left} more")
    print(f"All windows, as CSV, and plots are in {folder}")
