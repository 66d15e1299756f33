"""Two detectors on the same recordings: their paired difference, and in words, what fine-tuning changed.

Every sentence follows an interval or a test, never the sign of a figure alone (see `analysis.py`).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use

from antispoofing import metrics, uncertainty
from antispoofing.classes import CLASSES, FAKE, REAL
from antispoofing.detectors.provenance import validation_interval
from antispoofing.errors import DataError
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.report.wording import LEVEL, UNDIRECTED, at_level, misjudged, share, table, with_progress
from antispoofing.scoring.clusters import INDEPENDENT, Clustering, find_clusters
from antispoofing.scoring.scored import Scored
from antispoofing.text import auc_text, eer_text, printable, with_interval

FEWEST = 10  # groups with fewer clips of a class are not compared


def compare_all(detectors: Mapping[str, Scored], comparisons: int | None = None) -> list[str]:
    """Write a section in Markdown on each pair of detectors, which scored the same recordings.

    Args:
        detectors: Their scores by their names.
        comparisons: Number of comparisons made at once, if these pairs are not all.
    """
    pairs = list(combinations(detectors.items(), 2))
    comparisons = comparisons or len(pairs)
    return [
        f"## {printable(after)} against {printable(before)}\n\n"
        + difference(before, after, compare(a, b, find_clusters(a.utterances)), comparisons)
        for (before, a), (after, b) in pairs
    ]


def compare(before: Scored, after: Scored, clustering: Clustering) -> dict:
    """Compare two detectors on the recordings that both scored.

    Args:
        before: One detector's scores.
        after: The other's, of the same recordings.
        clustering: Which recordings belong together.

    Returns:
        JSON types: "counts" (bonafide, spoof); "auc" and "eer" (each with before, after, and the values of
        `uncertainty.paired_differences`); "errors" (each detector at its own EER threshold: mended, the
        number of clips that only the first one misjudges; made, the number that only the second one
        misjudges; and the p_value of `uncertainty.p_of_changes`); and "spearman" (rank correlation of the
        scores; None if undefined).

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
    clusters = clustering.of_classes(list(masks.values()))
    differences = uncertainty.paired_differences(pairs[0], pairs[1], clusters)
    eers = [metrics.compute_eer(*pair) for pair in pairs]
    wrong = [misjudged(s, eer.threshold) & both for s, eer in zip((before, after), eers, strict=True)]
    labelled = np.logical_or(*masks.values())
    mended, made = (wrong[0] & ~wrong[1])[labelled], (wrong[1] & ~wrong[0])[labelled]
    aucs = [metrics.compute_auc(*pair) for pair in pairs]
    return {
        "counts": {label: int(mask.sum()) for label, mask in masks.items()},
        "auc": {"before": aucs[0], "after": aucs[1], **differences["auc"]},
        "eer": {"before": eers[0].eer, "after": eers[1].eer, **differences["eer"]},
        "errors": {
            "mended": int(mended.sum()),
            "made": int(made.sum()),
            "p_value": uncertainty.p_of_changes(mended, made, clustering.among(labelled)),
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
    by_auc = with_interval(f"{auc['difference']:+.4f}", auc["interval"], "{:+.4f}".format)
    by_eer = with_interval(
        f"{100 * eer['difference']:+.2f} percentage points", eer["interval"], lambda x: f"{100 * x:+.2f}"
    )
    words = (
        f"On the clips that both scored ({counts['bonafide']} real, {counts['spoof']} fake), the AUC is "
        f"{auc_text(auc['before'])} ({before}) and {auc_text(auc['after'])} ({after}), a difference of "
        f"{by_auc}; the EER is {eer_text(eer['before'])} % and {eer_text(eer['after'])} %, a difference of "
        f"{by_eer}. "
    )
    side = shown_side(auc, comparisons)
    if side is None:
        words += (
            "There are too few clips, or groups of clips that belong together, to tell which is better on "
            "other clips like these."
        )
    elif side:
        words += (
            f"The difference in AUC is more than chance explains{_corrected(comparisons)}: on clips like "
            f"these, {after if side > 0 else before} is the better of the two."
        )
    else:
        words += (
            f"By AUC, these clips do not show that either is better than the other{_corrected(comparisons)}."
        )
    errors = paired["errors"]
    words += (
        f" With each at its own EER threshold, the clips misjudged by {before} alone are "
        f"{errors['mended']}, and those by {after} alone "
        f"{errors['made']}{_by_chance(errors['p_value'], comparisons)}."
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
) -> str:
    """Write in Markdown what fine-tuning changed beyond the overall figures.

    Args:
        before: Scores before fine-tuning.
        after: Scores of the same recordings after fine-tuning.
        summary: The figures of `after`, from `summarise`.
        properties: Properties of the recordings, from `groups.clip_properties`.
        epoch: Figures of the fine-tuned weights on the validation split, from their provenance.
    """
    both = np.isfinite(before.scores) & np.isfinite(after.scores)
    compared, tables = {}, []
    for title, groups in property_groups(after, properties).items():
        clustering = find_clusters(after.utterances, without=[title])
        rows = [[title, "real", "fake", "AUC before", "AUC after", "difference [95 %]"]]
        for group, members in with_progress(title, groups):
            chosen = with_other_class(after, members)
            counts = [int((chosen & both & after.mask(label)).sum()) for label, *_ in CLASSES]
            row = [group, *(str((members & both & after.mask(label)).sum()) for label, *_ in CLASSES)]
            if min(counts) < 2 or is_whole(after, chosen):
                rows.append([*row, "", "", ""])
                continue
            pair = before.subset(chosen), after.subset(chosen)
            auc = compare(*pair, clustering.subset(chosen))["auc"]
            if min(counts) >= FEWEST and auc["p_value"] is not None:
                compared[f"{title} {printable(group)}"] = auc
            changed = with_interval(f"{auc['difference']:+.4f}", auc["interval"], "{:+.4f}".format)
            rows.append([*row, auc_text(auc["before"]), auc_text(auc["after"]), changed])
        tables.append(table(rows))
    parts = [_carried_over(after, summary, epoch)]
    if tables:
        shown = {group: shown_side(auc, len(compared)) for group, auc in compared.items()}
        found = [f"{group} ({'better' if side > 0 else 'worse'})" for group, side in shown.items() if side]
        words = (
            f"**Where it changed.** Groups with at least {FEWEST} clips of each class, in which a change can "
            f"be told: {len(compared)}. A change in AUC{_corrected(len(compared))} is shown in "
            f"{', '.join(found) or 'none of them'}. For a group with clips of only one class, these are "
            "compared with all clips of the other class."
        )
        parts += [words, *tables]
    return "\n\n".join(parts)


def _carried_over(after: Scored, summary: dict, epoch: dict) -> str:
    """Say whether the figures of the validation split hold on these recordings."""
    there = validation_interval(epoch)
    auc, interval = summary["metrics"]["auc"], summary["intervals_95"]["auc"]
    words = (
        "**Does it carry over?** On the validation split of the data it was fine-tuned on, the detector's "
        f"AUC is {auc_text(epoch['validation_auc'], there)}; here it is {auc_text(auc, interval)}. "
    )
    if interval is None or there is None:
        words += (
            f"{'Here' if interval is None else 'There'}, there are too few clips, or groups of clips that "
            "belong together, to tell whether that is less. "
        )
    else:
        low, high = uncertainty.difference_interval(epoch["validation_auc"], there, auc, interval)
        words += (
            f"The 95 % interval of the difference is {low:+.4f} to {high:+.4f} (on the validation split, "
            f"{epoch.get('validation_clips') or INDEPENDENT}): "
        )
        if not summary["better_than_chance"]:
            words += "these clips do not show that it can tell real from fake at all. "
        elif high < 0:
            words += "what it learnt carries over only in part. "
        elif low > 0:
            words += "these clips are easier for it. "
        else:
            words += "no loss is shown. "
    return words + _threshold_carried_over(after, epoch)


def _threshold_carried_over(after: Scored, epoch: dict) -> str:
    """Say whether the validation threshold brings error rates here that differ from those it had there."""
    threshold, clustering = epoch["validation_threshold"], find_clusters(after.utterances)
    wrong, rates, changed, untold = misjudged(after, threshold), [], [], False
    for label, word, error in CLASSES:
        members = after.mask(label)
        here = f"{share(wrong, members, clustering)} of the {word} clips are {error}"
        if f"validation_{error}" not in epoch:
            rates.append(here)
            continue
        there = epoch[f"validation_{error}"], epoch[f"validation_{label}"]
        rates.append(f"{here} (there, {there[0]} of {there[1]})")
        worth = epoch.get(f"validation_{label}_worth")
        worth = there[1] if worth is None else worth  # in files of earlier versions
        p_value = uncertainty.p_of_counts_elsewhere(there, worth, wrong[members], clustering.among(members))
        if p_value is None:
            untold = True
        elif p_value * len(CLASSES) < UNDIRECTED:
            changed.append(word)
    words = f"At the threshold chosen there ({threshold:.4g}), {rates[0]}, and {rates[1]}"
    if "validation_rejected" not in epoch:
        return (
            f"{words}. How many were there is not in the file, so whether the threshold holds is not known."
        )
    words += ": "
    if changed:
        return words + (
            f"for {' and '.join(changed)} clips, that differs by more than chance explains, so the threshold "
            "does not hold here."
        )
    if untold:
        return words + "whether the threshold holds here cannot be told from so little."
    return words + "that may be chance, so these clips do not show that the threshold is off."


def shown_side(values: dict, comparisons: int) -> int | None:
    """Return on which side of 0 a difference is shown to lie: -1, 1, or 0 for neither.

    It is shown if its p value is below 5 %, divided by the number of comparisons if there are several
    (Bonferroni). None if there are too few clips, or groups of clips that belong together, to tell.
    """
    if values["p_value"] is None:
        return None
    if values["p_value"] * comparisons >= LEVEL:
        return 0
    return 1 if values["difference"] > 0 else -1


def _by_chance(p_value: float | None, comparisons: int) -> str:
    """Say whether chance explains how many more clips changed in one direction than in the other."""
    if p_value is None:
        return ""
    shown = "more than chance explains" if p_value * comparisons < UNDIRECTED else "which may be chance"
    return f" ({shown}: McNemar's test, p = {p_value:.2g})"


def _corrected(comparisons: int) -> str:
    return f" ({at_level(comparisons)})" if comparisons > 1 else ""


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None  # undefined for so few or equal scores
    return float(scipy.stats.spearmanr(a, b).statistic)
