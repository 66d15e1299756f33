"""Timelines of whole recordings: printed, and written among a detector's results."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from antispoofing.audio import cautions
from antispoofing.data.recordings import Utterance
from antispoofing.files import remove
from antispoofing.progress import bar
from antispoofing.report import results, screen
from antispoofing.report.detector_card import verdict_note
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.timeline import Timeline, describe_overall
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
    remove(results_folder, results.OVERVIEWS)
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
    """Score each recording window by window, write its timeline and an overview, and print the first few.

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
    overview: list[tuple[str, Timeline | None, str]] = []
    for number, utterance in enumerate(bar(utterances, what="timelines", unit="recording")):
        try:
            wave, info = load_with_info(utterance.path, rate, None, 0.0)
            timeline = score_windows(detector, wave, rule, hop)
        except AudioError as error:
            overview.append((utterance.name, None, str(error)))
            lines = [printable(f"no timeline: {utterance.name}: {error}")]
        else:
            notes = cautions(wave, rate, info.note)
            overview.append((utterance.name, timeline, "; ".join(notes)))
            results.write_timeline(folder, utterance.name, wave, rate, timeline, name)
            lines = screen.timeline_lines(utterance.name, timeline, notes)
        if number < MOST_SHOWN:
            tqdm.write("\n".join(lines))
    left = len(utterances) - MOST_SHOWN
    if left > 0:
        print(f"... and {left} more")
    results.write_overview(results_folder, overview)
    files = " and ".join(str(results_folder / file) for file in results.OVERVIEWS)
    print(f"Whole recordings and their stretches are in {files}")
    if any(timeline for _, timeline, _ in overview):
        print(f"All windows, as CSV, and plots are in {folder}")
