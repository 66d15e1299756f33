"""Minimum t-DCF: the cost of a speaker verification system that a detector protects (Kinnunen et al. 2020).

The detector is a countermeasure (CM) in front of an automatic speaker verification (ASV) system, whose
own scores are given. Two formulas are in use, those of ASVspoof 2019 and of ASVspoof 2021, with the same
priors and costs.

Convention: higher CM score = more likely bona fide; higher ASV score = more likely the claimed speaker.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from antispoofing import metrics

P_SPOOF = 0.05
P_TARGET, P_NONTARGET = 0.95 * 0.99, 0.95 * 0.01
C_MISS, C_FA = 1.0, 10.0  # of ASV and CM alike; accepting a spoof costs as much as accepting a nontarget

ASVSPOOF_2019, ASVSPOOF_2021 = "ASVspoof 2019", "ASVspoof 2021"


class AsvRates(NamedTuple):
    """An ASV system's error rates at the threshold of its own EER between targets and nontargets.

    Attributes:
        threshold: That threshold.
        miss: The share of targets that score below it.
        false_alarm: The share of nontargets that do not.
        spoof_false_alarm: The share of spoofs that do not.
    """

    threshold: float
    miss: float
    false_alarm: float
    spoof_false_alarm: float


def asv_rates(target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike) -> AsvRates:
    """Return an ASV system's error rates.

    The threshold is that of the official code: the highest score that is still rejected at the EER.

    Args:
        target: Scores of trials of the claimed speaker.
        nontarget: Scores of trials of other speakers.
        spoof: Scores of spoofed trials.

    Raises:
        ValueError: If there are none of a kind, or a score is not a finite number.
    """
    target, nontarget = metrics.checked(target, nontarget)
    _, spoof = metrics.checked(target, spoof)
    accepted_from = metrics.compute_eer(target, nontarget).threshold
    scores = np.concatenate([target, nontarget])
    rejected = scores[scores < accepted_from]
    threshold = float(rejected.max() if len(rejected) else scores.min() - 0.001)
    return AsvRates(
        threshold,
        float(np.mean(target < threshold)),
        float(np.mean(nontarget >= threshold)),
        float(np.mean(spoof >= threshold)),
    )


def min_tdcf(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike, asv: AsvRates, formula: str = ASVSPOOF_2021
) -> float:
    """Return the minimum normalised t-DCF over all thresholds of a countermeasure.

    Args:
        bonafide_scores: Its scores of bona fide clips.
        spoof_scores: Its scores of spoof clips.
        asv: The error rates of the ASV system that it protects.
        formula: ASVSPOOF_2019, which leaves out what the ASV system costs by itself, or ASVSPOOF_2021.

    Raises:
        ValueError: If the ASV system is so bad that the cost is undefined, a class has no scores, or a score
            is not a finite number.
    """
    points = metrics.error_rates(bonafide_scores, spoof_scores)
    c_spoof = C_FA * P_SPOOF * asv.spoof_false_alarm
    c_asv = C_MISS * P_TARGET * asv.miss + C_FA * P_NONTARGET * asv.false_alarm
    c_miss = C_MISS * P_TARGET - c_asv
    if formula == ASVSPOOF_2019:
        c_asv = 0.0
    cheaper = c_asv + min(c_miss, c_spoof)
    if c_miss < 0 or cheaper <= 0:
        raise ValueError(
            "the t-DCF is undefined: at the threshold of its EER, the ASV system "
            + (
                "accepts too many nontargets"
                if c_miss < 0
                else "accepts no spoofed trial, so a CM has no use"
            )
        )
    return float(((c_asv + c_miss * points.frr + c_spoof * points.far) / cheaper).min())
