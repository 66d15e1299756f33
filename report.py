"""Results for people: tables and warnings on screen, CSV and JSON files, pictures.

Convention: a score is logit 1 (bona fide), higher = more likely real; bona fide is the positive
class of AUC and EER.
"""

from __future__ import annotations

import csv
import json
import platform
import textwrap
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.stats
import soundfile
from matplotlib.figure import Figure

import metrics
from evaluation import Scored

CONVENTION = "score = logit 1 (bona fide): higher = more likely real; bona fide is the positive class"

FEW = 20  # clips in a class; with fewer a percentile bootstrap covers clearly less than it says


# ------------------------------------------------------------------- on screen


def results_table(summaries: dict[str, dict]) -> str:
    """One line for each detector: AUC and EER with their 95 % intervals, min DCF, counts."""
    rows = [("detector", "AUC [95 %]", "EER % [95 %]", "min DCF", "real", "fake", "failed")]
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
    return _aligned(rows)


def cautions(name: str, summary: dict) -> list[str]:
    """What must be said beside a detector's figures, a line each."""
    values, counts = summary["metrics"], summary["counts"]
    threshold = values["threshold_at_eer_chosen_on_this_set"]
    lines = [f"{name}: its EER is at threshold {threshold:.4g}, chosen on this very set"]
    fewest = min(counts["bonafide_scored"], counts["spoof_scored"])
    if values["auc"] in (0.0, 1.0):
        lines.append(
            f"{name}: all scores of a class lie on one side; a bootstrap interval cannot show the doubt"
        )
    elif fewest < FEW:
        lines.append(f"{name}: with {fewest} clips in a class the intervals are narrower than they should be")
    return lines


def scores_table(scored: Scored, verdicts: list[str], most: int = 20) -> str:
    """A line for each recording, the first `most` of them."""
    rows = [("file", "score", "verdict")]
    spoken = {"bonafide": "real", "spoof": "fake", "": "not scored"}
    for utterance, score, verdict in list(zip(scored.utterances, scored.scores, verdicts, strict=True))[
        :most
    ]:
        rows.append((utterance.name, "" if np.isnan(score) else f"{score:.3f}", spoken[verdict]))
    left = len(verdicts) - most
    return _aligned(rows) + (f"\n... and {left} more in scores.csv" if left > 0 else "")


def _aligned(rows: list[tuple[str, ...]]) -> str:
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
        "this data and takes fake for real. Nothing was flipped. In the opposite direction the figures "
        f"would be AUC {other['auc']:.3f}, EER {100 * other['eer']:.1f} %: use them only if you find the "
        "labels to be swapped."
    )
    line = "!" * 100
    return "\n".join([line, textwrap.fill(text, 100), line])


def confusion_table(at: dict) -> str:
    """Decisions at a threshold, as counts."""
    rows = [
        ("", "called real", "called fake"),
        ("real", str(at["bonafide_bonafide"]), str(at["bonafide_spoof"])),
        ("fake", str(at["spoof_bonafide"]), str(at["spoof_spoof"])),
    ]
    return (
        f"at threshold {at['threshold']:g}: accuracy {100 * at['accuracy']:.1f} %, "
        f"FRR {100 * at['frr']:.1f} %, FAR {100 * at['far']:.1f} %\n{_aligned(rows)}"
    )


# ---------------------------------------------------------------------- files


def write_results(
    folder: Path, scored: Scored, summary: dict, verdicts: list[str], run: dict, title: str
) -> None:
    """Write scores.csv, failures.csv, metrics.json and, where both classes have scores, pictures.

    Args:
        summary: from `evaluation.summarise`.
        verdicts: from `Scored.verdicts`.
        run: what was run (detector, data, command), for metrics.json.
        title: of the pictures: the detector's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(scored.utterances, scored.scores, verdicts, strict=True)
    _write_csv(
        folder / "scores.csv",
        ("path", "label", "score", "verdict"),
        [(u.name, u.label, "" if np.isnan(score) else repr(float(score)), v) for u, score, v in rows],
    )
    _write_csv(
        folder / "failures.csv",
        ("path", "reason"),
        [(scored.utterances[i].name, reason) for i, reason in sorted(scored.failures.items())],
    )
    content = {"convention": CONVENTION} | summary | run | {"versions": _versions()}
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    if "metrics" in summary:
        _plot_roc(folder / "roc.png", scored, summary, title)
        _plot_det(folder / "det.png", scored, summary, title)
        _plot_histogram(folder / "histogram.png", scored, summary, title)


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "numpy", "scipy", "soundfile", "soxr")
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "libsndfile": soundfile.__libsndfile_version__} | versions


# -------------------------------------------------------------------- pictures


def _points(scored: Scored) -> metrics.ErrorRates:
    return metrics.error_rates(scored.scores_of("bonafide"), scored.scores_of("spoof"))


def _plot_roc(path: Path, scored: Scored, summary: dict, title: str) -> None:
    points = _points(scored)
    low, high = summary["intervals_95"]["auc"]
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    label = f"AUC {summary['metrics']['auc']:.3f} [{low:.3f}, {high:.3f}]"
    axes.plot(points.far, 1 - points.frr, label=label)
    axes.set(title=f"ROC: {title}", xlabel="fake accepted (FAR)", ylabel="real accepted (1 - FRR)")
    axes.legend()
    figure.savefig(path, dpi=120)


def _plot_det(path: Path, scored: Scored, summary: dict, title: str) -> None:
    points = _points(scored)
    # Rates of 0 and 1 have no place on a normal-deviate axis: the curve is drawn within the range
    # that one clip more or less could move.
    edge = 0.5 / max(summary["counts"]["bonafide_scored"], summary["counts"]["spoof_scored"])
    far, frr = (scipy.stats.norm.ppf(np.clip(x, edge, 1 - edge)) for x in (points.far, points.frr))
    ticks = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9]) / 100
    limits = scipy.stats.norm.ppf([max(edge / 2, 5e-4), 1 - max(edge / 2, 5e-4)])
    ticks = ticks[(ticks > max(edge / 2, 5e-4)) & (ticks < 1 - max(edge / 2, 5e-4))]
    eer = summary["metrics"]["eer"]
    low, high = (100 * x for x in summary["intervals_95"]["eer"])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
    axes.plot(limits, limits, color="0.7", linestyle="--", linewidth=1, label="FAR = FRR")
    axes.plot(far, frr, label=f"EER {100 * eer:.1f} % [{low:.1f}, {high:.1f}]")
    axes.set_xticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set_yticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set(title=f"DET: {title}", xlabel="fake accepted, FAR (%)", ylabel="real rejected, FRR (%)")
    axes.legend()
    figure.savefig(path, dpi=120)


def _plot_histogram(path: Path, scored: Scored, summary: dict, title: str) -> None:
    bonafide, spoof = scored.scores_of("bonafide"), scored.scores_of("spoof")
    bins = np.histogram_bin_edges(np.concatenate([bonafide, spoof]), bins=40)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(spoof, bins, alpha=0.6, density=True, color="tab:red", label=f"fake ({len(spoof)})")
    axes.hist(bonafide, bins, alpha=0.6, density=True, color="tab:blue", label=f"real ({len(bonafide)})")
    threshold = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    axes.axvline(threshold, color="0.3", linestyle="--", linewidth=1, label="EER, chosen on this set")
    axes.set(title=f"Scores: {title}", xlabel="score (higher = more likely real)", ylabel="density")
    axes.legend()
    figure.savefig(path, dpi=120)
