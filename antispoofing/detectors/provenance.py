"""Provenance: what a detector's file says about how the detector was made.

A provenance is a dictionary of JSON types, kept in the header of a detector's file beside the configuration.
Files may come from strangers, so nothing in it is taken on trust: what is missing or of the wrong type is
reported or passed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from antispoofing.errors import CheckpointError

if TYPE_CHECKING:
    from model import Detector

# The figures that a fine-tuned file holds for the epoch that was kept; see `training.history.EpochResult`.
VALIDATION_FIGURES = (
    "validation_loss",
    "validation_auc",
    "validation_eer",
    "validation_threshold",
)
VALIDATION_INTERVAL = ("validation_auc_low", "validation_auc_high")  # of that AUC; a file may lack it
# How many of its clips were misjudged at that threshold; files of earlier versions lack these.
VALIDATION_COUNTS = (
    "validation_bonafide",
    "validation_spoof",
    "validation_rejected",
    "validation_accepted",
)
VALIDATION_WORTH = ("validation_bonafide_worth", "validation_spoof_worth")


@dataclass(frozen=True)
class Start:
    """The detector or front end that a fine-tuning run started from.

    Attributes:
        file: The path it had then; None for random weights.
        sha256: The SHA-256 of that file.
        provenance: That file's own provenance.
    """

    file: str | None
    sha256: str | None
    provenance: dict

    @property
    def is_front_end(self) -> bool:
        """Whether the run started from a pre-trained front end, which has no scores to compare with."""
        return "front_end_sha256" in self.provenance


@dataclass(frozen=True)
class FineTuning:
    """How a detector was fine-tuned.

    Attributes:
        started_from: Where the run started.
        training: The recipe (see `training.recipe.TrainingConfig`), and how many clips there were ("clips").
        epoch: The figures of the epoch that was kept, VALIDATION_FIGURES and usually VALIDATION_COUNTS among
            them.
    """

    started_from: Start
    training: dict
    epoch: dict


class ChosenOn(TypedDict):
    """The stand-in detector's figures on the recordings by which it was chosen.

    Attributes:
        auc: The AUC.
        eer: The EER, as a fraction.
        eer_interval: The lower and the upper bound of its 95 % interval.
        clips: How many recordings there were of each class.
    """

    auc: float
    eer: float
    eer_interval: list[float]
    clips: list[int]


def read_fine_tuning(detector: Detector) -> FineTuning:
    """Read from a detector's provenance how `fine_tune_for.py` made it.

    Raises:
        CheckpointError: If `fine_tune_for.py` did not write the file, or if it has been altered since.
    """
    provenance = detector.provenance
    try:
        origin, epoch = provenance["started_from"], provenance["epoch"]
        start = Start(origin["file"], origin["sha256"], origin["provenance"])
        figures = [epoch[name] for name in VALIDATION_FIGURES]
        known = (
            isinstance(start.file, str | None)
            and isinstance(start.sha256, str | None)
            and isinstance(start.provenance, dict)
            and all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)
            and _is_interval(*(epoch.get(name) for name in VALIDATION_INTERVAL))
            and _are_counts(*(epoch.get(name) for name in VALIDATION_COUNTS))
            and all(_is_worth(epoch.get(name)) for name in VALIDATION_WORTH)
            and isinstance(epoch.get("validation_clips"), str | None)
        )
    except (KeyError, TypeError, OverflowError):
        known = False
    if not known:
        raise CheckpointError(
            f"{detector.path} was not written by fine_tune_for.py, or does not say how: name a file that was"
        )
    training = provenance.get("training")
    return FineTuning(start, training if isinstance(training, dict) else {}, epoch)


def _are_counts(bonafide: object, spoof: object, rejected: object, accepted: object) -> bool:
    """Check that all are missing, or that so many clips may have been misjudged."""
    pairs = ((rejected, bonafide), (accepted, spoof))
    if all(number is None for pair in pairs for number in pair):
        return True
    return all(type(k) is int and type(n) is int and 0 <= k <= n > 0 for k, n in pairs)


def _is_interval(low: object, high: object) -> bool:
    """Check that both bounds are missing, or are those of an interval of an AUC."""
    if low is None and high is None:
        return True
    return isinstance(low, int | float) and isinstance(high, int | float) and 0 <= low <= high <= 1


def _is_worth(number: object) -> bool:
    return number is None or (isinstance(number, int | float) and 0 <= number < math.inf)


def validation_interval(epoch: dict) -> tuple[float, float] | None:
    """Return the 95 % interval of the AUC on the validation set, from an epoch's figures; None if unknown."""
    low, high = (epoch.get(name) for name in VALIDATION_INTERVAL)
    return None if low is None or high is None else (low, high)


def kept_epoch(provenance: dict) -> dict:
    """Return the figures of the epoch whose weights a file holds; {} if it has none."""
    epoch = provenance.get("epoch")
    return epoch if isinstance(epoch, dict) else {}


def stored_calibration(provenance: dict) -> object:
    """Return what a file stores as its calibration, unchecked; None if it stores nothing."""
    return provenance.get("calibration")


def is_stand_in(provenance: dict) -> bool:
    """Check whether this is the provenance of the bundled stand-in detector."""
    return "stand_in" in provenance


def chosen_on(provenance: dict) -> ChosenOn | None:
    """Return the figures by which the stand-in detector was chosen; None if they are missing or damaged."""
    stored = provenance.get("chosen_on")
    if not isinstance(stored, dict):
        return None
    try:
        figures = ChosenOn(
            auc=float(stored["auc"]),
            eer=float(stored["eer"]),
            eer_interval=[float(rate) for rate in stored["eer_interval"]],
            clips=[int(count) for count in stored["clips"]],
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return figures if len(figures["eer_interval"]) == 2 else None


def comes_from_stand_in(provenance: dict) -> bool:
    """Check whether a detector is the stand-in, or was fine-tuned from it in any number of steps."""
    while isinstance(origin := provenance.get("started_from"), dict):
        earlier = origin.get("provenance")
        if not isinstance(earlier, dict):
            return False
        provenance = earlier
    return is_stand_in(provenance)
