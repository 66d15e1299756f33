"""From a score to a verdict: real, fake, or not sure.

A score is logit 1 (bona fide): higher = more likely real. A rule makes margins of scores: positive speaks for
real, negative for fake. By a calibration, which a detector's file may store, they are log-likelihood ratios,
and give probabilities. Without one the network's two logits are compared, which nobody has calibrated: they
give none.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy  # its special loads when first used

from antispoofing import classes
from antispoofing.detectors.provenance import stored_calibration
from antispoofing.errors import CheckpointError
from data_utils import BONAFIDE, SPOOF

if TYPE_CHECKING:
    from model import Detector

SURE = 0.95  # what is less probable than this, for either class, is "not sure"
LIMIT = math.log(SURE / (1 - SURE))  # the same as log odds: 2.94 nats

_TOLERANCE = 1e-8  # of the regression's gradient, where a clip's weights sum up to 1
_MOST_STEPS = 1000  # of the regression, which takes 5 to 25

logger = logging.getLogger(__name__)

REAL, FAKE, NOT_SURE = classes.REAL.word, classes.FAKE.word, "not sure"


@dataclass(frozen=True)
class Calibration:
    """The log-likelihood ratio of bona fide over spoof, in nats, is slope * score + intercept.

    Attributes:
        slope: above 0: a calibration never turns scores round.
        bound: the largest ratio, of either sign, that the recordings it was fitted on can show.
        fitted_on: what the scores were of that it was fitted on, in words.
    """

    slope: float
    intercept: float
    bound: float
    fitted_on: str

    @classmethod
    def fit(cls, bonafide: np.ndarray, spoof: np.ndarray, fitted_on: str) -> Calibration | None:
        """Fit one by logistic regression in which both classes weigh the same, whatever their numbers.

        The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) ("Probabilistic outputs for support vector
        machines", 1999), so that classes which do not overlap give no infinite slope. The log odds of their
        mean, 0 for classes of one size, are no evidence and are taken off. The bound is log(n + 1) of the
        smaller class, the log odds of such a target.

        Args:
            bonafide, spoof: the scores [n] of each class, of recordings that the detector was not trained on.

        Returns:
            None where the slope is not above 0, for higher scores do not speak for real; and where the
            regression does not converge, which is logged.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression  # half a second: only to fit

        scores = np.concatenate([bonafide, spoof])
        numbers = [len(bonafide), len(spoof)]
        weights = np.repeat([0.5 / n for n in numbers], numbers)
        targets = np.repeat([(numbers[0] + 1) / (numbers[0] + 2), 1 / (numbers[1] + 2)], numbers)
        center, scale = scores.mean(), scores.std() or 1.0  # scores of any magnitude converge alike
        # scikit-learn takes no targets between the classes: each clip counts for both, as its target says.
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
                logger.warning("no calibration on %s, so its two logits decide: %s", fitted_on, reason)
                return None
        if model.coef_[0, 0] <= _TOLERANCE:
            return None
        slope = model.coef_[0, 0] / scale
        intercept = model.intercept_[0] - slope * center - scipy.special.logit(weights @ targets)
        return cls(float(slope), float(intercept), math.log(min(numbers) + 1), fitted_on)

    @classmethod
    def from_provenance(cls, provenance: dict) -> Calibration | None:
        """The one that a detector file's provenance holds, as `to_dict` gives it; None where it holds none.

        Raises:
            ValueError: what it holds is none.
        """
        stored = stored_calibration(provenance)
        if stored is None:
            return None
        try:
            numbers = [float(stored[name]) for name in ("slope", "intercept", "bound")]
            calibration = cls(*numbers, str(stored["fitted_on"]))
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError("no calibration") from error
        if not (np.isfinite(numbers).all() and calibration.slope > 0 and calibration.bound > 0):
            raise ValueError("no calibration")
        return calibration

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)

    def log_likelihood_ratios(self, scores: np.ndarray) -> np.ndarray:
        """[n] -> [n], within the bound."""
        return np.clip(self.slope * scores + self.intercept, -self.bound, self.bound)


class Decision(NamedTuple):
    """What a rule makes of a clip.

    Attributes:
        score: higher = more likely real.
        threshold: the score of margin 0.
        margin: positive speaks for real; in nats, but for a given threshold.
        verdict: REAL, FAKE or NOT_SURE.
        probability_real: if real and fake recordings were equally frequent; None without a calibration.
    """

    score: float
    threshold: float
    margin: float
    verdict: str
    probability_real: float | None


@dataclass(frozen=True)
class Rule:
    """What decides: a threshold that is given, else a calibration, else the larger of the two logits.

    Attributes:
        threshold: score >= threshold is real. It was chosen elsewhere, and says nothing of how sure that is.
    """

    calibration: Calibration | None = None
    threshold: float | None = None

    @classmethod
    def from_detector(cls, detector: Detector, threshold: float | None = None) -> Rule:
        """Return a detector's rule. Raises CheckpointError where its file's calibration is none."""
        try:
            return cls(Calibration.from_provenance(detector.provenance), threshold)
        except ValueError as error:
            raise CheckpointError(f"{detector.path}: its calibration is damaged") from error

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """[n] of logits [n, 2]; positive speaks for real. In nats, but for a given threshold."""
        if self.threshold is not None:
            return logits[:, BONAFIDE] - self.threshold
        if self.calibration is not None:
            return self.calibration.log_likelihood_ratios(logits[:, BONAFIDE])
        return logits[:, BONAFIDE] - logits[:, SPOOF]

    def thresholds(self, logits: np.ndarray) -> np.ndarray:
        """[n]: the score of margin 0. Without a calibration it is each recording's own spoof logit."""
        if self.threshold is not None:
            return np.full(len(logits), self.threshold)
        if self.calibration is not None:
            return np.full(len(logits), -self.calibration.intercept / self.calibration.slope)
        return logits[:, SPOOF]

    def verdict(self, margin: float) -> str:
        """REAL from LIMIT on, FAKE from -LIMIT down, else NOT_SURE; by a given threshold never that."""
        limit = LIMIT if self.threshold is None else 0.0
        if margin >= limit:
            return REAL
        return FAKE if margin <= -limit else NOT_SURE

    def decide(self, logits: np.ndarray) -> Decision:
        """A clip by its logits [2]."""
        margin, threshold = (float(of(logits[None])[0]) for of in (self.margins, self.thresholds))
        calibrated = self.calibration is not None and self.threshold is None
        probability = float(scipy.special.expit(margin)) if calibrated else None
        return Decision(float(logits[BONAFIDE]), threshold, margin, self.verdict(margin), probability)

    def describe(self) -> str:
        """What it goes by, in words."""
        if self.threshold is not None:
            return "real where score >= the threshold given; it does not tell how sure that is"
        sure = f"{100 * SURE:.0f} %"
        if self.calibration is None:
            return (
                "real where the bona fide logit is larger than the spoof logit. Nobody has calibrated these: "
                f"a difference below {LIMIT:.1f}, by which the network itself is less than {sure} sure, "
                'counts as "not sure"'
            )
        return (
            f"calibrated on {self.calibration.fitted_on}. Where neither real nor fake is {sure} probable, if "
            'both are equally frequent, it is "not sure". On other kinds of recordings that may not hold'
        )
