"""The figures of a set of scores: EER, AUC, detection costs. `uncertainty.py` says how certain they are.

Convention: higher score = more likely bona fide (real); bona fide is the positive class. A clip is
accepted as bona fide where score >= threshold.
    FRR  false rejection rate, or miss rate: the share of bona fide scores below the threshold
    FAR  false acceptance rate, or false alarm rate: the share of spoof scores at or above it

EER and AUC agree with scikit-learn's and the official ASVspoof 5 code's to 1e-12; with ties, where the latter
depends on the order of the scores, the rule is that of `compute_eer`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# The prior and the costs of the ASVspoof 5 evaluation plan (normalised DCF, track 1).
P_SPOOF, C_MISS, C_FA = 0.05, 1.0, 10.0

LOW_FARS = (0.01, 0.001)  # the FRR is also given where so few fakes are accepted


class ErrorRates(NamedTuple):
    """FRR and FAR at every distinct score, in ascending order, and at +infinity (nothing accepted)."""

    thresholds: np.ndarray
    frr: np.ndarray
    far: np.ndarray


class Eer(NamedTuple):
    """The equal error rate, the threshold at which it is reached, and both error rates there."""

    eer: float
    threshold: float
    frr: float
    far: float


def error_rates(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> ErrorRates:
    """Return the operating points: (far, 1 - frr) is the ROC curve, (far, frr) the DET curve.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    counts = _count_errors(*checked(bonafide_scores, spoof_scores))
    # At +infinity nothing is accepted, and everything is at the lowest score.
    return ErrorRates(
        counts.thresholds, counts.misses / counts.misses[-1], counts.false_alarms / counts.false_alarms[0]
    )


def compute_metrics(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> dict:
    """Return all figures of two sets of scores.

    Returns:
        A dictionary with these items:

        eer: See `compute_eer`.
        threshold: The threshold at that point, which is thus chosen on these very scores.
        auc: The area under the ROC curve; ties count one half.
        min_dcf: The smallest normalised detection cost over all thresholds (ASVspoof 5: the prior of spoof
            is 0.05, a miss costs 1, a false alarm 10).
        min_cllr: The Cllr of the best monotonic map from these scores to log-likelihood ratios, in bits; no
            calibration of these scores could have a smaller one (Bruemmer & du Preez 2006).
        frr_at_far: By each FAR of LOW_FARS, the smallest FRR at which no more fakes are accepted; None where
            there are not even as many fakes as it takes to see one accepted.
        n_bonafide: The number of bona fide scores.
        n_spoof: The number of spoof scores.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    bonafide, spoof = checked(bonafide_scores, spoof_scores)
    counts, points = _count_errors(bonafide, spoof), error_rates(bonafide, spoof)
    eer = counts.eer()
    return {
        "eer": eer.eer,
        "threshold": eer.threshold,
        "auc": counts.auc(),
        "min_dcf": float(_dcf(points.frr, points.far).min()),
        "min_cllr": _min_cllr(bonafide, spoof),
        "frr_at_far": {
            far: float(points.frr[points.far <= far].min()) if len(spoof) * far >= 1 else None
            for far in LOW_FARS
        },
        "n_bonafide": len(bonafide),
        "n_spoof": len(spoof),
    }


def compute_eer(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> Eer:
    """Return the equal error rate: (FRR + FAR) / 2 where |FRR - FAR| is smallest.

    The thresholds are the distinct scores and +infinity. Of two that are equally good, it is the first,
    which accepts more, unless rounding makes a difference: as in the official ASVspoof 5 evaluation code.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    return _count_errors(*checked(bonafide_scores, spoof_scores)).eer()


def compute_auc(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> float:
    """Return the area under the ROC curve; ties count one half.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    return _count_errors(*checked(bonafide_scores, spoof_scores)).auc()


def calibration_costs(bonafide_ratios: ArrayLike, spoof_ratios: ArrayLike) -> dict[str, float]:
    """Return what only log-likelihood ratios have, and no other scores: act_dcf and cllr.

    Args:
        bonafide_ratios: Natural log-likelihood ratios of bona fide over spoof, of bona fide clips.
        spoof_ratios: Those of spoof clips.

    Returns:
        act_dcf, the normalised detection cost (see `compute_metrics`) at the Bayes threshold; and cllr, the
        cost of the log-likelihood ratio in bits (Bruemmer & du Preez 2006).

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    bonafide, spoof = map(np.sort, checked(bonafide_ratios, spoof_ratios))  # the order would change sums
    bayes_threshold = -np.log(C_MISS * (1 - P_SPOOF) / (C_FA * P_SPOOF))
    act_dcf = _dcf(np.mean(bonafide < bayes_threshold), np.mean(spoof >= bayes_threshold))
    return {"act_dcf": float(act_dcf), "cllr": _cllr(bonafide, spoof)}


def confusion_at(bonafide_scores: ArrayLike, spoof_scores: ArrayLike, threshold: float) -> dict:
    """Count the decisions at a threshold chosen elsewhere: score >= threshold is accepted as bona fide.

    Returns:
        threshold, accuracy, balanced_accuracy (the mean of both classes' accuracies), frr, far, f1_bonafide
        and f1_spoof (the harmonic means of each class's precision and recall), and four counts named after
        the true class and the decision: bonafide_bonafide, bonafide_spoof, spoof_bonafide, spoof_spoof.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    bonafide, spoof = checked(bonafide_scores, spoof_scores)
    rejected, accepted = int((bonafide < threshold).sum()), int((spoof >= threshold).sum())
    frr, far = rejected / len(bonafide), accepted / len(spoof)
    right = len(bonafide) - rejected, len(spoof) - accepted
    return {
        "threshold": float(threshold),
        "accuracy": sum(right) / (len(bonafide) + len(spoof)),
        "balanced_accuracy": 1 - (frr + far) / 2,
        "frr": frr,
        "far": far,
        "f1_bonafide": 2 * right[0] / (2 * right[0] + rejected + accepted),
        "f1_spoof": 2 * right[1] / (2 * right[1] + rejected + accepted),
        "bonafide_bonafide": right[0],
        "bonafide_spoof": rejected,
        "spoof_bonafide": accepted,
        "spoof_spoof": right[1],
    }


def precision(frr: float, far: float, prevalence: float) -> dict[str, float | None]:
    """Return how often each decision is right where a share of the clips is fake (Bayes' theorem).

    Args:
        frr: The share of bona fide clips that are called spoof.
        far: The share of spoof clips that are called bona fide.
        prevalence: The share of spoof clips.

    Returns:
        "bonafide" and "spoof": of the clips that are called so, the share that are; None if none is.
    """
    called = {
        "bonafide": ((1 - prevalence) * (1 - frr), prevalence * far),
        "spoof": (prevalence * (1 - far), (1 - prevalence) * frr),
    }
    return {
        name: right / (right + wrong) if right + wrong else None for name, (right, wrong) in called.items()
    }


def checked(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both classes' scores as float64 [m] and [n].

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    sets = []
    for name, scores in (("bona fide", bonafide_scores), ("spoof", spoof_scores)):
        scores = np.asarray(scores, dtype=np.float64).ravel()
        if len(scores) == 0:
            raise ValueError(f"no {name} scores")
        if not np.isfinite(scores).all():
            raise ValueError(f"a {name} score is not a finite number")
        sets.append(scores)
    return sets[0], sets[1]


class _ErrorCounts(NamedTuple):
    """Errors at each threshold as integers, so that comparisons are exact."""

    thresholds: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray

    def eer(self) -> Eer:
        n_bonafide, n_spoof = int(self.misses[-1]), int(self.false_alarms[0])
        # In floating point, whose rounding decides between equal differences as in the official code.
        at = int(np.abs(self.misses / n_bonafide - self.false_alarms / n_spoof).argmin())
        misses, false_alarms = int(self.misses[at]), int(self.false_alarms[at])
        return Eer(
            (misses * n_spoof + false_alarms * n_bonafide) / (2 * n_bonafide * n_spoof),
            float(self.thresholds[at]),
            misses / n_bonafide,
            false_alarms / n_spoof,
        )

    def auc(self) -> float:
        """Return the area under the ROC curve by trapezoids: a Mann-Whitney statistic, ties counting half."""
        spoof = self.false_alarms[:-1] - self.false_alarms[1:]  # how many spoof clips have each score
        twice_above = spoof @ (self.misses[:-1] + self.misses[1:])
        twice_all = 2 * self.misses[-1] * self.false_alarms[0]
        return float((twice_all - twice_above) / twice_all)


def _count_errors(bonafide: np.ndarray, spoof: np.ndarray) -> _ErrorCounts:
    """Count the errors at each distinct score, in ascending order, and at +infinity."""
    bonafide, spoof = np.sort(bonafide), np.sort(spoof)
    thresholds = np.append(np.union1d(bonafide, spoof), np.inf)
    misses = np.searchsorted(bonafide, thresholds, "left")
    return _ErrorCounts(thresholds, misses, len(spoof) - np.searchsorted(spoof, thresholds, "left"))


def _cllr(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    # log2(1 + exp(x)) without overflow
    costs = np.logaddexp2(0, -bonafide / np.log(2)).mean(), np.logaddexp2(0, spoof / np.log(2)).mean()
    return float(sum(costs) / 2)


def _min_cllr(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """Return the Cllr after isotonic regression, in which both classes have the same total weight."""
    from scipy.optimize import isotonic_regression

    # Clips of equal score are one, with their mean label; the rest is the pool-adjacent-violators algorithm.
    values, places = np.unique(np.concatenate([bonafide, spoof]), return_inverse=True)
    of_bonafide = np.bincount(places[: len(bonafide)], minlength=len(values)) / len(bonafide)
    of_spoof = np.bincount(places[len(bonafide) :], minlength=len(values)) / len(spoof)
    weights = of_bonafide + of_spoof
    real = np.clip(isotonic_regression(of_bonafide / weights, weights=weights).x, 0, 1)
    with np.errstate(divide="ignore"):
        costs = -np.log2(real), -np.log2(1 - real)
    shares = of_bonafide, of_spoof
    return float(sum(s[s > 0] @ c[s > 0] for s, c in zip(shares, costs, strict=True)) / 2)


def _dcf(frr: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Return the detection cost, relative to the cheaper of accepting and rejecting everything."""
    cost = C_MISS * (1 - P_SPOOF) * frr + C_FA * P_SPOOF * far
    return cost / min(C_MISS * (1 - P_SPOOF), C_FA * P_SPOOF)
