"""Two detectors on the same recordings: their paired difference, and in words, what fine-tuning changed.

Every sentence follows an interval or a test, never the sign of a figure alone (see `analysis.py`).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use

from antispoofing import metrics
from antispoofing.classes import CLASSES, FAKE, REAL
from antispoofing.errors import DataError
from antispoofing.report.analysis import (
    LEVEL,
    at_level,
    misjudged,
    share,
    table,
    wilson,
    with_progress,
)
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.scoring.scored import Scored
from antispoofing.text import counted, printable

FEWEST = 10  # with fewer clips of a class, bootstrap intervals exclude the truth far too often


def compare_all(detectors: Mapping[str, Scored], seed: int = 0) -> list[str]:
    """Write a section in Markdown on each pair of detectors, which scored the same recordings."""
    pairs = list(combinations(detectors.items(), 2))
    return [
        f"## {printable(after)} against {printable(before)}\n\n"
        + difference(before, after, compare(a, b, seed), comparisons=len(pairs))
        for (before, a), (after, b) in pairs
    ]


def compare(before: Scored, after: Scored, seed: int = 0) -> dict:
    """Compare two detectors on the recordings that both scored.

    Returns:
        JSON types: "counts" (bonafide, spoof); "auc" and "eer" (each with before, after, and the values of
        `metrics.paired_differences`); "errors" (each detector at its own EER threshold: mended, the number of
        clips that only the first one misjudges; made, the number that only the second one misjudges; and the
        p_value of McNemar's exact test); and "spearman" (rank correlation of the scores; None if undefined).

    Raises:
        ValueError: If the two did not score the same recordings.
        DataError: If no recording of a class has a score from both.
    """
    if list(before.utterances) != list(after.utterances):
        raise ValueError("the two detectors did not score the same recordings")
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    masks = {label: both & before.mask(label) for label, *_ in CLASSES}
    if not all(mask.any() for mask in masks.values()):
        raise DataError("no real, or no fake, recording has a score from both detectors")
    pairs = [(s.scores[masks[REAL.label]], s.scores[masks[FAKE.label]]) for s in (before, after)]
    values = [metrics.compute_metrics(*pair) for pair in pairs]
    differences = metrics.paired_differences(pairs[0], pairs[1], seed=seed)
    wrong = [misjudged(s, v["threshold"]) & both for s, v in zip((before, after), values, strict=True)]
    mended, made = int((wrong[0] & ~wrong[1]).sum()), int((wrong[1] & ~wrong[0]).sum())
    labelled = np.logical_or(*masks.values())
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


def difference(before: str, after: str, paired: dict, comparisons: int = 1) -> str:
    """Write in Markdown how two detectors differ, and whether the data show it.

    Args:
        before: Name of the first detector.
        after: Name of the second detector.
        paired: The result of `compare`.
        comparisons: Number of comparisons made at once, for the Bonferroni correction.
    """
    before, after = printable(before), printable(after)
    counts, auc, eer = paired["counts"], paired["auc"], paired["eer"]
    low, high = auc["interval"]
    eer_low, eer_high = (100 * x for x in eer["interval"])
    words = (
        f"On the clips that both scored ({counts['bonafide']} real, {counts['spoof']} fake), the AUC is "
        f"{auc['before']:.3f} ({before}) and {auc['after']:.3f} ({after}), a difference of "
        f"{auc['difference']:+.3f} [{low:+.3f}, {high:+.3f}]; the EER is {100 * eer['before']:.1f} % and "
        f"{100 * eer['after']:.1f} %, a difference of {100 * eer['difference']:+.1f} percentage points "
        f"[{eer_low:+.1f}, {eer_high:+.1f}] (95 % intervals from a paired bootstrap). "
    )
    if min(counts.values()) < FEWEST:
        words += (
            f"With fewer than {FEWEST} clips of a class, such intervals are too narrow to tell which is "
            "better."
        )
    elif side := shown_side(auc, comparisons):
        words += (
            f"The interval of the AUC difference excludes 0{_corrected(comparisons)}: on clips like these, "
            f"{after if side > 0 else before} is the better of the two."
        )
    else:
        words += "By AUC, these clips do not show that either is better than the other."
    errors = paired["errors"]
    shown = "more than chance explains" if errors["p_value"] < LEVEL else "which may be chance"
    words += (
        f" With each at its own EER threshold, {counted(errors['mended'], 'clip')} are misjudged by {before} "
        f"alone, and {errors['made']} by {after} alone ({shown}: McNemar's exact test, "
        f"p = {errors['p_value']:.2g})."
    )
    if paired["spearman"] is not None:
        words += f" The rank correlation of their scores is {paired['spearman']:.2f} (Spearman)."
    return words


def change(
    before: Scored,
    after: Scored,
    summary: dict,
    properties: Mapping[str, Sequence[str]],
    epoch: dict,
    seed: int = 0,
) -> str:
    """Write in Markdown what fine-tuning changed beyond the overall figures.

    Args:
        before: Scores before fine-tuning.
        after: Scores of the same recordings after fine-tuning.
        summary: The figures of `after`, from `summarise`.
        properties: Properties of the recordings, from `groups.clip_properties`.
        epoch: Figures of the fine-tuned weights on the validation split, from their provenance.
        seed: Seed of the bootstrap resampling.
    """
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    compared, tables = {}, []
    for title, groups in property_groups(after, properties).items():
        rows = [[title, "real", "fake", "AUC before", "AUC after", "difference [95 %]"]]
        for group, members in with_progress(title, groups):
            chosen = with_other_class(after, members)
            counts = [int((chosen & both & after.mask(label)).sum()) for label, *_ in CLASSES]
            row = [group, *(str((members & both & after.mask(label)).sum()) for label, *_ in CLASSES)]
            if min(counts) < 2 or is_whole(after, chosen):
                rows.append([*row, "", "", ""])
                continue
            auc = compare(before.subset(chosen), after.subset(chosen), seed=seed)["auc"]
            if min(counts) >= FEWEST:
                compared[f"{title} {printable(group)}"] = auc
            low, high = auc["interval"]
            values = (f"{auc['before']:.3f}", f"{auc['after']:.3f}")
            rows.append([*row, *values, f"{auc['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"])
        tables.append(table(rows))
    parts = [_carried_over(after, summary, epoch)]
    if tables:
        shown = {group: shown_side(auc, len(compared)) for group, auc in compared.items()}
        found = [f"{group} ({'better' if side > 0 else 'worse'})" for group, side in shown.items() if side]
        words = (
            f"**Where it changed.** Groups with at least {FEWEST} clips of each class: {len(compared)}. A "
            f"change in AUC{_corrected(len(compared))} is shown in {', '.join(found) or 'none of them'}. For "
            "a group with clips of only one class, these are compared with all clips of the other class."
        )
        parts += [words, *tables]
    return "\n\n".join(parts)


def _carried_over(after: Scored, summary: dict, epoch: dict) -> str:
    """Say whether the figures of the validation split hold on these recordings."""
    low, high = summary["intervals_95"]["auc"]
    there_low, there_high = epoch["validation_auc_low"], epoch["validation_auc_high"]
    eer, threshold = epoch["validation_eer"], epoch["validation_threshold"]
    words = (
        "**Does it carry over?** On the validation split of the data it was fine-tuned on, the detector's "
        f"AUC is {epoch['validation_auc']:.3f} [{there_low:.3f}, {there_high:.3f}]; here it is "
        f"{summary['metrics']['auc']:.3f} [{low:.3f}, {high:.3f}]: "
    )
    if not summary["better_than_chance"]:
        words += "these clips do not show that it can tell real from fake at all. "
    elif high < there_low:
        words += "what it learnt carries over only in part. "
    elif low > there_high:
        words += "these clips are easier for it. "
    else:
        words += "the intervals overlap, so no loss is shown. "
    at = metrics.confusion_at(after.bonafide, after.spoof, threshold)
    rejected = at["bonafide_spoof"], at["bonafide_spoof"] + at["bonafide_bonafide"]
    accepted = at["spoof_bonafide"], at["spoof_bonafide"] + at["spoof_spoof"]
    words += (
        f"At the threshold chosen there ({threshold:.4g}), both error rates were about {100 * eer:.1f} %. "
        f"Here, of the real clips, {share(*rejected)} are rejected, and of the fake clips, "
        f"{share(*accepted)} are accepted: "
    )
    intervals = {"first": wilson(*rejected), "second": wilson(*accepted)}
    excluding = [which for which, (low, high) in intervals.items() if not low <= eer <= high]
    if not excluding:
        return (
            words
            + "neither interval excludes that rate, so these clips do not show that the threshold is off."
        )
    which = "both intervals exclude" if len(excluding) == 2 else f"the {excluding[0]} interval excludes"
    return words + f"{which} that rate, so the threshold does not hold here."


def shown_side(values: dict, comparisons: int) -> int:
    """Return on which side of 0 a difference is shown to lie: -1, 1, or 0 for neither.

    It is shown if its 95 % interval excludes 0, and if among several comparisons its p value is below 5 %
    divided by their number (Bonferroni).
    """
    low, high = values["interval"]
    if comparisons > 1 and values["p_value"] * comparisons >= LEVEL:
        return 0
    return int(low > 0) - int(high < 0)


def _corrected(comparisons: int) -> str:
    return f" ({at_level(comparisons)})" if comparisons > 1 else ""


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None  # undefined for so few or equal scores
    return float(scipy.stats.spearmanr(a, b).statistic)
