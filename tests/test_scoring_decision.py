"""From scores to verdicts: the calibration against its equations, and the rules against hand-made cases."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import PRESETS
from scipy.special import expit, logit

from antispoofing.errors import CheckpointError
from antispoofing.scoring import decision
from antispoofing.scoring.decision import FAKE, LIMIT, NOT_SURE, REAL, Calibration, Rule
from model import Detector

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("bonafide", "spoof"),
    [
        (RNG.normal(3, 2, 500), RNG.normal(-1, 1, 2000)),
        (RNG.normal(50, 1, 1000), RNG.normal(-50, 1, 1000)),  # far apart
        (RNG.normal(1e8, 1e8, 50), RNG.normal(-1e8, 1e8, 70)),
        (RNG.normal(1e6 + 1e-3, 1e-3, 50), RNG.normal(1e6 - 1e-3, 1e-3, 70)),
        (np.append(RNG.normal(1, 1, 500), 1e6), RNG.normal(-1, 1, 500)),  # one outlier outweighs all others
        (np.array([3.0]), RNG.normal(0, 1, 1000)),
    ],
)
def test_a_calibration_solves_the_equations_of_logistic_regression(bonafide, spoof):
    """At the maximum of the likelihood, the residuals sum to 0, by themselves and times the scores."""
    calibration = Calibration.fit(bonafide, spoof, "x")
    scores, numbers = np.concatenate([bonafide, spoof]), (len(bonafide), len(spoof))
    weights = np.repeat([0.5 / n for n in numbers], numbers)  # both classes weigh the same
    targets = np.repeat([1 - 1 / (numbers[0] + 2), 1 / (numbers[1] + 2)], numbers)  # Platt's
    log_odds = calibration.slope * scores + calibration.intercept + logit(weights @ targets)
    residuals = weights * (expit(log_odds) - targets)
    assert residuals.sum() == pytest.approx(0, abs=1e-7)
    assert residuals @ (scores - scores.mean()) / scores.std() == pytest.approx(0, abs=1e-7)


def test_a_fit_that_does_not_converge_gives_none_and_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(decision, "_MOST_STEPS", 1)
    assert Calibration.fit(RNG.normal(3, 2, 50), RNG.normal(-1, 1, 20), "70 clips") is None
    reason = "so the two logits are compared instead: lbfgs failed to converge"
    assert f"the calibration on 70 clips failed, {reason}" in caplog.text


def test_a_calibration_gives_log_likelihood_ratios():
    """For two normal classes with means 1 and -1 and variance 1, the ratio is known to be 2 * score."""
    bonafide, spoof = RNG.normal(1, 1, 20000), RNG.normal(-1, 1, 5000)
    rule = Rule(Calibration.fit(bonafide, spoof, "x"))
    margins = rule.margins(np.array([[0.0, 0.0], [0.0, 1.0], [9.0, -1.0]]))
    np.testing.assert_allclose(margins, [0, 2, -2], atol=0.1)
    made = rule.decide(np.array([9.0, 1.0]))
    assert (made.score, made.margin, made.verdict) == (1, margins[1], NOT_SURE)
    assert made.probability_real == pytest.approx(1 / (1 + math.exp(-made.margin)))
    assert made.threshold == pytest.approx(0, abs=0.05)


def test_no_evidence_is_none_whatever_the_numbers():
    scores = np.linspace(-1, 1, 5)
    calibration = Calibration.fit(np.repeat(scores, 200) + 1e-6, scores, "x")
    assert calibration.log_likelihood_ratios(np.array([0.0]))[0] == pytest.approx(0, abs=1e-3)


def test_no_more_is_claimed_than_the_clips_can_show():
    calibration = Calibration.fit(RNG.normal(5, 1, 50), RNG.normal(-5, 1, 30), "x")
    rule = Rule(calibration)
    assert calibration.bound == pytest.approx(math.log(31))
    margins = rule.margins(np.array([[0, 1000.0], [0, -1000.0]]))
    assert margins.tolist() == [calibration.bound, -calibration.bound]
    assert rule.decide(np.array([0, 1000.0])).probability_real == pytest.approx(31 / 32)


@pytest.mark.parametrize("gap", [0.01, 1.0, 100.0])
def test_classes_that_do_not_overlap_give_a_finite_slope(gap):
    calibration = Calibration.fit(np.array([gap, 2 * gap]), np.array([-gap, -2 * gap]), "x")
    assert 0 < calibration.slope * 2 * gap < 10
    assert calibration.intercept == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("bonafide", "spoof"),
    [([-1.0, -2.0], [3.0, 4.0]), ([3.0, 4.0], [3.0, 4.0]), ([1.0], [1.0, 1.0]), ([0, 1] * 5, [0, 1])],
)
def test_scores_that_do_not_speak_for_real_give_no_calibration(bonafide, spoof):
    assert Calibration.fit(np.array(bonafide, float), np.array(spoof, float), "x") is None


def test_a_calibration_is_kept_in_a_file():
    calibration = Calibration(2.0, -1.0, 5.0, "3 real and 4 fake recordings")
    assert Calibration.from_provenance({"calibration": calibration.to_dict()}) == calibration
    assert Calibration.from_provenance({"calibration": None}) is None
    assert Calibration.from_provenance({}) is None


GOOD = {"slope": 1, "intercept": 0, "bound": 5, "fitted_on": "x"}


@pytest.mark.parametrize(
    "stored",
    [
        1,
        "x",
        {},
        {"slope": 1},
        *(GOOD | {"slope": slope} for slope in (0, -1, "x", np.nan, None, 10**400)),
        GOOD | {"intercept": np.inf},
        GOOD | {"bound": 0},
    ],
)
def test_a_damaged_calibration_is_named(stored):
    detector = Detector(PRESETS["small"])
    detector.path, detector.provenance = Path("a.safetensors"), {"calibration": GOOD}
    assert Rule.from_detector(detector).calibration.slope == 1
    detector.provenance = {"calibration": stored}
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: its calibration is damaged$"):
        Rule.from_detector(detector)


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(LIMIT, REAL), (-LIMIT, FAKE), (LIMIT - 0.01, NOT_SURE), (0.01 - LIMIT, NOT_SURE), (0.0, NOT_SURE)],
)
def test_the_verdict_on_a_clip(margin, verdict):
    assert Rule().decide(np.array([1.0, 1.0 + margin])).verdict == verdict


@pytest.mark.parametrize(("score", "verdict"), [(2.5, REAL), (2.0, REAL), (1.9, FAKE)])
def test_a_given_threshold_comes_first_and_is_always_sure(score, verdict):
    rule = Rule(Calibration(1.0, 0.0, 5.0, "x"), threshold=2.0)
    made = rule.decide(np.array([100.0, score]))
    assert made == (score, 2.0, pytest.approx(score - 2), verdict, None)


def test_without_a_calibration_the_logits_decide_and_there_is_no_probability():
    rule, logits = Rule(), np.array([[1.0, 5.0], [2.0, -2.0]])
    assert rule.margins(logits).tolist() == [4, -4]
    assert rule.thresholds(logits).tolist() == [1, 2]
    assert rule.decide(logits[0]) == (5, 1, 4, REAL, None)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), 'leads by at least 2.94, otherwise "not sure"'),
        (Rule(Calibration(1.0, 0.0, 5.0, "5 real ones")), "calibrated on 5 real ones"),
        (Rule(Calibration(1.0, 0.0, 5.0, "5 real ones"), 0.5), "threshold given"),
    ],
)
def test_a_rule_says_what_it_goes_by(rule, words):
    assert words in rule.describe()
