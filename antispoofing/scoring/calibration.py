"""Calibration: from scores to log-likelihood ratios, fitted on recordings whose labels are known.

A score is logit 1 (bona fide): higher = more likely real. A calibration is kept in the detector's own file,
where fine-tuning puts it, or in a small file beside it, which `python -m antispoofing calibrate` writes.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antispoofing import metrics
from antispoofing.detectors.provenance import stored_calibration
from antispoofing.errors import CheckpointError
from data_utils import BONAFIDE, SPOOF

if TYPE_CHECKING:
    from model import Detector

SURE = 0.95  # if neither class is at least this probable, the verdict is "not sure"
LIMIT = math.log(SURE / (1 - SURE))  # SURE as log odds: 2.94 nats
SUFFIX = ".calibration.json"  # of the file beside a detector's, after that file's whole name
FOLDS = 5  # of the cross-validation that gives held-out figures

_UNSURE = math.log(0.94 / 0.06)  # if the recordings do not bear a score out, its margin is at most this
_SURE_SCORES = ("real_from", "fake_to")
_TOLERANCE = 1e-8  # the regression, whose weights sum to 1, stops when its gradient is this small
_MOST_STEPS = 1000  # the regression usually takes 5 to 25

logger = logging.getLogger(__name__)


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
        clips_sha256: `data.recordings.list_sha256` of the recordings it was fitted on; "" if not known.
    """

    slope: float
    intercept: float
    bound: float
    fitted_on: str
    real_from: float | None = None
    fake_to: float | None = None
    clips_sha256: str = ""

    @classmethod
    def fit(
        cls, bonafide: np.ndarray, spoof: np.ndarray, fitted_on: str, clips_sha256: str = ""
    ) -> Calibration | None:
        """Fit a calibration by logistic regression, in which both classes have the same total weight.

        The targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) ("Probabilistic outputs for support vector
        machines", 1999), so that the slope stays finite even if the classes do not overlap. The log odds of
        the mean target (0 for classes of equal size) are not evidence and are subtracted. The bound is
        log(n + 1) for the smaller class: the log odds of its target.

        A line may be wrong about the classes' tails, so to be sure, the recordings themselves must bear a
        score out: of all clips from some score up, no more than 5 % may be fake if both classes are equally
        frequent, where the fakes' share is taken as (k + 1) / (n + 1), the expected share of new
        fakes beyond the k-th highest of n.

        Args:
            bonafide: The scores [n] of bona fide recordings that the detector was not trained on.
            spoof: The scores [n] of spoof recordings that the detector was not trained on.
            fitted_on: These recordings in words.
            clips_sha256: Their `data.recordings.list_sha256`, if known.

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
                logger.warning("the calibration did not converge (%s)", reason)
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
            clips_sha256,
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
            words = str(stored["fitted_on"]), str(stored.get("clips_sha256", ""))
            calibration = cls(slope, intercept, bound, words[0], sure[0], sure[1], words[1])
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


def _sure_from(bonafide: np.ndarray, spoof: np.ndarray) -> float | None:
    """Return the lowest score from which on at most 1 - SURE of the clips are spoof, by these recordings."""
    candidates = np.unique(np.concatenate([bonafide, spoof]))
    above = [len(scores) - np.searchsorted(np.sort(scores), candidates) for scores in (bonafide, spoof)]
    accepted = above[0] / (len(bonafide) + 1), (above[1] + 1) / (len(spoof) + 1)
    found = np.flatnonzero(accepted[1] <= (1 - SURE) / SURE * accepted[0])
    return float(candidates[found[0]]) if len(found) else None


def _negative(score: float | None) -> float | None:
    return None if score is None else -score


def calibration_file(detector: Path) -> Path:
    """Return where the calibration of a detector's file is kept, if it is not in that file."""
    return detector.with_name(detector.name + SUFFIX)


def find_calibration(detector: Detector) -> Calibration | None:
    """Return a detector's calibration: from the file beside its own, else from its own; None without one.

    Raises:
        CheckpointError: If it is damaged, or belongs to another detector; the latter is not checked of one
            from `check_detector`, which has no SHA-256.
        OSError: If the file beside the detector's cannot be read.
    """
    path = calibration_file(detector.path) if detector.path else None
    if path is None or not path.is_file():
        try:
            return Calibration.from_provenance(detector.provenance)
        except ValueError as error:
            raise CheckpointError(f"{detector.path}: its calibration is damaged") from error
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        calibration = Calibration.from_provenance(content)
        of_detector = content["detector_sha256"]
        if calibration is None:
            raise ValueError("not a calibration")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a calibration, or damaged: remove it, or calibrate again"
        ) from error
    if detector.sha256 is not None and of_detector != detector.sha256:
        raise CheckpointError(
            f"{path} is the calibration of another detector than {detector.path}: remove it, or calibrate "
            "again with python -m antispoofing calibrate"
        )
    return calibration


def held_out_figures(
    bonafide: np.ndarray, spoof: np.ndarray, groups: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, float | int] | None:
    """Return what calibrations keep of what they promise, by cross-validation.

    Each clip is judged by a calibration that was fitted on others.

    Args:
        bonafide: Scores [m] of bona fide recordings.
        spoof: Scores [n] of spoof recordings.
        groups: Which recordings belong together, int [m] and [n], and so into one fold; None if none do.

    Returns:
        "cllr", "min_cllr" and "act_dcf" (see `metrics.calibration_costs` and `compute_metrics`); "clips",
        their number; "sure", how many got the verdict real or fake; and "wrong", how many of these are wrong.
        None if the recordings, or their groups, are too few for FOLDS folds, or a fold gives no calibration.
    """
    scores = np.concatenate([bonafide, spoof])
    is_real = np.arange(len(scores)) < len(bonafide)
    order = np.lexsort((scores, is_real))  # or the folds would depend on the order of the clips
    scores, is_real = scores[order], is_real[order]
    ratios, real, fake = np.zeros(len(scores)), np.zeros(len(scores), bool), np.zeros(len(scores), bool)
    together = np.arange(len(scores))
    if groups is not None:
        _, first, inverse = np.unique(np.concatenate(groups)[order], return_index=True, return_inverse=True)
        together = first[inverse]
    for rest, held_out in _folds(is_real, together):
        if not (is_real[rest].any() and (~is_real[rest]).any()):
            return None
        fitted = Calibration.fit(scores[rest][is_real[rest]], scores[rest][~is_real[rest]], "")
        if fitted is None:
            return None
        ratios[held_out] = fitted.log_likelihood_ratios(scores[held_out])
        real[held_out], fake[held_out] = (
            scores[held_out] >= fitted.real_limit,
            scores[held_out] <= fitted.fake_limit,
        )
    if not np.any(ratios):
        return None
    costs = metrics.calibration_costs(ratios[is_real], ratios[~is_real])
    return costs | {
        "min_cllr": metrics.compute_metrics(bonafide, spoof)["min_cllr"],
        "clips": len(scores),
        "sure": int((real | fake).sum()),
        "wrong": int((real & ~is_real).sum() + (fake & is_real).sum()),
    }


def _folds(is_real: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each fold the indices of the other clips and of the held-out ones; no folds if too few."""
    from sklearn.model_selection import StratifiedGroupKFold

    if min(len(np.unique(groups[is_real])), len(np.unique(groups[~is_real]))) >= FOLDS:
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        yield from splitter.split(groups, is_real, groups)
