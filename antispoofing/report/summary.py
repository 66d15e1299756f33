"""Summary of a detector's scores: counts, figures and their intervals, as JSON types.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from antispoofing import metrics, uncertainty
from antispoofing.classes import CLASSES
from antispoofing.data.recordings import list_sha256
from antispoofing.scoring.clusters import Clustering
from antispoofing.scoring.decision import FAKE, NOT_SURE, REAL, Rule
from antispoofing.scoring.scored import Scored

CONVENTION = "score = logit 1 (bona fide): higher = more likely real; bona fide is the positive class"


def summarise(
    scored: Scored,
    clustering: Clustering,
    *,
    threshold: float | None = None,
    rule: Rule | None = None,
) -> dict:
    """Summarise a detector's scores.

    Args:
        scored: The recordings and their scores.
        clustering: Which recordings belong together, from `scoring.clusters.find_clusters`.
        threshold: A threshold chosen on other data, for accuracy and confusion counts; None leaves these out.
        rule: The detector's rule; if it is a calibration, its figures are added.

    Returns:
        JSON types. "counts" and "failures" (their number for each reason) are always there. If both classes
        have scores, so are "metrics", "intervals_95" ("auc" and "eer", which are None where clips or clusters
        are too few, and "clips", which says by what they were taken together), "better_than_chance" and
        "reversed" (whether the AUC's interval lies above 0.5, or below), and "if_reversed" (AUC and EER in
        the opposite direction); if all scores are equal, also "constant"; with a given threshold, also
        "at_threshold" (see `metrics.confusion_at`); with a calibration, also "calibrated" (see
        `metrics.calibration_costs`; the numbers of verdicts that are "sure", and of these that are "wrong";
        and whether the calibration was "fitted_on_these_clips").
    """
    bonafide, spoof = scored.bonafide, scored.spoof
    summary: dict[str, object] = {
        "counts": {
            "files": len(scored.utterances),
            "scored": int(np.isfinite(scored.scores).sum()),
            "failed": len(scored.failures),
            "bonafide_scored": len(bonafide),
            "spoof_scored": len(spoof),
            "unlabelled_scored": len(scored.scores_with_label("")),
        },
        "failures": dict(Counter(scored.failures.values()).most_common()),
    }
    if len(bonafide) == 0 or len(spoof) == 0:
        return summary
    values = metrics.compute_metrics(bonafide, spoof)
    clusters = clustering.of(scored)
    intervals = uncertainty.intervals(bonafide, spoof, clusters)
    low, high = intervals["auc"] or (0.0, 1.0)
    opposite = metrics.compute_eer(-bonafide, -spoof)
    summary |= {
        "metrics": {
            "auc": values["auc"],
            "eer": values["eer"],
            "threshold_at_eer_chosen_on_this_set": values["threshold"],
            "min_dcf": values["min_dcf"],
            "min_cllr": values["min_cllr"],
            "frr_at_far": {f"{far:g}": frr for far, frr in values["frr_at_far"].items() if frr is not None},
        },
        "intervals_95": {
            "clips": clustering.describe(scored),
            **{name: interval and list(interval) for name, interval in intervals.items()},
        },
        "better_than_chance": low > 0.5,
        "reversed": high < 0.5,
        "if_reversed": {"auc": 1 - values["auc"], "eer": opposite.eer},
    }
    if np.ptp(np.concatenate([bonafide, spoof])) == 0:
        summary["constant"] = True
    if threshold is not None:
        summary["at_threshold"] = metrics.confusion_at(bonafide, spoof, threshold)
    if rule and rule.can_be_sure:
        ratios = [rule.margins(scored.logits[scored.mask(label)]) for label, _, _ in CLASSES]
        called = [rule.verdicts(scored.logits[scored.mask(label)]) for label, _, _ in CLASSES]
        summary["calibrated"] = metrics.calibration_costs(*ratios) | {
            "sure": sum(verdict != NOT_SURE for verdicts in called for verdict in verdicts),
            "wrong": called[0].count(FAKE) + called[1].count(REAL),
            "fitted_on_these_clips": rule.is_fitted_on(list_sha256(scored.utterances)),
        }
    return summary


def over_groups(summaries: Mapping[str, dict]) -> tuple[float, str]:
    """Return the mean EER of several groups, and the name of the group with the highest."""
    eers = {name: summary["metrics"]["eer"] for name, summary in summaries.items()}
    return sum(eers.values()) / len(eers), max(eers, key=eers.__getitem__)
