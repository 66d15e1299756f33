"""Two detectors on the same recordings: the paired difference, and in words what fine-tuning changed.

Every sentence follows an interval or a test, never the sign of a figure alone (see `analysis.py`).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import scipy  # its stats take half a second to import: only when first used

from antispoofing import metrics
from antispoofing.classes import CLASSES
from antispoofing.errors import DataError
from antispoofing.report.analysis import LEVEL, misjudged, share, table, wilson, with_progress
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable

FEWEST = 10  # clips of each class; with fewer, bootstrap intervals exclude the truth far too often


def compare_all(detectors: dict[str, Scored], seed: int = 0) -> list[str]:
    """Markdown: a section for each pair of detectors, by name, on the same recordings."""
    pairs = list(combinations(detectors.items(), 2))
    return [
        f"## {printable(after)} against {printable(before)}\n\n"
        + difference(before, after, compare(a, b, seed), comparisons=len(pairs))
        for (before, a), (after, b) in pairs
    ]


def compare(before: Scored, after: Scored, seed: int = 0) -> dict:
    """Two detectors on the clips that both scored, as JSON types.

    Returns:
        "counts" (bonafide, spoof), "auc" and "eer" (each before, after, and what
        `metrics.paired_differences` gives), "errors" (mended, made: clips on the right side of the
        own EER threshold with one detector only; p_value of McNemar's exact test) and "spearman"
        (rank correlation of the scores; None where a detector gives but one).

    Raises:
        ValueError: the two are not of the same recordings.
        DataError: of one class, no recording has a score from both.
    """
    if list(before.utterances) != list(after.utterances):
        raise ValueError("the two detectors did not score the same recordings")
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    masks = {label: both & before.mask(label) for label, *_ in CLASSES}
    if not all(mask.any() for mask in masks.values()):
        raise DataError("no real, or no fake, recording has a score from both detectors")
    pairs = [tuple(s.scores[mask] for mask in masks.values()) for s in (before, after)]
    values = [metrics.compute_metrics(*pair) for pair in pairs]
    differences = metrics.paired_differences(*pairs, seed=seed)
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
    """Markdown on what `compare` gave: what differs, and whether the data show it.

    Args:
        before, after: what to call the two detectors.
        comparisons: how many are made at once.
    """
    before, after = printable(before), printable(after)
    counts, auc, eer = paired["counts"], paired["auc"], paired["eer"]
    low, high = auc["interval"]
    eer_low, eer_high = (100 * x for x in eer["interval"])
    words = (
        f"On the same {counts['bonafide']} real and {counts['spoof']} fake clips, AUC {auc['before']:.3f} "
        f"({before}) and {auc['after']:.3f} ({after}), a difference of {auc['difference']:+.3f} [{low:+.3f}, "
        f"{high:+.3f}]; EER {100 * eer['before']:.1f} % and {100 * eer['after']:.1f} %, a difference of "
        f"{100 * eer['difference']:+.1f} points [{eer_low:+.1f}, {eer_high:+.1f}] (95 % intervals, paired "
        "bootstrap). "
    )
    if min(counts.values()) < FEWEST:
        words += (
            f"With fewer than {FEWEST} clips of a class such intervals are too narrow to say which is better."
        )
    elif side := shown_side(auc, comparisons):
        words += f"The AUC's interval excludes 0{_corrected(comparisons)}: on clips like these the better of "
        words += f"the two is: {after if side > 0 else before}."
    else:
        words += "By AUC, these clips do not show that either is better than the other."
    errors = paired["errors"]
    chance = (
        "more unequal than by chance"
        if errors["p_value"] < LEVEL
        else "not shown to be more unequal than chance"
    )
    words += (
        f" Each at its own EER threshold, {errors['mended']} clips are judged wrongly by the first and "
        f"rightly by the second, {errors['made']} the other way round ({chance}: McNemar's exact test, "
        f"p = {errors['p_value']:.2g})."
    )
    if paired["spearman"] is not None:
        words += f" Their scores have a rank correlation of {paired['spearman']:.2f} (Spearman)."
    return words


def change(
    before: Scored,
    after: Scored,
    summary: dict,
    properties: dict[str, list[str]],
    epoch: dict,
    seed: int = 0,
) -> str:
    """Markdown on what fine-tuning did beyond the overall figures.

    Args:
        before, after: of the same recordings.
        summary: `summarise` of after.
        properties: of the recordings, from `groups.clip_properties`.
        epoch: of the weights after, as in their provenance, with the figures of the validation split.
        seed: of the bootstrap.
    """
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    compared, tables = {}, []
    for title, groups in property_groups(after, properties).items():
        rows = [(title, "real", "fake", "AUC before", "AUC after", "difference [95 %]")]
        for group, members in with_progress(title, groups):
            chosen = with_other_class(after, members)
            counts = [int((chosen & both & after.mask(label)).sum()) for label, *_ in CLASSES]
            row = [group, *(str((members & after.mask(label)).sum()) for label, *_ in CLASSES)]
            if min(counts) < 2 or is_whole(after, chosen):
                rows.append((*row, "", "", ""))
                continue
            auc = compare(before.subset(chosen), after.subset(chosen), seed=seed)["auc"]
            if min(counts) >= FEWEST:
                compared[f"{title} {printable(group)}"] = auc
            low, high = auc["interval"]
            values = (f"{auc['before']:.3f}", f"{auc['after']:.3f}")
            rows.append((*row, *values, f"{auc['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"))
        tables.append(table(rows))
    parts = [_carried_over(after, summary, epoch)]
    if tables:
        shown = {group: shown_side(auc, len(compared)) for group, auc in compared.items()}
        found = [f"{group} ({'better' if side > 0 else 'worse'})" for group, side in shown.items() if side]
        words = (
            f"**Where it changed.** Groups with at least {FEWEST} clips of each class: {len(compared)}; "
            f"a change is shown in {', '.join(found) or 'none'}{_corrected(len(compared))}. A group that has "
            "clips of one class only is held against all clips of the other."
        )
        parts += [words, *tables]
    return "\n\n".join(parts)


def _carried_over(after: Scored, summary: dict, epoch: dict) -> str:
    """Whether what holds on the validation split of the training data holds here."""
    low, high = summary["intervals_95"]["auc"]
    there_low, there_high = epoch["validation_auc_low"], epoch["validation_auc_high"]
    eer, threshold = epoch["validation_eer"], epoch["validation_threshold"]
    words = (
        f"**Does it carry over?** On the validation split of the data it was fine-tuned on, its AUC is "
        f"{epoch['validation_auc']:.3f} [{there_low:.3f}, {there_high:.3f}], here "
        f"{summary['metrics']['auc']:.3f} [{low:.3f}, {high:.3f}]: "
    )
    if not summary["better_than_chance"]:
        words += "it is not shown to tell real from fake on these clips at all. "
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
        f"At the threshold chosen there ({threshold:.4g}), where both errors were about {100 * eer:.0f} %, "
        f"{share(*rejected)} of the real clips here are rejected and {share(*accepted)} of "
        "the fake ones accepted: "
    )
    intervals = {"first": wilson(*rejected), "second": wilson(*accepted)}
    outside = [word for word, (low, high) in intervals.items() if not low <= eer <= high]
    if not outside:
        return words + "neither interval excludes that, so these clips do not show that it is off."
    return words + f"the interval of the {' and of the '.join(outside)} excludes that: it does not hold here."


def shown_side(values: dict, comparisons: int) -> int:
    """On which side of 0 a difference is shown to lie: -1, 1, or 0 for neither.

    Its 95 % interval excludes 0, and among several comparisons so does its p value at 5 % over their
    number (Bonferroni).
    """
    low, high = values["interval"]
    if comparisons > 1 and values["p_value"] * comparisons >= LEVEL:
        return 0
    return int(low > 0) - int(high < 0)


def _corrected(comparisons: int) -> str:
    return f" (at 5 % over {comparisons} comparisons)" if comparisons > 1 else ""


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None  # not defined
    return float(scipy.stats.spearmanr(a, b).statistic)
