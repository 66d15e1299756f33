"""Two detectors on the same recordings: the paired difference, and in words what fine-tuning changed.

Every sentence follows an interval or a test, never the sign of a figure alone (see `analysis.py`).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import scipy.stats

import metrics
from analysis import (
    CLASSES,
    LEVEL,
    groups_of,
    has_score,
    misjudged,
    p_value,
    share,
    subset,
    table,
    with_other_class,
)
from evaluation import Scored
from report import printable


def compare_all(detectors: dict[str, Scored], seed: int = 0) -> list[str]:
    """Markdown: a section for each pair of detectors, by name, on the same recordings."""
    sections = []
    for (before, a), (after, b) in combinations(detectors.items(), 2):
        words = difference(before, after, compare(a, b, seed))
        sections.append(f"## {printable(after)} against {printable(before)}\n\n{words}")
    return sections


def compare(before: Scored, after: Scored, seed: int = 0) -> dict:
    """Two detectors on the clips that both scored, as JSON types.

    Returns:
        "counts" (bonafide, spoof), "auc" and "eer" (each before, after, difference, interval: paired
        bootstrap, after minus before), "errors" (mended, made: clips on the right side of the own EER
        threshold with one detector only; p_value of McNemar's exact test) and "spearman" (rank
        correlation of the scores; None where a detector gives but one).

    Raises:
        ValueError: the two are not of the same recordings, or a class has no scores.
    """
    if list(before.utterances) != list(after.utterances):
        raise ValueError("the two detectors did not score the same recordings")
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    masks = {label: both & has_score(before, label) for label, _, _ in CLASSES}
    pairs = [tuple(s.scores[masks[label]] for label, _, _ in CLASSES) for s in (before, after)]
    values = [metrics.compute_metrics(*pair) for pair in pairs]
    differences = metrics.paired_differences(*pairs, seed=seed)
    wrong = [misjudged(s, v["threshold"]) & both for s, v in zip((before, after), values, strict=True)]
    mended, made = int((wrong[0] & ~wrong[1]).sum()), int((wrong[1] & ~wrong[0]).sum())
    labelled = masks["bonafide"] | masks["spoof"]
    return {
        "counts": {label: int(mask.sum()) for label, mask in masks.items()},
        **{
            name: {"before": values[0][name], "after": values[1][name], **differences[name]}
            for name in ("auc", "eer")
        },
        "errors": {
            "mended": mended,
            "made": made,
            "p_value": float(scipy.stats.binomtest(mended, mended + made).pvalue) if mended + made else 1.0,
        },
        "spearman": _spearman(before.scores[labelled], after.scores[labelled]),
    }


def difference(before: str, after: str, paired: dict) -> str:
    """Markdown on what `compare` gave: what differs, and whether the data show it.

    Args:
        before, after: what to call the two detectors.
    """
    before, after = printable(before), printable(after)
    counts = paired["counts"]
    told = []
    for name, form in (("auc", "{:.3f}"), ("eer", "{:.1%}")):
        values = paired[name]
        a, b = form.format(values["before"]), form.format(values["after"])
        signed = form.replace(":", ":+")
        gap, low, high = (signed.format(x) for x in (values["difference"], *values["interval"]))
        line = f"{name.upper()} {a} ({before}) and {b} ({after}), a difference of {gap} [{low}, {high}]"
        told.append(line.replace("%", " %"))
    words = (
        f"On the same {counts['bonafide']} real and {counts['spoof']} fake clips, {'; '.join(told)} (95 % "
        "intervals, paired bootstrap). "
    )
    better = {"AUC": _side(paired["auc"]["interval"]), "EER": -_side(paired["eer"]["interval"])}
    if better["AUC"] == better["EER"] == 0:
        words += "Both intervals include 0: these clips do not show that either is better than the other."
    elif better["AUC"] * better["EER"] < 0:
        words += "AUC and EER disagree on which is better: look at the ROC curves."
    else:
        shown = [name for name, side in better.items() if side]
        winner = after if sum(better.values()) > 0 else before
        words += (
            f"The interval of {' and of '.join(shown)} excludes 0: on clips like these the better of the two "
            f"is: {winner}."
        )
    errors = paired["errors"]
    chance = "more unequal than by chance" if errors["p_value"] < LEVEL else "no more unequal than by chance"
    words += (
        f" Each at its own EER threshold, {errors['mended']} clips are judged wrongly by the first and "
        f"rightly by the second, {errors['made']} the other way round ({chance}: McNemar's exact test, "
        f"p = {errors['p_value']:.2g})."
    )
    if paired["spearman"] is not None:
        words += f" Their scores have a rank correlation of {paired['spearman']:.2f} (Spearman)."
    return words


def change(
    before: Scored, after: Scored, properties: dict[str, list[str]], epoch: dict, seed: int = 0
) -> str:
    """Markdown on what fine-tuning did beyond the overall figures.

    Args:
        before, after: of the same recordings.
        properties: of these, from `analysis.clip_properties`.
        epoch: of the weights after, as in their provenance: validation_auc, _eer and _threshold.
        seed: of the bootstrap.
    """
    parts = [_movement(before, after), _carried_over(after, epoch, seed)]
    found, tried, tables = [], 0, []
    for title, groups in groups_of(after, properties).items():
        rows = [(title, "real", "fake", "AUC before", "AUC after", "difference [95 %]")]
        for group, members in groups.items():
            row = [group, *(str((members & has_score(after, label)).sum()) for label, _, _ in CLASSES)]
            subsets = [subset(scored, with_other_class(after, members)) for scored in (before, after)]
            if min(len(scored.scores_of(label)) for scored in subsets for label, _, _ in CLASSES) < 2:
                rows.append((*row, "", "", ""))
                continue
            auc = compare(*subsets, seed=seed)["auc"]
            low, high = auc["interval"]
            tried += 1
            if side := _side(auc["interval"]):
                found.append(f"{title} {group} ({'better' if side > 0 else 'worse'})")
            values = (f"{auc['before']:.3f}", f"{auc['after']:.3f}")
            rows.append((*row, *values, f"{auc['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"))
        tables.append(table(rows))
    if tables:
        words = "**Where it changed.** "
        if found:
            words += (
                f"The interval excludes 0 for {', '.join(found)}, of {tried} groups looked at; about one in "
                "twenty would do so by chance alone."
            )
        elif tried:
            words += f"In none of the {tried} groups does the interval exclude 0."
        else:
            words += "No group holds clips enough of both classes."
        parts += [words, *tables]
    return "\n\n".join(parts)


def _movement(before: Scored, after: Scored) -> str:
    """How far the scores of each class moved, in units of the spread they had before."""
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    spread = np.std(before.scores[both & (has_score(before, "bonafide") | has_score(before, "spoof"))])
    moves = [(after.scores - before.scores)[both & has_score(before, label)] for label, _, _ in CLASSES]
    moves = [move / (spread or 1.0) for move in moves]
    words = (
        "**What moved.** In units of the standard deviation that scores had before, the scores of real "
        f"clips moved by {moves[0].mean():+.2f} on average, those of fake clips by {moves[1].mean():+.2f}. "
        "What both classes share changes no AUC, only where a threshold must lie. "
    )
    if min(map(len, moves)) < 2 or np.ptp(np.concatenate(moves)) == 0:
        return words
    low, high = scipy.stats.ttest_ind(*moves, equal_var=False).confidence_interval()
    words += f"Real less fake is {moves[0].mean() - moves[1].mean():+.2f} [{low:+.2f}, {high:+.2f}] (Welch): "
    if low <= 0 <= high:
        return words + "neither class is shown to have moved against the other."
    return words + f"the {'real' if low > 0 else 'fake'} clips rose against the others."


def _carried_over(after: Scored, epoch: dict, seed: int) -> str:
    """Whether what holds on the validation split of the training data holds here."""
    bonafide, spoof = after.scores_of("bonafide"), after.scores_of("spoof")
    low, high = metrics.bootstrap_intervals(bonafide, spoof, seed=seed)["auc"]
    there, eer, threshold = (epoch[f"validation_{name}"] for name in ("auc", "eer", "threshold"))
    words = (
        f"**Does it carry over?** On the validation split of the data it was fine-tuned on, its AUC is "
        f"{there:.3f} and its EER {100 * eer:.1f} %. "
    )
    if high < there:
        words += (
            "The whole interval of the AUC here lies below that: what it learnt carries over only in part. "
        )
    elif low > there:
        words += "The whole interval of the AUC here lies above that: these clips are easier for it. "
    else:
        words += "The interval of the AUC here includes that: these clips do not show a loss. "
    at = metrics.confusion_at(bonafide, spoof, threshold)
    rejected = (at["bonafide_spoof"], len(bonafide))
    accepted = (at["spoof_bonafide"], len(spoof))
    words += (
        f"At the threshold chosen there ({threshold:.4g}), {share(*rejected)} of the real clips here are "
        f"rejected and {share(*accepted)} of the fake ones accepted: "
    )
    if p_value(rejected, accepted) >= LEVEL:
        return (
            words
            + "the two are not shown to differ, so the threshold's balance carries over, as far as seen."
        )
    return words + "the two differ beyond chance, so the threshold does not carry over to this data."


def _side(interval: tuple[float, float]) -> int:
    """Of 0 on which an interval lies: -1, 1, or 0 where it includes it."""
    return int(interval[0] > 0) - int(interval[1] < 0)


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None  # not defined
    return float(scipy.stats.spearmanr(a, b).statistic)
