"""Results for people: tables and warnings on screen, CSV and JSON files, pictures.

Convention: a score is logit 1 (bona fide), higher = more likely real; bona fide is the positive
class of AUC and EER.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import textwrap
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.stats
import soundfile
from matplotlib.figure import Figure

import metrics
from evaluation import Scored
from training import EpochResult, best_epoch

CONVENTION = "score = logit 1 (bona fide): higher = more likely real; bona fide is the positive class"

RESULT_FILES = ("scores.csv", "failures.csv", "metrics.json", "roc.png", "det.png", "histogram.png")
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
    errors = fewest * min(values["eer"], 1 - values["eer"])
    if fewest == 1:
        lines.append(f"{name}: one clip of a class says nothing of others")
    elif errors < FEW_ERRORS:
        lines.append(
            f"{name}: about {errors:.0f} of the {fewest} clips in the smaller class are on the wrong side of "
            "that; with so few the intervals are narrower than the truth"
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
        "this data. Nothing was flipped. In the opposite direction the figures "
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
        folder: an existing one.
        summary: from `evaluation.summarise`.
        verdicts: from `Scored.verdicts`.
        run: what was run (detector, data, command), for metrics.json.
        title: of the pictures: the detector's name.
    """
    for name in RESULT_FILES:  # nothing of an earlier run may stay beside the new
        (folder / name).unlink(missing_ok=True)
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
        bonafide, spoof = scored.scores_of("bonafide"), scored.scores_of("spoof")
        points = metrics.error_rates(bonafide, spoof)
        plots = {
            "roc.png": plot_roc(points, summary),
            "det.png": plot_det(points, summary),
            "histogram.png": plot_histogram(bonafide, spoof, summary),
        }
        for name, figure in plots.items():
            figure.suptitle(title, parse_math=False)  # a file name may hold a $
            figure.savefig(folder / name, dpi=120)


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "numpy", "scipy", "soundfile", "soxr")
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "libsndfile": soundfile.__libsndfile_version__} | versions


# -------------------------------------------------------------------- pictures


def plot_roc(points: metrics.ErrorRates, summary: dict) -> Figure:
    """ROC curve: the share of real clips accepted over the share of fake ones accepted."""
    low, high = summary["intervals_95"]["auc"]
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    label = f"AUC {summary['metrics']['auc']:.3f} [{low:.3f}, {high:.3f}]"
    axes.plot(points.far, 1 - points.frr, label=label)
    axes.set(xlabel="fake accepted (FAR)", ylabel="real accepted (1 - FRR)")
    axes.legend()
    return figure


def plot_det(points: metrics.ErrorRates, summary: dict) -> Figure:
    """DET curve: misses over false alarms, on axes of normal deviates."""
    # Rates of 0 and 1 have no place on such axes: they are drawn where half a clip would be.
    half = 0.5 / max(summary["counts"]["bonafide_scored"], summary["counts"]["spoof_scored"])
    edge = max(half / 2, 5e-4)
    far, frr = (scipy.stats.norm.ppf(np.clip(rate, half, 1 - half)) for rate in (points.far, points.frr))
    ticks = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9]) / 100
    ticks = ticks[(ticks > edge) & (ticks < 1 - edge)]
    limits = scipy.stats.norm.ppf([edge, 1 - edge])
    low, high = (100 * rate for rate in summary["intervals_95"]["eer"])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
    axes.plot(limits, limits, color="0.7", linestyle="--", linewidth=1, label="FAR = FRR")
    axes.plot(far, frr, label=f"EER {100 * summary['metrics']['eer']:.1f} % [{low:.1f}, {high:.1f}]")
    axes.set_xticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set_yticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set(xlabel="fake accepted, FAR (%)", ylabel="real rejected, FRR (%)")
    axes.legend()
    return figure


def plot_histogram(bonafide: np.ndarray, spoof: np.ndarray, summary: dict) -> Figure:
    """Both classes' scores, each as a density."""
    bins = np.histogram_bin_edges(np.concatenate([bonafide, spoof]), bins=40)
    threshold = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(spoof, bins, alpha=0.6, density=True, color="tab:red", label=f"fake ({len(spoof)})")
    axes.hist(bonafide, bins, alpha=0.6, density=True, color="tab:blue", label=f"real ({len(bonafide)})")
    axes.axvline(threshold, color="0.3", linestyle="--", linewidth=1, label="EER, chosen on this set")
    axes.set(xlabel="score (higher = more likely real)", ylabel="density")
    axes.legend()
    return figure


# --------------------------------------------------------------------- training


def write_history(folder: Path, history: list[EpochResult]) -> None:
    """Write history.csv, a row for each epoch, and history.png, losses and validation EER."""
    rows = [dataclasses.astuple(result) for result in history]
    _write_csv(folder / "history.csv", tuple(f.name for f in dataclasses.fields(history[0])), rows)
    plot_history(history).savefig(folder / "history.png", dpi=120)


def plot_history(history: list[EpochResult]) -> Figure:
    """Both losses above, validation EER below, over the epochs; the epoch that is kept is marked."""
    epochs = [result.epoch for result in history]
    kept = best_epoch(history)
    figure = Figure(figsize=(6, 6), layout="constrained")
    losses, eers = figure.subplots(2, sharex=True)
    losses.plot(epochs, [result.train_loss for result in history], marker="o", label="training")
    losses.plot(epochs, [result.validation_loss for result in history], marker="o", label="validation")
    losses.set(ylabel="cross entropy (nats)", ylim=(0, None))
    eers.plot(epochs, [100 * result.validation_eer for result in history], marker="o", label="validation")
    eers.plot(kept.epoch, 100 * kept.validation_eer, "o", color="tab:red", markersize=9, label="kept")
    eers.set(xlabel="epoch", ylabel="EER (%)", ylim=(0, None), xticks=epochs)
    losses.legend()
    eers.legend()
    return figure
