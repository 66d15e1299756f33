"""From a score to a verdict: real, fake, not sure, or mixed.

A score is logit 1 (bona fide): higher = more likely real. A rule makes margins of scores: positive speaks for
real, negative for fake. By a calibration, which a detector's file may store, they are log-likelihood ratios,
and give probabilities. Without one the network's two logits are compared, which nobody has calibrated: they
give none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import scipy  # its optimize takes a while to import: only when first used

from errors import CheckpointError
from model import BONAFIDE, SPOOF

SURE = 0.95  # what is less probable than this, for either class, is "not sure"
LIMIT = math.log(SURE / (1 - SURE))  # the same as log odds: 2.94 nats

VERDICTS = REAL, FAKE, NOT_SURE, MIXED = "real", "fake", "not sure", "mixed"


@dataclass(frozen=True)
class Calibration:
    """The log-likelihood ratio of bona fide over spoof, in nats, is slope * score + intercept.

    Attributes:
        slope: above 0: a calibration never turns scores round.
        fitted_on: what the scores were of that it was fitted on, in words.
    """

    slope: float
    intercept: float
    fitted_on: str

    @classmethod
    def fit(cls, bonafide: np.ndarray, spoof: np.ndarray, fitted_on: str) -> Calibration | None:
        """Logistic regression in which both classes weigh the same, whatever their numbers.

        The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) ("Probabilistic outputs for support vector
        machines", 1999), so that classes which do not overlap give no infinite slope.

        Args:
            bonafide, spoof: the scores [n] of each class, of recordings that the detector was not trained on.

        Returns:
            None where higher scores do not speak for real.
        """
        scores = np.concatenate([bonafide, spoof])
        numbers = [len(bonafide), len(spoof)]
        weights = np.repeat([0.5 / n for n in numbers], numbers)
        targets = np.repeat([(numbers[0] + 1) / (numbers[0] + 2), 1 / (numbers[1] + 2)], numbers)
        center, scale = scores.mean(), scores.std() or 1.0
        standard = (scores - center) / scale

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            log_odds = parameters[0] * standard + parameters[1]
            each = np.logaddexp(0, log_odds) - targets * log_odds
            slopes = weights * (scipy.special.expit(log_odds) - targets)
            return float(weights @ each), np.array([slopes @ standard, slopes.sum()])

        slope, intercept = scipy.optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS").x / [scale, 1]
        return cls(float(slope), float(intercept - slope * center), fitted_on) if slope > 0 else None

    @classmethod
    def of(cls, provenance: dict) -> Calibration | None:
        """The one that a detector file's provenance holds, as `to_dict` gives it.

        Raises:
            CheckpointError: what it holds is none.
        """
        stored = provenance.get("calibration")
        if stored is None:
            return None
        try:
            calibration = cls(float(stored["slope"]), float(stored["intercept"]), str(stored["fitted_on"]))
        except (TypeError, KeyError, ValueError):
            calibration = cls(math.nan, math.nan, "")
        if not (0 < calibration.slope < math.inf and math.isfinite(calibration.intercept)):
            raise CheckpointError("its calibration is not a slope above 0 and an intercept")
        return calibration

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """What decides: a threshold that is given, else a calibration, else the larger of the two logits.

    Attributes:
        threshold: score >= threshold is real. It was chosen elsewhere, and says nothing of how sure that is.
    """

    calibration: Calibration | None = None
    threshold: float | None = None

    @property
    def limit(self) -> float:
        """A margin this far from 0 is a verdict; a smaller one is "not sure"."""
        return 0.0 if self.threshold is not None else LIMIT

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """[n] of logits [n, 2]; positive speaks for real. In nats, but for a given threshold."""
        if self.threshold is not None:
            return logits[:, BONAFIDE] - self.threshold
        if self.calibration is not None:
            return self.calibration.slope * logits[:, BONAFIDE] + self.calibration.intercept
        return logits[:, BONAFIDE] - logits[:, SPOOF]

    def thresholds(self, logits: np.ndarray) -> np.ndarray:
        """[n]: the score of margin 0. Without a calibration it is each recording's own spoof logit."""
        if self.threshold is not None:
            return np.full(len(logits), self.threshold)
        if self.calibration is not None:
            return np.full(len(logits), -self.calibration.intercept / self.calibration.slope)
        return logits[:, SPOOF]

    def verdict(self, margins: np.ndarray) -> str:
        """One verdict over margins [n] of one recording's windows.

        MIXED where some are surely real and some surely fake; else by the mean: REAL or FAKE where that is
        sure, else NOT_SURE.
        """
        real, fake = (self._sure(margins, side) for side in (REAL, FAKE))
        if real.any() and fake.any():
            return MIXED
        mean = margins.mean(keepdims=True)
        return next((side for side in (REAL, FAKE) if self._sure(mean, side)), NOT_SURE)

    def _sure(self, margins: np.ndarray, side: str) -> np.ndarray:
        """Which margins are a verdict for that side by themselves."""
        real = margins >= self.limit
        return real if side == REAL else ~real & (margins <= -self.limit)

    def probability(self, margin: float) -> float | None:
        """That it is real, if real and fake recordings were equally frequent; None without a calibration."""
        if self.calibration is None or self.threshold is not None:
            return None
        return float(scipy.special.expit(margin))

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
