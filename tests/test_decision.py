"""From scores to verdicts: the calibration against scikit-learn, the rules by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from decision import FAKE, LIMIT, MIXED, NOT_SURE, REAL, Calibration, Rule
from errors import CheckpointError

RNG = np.random.default_rng(0)


def test_a_calibration_is_logistic_regression_with_classes_of_the_same_weight():
    bonafide, spoof = RNG.normal(3, 2, 500), RNG.normal(-1, 1, 2000)
    calibration = Calibration.fit(bonafide, spoof, "x")
    # with Platt's targets each clip counts a little for the other class, too
    scores = np.concatenate([bonafide, spoof, bonafide, spoof])[:, None]
    labels = np.repeat([1, 0, 0, 1], [500, 2000, 500, 2000])
    parts = [(501 / 502) / 500, (2001 / 2002) / 2000, (1 / 502) / 500, (1 / 2002) / 2000]
    weights = np.repeat(parts, [500, 2000, 500, 2000])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(scores, labels, weights * 1e3)
    assert calibration.slope == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert calibration.intercept == pytest.approx(model.intercept_[0], rel=1e-3)


def test_a_calibration_gives_log_likelihood_ratios():
    """Of two normal classes with variance 1 at 1 and -1 it is known: 2 * score."""
    bonafide, spoof = RNG.normal(1, 1, 20000), RNG.normal(-1, 1, 5000)
    rule = Rule(Calibration.fit(bonafide, spoof, "x"))
    margins = rule.margins(np.array([[0.0, 0.0], [0.0, 1.0], [9.0, -1.0]]))
    np.testing.assert_allclose(margins, [0, 2, -2], atol=0.1)
    assert rule.probability(2.0) == pytest.approx(1 / (1 + math.exp(-2)))
    np.testing.assert_allclose(rule.thresholds(np.zeros((2, 2))), 0, atol=0.05)


@pytest.mark.parametrize("gap", [0.01, 1.0, 100.0])
def test_classes_that_do_not_overlap_give_a_finite_slope(gap):
    calibration = Calibration.fit(np.array([gap, 2 * gap]), np.array([-gap, -2 * gap]), "x")
    assert 0 < calibration.slope * 2 * gap < 10
    assert calibration.intercept == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("bonafide", [[-1.0, -2.0], [3.0, 4.0]])
def test_a_calibration_never_turns_scores_round(bonafide):
    assert Calibration.fit(np.array(bonafide), np.array([3.0, 4.0]), "x") is None


def test_a_calibration_is_kept_in_a_file():
    calibration = Calibration(2.0, -1.0, "3 real and 4 fake recordings")
    assert Calibration.of({"calibration": calibration.to_dict()}) == calibration
    assert Calibration.of({"calibration": None}) is None
    assert Calibration.of({}) is None


@pytest.mark.parametrize(
    "stored",
    [
        1,
        "x",
        {},
        {"slope": 1},
        *({"slope": s, "intercept": 0, "fitted_on": ""} for s in (0, -1, "x", np.nan)),
    ],
)
def test_a_damaged_calibration_is_named(stored):
    with pytest.raises(CheckpointError, match="calibration"):
        Calibration.of({"calibration": stored})


@pytest.mark.parametrize(
    ("margins", "verdict"),
    [
        ([LIMIT], REAL),
        ([-LIMIT], FAKE),
        ([LIMIT - 0.01], NOT_SURE),
        ([0.01 - LIMIT], NOT_SURE),
        ([0.0], NOT_SURE),
        ([9.0, -1.0], REAL),
        ([-9.0, 1.0], FAKE),
        ([9.0, -2.9, -2.9], NOT_SURE),
        ([9.0, 9.0, 9.0, 9.0, -3.0], MIXED),
        ([3.0, -9.0, -9.0], MIXED),
    ],
)
def test_the_verdict_over_windows(margins, verdict):
    assert Rule().verdict(np.array(margins)) == verdict


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([2.0], REAL), ([2.5, 2.0], REAL), ([1.9], FAKE), ([1.0, 1.9], FAKE), ([1.9, 2.0], MIXED)],
)
def test_a_given_threshold_comes_first_and_is_always_sure(scores, verdict):
    rule = Rule(Calibration(1.0, 0.0, "x"), threshold=2.0)
    logits = np.array([[100.0, score] for score in scores])
    assert rule.verdict(rule.margins(logits)) == verdict
    assert rule.thresholds(logits).tolist() == [2.0] * len(scores)
    assert rule.probability(1.0) is None


def test_without_a_calibration_the_logits_decide_and_there_is_no_probability():
    rule, logits = Rule(), np.array([[1.0, 5.0], [2.0, -2.0]])
    assert rule.margins(logits).tolist() == [4, -4]
    assert rule.thresholds(logits).tolist() == [1, 2]
    assert rule.probability(4.0) is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), "Nobody has calibrated"),
        (Rule(Calibration(1.0, 0.0, "5 real ones")), "calibrated on 5 real ones"),
        (Rule(Calibration(1.0, 0.0, "5 real ones"), 0.5), "threshold given"),
    ],
)
def test_a_rule_says_what_it_goes_by(rule, words):
    assert words in rule.describe()
