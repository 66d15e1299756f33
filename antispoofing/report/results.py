"""Results in files: scores, metrics, timelines and curves as CSV and JSON, and pictures.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from antispoofing import metrics
from antispoofing.files import remove
from antispoofing.project import Invocation
from antispoofing.report import plots
from antispoofing.report.summary import CONVENTION
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score_files import DECISIONS, HEARD, SCORES_CSV_HEADER
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import COLUMNS, Timeline
from antispoofing.text import auc_text, eer_text, printable
from antispoofing.training.history import EpochResult
from data_utils import SPOOF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("torch", "transformers", "numpy", "scipy", "scikit-learn", "librosa", "soundfile", "soxr")
PICTURES = ("roc", "det", "histogram")
PICTURE_FORMATS = ("png", "svg", "pdf")
RESULT_FILES = (
    *("scores.csv", "failures.csv", "metrics.json"),
    *(f"{name}.{suffix}" for name in PICTURES for suffix in PICTURE_FORMATS),
)
OVERVIEWS = ("timelines.csv", "timelines.rttm")
OVERVIEW_COLUMNS = ("path", "seconds", "windows", "whole_recording", "mean_margin", "stretches", "note")
LONGEST_NAME = 250  # bytes in a file name that leave room for a suffix


def write_results(
    folder: Path,
    scored: Scored,
    summary: dict,
    rule: Rule | None,
    about: dict,
    invocation: Invocation,
    title: str,
    formats: Sequence[str] = ("png",),
) -> None:
    """Write scores.csv, failures.csv, metrics.json and, where both classes have scores, pictures.

    Args:
        folder: Existing folder; results of an earlier run in it are removed.
        scored: The recordings and their scores.
        summary: Their figures, from `report.summary.summarise`.
        rule: How scores become verdicts; None to keep those that the recordings' columns have.
        about: What was scored, and by which detector, as JSON types for metrics.json.
        invocation: The command, for metrics.json.
        title: Title of the pictures, the detector's name.
        formats: File formats of the pictures.
    """
    remove(folder, RESULT_FILES)
    columns = list(dict.fromkeys(name for u in scored.utterances for name in u.columns))
    if has_verdicts(columns):  # these scores are from a scores.csv, with a verdict by the detector's own rule
        columns = [name for name in columns if name not in (*DECISIONS, *HEARD)]
    if rule is None:
        decisions = [
            tuple(u.columns.get(name, "") for name in (*DECISIONS, *HEARD)) for u in scored.utterances
        ]
    else:
        pairs = zip(rule.verdicts(scored.logits), rule.margins(scored.logits).tolist(), strict=True)
        decisions = [
            (verdict, _number(margin), rule.basis if verdict else "", *scored.heard(i))
            for i, (verdict, margin) in enumerate(pairs)
        ]
    rows = zip(scored.utterances, scored.scores, scored.logits[:, SPOOF], decisions, strict=True)
    _write_csv(
        folder / "scores.csv",
        (*SCORES_CSV_HEADER, *(f"list_{name}" if name in SCORES_CSV_HEADER else name for name in columns)),
        (
            (u.name, u.label, _number(score), _number(spoof), *decision, *map(u.columns.get, columns))
            for u, score, spoof, decision in rows
        ),
    )
    _write_csv(
        folder / "failures.csv",
        ("path", "reason"),
        [(scored.utterances[i].name, reason) for i, reason in sorted(scored.failures.items())],
    )
    write_json(folder / "metrics.json", summary | about, invocation)
    if "metrics" in summary:
        save_pictures(folder, pictures(scored, summary, title), formats)


def has_verdicts(columns: Collection[str]) -> bool:
    """Whether recordings have the columns of a scores.csv that say what was decided."""
    return set(DECISIONS) <= set(columns)


def pictures(scored: Scored, summary: dict, title: str) -> dict[str, Figure]:
    """Draw the ROC and DET curves and the score histogram, for recordings of both classes.

    Args:
        scored: The recordings and their scores.
        summary: Their figures, from `report.summary.summarise`.
        title: Title of the pictures.

    Returns:
        The figures by the names of their files, without suffix.
    """
    bonafide, spoof = scored.bonafide, scored.spoof
    points = {title: metrics.error_rates(bonafide, spoof)}
    figures = (
        plots.plot_roc(points, {title: summary}),
        plots.plot_det(points, {title: summary}),
        plots.plot_histogram(title, bonafide, spoof, summary),
    )
    return dict(zip(PICTURES, figures, strict=True))


def save_pictures(folder: Path, figures: Mapping[str, Figure], formats: Sequence[str]) -> None:
    """Write figures, by name without suffix, in file formats out of PICTURE_FORMATS."""
    for name, figure in figures.items():
        for suffix in formats:
            figure.savefig(folder / f"{name}.{suffix}", dpi=120)


def picture_files(name: str) -> list[str]:
    """Return the names of a picture's files, in all formats."""
    return [f"{name}.{suffix}" for suffix in PICTURE_FORMATS]


def write_tables(folder: Path, summaries: Mapping[str, dict]) -> None:
    """Write the figures of each file of scores to table.csv, and to table.tex for LaTeX's booktabs."""
    header = ("name", "auc", "auc_low", "auc_high", "eer", "eer_low", "eer_high", "min_dcf", "real", "fake")
    rows, lines = [], []
    for name, summary in summaries.items():
        values, intervals, counts = summary["metrics"], summary["intervals_95"], summary["counts"]
        numbers = counts["bonafide_scored"], counts["spoof_scored"]
        both = [(values[key], *(intervals[key] or ("", ""))) for key in ("auc", "eer")]
        rows.append((name, *both[0], *both[1], values["min_dcf"], *numbers))
        cells = (auc_text(values["auc"], intervals["auc"]), eer_text(values["eer"], intervals["eer"]))
        lines.append(" & ".join([_latex(name), *cells, f"{values['min_dcf']:.4f}", *map(str, numbers)]))
    _write_csv(folder / "table.csv", header, rows)
    heading = r" & AUC [95\,\%] & EER\,\% [95\,\%] & min DCF & real & fake"
    text = [
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        rf"{heading} \\",
        r"\midrule",
        *(rf"{line} \\" for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    (folder / "table.tex").write_text("\n".join(text) + "\n", encoding="utf-8")


def _latex(text: str) -> str:
    """Escape the characters that mean something to LaTeX."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escaped = "".join(named.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in printable(text))
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped  # which would be an option of \\


def write_overlaid(
    folder: Path, scored: Mapping[str, Scored], summaries: Mapping[str, dict], formats: Sequence[str]
) -> None:
    """Draw the ROC and DET curves of several files over each other; a single one's results are removed."""
    remove(folder, RESULT_FILES)
    points = {name: metrics.error_rates(s.bonafide, s.spoof) for name, s in scored.items()}
    figures = {"roc": plots.plot_roc(points, summaries), "det": plots.plot_det(points, summaries)}
    save_pictures(folder, figures, formats)


def write_analysis(folder: Path, figures: str, text: str) -> None:
    """Write a table of figures and the analysis of these to analysis.md."""
    content = f"# Analysis\n\n```\n{figures}\n```\n\n{text}\n"
    (folder / "analysis.md").write_text(content, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict, invocation: Invocation) -> None:
    """Write figures with the convention they follow, the command, and the versions of code and packages."""
    content = {"convention": CONVENTION} | content | invocation.to_dict() | {"versions": _versions()}
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    # Bytes in a folder's name that are not UTF-8 become escapes, as in JSON.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_timeline(
    folder: Path, name: str, wave: np.ndarray, sample_rate: int, timeline: Timeline, title: str
) -> None:
    """Write a recording's windows with their verdicts to <name>.csv, and draw its timeline in <name>.png.

    Args:
        folder: Existing folder; subfolders in `name` are made.
        name: Name of the recording, relative to its data set's root; ".." in it becomes "_", and a "/" at its
            beginning is left out. If its last part is too long to add a suffix, its SHA-256 replaces it.
        wave: Samples [n].
        sample_rate: Sample rate in Hz.
        timeline: The recording's timeline.
        title: Name of the detector, for the picture.
    """
    inside = ["_" if part == ".." else part for part in PurePosixPath(name.lstrip("/")).parts]
    path = folder.joinpath(*inside)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        path = path.with_name(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_csv(path.with_name(f"{path.name}.csv"), COLUMNS, timeline.rows())
    figure = plots.plot_timeline(wave, sample_rate, {title: timeline})
    figure.suptitle(printable(name), parse_math=False)
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=120)


def write_overview(folder: Path, timelines: Sequence[tuple[str, Timeline | None, str]]) -> None:
    """Write what the timelines say of whole recordings, and where these sound synthetic.

    Written are timelines.csv, with a row for each recording, and timelines.rttm, with a line for each stretch
    in NIST's Rich Transcription Time Marked format, for players and annotation tools. There, blanks in names
    are escaped, and the label is "synthetic" or, if the windows only lean that way, "leans-synthetic".

    Args:
        folder: Existing folder.
        timelines: For each recording its name, its timeline (None if it could not be read), and its cautions
            or the reason.
    """
    rows: list[tuple] = []
    marked: list[str] = []
    for name, timeline, note in timelines:
        if timeline is None:
            rows.append((name, "", "", "", "", "", note))
            continue
        stretches = timeline.suspicious()
        words = "; ".join(f"{s.start:.2f} to {s.end:.2f} s {s.says}" for s in stretches)
        seconds, margin = float(timeline.ends[-1]), float(timeline.margins.mean())
        rows.append((name, seconds, len(timeline.scores), timeline.overall, margin, words, note))
        unbroken = re.sub(r"\s", lambda blank: f"\\x{ord(blank[0]):02x}", name)
        for stretch in stretches:
            times = f"{stretch.start:.3f} {stretch.end - stretch.start:.3f}"
            label = "synthetic" if stretch.is_sure else "leans-synthetic"
            marked.append(f"SPEAKER {unbroken} 1 {times} <NA> <NA> {label} <NA> <NA>\n")
    _write_csv(folder / OVERVIEWS[0], OVERVIEW_COLUMNS, rows)
    (folder / OVERVIEWS[1]).write_text("".join(marked), encoding="utf-8")


def write_history(folder: Path, history: Sequence[EpochResult]) -> None:
    """Write history.csv, with a row for each epoch, and history.png, with losses and validation EER."""
    rows = [dataclasses.astuple(result) for result in history]
    _write_csv(folder / "history.csv", tuple(f.name for f in dataclasses.fields(history[0])), rows)
    plots.plot_history(history).savefig(folder / "history.png", dpi=120)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _number(value: float) -> str:
    """Write a number with all its digits, or "" for NaN."""
    return "" if np.isnan(value) else repr(float(value))


def _versions() -> dict[str, str]:
    versions = {name: version(name) for name in PACKAGES}
    if fairseq := sys.modules.get("fairseq"):  # imported only where it is used
        versions["fairseq"] = fairseq.__version__
    return {"python": platform.python_version(), "libsndfile": soundfile.__libsndfile_version__} | versions
