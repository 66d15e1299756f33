"""Summary of a detector's scores: counts, figures and their intervals, as JSON types.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from antispoofing import metrics
from antispoofing.scoring.scored import Scored

CONVENTION = "score = logit 1 (bona fide): higher = more likely real; bona fide is the positive class"


def summarise(scored: Scored, *, threshold: float | None = None, seed: int = 0) -> dict:
    """Summarise a detector's scores.

    Args:
        scored: The recordings and their scores.
        threshold: A threshold chosen on other data, for accuracy and confusion counts; None leaves these out.
        seed: Seed of the bootstrap resampling.

    Returns:
        JSON types. "counts" and "failures" (their number for each reason) are always there. If both classes
        have scores, so are "metrics", "intervals_95", "better_than_chance" and "reversed" (see
        `metrics.shown_direction`), and "if_reversed" (AUC and EER in the opposite direction); with a given
        threshold, also "at_threshold" (see `metrics.confusion_at`).
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
    intervals = metrics.bootstrap_intervals(bonafide, spoof, seed=seed)
    direction = metrics.shown_direction(bonafide, spoof, intervals["auc"])
    opposite = metrics.compute_metrics(-bonafide, -spoof)
    summary |= {
        "metrics": {
            "auc": values["auc"],
            "eer": values["eer"],
            "threshold_at_eer_chosen_on_this_set": values["threshold"],
            "min_dcf": values["min_dcf"],
            "act_dcf_uncalibrated": values["act_dcf"],
            "cllr_uncalibrated": values["cllr"],
        },
        "intervals_95": {
            "method": f"stratified percentile bootstrap, {metrics.N_RESAMPLES} resamples, seed {seed}"
        }
        | {name: list(interval) for name, interval in intervals.items()},
        "better_than_chance": direction > 0,
        "reversed": direction < 0,
        "if_reversed": {name: opposite[name] for name in ("auc", "eer")},
    }
    if threshold is not None:
        summary["at_threshold"] = metrics.confusion_at(bonafide, spoof, threshold)
    return summary
