"""From a score to a verdict: real, fake or not sure.

A score is logit 1 (bona fide): higher = more likely real. A rule turns scores into margins: above 0 means
more likely real, below 0 more likely fake. With a calibration, which a detector's file may store, margins are
log-likelihood ratios and yield probabilities. Without one, the network's two logits are compared; nobody has
calibrated those, so they yield no probability.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from antispoofing import classes
from antispoofing.detectors.provenance import stored_calibration
from antispoofing.errors import CheckpointError
from data_utils import BONAFIDE, SPOOF

if TYPE_CHECKING:
    from model import Detector

SURE = 0.95  # if neither class is at least this probable, the verdict is "not sure"
LIMIT = math.log(SURE / (1 - SURE))  # SURE as log odds: 2.94 nats

_TOLERANCE = 1e-8  # the regression, whose weights sum to 1, stops when its gradient is this small
_MOST_STEPS = 1000  # the regression usually takes 5 to 25

logger = logging.getLogger(__name__)

REAL, FAKE, NOT_SURE = classes.REAL.word, classes.FAKE.word, "not sure"


@dataclass(frozen=True)
class Calibration:
    """A linear map from scores to log-likelihood ratios of bona fide over spoof: slope * score + intercept.

    Attributes:
        slope: In nats per unit of score; above 0, since a calibration never reverses the order of scores.
        intercept: In nats.
        bound: The largest ratio of either sign, in nats, that the recordings it was fitted on can support.
        fitted_on: The recordings it was fitted on, in words.
    """

    slope: float
    intercept: float
    bound: float
    fitted_on: str

    @classmethod
    def fit(cls, bonafide: np.ndarray, spoof: np.ndarray, fitted_on: str) -> Calibration | None:
        """Fit a calibration by logistic regression, in which both classes have the same total weight.

        The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) ("Probabilistic outputs for support vector
        machines", 1999), so that the slope stays finite even if the classes do not overlap. The log odds of
        the mean target (0 for classes of equal size) are not evidence and are subtracted. The bound is
        log(n + 1) for the smaller class: the log odds of its target.

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
        return cls(float(slope), float(intercept), math.log(min(numbers) + 1), fitted_on)

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
            calibration = cls(slope, intercept, bound, str(stored["fitted_on"]))
        except (TypeError, KeyError, OverflowError) as error:
            raise ValueError("not a calibration") from error
        if not (np.isfinite([slope, intercept, bound]).all() and slope > 0 and bound > 0):
            raise ValueError("not a calibration")
        return calibration

    def to_dict(self) -> dict[str, float | str]:
        """Return the attributes as JSON types."""
        return asdict(self)

    def log_likelihood_ratios(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-likelihood ratios [n] of scores [n], in nats, limited to the bound."""
        return np.clip(self.slope * scores + self.intercept, -self.bound, self.bound)


class Decision(NamedTuple):
    """A rule's decision on a clip.

    Attributes:
        score: Higher = more likely real.
        threshold: The score at which the margin is 0.
        margin: Above 0 means more likely real; in nats, unless a threshold was given.
        verdict: REAL, FAKE or NOT_SURE.
        probability_real: The probability that the clip is real, if real and fake ones are equally frequent;
            None without a calibration, or if a threshold was given.
    """

    score: float
    threshold: float
    margin: float
    verdict: str
    probability_real: float | None


@dataclass(frozen=True)
class Rule:
    """The rule for verdicts: a given threshold, else a calibration, else the larger of the two logits.

    Attributes:
        calibration: The detector's calibration, if it has one.
        threshold: A clip is real if its score >= threshold. Since it was chosen elsewhere, it says nothing
            about how sure that verdict is.
    """

    calibration: Calibration | None = None
    threshold: float | None = None

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
            return cls(Calibration.from_provenance(detector.provenance), threshold)
        except ValueError as error:
            raise CheckpointError(f"{detector.path}: its calibration is damaged") from error

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """Return the margins [n] of logits [n, 2], in nats unless a threshold was given.

        A margin above 0 means more likely real.
        """
        if self.threshold is not None:
            return logits[:, BONAFIDE] - self.threshold
        if self.calibration is not None:
            return self.calibration.log_likelihood_ratios(logits[:, BONAFIDE])
        return logits[:, BONAFIDE] - logits[:, SPOOF]

    def thresholds(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores [n] at which the margins of logits [n, 2] would be 0.

        Without a threshold or a calibration that is each recording's own spoof logit.
        """
        if self.threshold is not None:
            return np.full(len(logits), self.threshold)
        if self.calibration is not None:
            return np.full(len(logits), -self.calibration.intercept / self.calibration.slope)
        return logits[:, SPOOF]

    def verdict(self, margin: float) -> str:
        """Return REAL for a margin from LIMIT up, FAKE from -LIMIT down, and NOT_SURE in between.

        If a threshold was given, the limit is 0, and the verdict is never NOT_SURE.
        """
        limit = LIMIT if self.threshold is None else 0.0
        if margin >= limit:
            return REAL
        return FAKE if margin <= -limit else NOT_SURE

    def decide(self, logits: np.ndarray) -> Decision:
        """Decide on a clip by its logits [2]."""
        from scipy import special

        margin, threshold = (float(f(logits[None])[0]) for f in (self.margins, self.thresholds))
        calibrated = self.calibration is not None and self.threshold is None
        probability = float(special.expit(margin)) if calibrated else None
        return Decision(float(logits[BONAFIDE]), threshold, margin, self.verdict(margin), probability)

    def describe(self) -> str:
        """Describe how the rule decides, in words without a full stop at the end."""
        if self.threshold is not None:
            return "real if score >= the threshold given, otherwise fake; this does not say how sure that is"
        sure = f"{100 * SURE:.0f} %"
        if self.calibration is None:
            return (
                "real or fake if the larger of the two logits, bona fide or spoof, leads by at least "
                f'{LIMIT:.2f}, otherwise "not sure". With that lead, the network itself is {sure} sure. '
                "Nobody has calibrated it, so it may be wrong about that"
            )
        return (
            f"real or fake if that is at least {sure} probable, assuming that both are equally frequent, "
            'otherwise "not sure". These probabilities are calibrated on '
            f"{self.calibration.fitted_on}. They may not hold for other kinds of recordings"
        )
