"""From scores to verdicts: the calibration against its equations, and the rules against hand-made cases."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import PRESETS
from scipy.special import expit, logit
from scipy.stats import norm

from antispoofing.errors import CheckpointError
from antispoofing.scoring import calibration as calibrating
from antispoofing.scoring.calibration import LIMIT, Calibration
from antispoofing.scoring.decision import FAKE, NOT_SURE, REAL, Rule
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
    monkeypatch.setattr(calibrating, "_MOST_STEPS", 1)
    assert Calibration.fit(RNG.normal(3, 2, 50), RNG.normal(-1, 1, 20), "70 clips") is None
    assert "the calibration did not converge (lbfgs failed to converge" in caplog.text


def test_a_calibration_gives_log_likelihood_ratios():
    """For two normal classes with means 1 and -1 and variance 1, the ratio is known to be 2 * score."""
    bonafide, spoof = RNG.normal(1, 1, 20000), RNG.normal(-1, 1, 5000)
    rule = Rule(calibration=Calibration.fit(bonafide, spoof, "x"))
    margins = rule.margins(np.array([[0.0, 0.0], [0.0, 1.0], [9.0, -1.0]]))
    np.testing.assert_allclose(margins, [0, 2, -2], atol=0.1)
    made = rule.decide(np.array([9.0, 1.0]))
    assert (made.score, made.margin, made.verdict, made.rule) == (1, margins[1], NOT_SURE, "calibration")
    assert made.probability_real == pytest.approx(1 / (1 + math.exp(-made.margin)))
    assert made.threshold == pytest.approx(0, abs=0.05)


def test_no_evidence_is_none_whatever_the_numbers():
    scores = np.linspace(-1, 1, 5)
    calibration = Calibration.fit(np.repeat(scores, 200) + 1e-6, scores, "x")
    assert calibration.log_likelihood_ratios(np.array([0.0]))[0] == pytest.approx(0, abs=1e-3)


def test_no_more_is_claimed_than_the_clips_can_show():
    calibration = Calibration.fit(RNG.normal(5, 1, 50), RNG.normal(-5, 1, 30), "x")
    rule = Rule(calibration=calibration)
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
    for sure in ((None, None), (1.5, -2.0)):
        calibration = Calibration(2.0, -1.0, 5.0, "3 real and 4 fake recordings", *sure)
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
        GOOD | {"real_from": np.nan},
        GOOD | {"fake_to": "x"},
    ],
)
def test_a_damaged_calibration_is_named(stored):
    detector = Detector(PRESETS["small"])
    detector.path, detector.provenance = Path("a.safetensors"), {"calibration": GOOD}
    assert Rule.from_detector(detector).calibration.slope == 1
    detector.provenance = {"calibration": stored}
    with pytest.raises(CheckpointError, match=r"^a\.safetensors: its calibration is damaged$"):
        Rule.from_detector(detector)


def test_what_is_sure_is_rarely_wrong():
    """Of clips that are surely real, 5 % may be fake if both are equally frequent, whatever the spreads."""
    rng = np.random.default_rng(5)
    for spreads in ((1.0, 1.0), (0.5, 2.0), (2.0, 0.5)):
        for n in (18, 50, 200):
            surely = {REAL: np.zeros(2), FAKE: np.zeros(2)}  # shares of spoof and of bona fide clips
            for _ in range(60):
                bonafide, spoof = rng.normal(4, spreads[0], n), rng.normal(0, spreads[1], n)
                calibration = Calibration.fit(bonafide, spoof, "x")
                limits = {REAL: calibration.real_limit, FAKE: calibration.fake_limit}
                for verdict, tail in ((REAL, norm.sf), (FAKE, norm.cdf)):
                    z = (limits[verdict] - np.array([0, 4])) / np.array(spreads[::-1])
                    surely[verdict] += tail(z) / 60
            for verdict, wrong in ((REAL, 0), (FAKE, 1)):
                if n == 18:  # of 18 others, none beyond the highest is to be expected of 1 in 19
                    assert surely[verdict].sum() == 0
                else:
                    assert surely[verdict].sum() > 0.1
                    assert surely[verdict][wrong] < 0.065 * surely[verdict].sum()


def test_a_score_must_be_borne_out_to_be_sure():
    """By the line alone 20 would be sure, but one fake in fifteen scores as high as the highest real clip."""
    bonafide, spoof = np.r_[np.linspace(3, 7, 90), 20.0], np.r_[np.linspace(-6, -1, 98), np.full(7, 20.0)]
    calibration = Calibration.fit(bonafide, spoof, "x")
    assert calibration.slope * 20 + calibration.intercept > LIMIT
    assert calibration.real_from is None
    made = Rule(calibration=calibration).decide(np.array([0.0, 20.0]))
    assert made.verdict == NOT_SURE
    assert 0.9 < made.probability_real < 0.95


def test_too_few_recordings_can_never_be_sure_and_the_words_say_so():
    few = Rule(calibration=Calibration.fit(RNG.normal(5, 1, 18), RNG.normal(-5, 1, 18), "18 of each"))
    assert few.verdicts(np.array([[0, 1e3], [0, -1e3]])) == [NOT_SURE, NOT_SURE]
    assert "No clip can get the verdict real or fake" in few.describe()
    enough = Rule(calibration=Calibration.fit(RNG.normal(5, 1, 30), RNG.normal(-5, 1, 30), "30 of each"))
    assert enough.verdicts(np.array([[0, 1e3], [0, -1e3]])) == [REAL, FAKE]
    assert "no clip can" not in enough.describe()
    earlier = Rule(calibration=Calibration(1.0, 0.0, 9.0, "files of earlier versions"))
    assert earlier.verdicts(np.array([[0, 1e3]])) == [NOT_SURE]


SURE = Calibration(1.0, 0.0, 5.0, "5 real ones", real_from=2.0, fake_to=-2.0)


@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(LIMIT, REAL), (-LIMIT, FAKE), (LIMIT - 0.01, NOT_SURE), (0.01 - LIMIT, NOT_SURE), (0.0, NOT_SURE)],
)
def test_the_verdict_on_a_clip(margin, verdict):
    made = Rule(calibration=SURE).decide(np.array([1.0, margin]))
    assert (made.verdict, made.rule) == (verdict, "calibration")
    assert (made.probability_real >= 0.95 - 1e-9) == (verdict == REAL)


@pytest.mark.parametrize(("score", "verdict"), [(2.5, REAL), (2.0, REAL), (1.9, FAKE)])
def test_a_given_threshold_comes_first(score, verdict):
    rule = Rule(2.0, Calibration(1.0, 0.0, 5.0, "x"), 7.0)
    made = rule.decide(np.array([100.0, score]))
    assert made == (score, 2.0, pytest.approx(score - 2), verdict, "threshold given", None)


def test_then_a_calibration_then_the_validation_threshold_then_the_logits():
    logits = np.array([1.0, 5.0])
    assert Rule(None, SURE, 7.0).decide(logits).rule == "calibration"
    assert Rule(None, None, 7.0).decide(logits) == (5, 7, -2, FAKE, "validation threshold", None)
    assert Rule().decide(logits) == (5, 1, 4, REAL, "larger logit", None)
    assert Rule().margins(np.array([[1.0, 5.0], [2.0, -2.0]])).tolist() == [4, -4]
    assert Rule().thresholds(np.array([[1.0, 5.0], [2.0, -2.0]])).tolist() == [1, 2]
    assert Rule().verdicts(np.array([[np.nan, 5.0], [2.0, np.nan]])) == ["", ""]


@pytest.mark.parametrize(
    ("chosen", "expected"), [(0.5, 0.5), (1, 1.0), ("x", None), (None, None), (math.nan, None)]
)
def test_the_validation_threshold_is_read_from_the_file(chosen, expected):
    detector = Detector(PRESETS["small"])
    detector.provenance = {"epoch": {"validation_threshold": chosen}}
    assert Rule.from_detector(detector).validation_threshold == expected
    detector.provenance = {"epoch": 3}
    assert Rule.from_detector(detector) == Rule()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), "by the larger of the two logits, bona fide or spoof; uncalibrated"),
        (Rule(calibration=SURE), "calibrated on 5 real ones"),
        (
            Rule(validation_threshold=0.25),
            "real if score >= 0.25, the threshold at the EER of its",
        ),
        (Rule(0.5, SURE), "real if score >= 0.5, the threshold given"),
    ],
)
def test_a_rule_says_what_it_goes_by(rule, words):
    assert words in rule.describe()
    assert ("uncalibrated" in rule.describe()) == (not rule.can_be_sure)
