"""Metrics against the official evaluation code and scikit-learn; intervals and the direction check."""

import json

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score, roc_curve
from weights import REFERENCE

from antispoofing.metrics import (
    bootstrap_intervals,
    compute_metrics,
    confusion_at,
    error_rates,
    paired_differences,
    shown_direction,
)

CASES = json.loads((REFERENCE / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_official_figures(name):
    case = CASES[name]
    values = compute_metrics(case["bonafide"], case["spoof"])
    for key in ("auc", "min_dcf", "act_dcf", "cllr", "n_bonafide", "n_spoof"):
        assert values[key] == pytest.approx(case[key], abs=1e-12), key
    if name in ("ties", "constant"):  # the official code breaks ties by the order of the scores
        return
    assert values["eer"] == pytest.approx(case["eer"], abs=1e-12)
    # The official code accepts above its threshold, and this one at or above: the decisions are the same.
    scores = np.array(case["bonafide"] + case["spoof"])
    np.testing.assert_array_equal(scores >= values["threshold"], scores > case["threshold"])


def test_constant_scores_are_chance():
    case = CASES["constant"]
    assert compute_metrics(case["bonafide"], case["spoof"])["eer"] == 0.5


def test_eer_with_ties_does_not_depend_on_the_order():
    bonafide, spoof = (np.array(CASES["ties"][key]) for key in ("bonafide", "spoof"))
    labels = np.r_[np.ones(len(bonafide)), np.zeros(len(spoof))]
    far, tpr, thresholds = roc_curve(labels, np.r_[bonafide, spoof], drop_intermediate=False)
    nearest = np.argmin(np.abs(1 - tpr - far))
    rng = np.random.default_rng(0)
    for _ in range(3):
        values = compute_metrics(rng.permutation(bonafide), rng.permutation(spoof))
        assert values["eer"] == pytest.approx((1 - tpr[nearest] + far[nearest]) / 2, abs=1e-12)
        assert values["threshold"] == thresholds[nearest]


def test_error_rates_are_the_roc_curve_of_scikit_learn():
    rng = np.random.default_rng(1)
    bonafide, spoof = rng.integers(0, 30, 200) / 10, rng.integers(-10, 20, 300) / 10
    labels = np.r_[np.ones(200), np.zeros(300)]
    far, tpr, thresholds = roc_curve(labels, np.r_[bonafide, spoof], drop_intermediate=False)
    points = error_rates(bonafide, spoof)
    np.testing.assert_array_equal(points.thresholds[::-1], thresholds)
    np.testing.assert_allclose(points.far[::-1], far, atol=1e-15)
    np.testing.assert_allclose(points.frr[::-1], 1 - tpr, atol=1e-15)


def test_reversed_scores_give_the_complements_of_auc_and_eer():
    rng = np.random.default_rng(2)
    bonafide, spoof = rng.normal(1, 1, 501), rng.normal(0, 1, 700)
    values, opposite = compute_metrics(bonafide, spoof), compute_metrics(-bonafide, -spoof)
    assert opposite["auc"] == pytest.approx(1 - values["auc"])
    assert opposite["eer"] == pytest.approx(1 - values["eer"], abs=1 / 501)


def test_perfect_separation_is_exactly_one_at_every_size():
    for n_bonafide, n_spoof in [(1, 106), (4, 78), (49, 98), (1000, 3)]:
        values = compute_metrics(np.arange(n_bonafide) + 1e6, np.arange(n_spoof))
        assert (values["auc"], values["eer"]) == (1.0, 0.0)


def test_extreme_scores_do_not_overflow():
    values = compute_metrics([1000.0, -1000.0], [-1e6, 1e3])
    assert np.isfinite(list(values.values())).all()
    assert values["cllr"] == pytest.approx((1000 + 1000) / 2 / 2 / np.log(2))


@pytest.mark.parametrize("function", [compute_metrics, error_rates, bootstrap_intervals])
@pytest.mark.parametrize(
    ("bonafide", "spoof"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])]
)
def test_no_figure_without_scores(function, bonafide, spoof):
    with pytest.raises(ValueError, match=r"no .* scores|not a finite number"):
        function(bonafide, spoof)


def test_intervals_are_seeded_and_contain_the_estimate():
    rng = np.random.default_rng(3)
    bonafide, spoof = rng.normal(1, 1, 80), rng.normal(0, 1, 120)
    first = bootstrap_intervals(bonafide, spoof, seed=7)
    assert first == bootstrap_intervals(bonafide, spoof, seed=7)
    assert first != bootstrap_intervals(bonafide, spoof, seed=8)
    values = compute_metrics(bonafide, spoof)
    for name in ("auc", "eer"):
        assert first[name][0] < values[name] < first[name][1]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # The AUC of N(1, 1) against N(0, 1) is Phi(1 / sqrt(2)) = 0.7602.
    rng = np.random.default_rng(4)
    sets = [(rng.normal(1, 1, 60), rng.normal(0, 1, 60)) for _ in range(200)]
    intervals = [bootstrap_intervals(b, s, n_resamples=200, seed=i)["auc"] for i, (b, s) in enumerate(sets)]
    covered = np.mean([low <= 0.7602 <= high for low, high in intervals])
    assert 0.89 <= covered <= 0.99


def test_auc_interval_width_agrees_with_hanley_and_mcneil():
    # The standard error of the AUC is that of Hanley & McNeil (1982), from U-statistics.
    rng = np.random.default_rng(5)
    bonafide, spoof = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
    a = roc_auc_score(np.r_[np.ones(300), np.zeros(300)], np.r_[bonafide, spoof])
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 299 * (q1 - a * a) + 299 * (q2 - a * a)) / 300**2)
    low, high = bootstrap_intervals(bonafide, spoof)["auc"]
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def direction(bonafide, spoof, seed=0):
    return shown_direction(bonafide, spoof, bootstrap_intervals(bonafide, spoof, seed=seed)["auc"])


def test_a_planted_direction_is_shown():
    rng = np.random.default_rng(6)
    assert direction(rng.normal(0, 1, 50), rng.normal(1, 1, 50)) == -1
    assert direction(rng.normal(1, 1, 50), rng.normal(0, 1, 50)) == 1
    assert direction(rng.normal(0, 1, 50), rng.normal(0, 1, 50)) == 0
    assert direction(CASES["inverted"]["bonafide"], CASES["inverted"]["spoof"]) == -1


def test_a_handful_of_clips_shows_nothing():
    assert bootstrap_intervals([0.0, 0.1], [1.0, 1.1])["auc"][1] == 0  # the interval is narrow, and yet
    assert bootstrap_intervals([0.0], [1.0, 2.0]) == {"auc": (0, 1), "eer": (0, 1)}
    assert direction([0.0], [1.0]) == 0
    assert direction([0.0, 0.1], [1.0, 1.1]) == direction([1.0, 1.1], [0.0, 0.1]) == 0
    assert direction(np.arange(6.0), np.arange(6.0) + 10) == -1  # 1 in 924 by chance


@pytest.mark.parametrize("n", [3, 8, 20])
def test_a_detector_at_chance_is_rarely_accused_or_praised(n):
    rng = np.random.default_rng(n)
    shown = np.array([direction(rng.normal(size=n), rng.normal(size=n), seed=i) for i in range(200)])
    assert np.mean(shown < 0) <= 0.06  # 2.5 % is nominal
    assert np.mean(shown > 0) <= 0.06


def test_confusion_counts():
    at = confusion_at([0.0, 1.0, 2.0], [-1.0, 1.0], threshold=1.0)
    assert at == {
        "threshold": 1.0,
        "accuracy": pytest.approx(3 / 5),
        "frr": pytest.approx(1 / 3),
        "far": 0.5,
        "bonafide_bonafide": 2,
        "bonafide_spoof": 1,
        "spoof_bonafide": 1,
        "spoof_spoof": 1,
    }


def test_a_detector_does_not_differ_from_itself():
    rng = np.random.default_rng(8)
    pair = (rng.normal(1, 1, 40), rng.normal(0, 1, 30))
    for found in paired_differences(pair, pair).values():
        assert found == {"difference": 0.0, "interval": (0.0, 0.0), "p_value": 1.0}


def test_paired_differences_use_the_pairing():
    rng = np.random.default_rng(9)
    bonafide, spoof = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
    after = (bonafide + 0.3 + 0.1 * rng.normal(size=100), spoof + 0.1 * rng.normal(size=100))
    found = paired_differences((bonafide, spoof), after, seed=1)
    values = [compute_metrics(*pair) for pair in ((bonafide, spoof), after)]
    for name in ("auc", "eer"):
        assert found[name]["difference"] == pytest.approx(values[1][name] - values[0][name], abs=1e-12)
        low, high = found[name]["interval"]
        assert low <= found[name]["difference"] <= high
    # The p-value follows from the spread of the same resamples.
    low, high = found["auc"]["interval"]
    expected = 2 * scipy.stats.norm.sf(found["auc"]["difference"] / ((high - low) / (2 * 1.96)))
    assert np.log(found["auc"]["p_value"]) == pytest.approx(np.log(expected), rel=0.2)
    # Between two similar detectors, a small gain is certain that separate intervals cannot show.
    assert found["auc"]["interval"][0] > 0
    separate = [bootstrap_intervals(*pair)["auc"] for pair in ((bonafide, spoof), after)]
    assert separate[0][1] > separate[1][0]
    unpaired = (rng.permutation(after[0]), rng.permutation(after[1]))
    low, high = paired_differences((bonafide, spoof), unpaired, seed=1)["auc"]["interval"]
    assert high - low > 2 * np.diff(found["auc"]["interval"])


def test_differences_of_other_clips_or_none_are_refused():
    with pytest.raises(ValueError, match="same clips"):
        paired_differences(([1.0], [0.0]), ([1.0, 2.0], [0.0]))
    with pytest.raises(ValueError, match="no spoof scores"):
        paired_differences(([1.0], []), ([1.0], []))
    assert paired_differences(([1.0], [0.0]), ([0.0], [1.0]))["auc"] == {
        "difference": -1.0,
        "interval": (-1.0, 1.0),
        "p_value": 1.0,
    }
