"""How certain the figures of scores are: 95 % intervals, and tests of whether two figures differ.

Clips that belong together, such as those of one speaker, are alike, and count for less than as many clips
that have nothing in common. Where it is known which belong together, they form a cluster: clips with the same
number, whichever class they are in. A statistic is then the sum of what each cluster adds to it, so that its
variance follows from how much the clusters' sums vary (Obuchowski, "Nonparametric analysis of clustered ROC
curve data", Biometrics 1997). Clusters of unequal sizes count as the effective number of equal ones, which
also gives the degrees of freedom of Student's t.

`benchmarks/coverage.py` measures how often the intervals cover the truth and how often the tests are wrong.

Convention: higher score = more likely bona fide (real); bona fide is the positive class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import scipy  # scipy.stats takes half a second to import, so this leaves it until it is first used

from antispoofing import metrics

# Among few clusters, a kind of speaker that is rare but badly judged is often missing altogether. If it is
# one speaker in ten, intervals from 10 speakers cover the truth in 86 % of sets (benchmarks/coverage.py).
FEWEST_CLUSTERS = 10

# With fewer clips of a class whose scores spread more than the other's, intervals of the AUC would miss the
# truth on one side in up to 17 % of sets.
FEWEST_CLIPS = 5

TAIL = 0.025  # of each side of an interval, and the level of each one-sided test

_NEXT = 1e-12  # beside an AUC of 0 or 1, whose variance is 0

Interval = tuple[float, float]
Clusters = tuple[np.ndarray, np.ndarray]  # of the bona fide clips, int [m], and of the spoof clips, int [n]


class PairedDifference(TypedDict):
    """How a figure differs between two detectors; see `paired_differences`."""

    difference: float
    interval: Interval | None
    p_value: float | None


class _Estimate(NamedTuple):
    """A statistic of samples of clips, and how much each clip moves it; within a sample that sums to 0.

    To first order, the statistic of a sample differs from the truth by the sum of its clips' influences.
    """

    value: float
    influences: tuple[np.ndarray, ...]  # of the clips of each sample


class _Design:
    """Samples of clips, such as the two classes, and which of the clips belong together.

    Attributes:
        sizes: The number of clips in each sample.
        effective: How many clusters of equal size would be as good, in the sample where that is fewest; see
            `effective_number`. None without clusters.
        degrees: Degrees of freedom of Student's t.
    """

    def __init__(self, sizes: Sequence[int], clusters: Sequence[np.ndarray] | None):
        self.sizes, self.effective = sizes, None
        self.degrees = max(1.0, min(sizes) - 1.0)
        self._effective_numbers: Sequence[float] = sizes
        if clusters is not None:
            self._numbers = np.unique(np.concatenate(clusters), return_inverse=True)[1]
            self._effective_numbers = [effective_number(of_sample) for of_sample in clusters]
            self.effective = min(self._effective_numbers)
            self.degrees = max(self.effective - 1, 1e-3)

    @property
    def is_enough(self) -> bool:
        """Whether there are clips, or clusters of them, enough for what the intervals and tests promise."""
        if min(self.sizes) < FEWEST_CLIPS:
            return False
        return all(
            number >= FEWEST_CLUSTERS or number == size  # as many as there are clips: none belong together
            for number, size in zip(self._effective_numbers, self.sizes, strict=True)
        )

    def variance(self, estimate: _Estimate) -> float:
        """Return the variance of a statistic."""
        if self.effective is None:
            return self.variance_if_independent(estimate)
        totals = np.bincount(self._numbers, np.concatenate(estimate.influences))
        return float(totals @ totals) * self.effective / self.degrees

    def variance_if_independent(self, estimate: _Estimate) -> float:
        """Return the variance that a statistic would have if no clips belonged together."""
        return sum(float(i @ i) * len(i) / max(1, len(i) - 1) for i in estimate.influences)

    def quantile(self) -> float:
        """Return how many standard errors a 95 % interval reaches to either side."""
        if self.effective is None:
            return float(scipy.special.ndtri(1 - TAIL))
        return float(scipy.special.stdtrit(self.degrees, 1 - TAIL))

    @property
    def students_factor(self) -> float:
        """By what Student's t widens an interval, squared (Korn & Graubard, Survey Methodology 1998)."""
        return (self.quantile() / float(scipy.special.ndtri(1 - TAIL))) ** 2


def effective_number(clusters: np.ndarray) -> float:
    """Return how many clusters of equal size would be as good: n^2 / sum(n_k^2), for clusters int [n]."""
    sizes = np.unique(clusters, return_counts=True)[1].astype(float)
    return float(sizes.sum() ** 2 / (sizes @ sizes)) if len(sizes) else 0.0


def intervals(
    bonafide: np.ndarray, spoof: np.ndarray, clusters: Clusters | None = None
) -> dict[str, Interval | None]:
    """Return 95 % intervals of "auc" and "eer"; None where clips or clusters are too few.

    AUC: Newcombe's score interval ("Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic. Part 2", method 5, Statistics in Medicine 2006), whose variance is multiplied by what
    DeLong's, or with clusters Obuchowski's, exceeds it by.

    EER: Clopper and Pearson's interval for a share of errors. At the threshold, FRR and FAR move against
    each other, so the EER is their mean weighted by the other class's density there. That gives the number
    of clips that it is worth; clusters divide it by the design effect.

    Args:
        bonafide: Scores [m].
        spoof: Scores [n].
        clusters: Which clips belong together; None if none do.

    Raises:
        ValueError: If a class has no scores, or a score is not a finite number.
    """
    bonafide, spoof = metrics.checked(bonafide, spoof)
    design = _Design((len(bonafide), len(spoof)), clusters)
    if not design.is_enough:
        return {"auc": None, "eer": None}
    return {
        "auc": _auc_interval(_auc(bonafide, spoof), design),
        "eer": _eer_interval(*_eer(bonafide, spoof), design),
    }


def _auc(bonafide: np.ndarray, spoof: np.ndarray) -> _Estimate:
    """Return the AUC; its influences are DeLong's placements (Biometrics 1988), ties counting one half."""
    m, n = len(bonafide), len(spoof)
    by_bonafide, by_spoof = np.sort(bonafide), np.sort(spoof)
    below = np.searchsorted(by_spoof, bonafide, "left") + np.searchsorted(by_spoof, bonafide, "right")
    above = 2 * m - np.searchsorted(by_bonafide, spoof, "left") - np.searchsorted(by_bonafide, spoof, "right")
    value = int(below.sum()) / (2 * m * n)
    return _Estimate(value, ((below / (2 * n) - value) / m, (above / (2 * m) - value) / n))


def _auc_interval(estimate: _Estimate, design: _Design) -> Interval:
    """Solve |estimate - auc| = quantile * sqrt(variance(auc)) for the true AUC, on both sides."""
    (m, n), value = design.sizes, estimate.value
    clips = (m + n) / 2 - 1

    def variance(auc: float) -> float:
        return auc * (1 - auc) * (1 + clips * ((1 - auc) / (2 - auc) + auc / (1 + auc))) / (m * n)

    quantile, expected = design.quantile(), variance(value)
    excess = max(1.0, design.variance(estimate) / expected) if expected else _worst(design)

    def beyond(auc: float) -> float:
        return (value - auc) ** 2 - quantile**2 * excess * variance(auc)

    low = scipy.optimize.brentq(beyond, 0, min(value, 1 - _NEXT), xtol=_NEXT) if beyond(0) > 0 else 0.0
    high = scipy.optimize.brentq(beyond, max(value, _NEXT), 1, xtol=_NEXT) if beyond(1) > 0 else 1.0
    return float(low), float(high)


def _worst(design: _Design) -> float:
    """Return the design effect if all clips of a cluster are alike, for want of errors to estimate it by."""
    return 1.0 if design.effective is None else max(1.0, min(design.sizes) / design.effective)


def _eer(bonafide: np.ndarray, spoof: np.ndarray) -> tuple[_Estimate, tuple[float, float]]:
    """Return the EER, and the weights of FRR and FAR in it, which sum to 1."""
    values = metrics.compute_eer(bonafide, spoof)
    rejected, accepted = bonafide < values.threshold, spoof >= values.threshold
    densities = [
        _density(scores, values.threshold) if np.isfinite(values.threshold) else 0.0
        for scores in (bonafide, spoof)
    ]
    of_frr = densities[1] / sum(densities) if sum(densities) > 0 else 0.5
    fewest = int(min(rejected.sum(), accepted.sum()))
    of_frr = (fewest * of_frr + 3 * 0.5) / (fewest + 3)  # for few errors the estimate is rough
    return (
        _Estimate(
            values.eer,
            (
                of_frr * (rejected - values.frr) / len(bonafide),
                (1 - of_frr) * (accepted - values.far) / len(spoof),
            ),
        ),
        (of_frr, 1 - of_frr),
    )


def _density(scores: np.ndarray, at: float) -> float:
    """Estimate the density of scores at a point, by a Gaussian kernel of Silverman's width."""
    quartiles = np.quantile(scores, (0.25, 0.75))
    spreads = [spread for spread in (scores.std(), (quartiles[1] - quartiles[0]) / 1.34) if spread > 0]
    if not spreads:
        return 0.0
    width = 0.9 * min(spreads) * len(scores) ** -0.2
    with np.errstate(over="ignore"):  # far from the point there is nothing
        return float(np.exp(-(((scores - at) / width) ** 2) / 2).mean() / width)


def _eer_interval(estimate: _Estimate, weights: tuple[float, float], design: _Design) -> Interval:
    worth = 1 / sum(weight**2 / size for weight, size in zip(weights, design.sizes, strict=True))
    return _share_interval(estimate.value, worth / _design_effect(estimate, worth, design), design)


def _design_effect(estimate: _Estimate, worth: float, design: _Design) -> float:
    """Return by what the variance of a share exceeds that of a share of so many independent clips."""
    if design.effective is None:
        return 1.0
    expected = estimate.value * (1 - estimate.value) / worth
    return max(1.0, design.variance(estimate) / expected) if expected else _worst(design)


def _share_interval(share: float, number: float, design: _Design) -> Interval:
    """Return Clopper and Pearson's interval of a share of a number of clips, which may be a fraction."""
    number /= design.students_factor
    k = share * number
    low = scipy.special.betaincinv(k, number - k + 1, TAIL) if k > 0 else 0.0
    high = scipy.special.betaincinv(k + 1, number - k, 1 - TAIL) if k < number else 1.0
    return float(low), float(high)


def share_interval(hits: np.ndarray, clusters: np.ndarray | None = None) -> Interval | None:
    """Return the 95 % interval of the share of clips that are hits; None if clips or clusters are too few.

    Independent clips get Wilson's interval, clusters Clopper and Pearson's of the number they are worth.

    Args:
        hits: bool [n].
        clusters: Which clips belong together, int [n]; None if none do.
    """
    n, k = len(hits), int(hits.sum())
    if clusters is None:
        if n == 0:
            return None
        interval = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)
    design = _Design([n], [clusters])
    if not design.is_enough:
        return None
    return _share_interval(k / n, n / _shares_design_effect(hits, clusters), design)


def _shares_design_effect(hits: np.ndarray, clusters: np.ndarray) -> float:
    """Return by what the variance of the share of clips that are hits exceeds that of independent clips.

    Where few clusters have hits, the sample tells little of how much clusters differ. So another cluster with
    hits is added, all of whose clips are alike.

    Args:
        hits: bool [n].
        clusters: Which clips belong together, int [n].
    """
    share, n = hits.mean(), len(hits)
    design = _Design([n], [clusters])
    expected = share * (1 - share) / n
    variance = design.variance(_Estimate(share, ((hits - share) / n,)))
    found = max(1.0, variance / expected) if expected else 1.0
    number = len(np.unique(clusters[hits if share <= 0.5 else ~hits]))
    return (number * found + _worst(design)) / (number + 1)


def worth(hits: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Return how many independent clips tell as much about a share as clips that belong together do.

    Args:
        hits: The clips that the share counts, bool [n].
        clusters: Which clips belong together, int [n]; None if none do.

    Returns:
        n divided by the design effect, and by what Student's t adds for few clusters; 0 if they are too few.
    """
    if clusters is None:
        return float(len(hits))
    design = _Design([len(hits)], [clusters])
    if not design.is_enough:
        return 0.0
    return len(hits) / (_shares_design_effect(hits, clusters) * design.students_factor)


def paired_differences(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    clusters: Clusters | None = None,
) -> dict[str, PairedDifference]:
    """Return how AUC and EER differ between two detectors on the same clips, after minus before.

    What makes a clip hard for both detectors cancels out of the difference, so its interval is narrower than
    two separate ones. The variance is that of half a clip more, after Agresti and Min, who add one to the
    clips in which paired shares differ (Statistics in Medicine 2005): otherwise two detectors without an
    error would be known to be equal. With few errors, this makes the interval too wide rather than too
    narrow.

    Args:
        before: One detector's (bona fide scores, spoof scores).
        after: The other's, for the same clips in the same order.
        clusters: Which clips belong together; None if none do.

    Returns:
        For "auc" and "eer" the "difference", its 95 % "interval", and the two-sided "p_value" of no
        difference; both None where clips or clusters are too few.

    Raises:
        ValueError: If the scores are not of the same clips, a class has no scores, or one is not finite.
    """
    before, after = metrics.checked(*before), metrics.checked(*after)
    if [len(scores) for scores in before] != [len(scores) for scores in after]:
        raise ValueError("the two sets of scores are not of the same clips")
    design = _Design((len(before[0]), len(before[1])), clusters)
    if design.is_enough and all(map(np.array_equal, before, after)):
        same = PairedDifference(difference=0.0, interval=(0.0, 0.0), p_value=1.0)
        return {"auc": same, "eer": same}
    return {
        "auc": _paired(_auc(*before), _auc(*after), design),
        "eer": _paired(_eer(*before)[0], _eer(*after)[0], design),
    }


def _paired(before: _Estimate, after: _Estimate, design: _Design) -> PairedDifference:
    change = _Estimate(
        after.value - before.value,
        tuple(b - a for a, b in zip(before.influences, after.influences, strict=True)),
    )
    if not design.is_enough:
        return {"difference": change.value, "interval": None, "p_value": None}
    variance, independent = design.variance(change), design.variance_if_independent(change)
    effect = max(1.0, variance / independent) if independent else _worst(design)
    error = np.sqrt(variance + 0.5 / (min(design.sizes) / effect + 2) ** 2)
    reach = float(scipy.special.stdtrit(design.degrees, 1 - TAIL) * error)
    p_value = 2 * scipy.special.stdtr(design.degrees, -abs(change.value) / error)
    low, high = max(-1.0, change.value - reach), min(1.0, change.value + reach)
    return {"difference": change.value, "interval": (low, high), "p_value": float(p_value)}


def difference_interval(before: float, of_before: Interval, after: float, of_after: Interval) -> Interval:
    """Return the 95 % interval of the difference, after minus before, of figures of two separate samples.

    Their own intervals are added square by square (Newcombe, "Interval estimation for the difference between
    independent proportions", method 10, Statistics in Medicine 1998).
    """
    difference = after - before
    low = difference - np.hypot(after - of_after[0], of_before[1] - before)
    high = difference + np.hypot(of_after[1] - after, before - of_before[0])
    return float(low), float(high)


def p_of_shares(hits: np.ndarray, inside: np.ndarray, clusters: np.ndarray | None = None) -> float | None:
    """Test whether the share of hits is the same inside and outside a group of clips.

    Args:
        hits: bool [n].
        inside: The clips in the group, bool [n].
        clusters: Which clips belong together, int [n]; None if none do.

    Returns:
        The two-sided p value of Fisher's exact test. With clusters, also of a test whose variance has the
        design effects of both shares (after Rao & Scott, JASA 1981), but for clusters that are in both, whose
        differences within themselves count: the larger of the two p values; None if the group, or the rest,
        has too few clusters.
    """
    counts = [(int(hits[part].sum()), int(part.sum())) for part in (inside, ~inside)]
    exact = p_of_counts(*counts)
    if clusters is None:
        return exact
    parts = clusters[inside], clusters[~inside]
    design = _Design((len(parts[0]), len(parts[1])), parts)
    if not design.is_enough:
        return None
    shares = [k / n for k, n in counts]
    difference = _Estimate(
        shares[0] - shares[1],
        ((hits[inside] - shares[0]) / counts[0][1], -(hits[~inside] - shares[1]) / counts[1][1]),
    )
    overall = hits.mean()
    if not 0 < overall < 1:
        return 1.0
    in_both = np.intersect1d(*parts)
    expected = 0.0
    for part, (_, n) in zip((inside, ~inside), counts, strict=True):
        alone = 1 - np.isin(clusters[part], in_both).mean()
        effect = alone * _shares_design_effect(hits[part], clusters[part]) + (1 - alone)
        expected += overall * (1 - overall) / n * effect
    variance = max(design.variance(difference), expected)
    return max(exact, float(2 * scipy.special.stdtr(design.degrees, -abs(difference.value) / variance**0.5)))


def p_of_counts_elsewhere(
    there: tuple[int, int], worth_there: float, hits: np.ndarray, clusters: np.ndarray | None = None
) -> float | None:
    """Test whether the share of hits among some clips is that of other clips.

    Args:
        there: The hits among the other clips, and their number.
        worth_there: As how many independent clips the others count; see `worth`.
        hits: bool [n].
        clusters: Which of the n clips belong together, int [n]; None if none do.

    Returns:
        As for `p_of_shares`; None also if the others are worth nothing.
    """
    number = round(worth_there)
    if number == 0:
        return None
    everything = np.concatenate([hits, np.arange(number) < round(there[0] / there[1] * number)])
    is_here = np.arange(len(everything)) < len(hits)
    if clusters is not None:
        _, numbers = np.unique(clusters, return_inverse=True)
        clusters = np.concatenate([numbers, len(numbers) + np.arange(number)])
    return p_of_shares(everything, is_here, clusters)


def p_of_counts(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Return the two-sided p value of Fisher's exact test that two shares, each k of n, are the same."""
    return float(scipy.stats.fisher_exact([[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]).pvalue)


def p_of_changes(gained: np.ndarray, lost: np.ndarray, clusters: np.ndarray | None = None) -> float | None:
    """Test whether as many clips changed in one direction as in the other.

    Args:
        gained: The clips that changed in one direction, bool [n].
        lost: Those that changed in the other, bool [n].
        clusters: Which clips belong together, int [n]; None if none do.

    Returns:
        The p value of McNemar's exact test. With clusters, also of its version for these (Obuchowski, "On the
        comparison of correlated proportions for clustered data", Statistics in Medicine 1998): the larger of
        the two p values; None if too few clusters have changes.
    """
    changes = int(gained.sum() + lost.sum())
    if changes == 0:
        return 1.0
    exact = float(scipy.stats.binomtest(int(gained.sum()), changes).pvalue)
    if clusters is None:
        return exact
    changed = gained | lost
    effective = effective_number(clusters[changed])
    if effective < FEWEST_CLUSTERS:
        return None
    _, numbers = np.unique(clusters, return_inverse=True)
    totals = np.bincount(numbers, gained.astype(float) - lost)
    statistic = abs(float(totals.sum())) / max(float(totals @ totals), changes) ** 0.5
    return max(exact, float(2 * scipy.special.stdtr(effective - 1, -statistic)))
