"""What a set of scores is worth: EER, AUC, detection costs, and how sure the figures are.

Convention: higher score = more likely bona fide (real); bona fide is the positive class. A clip is
accepted as bona fide where score >= threshold.
    FRR  false rejection rate, miss rate: bona fide scores below the threshold
    FAR  false acceptance rate, false alarm rate: spoof scores at or above it

The curve is counted here and not by scikit-learn, whose checks of its input cost more than the work
when a bootstrap calls it a thousand times: 20 resamples of 5,000 + 5,000 scores take 1.1 ms, by its roc_curve
33 ms. AUC and EER are equal to 1e-16, and the tests hold the two curves against each other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # its stats take half a second to import: only when first used
from numpy.typing import ArrayLike
from tqdm import tqdm

# Costs and prior of the ASVspoof 5 evaluation plan (normalised DCF, track 1).
P_SPOOF, C_MISS, C_FA = 0.05, 1.0, 10.0

N_RESAMPLES = 1000  # of a bootstrap


class ErrorRates(NamedTuple):
    """FRR and FAR at every distinct score, ascending, and at +infinity (nothing accepted)."""

    thresholds: np.ndarray
    frr: np.ndarray
    far: np.ndarray


def error_rates(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> ErrorRates:
    """The operating points: (far, 1 - frr) is the ROC curve, (far, frr) the DET curve.

    Raises:
        ValueError: a class has no scores, or a score is not a finite number.
    """
    return _Ranked.of(*_checked(bonafide_scores, spoof_scores)).count().rates()


def compute_metrics(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> dict:
    """All figures of two sets of scores.

    Returns:
        eer: (FRR + FAR) / 2 where |FRR - FAR| is smallest; of two such points the larger.
        threshold: where that is; chosen on these very scores.
        auc: area under the ROC curve; ties count one half.
        min_dcf: smallest normalised detection cost over all thresholds (ASVspoof 5: prior of
            spoof 0.05, cost of a miss 1, of a false alarm 10).
        act_dcf, cllr: normalised cost at the Bayes threshold, and cost of the log-likelihood ratio
            in bits (Bruemmer & du Preez 2006), both reading scores **as** log-likelihood ratios,
            which raw logits are not: they judge a detector only after calibration.
        n_bonafide, n_spoof: how many scores.

    Raises:
        ValueError: a class has no scores, or a score is not a finite number.
    """
    bonafide, spoof = map(np.sort, _checked(bonafide_scores, spoof_scores))  # sums depend on the order
    counts = _Ranked.of(bonafide, spoof).count()
    points = counts.rates()
    eer, at_eer = counts.eer()
    bayes_threshold = -np.log(C_MISS * (1 - P_SPOOF) / (C_FA * P_SPOOF))
    act_dcf = _dcf(np.mean(bonafide < bayes_threshold), np.mean(spoof >= bayes_threshold))
    # log2(1 + exp(x)) without overflow
    cost_bonafide = np.logaddexp2(0, -bonafide / np.log(2)).mean()
    cost_spoof = np.logaddexp2(0, spoof / np.log(2)).mean()
    return {
        "eer": eer,
        "threshold": float(points.thresholds[at_eer]),
        "auc": counts.auc(),
        "min_dcf": float(_dcf(points.frr, points.far).min()),
        "act_dcf": float(act_dcf),
        "cllr": float((cost_bonafide + cost_spoof) / 2),
        "n_bonafide": len(bonafide),
        "n_spoof": len(spoof),
    }


def bootstrap_intervals(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of "auc" and "eer", resampling each class by itself.

    A bootstrap sees only the clips there are: on a set without a single error it gives an interval
    of no width, which is not certainty. One clip in a class says nothing of others: (0, 1).
    """
    bonafide, spoof = _checked(bonafide_scores, spoof_scores)
    if min(len(bonafide), len(spoof)) < 2:
        return {"auc": (0.0, 1.0), "eer": (0.0, 1.0)}
    ranked = _Ranked.of(np.sort(bonafide), np.sort(spoof))  # the same in whatever order they come
    return _bootstrap(ranked.auc_and_eer, len(bonafide), len(spoof), n_resamples, seed)[0]


def paired_differences(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, dict]:
    """How AUC and EER differ between two detectors on the same clips, after minus before.

    Each resample draws clips, of each class by itself, and gives both detectors the same ones: what
    makes a clip hard for both cancels out, so the interval is narrower than two separate ones.

    Args:
        before, after: (bona fide scores, spoof scores), clip for clip in the same order.

    Returns:
        For "auc" and "eer": "difference", "interval", its 95 % percentile bootstrap interval, and
        "p_value", twice the normal tail beyond it in units of its bootstrap standard error.

    Raises:
        ValueError: the two are not of the same clips, a class has no scores, or one is not finite.
    """
    before, after = _checked(*before), _checked(*after)
    if [len(scores) for scores in before] != [len(scores) for scores in after]:
        raise ValueError("the two sets of scores are not of the same clips")
    ranked_before, ranked_after = _Ranked.of(*before), _Ranked.of(*after)

    def difference(bonafide_clips: np.ndarray, spoof_clips: np.ndarray) -> np.ndarray:
        clips = bonafide_clips, spoof_clips
        return ranked_after.auc_and_eer(*clips) - ranked_before.auc_and_eer(*clips)

    n_bonafide, n_spoof = map(len, before)
    observed = difference(np.arange(n_bonafide), np.arange(n_spoof))
    if min(n_bonafide, n_spoof) < 2:
        intervals, errors = {"auc": (-1.0, 1.0), "eer": (-1.0, 1.0)}, np.array([np.inf, np.inf])
    else:
        intervals, errors = _bootstrap(difference, n_bonafide, n_spoof, n_resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = np.where(observed == 0, 1.0, 2 * scipy.stats.norm.sf(np.abs(observed) / errors))
    return {
        name: {"difference": float(value), "interval": intervals[name], "p_value": float(p_value)}
        for name, value, p_value in zip(("auc", "eer"), observed, p_values, strict=True)
    }


def _bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n_bonafide: int,
    n_spoof: int,
    n_resamples: int,
    seed: int,
) -> tuple[dict[str, tuple[float, float]], np.ndarray]:
    """95 % percentile intervals, and standard errors [2], of a statistic (auc, eer) of drawn clips."""

    def resampled(bonafide_clips: np.ndarray, spoof_clips: np.ndarray, axis: int) -> np.ndarray:
        values = np.array([statistic(*pair) for pair in zip(bonafide_clips, spoof_clips, strict=True)])
        progress.update(len(values))
        return values.T

    with tqdm(
        total=n_resamples, desc="bootstrap", unit="resample", leave=False, delay=2, disable=None
    ) as progress:
        result = scipy.stats.bootstrap(
            (np.arange(n_bonafide), np.arange(n_spoof)),
            resampled,
            n_resamples=n_resamples,
            batch=max(1, min(100, 10**7 // max(n_bonafide, n_spoof))),  # bounds the memory
            vectorized=True,
            method="percentile",
            rng=seed,
        )
    low, high = result.confidence_interval
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(("auc", "eer"))}
    return intervals, result.standard_error


def shown_direction(
    bonafide_scores: ArrayLike, spoof_scores: ArrayLike, auc_interval: tuple[float, float]
) -> int:
    """1: the scores are shown to be better than chance; -1: to point the wrong way; 0: neither.

    Shown means: the AUC's 95 % interval lies wholly on one side of 0.5, **and** so says the
    Mann-Whitney test at the same level (one-sided 2.5 %): on a handful of clips a bootstrap interval
    is too narrow to go by.
    """
    for sign, outside, alternative in (
        (1, auc_interval[0] > 0.5, "greater"),
        (-1, auc_interval[1] < 0.5, "less"),
    ):
        if outside:
            test = scipy.stats.mannwhitneyu(bonafide_scores, spoof_scores, alternative=alternative)
            return sign if test.pvalue < 0.025 else 0
    return 0


def confusion_at(bonafide_scores: ArrayLike, spoof_scores: ArrayLike, threshold: float) -> dict:
    """Decisions at a threshold that was chosen elsewhere: score >= threshold is called bona fide.

    Returns:
        threshold, accuracy, frr, far, and the four counts `true_called`: bonafide_bonafide,
        bonafide_spoof, spoof_bonafide, spoof_spoof.
    """
    bonafide, spoof = _checked(bonafide_scores, spoof_scores)
    rejected, accepted = int((bonafide < threshold).sum()), int((spoof >= threshold).sum())
    return {
        "threshold": float(threshold),
        "accuracy": 1 - (rejected + accepted) / (len(bonafide) + len(spoof)),
        "frr": rejected / len(bonafide),
        "far": accepted / len(spoof),
        "bonafide_bonafide": len(bonafide) - rejected,
        "bonafide_spoof": rejected,
        "spoof_bonafide": accepted,
        "spoof_spoof": len(spoof) - accepted,
    }


def _checked(bonafide_scores: ArrayLike, spoof_scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
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
    """Errors at each threshold in whole numbers, so that equal things compare as equal."""

    thresholds: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray

    def rates(self) -> ErrorRates:
        # nothing is accepted at +infinity, everything at the lowest score
        return ErrorRates(
            self.thresholds, self.misses / self.misses[-1], self.false_alarms / self.false_alarms[0]
        )

    def eer(self) -> tuple[float, int]:
        """The equal error rate, and the index of its threshold."""
        n_bonafide, n_spoof = self.misses[-1], self.false_alarms[0]

        def difference(i: int) -> int:  # frr - far, times n_bonafide * n_spoof
            return self.misses[i] * n_spoof - self.false_alarms[i] * n_bonafide

        def total(i: int) -> int:  # frr + far, likewise
            return self.misses[i] * n_spoof + self.false_alarms[i] * n_bonafide

        # The difference never falls: it is closest to 0 where it is first not below, or just before.
        after = bisect_left(range(len(self.misses)), 0, key=difference)
        at = min((after - 1, after), key=lambda i: (abs(difference(i)), -total(i)))
        return float(total(at) / (2 * n_bonafide * n_spoof)), at

    def auc(self) -> float:
        """The trapezoids under the ROC curve: a Mann-Whitney statistic, ties counting one half."""
        spoof = self.false_alarms[:-1] - self.false_alarms[1:]  # with each of the scores
        twice_above = spoof @ (self.misses[:-1] + self.misses[1:])
        twice_all = 2 * self.misses[-1] * self.false_alarms[0]
        return float((twice_all - twice_above) / twice_all)


class _Ranked(NamedTuple):
    """Scores as places, from 1, among their distinct values and +infinity: a resample needs no sorting."""

    thresholds: np.ndarray
    bonafide: np.ndarray
    spoof: np.ndarray

    @classmethod
    def of(cls, bonafide: np.ndarray, spoof: np.ndarray) -> _Ranked:
        values, places = np.unique(np.concatenate([bonafide, spoof]), return_inverse=True)
        places += 1
        return cls(np.append(values, np.inf), places[: len(bonafide)], places[len(bonafide) :])

    def count(self) -> _ErrorCounts:
        below_bonafide, below_spoof = (
            np.bincount(places, minlength=len(self.thresholds)).cumsum()
            for places in (self.bonafide, self.spoof)
        )
        return _ErrorCounts(self.thresholds, below_bonafide, len(self.spoof) - below_spoof)

    def auc_and_eer(self, bonafide_clips: np.ndarray, spoof_clips: np.ndarray) -> np.ndarray:
        """Of a resample, given by the numbers of the clips in it."""
        drawn = self._replace(bonafide=self.bonafide[bonafide_clips], spoof=self.spoof[spoof_clips])
        counts = drawn.count()
        return np.array([counts.auc(), counts.eer()[0]])


def _dcf(frr: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Detection cost over that of the better of accepting everything and rejecting everything."""
    cost = C_MISS * (1 - P_SPOOF) * frr + C_FA * P_SPOOF * far
    return cost / min(C_MISS * (1 - P_SPOOF), C_FA * P_SPOOF)
