"""From a score to a verdict: real, fake or not sure.

A score is logit 1 (bona fide): higher = more likely real. Each detector has one rule, which is the same
wherever a verdict is given. It turns scores into margins: above 0 means more likely real, below 0 more likely
fake. With a calibration, margins are log-likelihood ratios and yield probabilities, and a verdict can be
sure, or not sure. By any other rule nobody knows how sure a verdict is.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from antispoofing import classes
from antispoofing.detectors.provenance import kept_epoch, stored_calibration
from antispoofing.errors import CheckpointError
from data_utils import BONAFIDE, SPOOF

if TYPE_CHECKING:
    from model import Detector

SURE = 0.95  # if neither class is at least this probable, the verdict is "not sure"
LIMIT = math.log(SURE / (1 - SURE))  # SURE as log odds: 2.94 nats
_UNSURE = math.log(0.94 / 0.06)  # what a margin that is not sure is limited to

_TOLERANCE = 1e-8  # the regression, whose weights sum to 1, stops when its gradient is this small
_MOST_STEPS = 1000  # the regression usually takes 5 to 25

logger = logging.getLogger(__name__)

REAL, FAKE, NOT_SURE = classes.REAL.word, classes.FAKE.word, "not sure"


# What a rule goes by; the first of these that a detector has.
GIVEN, CALIBRATION, VALIDATION, LOGITS = (
    "threshold given",
    "calibration",
    "validation threshold",
    "larger logit",
)


@dataclass(frozen=True)
class Calibration:
    """A linear map from scores to log-likelihood ratios of bona fide over spoof: slope * score + intercept.

    Attributes:
        slope: In nats per unit of score; above 0, since a calibration never reverses the order of scores.
        intercept: In nats.
        bound: The largest ratio of either sign, in nats, that the recordings it was fitted on can support.
        fitted_on: The recordings it was fitted on, in words.
        real_from: The lowest score from which on "real" was right often enough on these recordings to be
            sure; None if there is no such score.
        fake_to: The highest score up to which "fake" was; None if there is none.
    """

    slope: float
    intercept: float
    bound: float
    fitted_on: str
    real_from: float | None = None
    fake_to: float | None = None

    @classmethod
    def fit(cls, bonafide: np.ndarray, spoof: np.ndarray, fitted_on: str) -> Calibration | None:
        """Fit a calibration by logistic regression, in which both classes have the same total weight.

        The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) ("Probabilistic outputs for support vector
        machines", 1999), so that the slope stays finite even if the classes do not overlap. The log odds of
        the mean target (0 for classes of equal size) are not evidence and are subtracted. The bound is
        log(n + 1) for the smaller class: the log odds of its target.

        A line may be wrong about the classes' tails, so to be sure, the recordings themselves must bear a
        score out: of clips that score at least as high, no more than 5 % may be fake if both classes are
        equally frequent, where the fakes' share is taken as (k + 1) / (n + 1), the expected share of new
        fakes beyond the k-th highest of n.

        Args:
            bonafide: The scores [n] of bona fide recordings that the detector was not trained on.
            spoof: The scores [n] of spoof recordings that the detector was not trained on.
            fitted_on: These recordings in words.

        Returns:
            The calibration. None if the slope is not above 0, since higher scores then do not mean more
            likely real; and None, with a logged warning, if the regression does not converge.
        """
        from scipy import special
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression  # half a second, needed only to fit

        scores = np.concatenate([bonafide, spoof])
        numbers = [len(bonafide), len(spoof)]
        weights = np.repeat([0.5 / n for n in numbers], numbers)
        targets = np.repeat([(numbers[0] + 1) / (numbers[0] + 2), 1 / (numbers[1] + 2)], numbers)
        center, scale = scores.mean(), scores.std() or 1.0  # so that scores of any magnitude converge
        # scikit-learn takes no targets between 0 and 1, so each clip counts for both classes, in proportion.
        clips = np.tile((scores - center) / scale, 2)[:, None]
        labels = np.repeat([BONAFIDE, SPOOF], len(scores))
        shares = np.concatenate([weights * targets, weights * (1 - targets)])
        model = LogisticRegression(C=np.inf, tol=_TOLERANCE, max_iter=_MOST_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(clips, labels, shares)
            except ConvergenceWarning as warning:
                reason = str(warning).splitlines()[0]
                logger.warning(
                    "the calibration on %s failed, so the two logits are compared instead: %s",
                    fitted_on,
                    reason,
                )
                return None
        if model.coef_[0, 0] <= _TOLERANCE:
            return None
        slope = model.coef_[0, 0] / scale
        intercept = model.intercept_[0] - slope * center - special.logit(weights @ targets)
        return cls(
            float(slope),
            float(intercept),
            math.log(min(numbers) + 1),
            fitted_on,
            _sure_from(bonafide, spoof),
            _negative(_sure_from(-spoof, -bonafide)),
        )

    @classmethod
    def from_provenance(cls, provenance: dict) -> Calibration | None:
        """Return the calibration in a detector file's provenance, as `to_dict` wrote it; None if it has none.

        Raises:
            ValueError: If what the provenance stores as a calibration is not one.
        """
        stored = stored_calibration(provenance)
        if stored is None:
            return None
        if not isinstance(stored, dict):
            raise ValueError("not a calibration")
        try:
            slope, intercept, bound = (float(stored[name]) for name in ("slope", "intercept", "bound"))
            sure = [None if (score := stored.get(name)) is None else float(score) for name in _SURE_SCORES]
            calibration = cls(slope, intercept, bound, str(stored["fitted_on"]), *sure)
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError("not a calibration") from error
        numbers = [slope, intercept, bound, *(score for score in sure if score is not None)]
        if not (np.isfinite(numbers).all() and slope > 0 and bound > 0):
            raise ValueError("not a calibration")
        return calibration

    @property
    def real_limit(self) -> float:
        """The lowest score whose verdict is real: the ratio and the recordings must both be sure."""
        if self.real_from is None or self.bound < LIMIT:
            return math.inf
        return max(self.real_from, (LIMIT - self.intercept) / self.slope)

    @property
    def fake_limit(self) -> float:
        """The highest score whose verdict is fake."""
        if self.fake_to is None or self.bound < LIMIT:
            return -math.inf
        return min(self.fake_to, (-LIMIT - self.intercept) / self.slope)

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the attributes as JSON types."""
        return asdict(self)

    def log_likelihood_ratios(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-likelihood ratios [n] of scores [n], in nats, limited to what can be claimed.

        That is the bound, and for scores that are not sure, less than what would be.
        """
        ratios = np.clip(self.slope * scores + self.intercept, -self.bound, self.bound)
        ratios = np.where(scores >= self.real_limit, ratios, np.minimum(ratios, _UNSURE))
        return np.where(scores <= self.fake_limit, ratios, np.maximum(ratios, -_UNSURE))


_SURE_SCORES = ("real_from", "fake_to")


def _sure_from(bonafide: np.ndarray, spoof: np.ndarray) -> float | None:
    """Return the lowest score from which on at most 1 - SURE of the clips are spoof, by these recordings."""
    candidates = np.unique(np.concatenate([bonafide, spoof]))
    above = [len(scores) - np.searchsorted(np.sort(scores), candidates) for scores in (bonafide, spoof)]
    accepted = above[0] / (len(bonafide) + 1), (above[1] + 1) / (len(spoof) + 1)
    found = np.flatnonzero(accepted[1] <= (1 - SURE) / SURE * accepted[0])
    return float(candidates[found[0]]) if len(found) else None


def _negative(score: float | None) -> float | None:
    return None if score is None else -score


class Decision(NamedTuple):
    """A rule's decision on a clip.

    Attributes:
        score: Higher = more likely real.
        threshold: The score at which the margin is 0.
        margin: Above 0 means more likely real; in nats with a calibration, else in units of the score.
        verdict: REAL, FAKE or NOT_SURE.
        rule: What the rule goes by: GIVEN, CALIBRATION, VALIDATION or LOGITS.
        probability_real: The probability that the clip is real, if real and fake ones are equally frequent;
            None without a calibration, or if a threshold was given.
    """

    score: float
    threshold: float
    margin: float
    verdict: str
    rule: str
    probability_real: float | None


@dataclass(frozen=True)
class Rule:
    """The rule for verdicts: the first there is of these three thresholds, else the larger of the two logits.

    Attributes:
        threshold: A threshold that the user gives: a clip is real if its score >= threshold.
        calibration: The detector's calibration.
        validation_threshold: The threshold that fine-tuning chose on its validation set.
    """

    threshold: float | None = None
    calibration: Calibration | None = None
    validation_threshold: float | None = None

    @classmethod
    def from_detector(cls, detector: Detector, threshold: float | None = None) -> Rule:
        """Return the rule of a detector, which uses the calibration that its file stores.

        Args:
            detector: The detector.
            threshold: The threshold that the user gives, if any.

        Raises:
            CheckpointError: If the stored calibration is damaged.
        """
        try:
            calibration = Calibration.from_provenance(detector.provenance)
        except ValueError as error:
            raise CheckpointError(f"{detector.path}: its calibration is damaged") from error
        chosen = kept_epoch(detector.provenance).get("validation_threshold")
        if not (isinstance(chosen, int | float) and math.isfinite(chosen)):
            chosen = None
        return cls(threshold, calibration, chosen)

    @property
    def basis(self) -> str:
        """What the rule goes by: GIVEN, CALIBRATION, VALIDATION or LOGITS."""
        if self.threshold is not None:
            return GIVEN
        if self.calibration is not None:
            return CALIBRATION
        return LOGITS if self.validation_threshold is None else VALIDATION

    @property
    def can_be_sure(self) -> bool:
        """Whether a verdict says how sure it is."""
        return self.basis == CALIBRATION

    @property
    def common_threshold(self) -> float | None:
        """The score at which the margin of any clip is 0; None by the larger logit, which has none."""
        if self.threshold is not None:
            return self.threshold
        if self.calibration is not None:
            return -self.calibration.intercept / self.calibration.slope
        return self.validation_threshold

    def thresholds(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores [n] at which the margins of logits [n, 2] would be 0.

        By the larger logit that is each recording's own spoof logit.
        """
        common = self.common_threshold
        return logits[:, SPOOF] if common is None else np.full(len(logits), common)

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """Return the margins [n] of logits [n, 2], in nats with a calibration, else in units of the score.

        A margin above 0 means more likely real.
        """
        if self.basis == CALIBRATION:
            assert self.calibration is not None
            return self.calibration.log_likelihood_ratios(logits[:, BONAFIDE])
        return logits[:, BONAFIDE] - self.thresholds(logits)

    def verdict(self, margin: float) -> str:
        """Return the verdict that follows from a margin.

        With a calibration, that is REAL from LIMIT up, FAKE from -LIMIT down, and NOT_SURE in between. By any
        other rule it is REAL from 0 up, else FAKE.
        """
        limit = LIMIT if self.can_be_sure else 0.0
        if margin >= limit:
            return REAL
        return FAKE if margin <= -limit else NOT_SURE

    def verdicts(self, logits: np.ndarray) -> list[str]:
        """Return the verdicts on logits [n, 2]; "" where there is no margin to decide by."""
        return ["" if np.isnan(margin) else self.verdict(margin) for margin in self.margins(logits).tolist()]

    def decide(self, logits: np.ndarray) -> Decision:
        """Decide on a clip by its logits [2]."""
        from scipy import special

        margin, threshold = (float(f(logits[None])[0]) for f in (self.margins, self.thresholds))
        probability = float(special.expit(margin)) if self.can_be_sure else None
        score = float(logits[BONAFIDE])
        return Decision(score, threshold, margin, self.verdict(margin), self.basis, probability)

    def describe(self) -> str:
        """Describe how the rule decides, in words without a full stop at the end."""
        if self.basis == GIVEN:
            return (
                f"real if score >= {self.threshold:.4g}, the threshold given, otherwise fake; uncalibrated: "
                "this does not say how sure that is"
            )
        if self.basis == VALIDATION:
            return (
                f"real if score >= {self.validation_threshold:.4g}, the threshold at the EER of its "
                "validation set, otherwise fake; uncalibrated: this does not say how sure that is"
            )
        if self.calibration is None:
            return (
                "real or fake by the larger of the two logits, bona fide or spoof; uncalibrated: this does "
                "not say how sure that is"
            )
        words = (
            f"real or fake if that is at least {100 * SURE:.0f} % probable, assuming that both are equally "
            'frequent, otherwise "not sure". These probabilities are calibrated on '
            f"{self.calibration.fitted_on}. They may not hold for other kinds of recordings"
        )
        never = [
            word
            for word, limit in ((REAL, self.calibration.real_limit), (FAKE, self.calibration.fake_limit))
            if math.isinf(limit)
        ]
        if never:
            words += (
                f". With so few of these, or so many errors among them, it can never be sure that a clip is "
                f"{' or '.join(never)}"
            )
        return words
