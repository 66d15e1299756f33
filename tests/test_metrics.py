"""Metrics against the official evaluation code and scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve
from weights import REFERENCE

from antispoofing.metrics import (
    calibration_costs,
    compute_auc,
    compute_eer,
    compute_metrics,
    confusion_at,
    error_rates,
    precision,
)

CASES = json.loads((REFERENCE / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_official_figures(name):
    case = CASES[name]
    values = compute_metrics(case["bonafide"], case["spoof"])
    values |= calibration_costs(case["bonafide"], case["spoof"])
    for key in ("auc", "min_dcf", "act_dcf", "cllr", "n_bonafide", "n_spoof"):
        assert values[key] == pytest.approx(case[key], abs=1e-12), key
    assert values["min_cllr"] <= values["cllr"] + 1e-12
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
    assert np.isfinite([values[name] for name in ("eer", "auc", "min_dcf", "min_cllr")]).all()
    values = calibration_costs([1000.0, -1000.0], [-1e6, 1e3])
    assert np.isfinite(list(values.values())).all()
    assert values["cllr"] == pytest.approx((1000 + 1000) / 2 / 2 / np.log(2))


@pytest.mark.parametrize(
    "function", [compute_metrics, compute_auc, compute_eer, calibration_costs, error_rates]
)
@pytest.mark.parametrize(
    ("bonafide", "spoof"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])]
)
def test_no_figure_without_scores(function, bonafide, spoof):
    with pytest.raises(ValueError, match=r"no .* scores|not a finite number"):
        function(bonafide, spoof)


def test_confusion_counts():
    at = confusion_at([0.0, 1.0, 2.0], [-1.0, 1.0], threshold=1.0)
    assert at == {
        "threshold": 1.0,
        "accuracy": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2),
        "f1_bonafide": pytest.approx(2 / 3),  # precision 2/3, recall 2/3
        "f1_spoof": pytest.approx(1 / 2),
        "frr": pytest.approx(1 / 3),
        "far": 0.5,
        "bonafide_bonafide": 2,
        "bonafide_spoof": 1,
        "spoof_bonafide": 1,
        "spoof_spoof": 1,
    }


def test_precision_follows_bayes():
    """Of 1000 clips 10 are fake: 9 are called so, and so are 99 of the 990 real ones."""
    found = precision(frr=0.1, far=0.1, prevalence=0.01)
    assert found == {"bonafide": pytest.approx(891 / 892), "spoof": pytest.approx(9 / 108)}
    assert precision(frr=0.0, far=1.0, prevalence=0.5)["spoof"] is None


def test_the_best_calibration_of_perfect_and_of_useless_scores():
    assert compute_metrics([1.0, 2.0], [-1.0, 0.0])["min_cllr"] == 0
    assert compute_metrics([0.0, 1.0], [0.0, 1.0])["min_cllr"] == pytest.approx(1)
    assert compute_metrics([-1.0, 0.0], [1.0, 2.0])["min_cllr"] == pytest.approx(1)  # nothing is flipped


def test_min_cllr_is_that_of_the_true_ratios_and_below_any_other():
    """For normal classes with means 1 and -1 and variance 1, the log-likelihood ratio is 2 * score."""
    rng = np.random.default_rng(7)
    bonafide, spoof = rng.normal(1, 1, 20000), rng.normal(-1, 1, 20000)
    best = compute_metrics(bonafide, spoof)["min_cllr"]
    true = calibration_costs(2 * bonafide, 2 * spoof)["cllr"]
    assert true - 0.003 < best < true < calibration_costs(bonafide, spoof)["cllr"]
    assert compute_metrics(np.exp(bonafide), np.exp(spoof))["min_cllr"] == pytest.approx(best, abs=1e-12)


def test_min_cllr_is_that_of_scikit_learns_isotonic_regression():
    rng = np.random.default_rng(11)
    bonafide, spoof = rng.integers(0, 40, 300) / 10, rng.integers(-10, 25, 700) / 10
    labels, scores = np.r_[np.ones(300), np.zeros(700)], np.r_[bonafide, spoof]
    weights = np.r_[np.full(300, 1 / 300), np.full(700, 1 / 700)]
    real = IsotonicRegression().fit(scores, labels, weights).predict(scores)
    expected = np.mean([-np.log2(real[:300]).mean(), -np.log2(1 - real[300:]).mean()])
    assert compute_metrics(bonafide, spoof)["min_cllr"] == pytest.approx(expected, abs=1e-12)


def test_the_frr_at_a_low_far_needs_enough_fakes():
    spoof = np.arange(1000.0)
    found = compute_metrics([500.0, 990.0, 995.5, 2000.0], spoof)["frr_at_far"]
    assert found == {0.01: 0.25, 0.001: 0.75}  # thresholds 990, with 10 of 1000 above, and 2000
    assert compute_metrics([500.0], spoof[:999])["frr_at_far"][0.001] is None


@pytest.mark.parametrize(("n_bonafide", "n_spoof"), [(20, 40), (21, 43), (300, 600), (7, 5)])
def test_of_two_thresholds_equally_close_the_eer_takes_the_official_one(n_bonafide, n_spoof):
    """As in the official ASVspoof 5 code: the first smallest difference, in floating point."""
    rng = np.random.default_rng(n_bonafide)
    for _ in range(100):
        bonafide, spoof = rng.normal(1, 1, n_bonafide), rng.normal(0, 1, n_spoof)
        is_bonafide = np.r_[np.ones(n_bonafide, int), np.zeros(n_spoof, int)][
            np.argsort(np.r_[bonafide, spoof])
        ]
        misses = np.cumsum(is_bonafide)
        frr = np.r_[0, misses / n_bonafide]
        far = np.r_[1, (n_spoof - (np.arange(1, len(misses) + 1) - misses)) / n_spoof]
        at = np.argmin(np.abs(frr - far))
        found = compute_eer(bonafide, spoof)
        assert found.eer == pytest.approx((frr[at] + far[at]) / 2, abs=1e-15)
        assert (found.frr, found.far) == (frr[at], far[at])
        assert found == (found.eer, compute_metrics(bonafide, spoof)["threshold"], found.frr, found.far)
