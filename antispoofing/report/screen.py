"""Results for people: tables and warnings on screen, CSV and JSON files, with the pictures of `plots.py`.

Convention: a score is logit 1 (bona fide), higher = more likely real; bona fide is the positive
class of AUC and EER.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import platform
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from antispoofing import metrics
from antispoofing.report import plots
from antispoofing.scoring.score import Scored
from antispoofing.scoring.timeline import COLUMNS, Timeline
from antispoofing.training.state import EpochResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVENTION = "score = logit 1 (bona fide): higher = more likely real; bona fide is the positive class"

RESULT_FILES = ("scores.csv", "failures.csv", "metrics.json", "roc.png", "det.png", "histogram.png")
SCORE_COLUMNS = ("path", "label", "score", "verdict")  # of scores.csv; after them what a list of labels tells
WIDTH = 100  # of paragraphs, in characters
LONGEST_NAME = 250  # of a file, in bytes, that leaves room for a suffix
FEW_ERRORS = 10  # in the smaller class; with fewer a bootstrap covers clearly less than 95 %


# ------------------------------------------------------------------- on screen


def printable(text: str) -> str:
    """With control characters (as file names may have them) escaped: one line stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def results(summaries: dict[str, dict]) -> str:
    """All there is to say of detectors on labelled recordings: table, cautions, decisions, warnings."""
    parts = [results_table(summaries), CONVENTION]
    for name, summary in summaries.items():
        parts[-1] += "\n" + "\n".join(cautions(name, summary))
    for name, summary in summaries.items():
        if "at_threshold" in summary:
            parts.append(f"{name}, {confusion_table(summary['at_threshold'])}")
        if summary["reversed"]:
            parts.append(reversal_warning(name, summary))
    return "\n\n".join(parts)


def results_table(summaries: dict[str, dict], what: str = "detector") -> str:
    """One line for each detector: AUC and EER with their 95 % intervals, min DCF, counts.

    Args:
        what: the names are of; of anything but detectors failures are not counted.
    """
    rows = [(what, "AUC [95 %]", "EER % [95 %]", "min DCF", "real", "fake", "failed")]
    for name, summary in summaries.items():
        values, intervals, counts = summary["metrics"], summary["intervals_95"], summary["counts"]
        low, high = (100 * x for x in intervals["eer"])
        rows.append(
            (
                name,
                f"{values['auc']:.3f} [{intervals['auc'][0]:.3f}, {intervals['auc'][1]:.3f}]",
                f"{100 * values['eer']:.1f} [{low:.1f}, {high:.1f}]",
                f"{values['min_dcf']:.3f}",
                str(counts["bonafide_scored"]),
                str(counts["spoof_scored"]),
                str(counts["failed"]),
            )
        )
    return aligned(rows if what == "detector" else [row[:-1] for row in rows])


def cautions(name: str, summary: dict) -> list[str]:
    """What must be said beside a detector's figures, a line each."""
    values, counts = summary["metrics"], summary["counts"]
    threshold = values["threshold_at_eer_chosen_on_this_set"]
    lines = [f"{name}: its EER is at threshold {threshold:.4g}, chosen on this very set"]
    fewest = min(counts["bonafide_scored"], counts["spoof_scored"])
    errors = fewest * min(values["eer"], 1 - values["eer"])
    if fewest == 1:
        lines.append(f"{name}: one clip of a class says nothing of others")
    elif errors < FEW_ERRORS:
        side = "wrong" if values["eer"] <= 0.5 else "right"
        lines.append(
            f"{name}: about {errors:.0f} of the {fewest} clips in the smaller class are on the {side} side "
            "of that; with so few the intervals are narrower than the truth"
        )
    if summary["intervals_95"]["auc"][1] < 0.5 and not summary["reversed"]:
        lines.append(f"{name}: the AUC is below 0.5, but by a Mann-Whitney test that may be chance")
    return lines


def failures_list(scored: Scored, most: int = 10) -> str:
    """A line for each recording without a score, the first `most` of them; "" when all have one."""
    lines = [
        printable(f"not scored: {scored.utterances[i].name}: {reason}")
        for i, reason in sorted(scored.failures.items())[:most]
    ]
    left = len(scored.failures) - most
    return "\n".join(lines + ([f"... and {left} more not scored, see failures.csv"] if left > 0 else []))


def scores_table(scored: Scored, verdicts: list[str], most: int = 20) -> str:
    """A line for each recording, the first `most` of them."""
    spoken = {"bonafide": "real", "spoof": "fake", "": "not scored"}
    rows = [("file", "score", "verdict")]
    for u, score, verdict in islice(zip(scored.utterances, scored.scores, verdicts, strict=True), most):
        rows.append((printable(u.name), "" if np.isnan(score) else f"{score:.3f}", spoken[verdict]))
    left = len(verdicts) - most
    return aligned(rows) + (f"\n... and {left} more in scores.csv" if left > 0 else "")


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows of equal length as lines with straight columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def reversal_warning(name: str, summary: dict) -> str:
    """What to say of a detector whose scores point the wrong way on this data."""
    low, high = summary["intervals_95"]["auc"]
    other = summary["if_reversed"]
    value = summary["metrics"]["auc"]
    text = (
        f"WARNING, {name}: the AUC is {value:.3f}, and its 95 % interval [{low:.3f}, {high:.3f}] lies "
        "wholly below 0.5. Either the labels or the scores are reversed, or the detector fails on "
        "this data. Nothing was flipped. In the opposite direction the figures "
        f"would be AUC {other['auc']:.3f}, EER {100 * other['eer']:.1f} %: use them only if you find the "
        "labels to be swapped."
    )
    line = "!" * WIDTH
    return "\n".join([line, textwrap.fill(text, WIDTH), line])


def confusion_table(at: dict) -> str:
    """Decisions at a threshold, as counts."""
    rows = [
        ("", "called real", "called fake"),
        ("real", str(at["bonafide_bonafide"]), str(at["bonafide_spoof"])),
        ("fake", str(at["spoof_bonafide"]), str(at["spoof_spoof"])),
    ]
    return (
        f"at threshold {at['threshold']:g}: accuracy {100 * at['accuracy']:.1f} %, "
        f"FRR {100 * at['frr']:.1f} %, FAR {100 * at['far']:.1f} %\n{aligned(rows)}"
    )


# ---------------------------------------------------------------------- files


def write_results(
    folder: Path, scored: Scored, summary: dict, verdicts: list[str], run: dict, title: str
) -> None:
    """Write scores.csv, failures.csv, metrics.json and, where both classes have scores, pictures.

    Args:
        folder: an existing one.
        summary: from `evaluation.summarise`.
        verdicts: from `Scored.verdicts`.
        run: what was run (detector, data, command), for metrics.json.
        title: of the pictures: the detector's name.
    """
    clear(folder, RESULT_FILES)
    rows = zip(scored.utterances, scored.scores, verdicts, strict=True)
    told = list(dict.fromkeys(name for u in scored.utterances for name in u.columns))
    _write_csv(
        folder / "scores.csv",
        (*SCORE_COLUMNS, *(f"list_{name}" if name in SCORE_COLUMNS else name for name in told)),
        (
            (u.name, u.label, "" if np.isnan(score) else repr(float(score)), v, *map(u.columns.get, told))
            for u, score, v in rows
        ),
    )
    _write_csv(
        folder / "failures.csv",
        ("path", "reason"),
        [(scored.utterances[i].name, reason) for i, reason in sorted(scored.failures.items())],
    )
    write_json(folder / "metrics.json", summary | run)
    if "metrics" in summary:
        for name, figure in pictures(scored, summary, title).items():
            figure.savefig(folder / f"{name}.png", dpi=120)


def pictures(scored: Scored, summary: dict, title: str) -> dict[str, Figure]:
    """ROC and DET curve, and both classes' scores, by what the file is called that they go to.

    Args:
        scored, summary: of recordings of both classes.
    """
    bonafide, spoof = scored.scores_of("bonafide"), scored.scores_of("spoof")
    points = metrics.error_rates(bonafide, spoof)
    figures = {
        "roc": plots.plot_roc(points, summary),
        "det": plots.plot_det(points, summary),
        "histogram": plots.plot_histogram(bonafide, spoof, summary),
    }
    for figure in figures.values():
        figure.suptitle(title, parse_math=False)  # a file name may hold a $
    return figures


def say_analysis(folder: Path, figures: str, words: list[str]) -> None:
    """Print what `results` gave and what is made of it, and write both to analysis.md.

    Args:
        words: Markdown, in blocks set apart by empty lines.
    """
    text = "\n\n".join(_wrapped(block) for block in "\n\n".join(words).split("\n\n"))
    print(f"\n{figures}\n\n{text}")
    (folder / "analysis.md").write_text(f"# Analysis\n\n```\n{figures}\n```\n\n{text}\n", encoding="utf-8")


def _wrapped(block: str) -> str:
    """Lines of at most WIDTH characters, tables left as they are."""
    if block.startswith("|"):
        return block
    wrap = partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        wrap(line, subsequent_indent="  " * line.startswith("- ")) for line in block.splitlines()
    )


def write_json(path: Path, content: dict) -> None:
    """Write figures with the convention they follow and the versions they were made with."""
    content = {"convention": CONVENTION} | content | {"versions": _versions()}
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    # A folder's name may be no text: its bytes become escapes, as JSON has them.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_timeline(
    folder: Path, name: str, wave: np.ndarray, sample_rate: int, timeline: Timeline, title: str
) -> None:
    """Write a recording's windows, with their verdicts one by one, to <name>.csv, and <name>.png.

    Args:
        name: of the recording, relative to its data set's root; its folders are made. Of one that is too
            long for a suffix it is the sha256.
        title: of the picture, beside the recording's name.
    """
    inside = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    path = folder.joinpath(*inside)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        path = path.with_name(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_csv(path.with_name(f"{path.name}.csv"), COLUMNS, timeline.rows())
    figure = plots.plot_timeline(wave, sample_rate, {title: timeline})
    figure.suptitle(printable(name), parse_math=False)
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=120)


def timeline_lines(name: str, timeline: Timeline, cautions: Sequence[str]) -> list[str]:
    """What a timeline shows: a line on the recording, and one for each stretch that sounds synthetic.

    Args:
        cautions: from `windows.cautions`.
    """
    n, mean = len(timeline.scores), timeline.margins.mean()
    heard = f"{n} windows" if n > 1 else "1 window"
    lines = [f"{printable(name)}: {timeline.verdict.upper()} ({heard}, mean margin {mean:.2f})"]
    lines += [f"  mind: {caution}" for caution in cautions]
    for stretch in timeline.suspicious():
        times = f"{clock(stretch.start)} to {clock(stretch.end)}"
        lines.append(f"  {times} {stretch.says} (lowest score {stretch.score:.2f})")
    return lines


def clock(seconds: float) -> str:
    """65.25 -> "1:05.2"."""
    tenths = int(10 * seconds)  # never later than it is
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def clear(folder: Path, names: Iterable[str]) -> None:
    """Remove an earlier run's files: they must not stay beside new ones."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "numpy", "scipy", "soundfile", "soxr")
    versions = {name: version(name) for name in packages}
    if fairseq := sys.modules.get("fairseq"):  # imported only where it is used
        versions["fairseq"] = fairseq.__version__
    return {"python": platform.python_version(), "libsndfile": soundfile.__libsndfile_version__} | versions


def write_history(folder: Path, history: list[EpochResult]) -> None:
    """Write history.csv, a row for each epoch, and history.png, losses and validation EER."""
    rows = [dataclasses.astuple(result) for result in history]
    _write_csv(folder / "history.csv", tuple(f.name for f in dataclasses.fields(history[0])), rows)
    plots.plot_history(history).savefig(folder / "history.png", dpi=120)
