"""Intervals and tests: against formulas and packages, and by how often they are right in simulated sets."""

import importlib.util

import numpy as np
import pytest
import scipy.stats
from helpers import ROOT
from sklearn.metrics import roc_auc_score
from weights import REFERENCE

from antispoofing import metrics, uncertainty
from antispoofing.uncertainty import (
    FEWEST_CLUSTERS,
    difference_interval,
    effective_number,
    intervals,
    p_of_changes,
    p_of_counts,
    p_of_counts_elsewhere,
    p_of_shares,
    paired_differences,
    share_interval,
)


def normal_sets(n=60, distance=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(distance, 1, n), rng.normal(0, 1, n)


def simulation():
    path = ROOT / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIMULATION = simulation()


@pytest.mark.parametrize(
    ("clips", "auc"),
    [
        ((0, 20), 0.6),
        ((0, 20), 0.998),
        ((0, 50), 0.97),
        ((0, 200), 0.9),
        ((20, 10, 0.3), 0.9),
        ((20, 10, 0.3, True), 0.97),
        ((60, 5, 0.1), 0.6),
    ],
)
def test_intervals_cover_the_truth(clips, auc):
    """Nominally 95 %; of 400 sets, at most 92 % would be covered by chance in 1 of 170 cases."""
    found = SIMULATION.coverage(SIMULATION.Voices(*clips), auc, 400)
    assert found["without"] == 0
    assert found["auc"] >= 0.92
    assert found["eer"] >= 0.92
    if auc < 0.99:
        assert found["auc"] < 1
        assert found["auc_width"] < 0.4
        assert found["eer_width"] < 0.4


def test_clusters_widen_the_intervals_where_clips_of_a_speaker_are_alike():
    rng = np.random.default_rng(1)
    of_each = np.repeat(np.arange(20), 20)
    shifts = 0.6 * rng.standard_normal((2, 20))
    bonafide, spoof = (
        shift[of_each] + rng.normal(mean, 0.8, 400) for shift, mean in zip(shifts, (1.5, 0), strict=True)
    )
    alone = intervals(bonafide, spoof)
    together = intervals(bonafide, spoof, (of_each, of_each + 20))
    shuffled = intervals(bonafide, spoof, (rng.permutation(of_each), rng.permutation(of_each) + 20))
    for name in ("auc", "eer"):
        assert np.diff(together[name]) > 1.8 * np.diff(alone[name])
        assert np.diff(shuffled[name]) < 1.5 * np.diff(alone[name])


def test_clusters_of_one_clip_each_are_independent_clips():
    """But for Student's t, which hardly differs from the normal distribution here."""
    bonafide, spoof = normal_sets(400)
    alone = intervals(bonafide, spoof)
    together = intervals(bonafide, spoof, (np.arange(400), 400 + np.arange(400)))
    for name in ("auc", "eer"):
        assert together[name] == pytest.approx(alone[name], abs=2e-3)


def test_the_variance_of_a_clustered_auc_is_obuchowskis():
    """As written in Biometrics 53 (1997), equations 3 to 5, with speakers who are in both classes."""
    rng = np.random.default_rng(2)
    of_each = np.repeat(np.arange(12), 5)
    shift = rng.standard_normal(12)
    bonafide, spoof = 1 + shift[of_each] + rng.standard_normal(60), shift[of_each] + rng.standard_normal(60)
    above = (bonafide[:, None] > spoof).astype(float)
    auc = above.mean()
    sums = [np.bincount(of_each, above.mean(axis=axis) - auc) for axis in (1, 0)]
    factor = 12 / 11
    s10, s01 = (factor * (s @ s) / 60 for s in sums)
    s11 = factor * (sums[0] @ sums[1])
    expected = s10 / 60 + s01 / 60 + 2 * s11 / 60**2
    design = uncertainty._Design((60, 60), (of_each, of_each))
    assert design.variance(uncertainty._auc(bonafide, spoof)) == pytest.approx(expected, rel=1e-12)


def test_the_auc_interval_is_newcombes_method_5():
    """The bounds solve its equation; scores are evenly spread, so that DeLong's variance is no larger."""
    bonafide, spoof = np.arange(40) + 12.5, np.arange(40.0)
    low, high = intervals(bonafide, spoof)["auc"]
    value = roc_auc_score(np.r_[np.ones(40), np.zeros(40)], np.r_[bonafide, spoof])
    for bound in (low, high):
        variance = bound * (1 - bound) / 1600
        variance *= 1 + 39 * (1 - bound) / (2 - bound) + 39 * bound / (1 + bound)
        assert abs(value - bound) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)
    assert low < value < high


def test_the_eer_interval_is_clopper_and_pearsons():
    """With densities that are alike at the threshold, the EER is worth the clips of both classes."""
    bonafide, spoof = normal_sets(2000, 2.0)
    spoof = 2.0 - bonafide  # mirrored
    eer = metrics.compute_eer(bonafide, spoof)
    low, high = intervals(bonafide, spoof)["eer"]
    exact = scipy.stats.binomtest(round(4000 * eer.eer), 4000).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=2e-4)


@pytest.mark.parametrize(("n_real", "n_fake"), [(2000, 30), (30, 2000)])
def test_the_eer_interval_does_not_rely_on_a_class_of_few_clips(n_real, n_fake):
    """Scores of the larger class that saturate, as of a softmax, change no error near the threshold."""
    rng = np.random.default_rng(n_real)
    for cap in (np.inf, 2.2):
        covered = 0
        for _ in range(200):
            bonafide, spoof = rng.normal(1.5, 1, n_real), rng.normal(-1.5, 1, n_fake)
            low, high = intervals(np.clip(bonafide, -cap, cap), np.clip(spoof, -cap, cap))["eer"]
            covered += low <= scipy.stats.norm.cdf(-1.5) <= high
        assert covered >= 0.9 * 200


def test_perfect_and_useless_scores_have_intervals_too():
    low, high = intervals(np.arange(20) + 50.0, np.arange(20.0))["auc"]
    assert high == 1
    variance = low * (1 - low) * (1 + 19 * ((1 - low) / (2 - low) + low / (1 + low))) / 400  # Newcombe's
    assert 1 - low == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)
    assert intervals(np.arange(20) + 50.0, np.arange(20.0))["eer"] == (0.0, pytest.approx(0.0881, abs=1e-3))
    assert intervals(np.arange(20.0), np.arange(20) + 50.0)["auc"] == (0.0, pytest.approx(1 - low))
    low, high = intervals(np.zeros(20), np.zeros(20))["auc"]
    assert low < 0.5 < high
    assert intervals(np.array([1.0]), np.arange(9.0)) == {"auc": None, "eer": None}


def test_perfect_scores_of_clusters_are_worth_the_clusters_only():
    of_each = np.repeat(np.arange(12), 10)
    low, high = intervals(np.arange(120) + 500.0, np.arange(120.0), (of_each, of_each))["auc"]
    assert high == 1
    assert low < intervals(np.arange(24) + 500.0, np.arange(24.0))["auc"][0]


def test_too_few_clusters_have_no_interval():
    bonafide, spoof = normal_sets(120)
    enough, few = np.arange(120) % FEWEST_CLUSTERS, np.arange(120) % (FEWEST_CLUSTERS - 1)
    assert intervals(bonafide, spoof, (enough, enough))["auc"]
    assert intervals(bonafide, spoof, (few, enough)) == {"auc": None, "eer": None}
    assert paired_differences((bonafide, spoof), (spoof, bonafide), (few, enough))["auc"]["interval"] is None
    assert share_interval(bonafide > 0, few) is None
    assert p_of_shares(bonafide > 0, enough < 1, enough) is None
    assert effective_number(np.array([0, 0, 0, 1])) == pytest.approx(1.6)


def test_nothing_depends_on_the_order_of_the_clips():
    rng = np.random.default_rng(3)
    bonafide, spoof = normal_sets(100)
    clusters = rng.integers(0, 15, 100), rng.integers(10, 25, 100)
    order = rng.permutation(100)
    shuffled = bonafide[order], spoof, (clusters[0][order], clusters[1])
    assert intervals(*shuffled)["auc"] == pytest.approx(intervals(bonafide, spoof, clusters)["auc"])
    after = bonafide + 0.1 * rng.standard_normal(100), spoof + 0.1 * rng.standard_normal(100)
    found = paired_differences((bonafide, spoof), after, clusters)
    mixed = paired_differences(shuffled[:2], (after[0][order], after[1]), shuffled[2])
    assert mixed["eer"]["interval"] == pytest.approx(found["eer"]["interval"])


# ------------------------------------------------------------------ differences


def test_a_detector_does_not_differ_from_itself():
    pair = normal_sets(40)
    for found in paired_differences(pair, pair).values():
        assert found == {"difference": 0.0, "interval": (0.0, 0.0), "p_value": 1.0}


def test_paired_differences_use_the_pairing():
    rng = np.random.default_rng(9)
    bonafide, spoof = normal_sets(100)
    after = (bonafide + 0.3 + 0.1 * rng.normal(size=100), spoof + 0.1 * rng.normal(size=100))
    found = paired_differences((bonafide, spoof), after)
    values = [metrics.compute_metrics(*pair) for pair in ((bonafide, spoof), after)]
    for name in ("auc", "eer"):
        assert found[name]["difference"] == pytest.approx(values[1][name] - values[0][name], abs=1e-12)
        low, high = found[name]["interval"]
        assert (low + high) / 2 == pytest.approx(found[name]["difference"])
    # Between two similar detectors, a small gain is certain that separate intervals cannot show.
    assert found["auc"]["interval"][0] > 0
    separate = [intervals(*pair)["auc"] for pair in ((bonafide, spoof), after)]
    assert separate[0][1] > separate[1][0]
    unpaired = (rng.permutation(after[0]), rng.permutation(after[1]))
    low, high = paired_differences((bonafide, spoof), unpaired)["auc"]["interval"]
    assert high - low > 2 * np.diff(found["auc"]["interval"])


def test_the_p_value_of_a_difference_goes_with_its_interval():
    rng = np.random.default_rng(4)
    for seed in range(40):
        bonafide, spoof = normal_sets(30, seed=seed)
        after = (bonafide + rng.normal(0.4, 1, 30), spoof)
        for found in paired_differences((bonafide, spoof), after).values():
            low, high = found["interval"]
            assert (found["p_value"] < 0.05) == (low > 0 or high < 0)


def test_two_detectors_without_an_error_are_not_known_to_be_equal():
    spoof = np.arange(20.0)
    found = paired_differences((spoof + 50, spoof), (spoof[::-1] + 90, spoof))["auc"]
    assert found["difference"] == 0
    assert found["interval"][0] < -0.05
    assert found["interval"][1] > 0.05
    low, high = paired_differences((spoof + 50, spoof), (np.r_[spoof[:19] + 50, -1], spoof))["auc"][
        "interval"
    ]
    assert low < -0.1
    assert high > 0  # one clip of 20 shows nothing


def test_differences_of_other_clips_or_none_are_refused():
    with pytest.raises(ValueError, match="same clips"):
        paired_differences(([1.0], [0.0]), ([1.0, 2.0], [0.0]))
    with pytest.raises(ValueError, match="no spoof scores"):
        paired_differences(([1.0], []), ([1.0], []))
    found = paired_differences(([1.0], [0.0]), ([0.0], [1.0]))["auc"]
    assert found == {"difference": -1.0, "interval": None, "p_value": None}


def test_the_difference_of_separate_samples_is_newcombes():
    """His example, method 10: 56 of 70 against 48 of 80 gives 0.2000 [0.0524, 0.3339]."""
    first, second = (
        scipy.stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in ((48, 80), (56, 70))
    )
    found = difference_interval(48 / 80, (first.low, first.high), 56 / 70, (second.low, second.high))
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)


# ------------------------------------------------------------------ shares and changes


def test_shares_of_independent_clips_have_wilsons_interval_and_fishers_test():
    hits = np.arange(80) < 12
    exact = scipy.stats.binomtest(12, 80).proportion_ci(method="wilson")
    assert share_interval(hits) == pytest.approx((exact.low, exact.high))
    inside = np.arange(80) < 20
    p_value = scipy.stats.fisher_exact([[12, 8], [0, 60]]).pvalue
    assert p_of_shares(hits, inside) == p_of_counts((12, 20), (0, 60)) == pytest.approx(p_value)
    assert p_of_counts_elsewhere((12, 20), 20, np.zeros(60, bool)) == pytest.approx(p_value)
    assert share_interval(hits[:0]) is None


def test_errors_of_a_single_speaker_are_no_difference_between_groups():
    """All errors are of one speaker of 20: as many clips by chance would be a difference."""
    clusters = np.repeat(np.arange(20), 10)
    hits, inside = clusters == 3, clusters < 10
    assert p_of_shares(hits, inside) < 0.01
    assert p_of_shares(hits, inside, clusters) > 0.2
    low, high = share_interval(hits, clusters)
    assert low < 0.01
    assert high > 0.15
    scattered = np.arange(200) % 20 == 3
    assert np.diff(share_interval(scattered, clusters)) < high - low
    assert p_of_shares(np.zeros(200, bool), inside, clusters) == 1
    there = (0, 200), 200
    assert p_of_counts_elsewhere(*there, hits, clusters) > 0.05 > p_of_counts_elsewhere(*there, hits)


def test_errors_of_few_speakers_are_not_taken_for_rare_ones():
    """Speakers differ, and both classes have errors in 5 % of clips; few sets may say otherwise."""
    rng, clusters = np.random.default_rng(7), np.r_[np.repeat(np.arange(10), 30), 10 + np.arange(300)]
    claims = 0
    for _ in range(300):
        effects = np.r_[np.repeat(rng.standard_normal(10), 30) * 0.6**0.5, np.zeros(300)]
        spread = np.r_[np.full(300, 0.4**0.5), np.ones(300)]
        hits = effects + spread * rng.standard_normal(600) < scipy.stats.norm.ppf(0.05)
        claims += p_of_shares(hits, np.arange(600) < 300, clusters) < 0.05
    assert claims <= 15  # it was 39 without the design effect of a cluster that is all alike


def test_the_interval_of_the_eer_weighs_the_class_by_the_others_density():
    """With the weights exchanged, it would cover the truth in 56 % of sets."""
    rng, covered = np.random.default_rng(8), 0
    truth = scipy.stats.norm.sf(3 / 2.4)  # of real scores N(3, 0.4) and fake ones N(0, 2)
    for _ in range(200):
        low, high = intervals(rng.normal(3, 0.4, 1000), rng.normal(0, 2, 60))["eer"]
        covered += low <= truth <= high
    assert covered >= 170


def test_the_degrees_of_freedom_are_those_of_the_class_with_fewer_clusters():
    clusters = np.repeat(np.arange(12), 20), 12 + np.repeat(np.arange(200), 2)
    assert uncertainty._Design((240, 400), clusters).degrees == pytest.approx(11)


@pytest.mark.parametrize(("speakers", "is_enough"), [(9, False), (10, True)])
def test_it_takes_ten_speakers(speakers, is_enough):
    clusters = np.repeat(np.arange(speakers), 10), speakers + np.arange(90)
    found = intervals(np.arange(10.0 * speakers), np.arange(90.0), clusters)
    assert [interval is not None for interval in found.values()] == [is_enough] * 2


def test_changes_of_clusters_are_tested_by_obuchowskis_version():
    """16 speakers with 3 changes each, in one direction for 12 of them, and in the other for 4."""
    clusters = np.repeat(np.arange(16), 4)
    changed = np.tile([True, True, True, False], 16)
    gained, lost = changed & (clusters < 12), changed & (clusters >= 12)
    assert p_of_changes(gained, lost) == pytest.approx(0.00071, abs=1e-5)
    statistic = (36 - 12) / (16 * 9) ** 0.5
    expected = 2 * scipy.stats.t.sf(statistic, 15)
    assert p_of_changes(gained, lost, clusters) == pytest.approx(expected) == pytest.approx(0.0639, abs=1e-4)


def test_changes_are_tested_by_mcnemar():
    gained, lost = np.arange(60) < 14, (np.arange(60) >= 20) & (np.arange(60) < 22)
    assert p_of_changes(gained, lost) == pytest.approx(scipy.stats.binomtest(14, 16).pvalue)
    alone = np.arange(60)
    assert p_of_changes(gained, lost, alone) >= p_of_changes(gained, lost)
    assert p_of_changes(gained, lost, alone // 6) is None  # changes in three clusters
    assert p_of_changes(~alone.astype(bool), np.zeros(60, bool), alone) is None
    assert p_of_changes(np.zeros(60, bool), np.zeros(60, bool), alone // 6) == 1


# ------------------------------------------------------------------ the direction


def direction(bonafide, spoof, clusters=None):
    """Return on which side of 0.5 the AUC is shown to lie: 1, -1, or 0 for neither."""
    interval = intervals(np.asarray(bonafide, float), np.asarray(spoof, float), clusters)["auc"]
    return 0 if interval is None else int(interval[0] > 0.5) - int(interval[1] < 0.5)


def test_a_planted_direction_is_shown():
    rng = np.random.default_rng(6)
    assert direction(rng.normal(0, 1, 50), rng.normal(1, 1, 50)) == -1
    assert direction(rng.normal(1, 1, 50), rng.normal(0, 1, 50)) == 1
    assert direction(rng.normal(0, 1, 50), rng.normal(0, 1, 50)) == 0
    inverted = np.load(REFERENCE / "small_seed0.npz")["logits"]  # any numbers
    assert direction(inverted[:, 0], inverted[:, 0]) == 0


def test_a_handful_of_clips_shows_nothing():
    few, many = np.arange(4.0), np.arange(60.0)
    assert direction(few, many + 10) == direction(few + 100, many) == 0
    assert direction(np.arange(6.0), np.arange(6.0) + 10) == -1  # 1 in 924 by chance


def test_a_handful_of_speakers_shows_nothing():
    """However unequal: means of few speakers would say otherwise in a tenth of sets, or more."""
    speakers = np.repeat(np.arange(9), 100), 9 + np.repeat(np.arange(3), 2)
    assert direction(np.arange(900) + 100.0, np.arange(6.0), speakers) == 0
    many = np.repeat(np.arange(20), 5), 20 + np.repeat(np.arange(20), 5)
    assert direction(np.arange(100) + 100.0, np.arange(100.0), many) == 1


@pytest.mark.parametrize("n", [3, 8, 20])
def test_a_detector_at_chance_is_rarely_accused_or_praised(n):
    rng = np.random.default_rng(n)
    shown = np.array([direction(rng.normal(size=n), rng.normal(size=n)) for _ in range(400)])
    assert np.mean(shown < 0) <= 0.05  # 2.5 % is nominal
    assert np.mean(shown > 0) <= 0.05
