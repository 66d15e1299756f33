"""From a score to a verdict: real, fake or not sure.

A score is logit 1 (bona fide): higher = more likely real. Each detector has one rule, which is the same
wherever a verdict is given. It turns scores into margins: above 0 means more likely real, below 0 more likely
fake. With a calibration, margins are log-likelihood ratios and yield probabilities, and a verdict can be
sure, or not sure. By any other rule nobody knows how sure a verdict is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from antispoofing import classes
from antispoofing.detectors.provenance import kept_epoch
from antispoofing.scoring.calibration import LIMIT, SURE, Calibration, find_calibration
from data_utils import BONAFIDE, SPOOF

if TYPE_CHECKING:
    from model import Detector

REAL, FAKE, NOT_SURE = classes.REAL.word, classes.FAKE.word, "not sure"


# What a rule goes by; the first of these that a detector has.
GIVEN, CALIBRATION, VALIDATION, PUBLISHED, LOGITS = (
    "threshold given",
    "calibration",
    "validation threshold",
    "published threshold",
    "larger logit",
)


_THRESHOLDS = {
    GIVEN: "the threshold given",
    CALIBRATION: "where the calibration finds both classes equally probable",
    VALIDATION: "the threshold at the EER of its validation set",
    PUBLISHED: "the threshold that its authors published",
}
_UNCALIBRATED = "uncalibrated: this does not say how sure that is"


class Decision(NamedTuple):
    """A rule's decision on a clip.

    Attributes:
        score: Higher = more likely real.
        threshold: The score at which the margin is 0.
        margin: Above 0 means more likely real; in nats with a calibration, else in units of the score.
        verdict: REAL, FAKE or NOT_SURE.
        rule: What the rule goes by: GIVEN, CALIBRATION, VALIDATION, PUBLISHED or LOGITS.
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
    """The rule for verdicts: the first there is of these thresholds, else the larger of the two logits.

    Attributes:
        threshold: A threshold that the user gives: a clip is real if its score >= threshold.
        calibration: The detector's calibration.
        validation_threshold: The threshold that fine-tuning chose on its validation set.
        published_threshold: The threshold that the detector's authors published.
    """

    threshold: float | None = None
    calibration: Calibration | None = None
    validation_threshold: float | None = None
    published_threshold: float | None = None

    @classmethod
    def from_detector(cls, detector: Detector, threshold: float | None = None) -> Rule:
        """Return the rule of a detector, which uses its calibration if it has one.

        Args:
            detector: The detector.
            threshold: The threshold that the user gives, if any.

        Raises:
            CheckpointError: If the calibration is damaged, or another detector's.
            OSError: If the file of the calibration cannot be read.
        """
        calibration = find_calibration(detector)
        chosen = kept_epoch(detector.provenance).get("validation_threshold")
        if not (isinstance(chosen, int | float) and math.isfinite(chosen)):
            chosen = None
        return cls(threshold, calibration, chosen, detector.published_threshold)

    @property
    def basis(self) -> str:
        """What the rule goes by: GIVEN, CALIBRATION, VALIDATION, PUBLISHED or LOGITS."""
        if self.threshold is not None:
            return GIVEN
        if self.calibration is not None:
            return CALIBRATION
        if self.validation_threshold is not None:
            return VALIDATION
        return LOGITS if self.published_threshold is None else PUBLISHED

    @property
    def can_be_sure(self) -> bool:
        """Whether a verdict says how sure it is."""
        return self.basis == CALIBRATION

    def can_say(self, verdict: str) -> bool:
        """Check whether any score gets a verdict, REAL or FAKE: a calibration may rule it out."""
        if self.basis != CALIBRATION:
            return True
        assert self.calibration is not None
        limits = {REAL: self.calibration.real_limit, FAKE: self.calibration.fake_limit}
        return math.isfinite(limits[verdict])

    def is_fitted_on(self, clips_sha256: str) -> bool:
        """Check whether the calibration was fitted on certain recordings, by their `list_sha256`."""
        return self.calibration is not None and self.calibration.clips_sha256 == clips_sha256

    @property
    def common_threshold(self) -> float | None:
        """The score at which the margin of any clip is 0; None by the larger logit, which has none."""
        if self.threshold is not None:
            return self.threshold
        if self.calibration is not None:
            return -self.calibration.intercept / self.calibration.slope
        return self.validation_threshold if self.basis == VALIDATION else self.published_threshold

    @property
    def source(self) -> str:
        """Where the common threshold comes from, in words; "" if there is none."""
        return _THRESHOLDS.get(self.basis, "")

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
        if self.basis == LOGITS:
            return f"real or fake by the larger of the two logits, bona fide or spoof; {_UNCALIBRATED}"
        if self.basis != CALIBRATION:
            return (
                f"real if score >= {self.common_threshold:.6g}, {self.source}, otherwise fake; "
                f"{_UNCALIBRATED}"
            )
        assert self.calibration is not None
        words = (
            f"real or fake if that is at least {100 * SURE:.0f} % probable, assuming that both are equally "
            'frequent, otherwise "not sure". These probabilities are calibrated on '
            f"{self.calibration.fitted_on}. They may not hold for other kinds of recordings"
        )
        never = [verdict for verdict in (REAL, FAKE) if not self.can_say(verdict)]
        if never:
            words += (
                f". No clip can get the verdict {' or '.join(never)}: these recordings are too few, or too "
                "many of them are misjudged, to bear that out"
            )
        return words
