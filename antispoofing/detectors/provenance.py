"""What a detector's file tells of how it was made: read here, and nowhere else.

A provenance is what stands in the header of a detector's file beside the configuration, as JSON types. Files
come from strangers: what is missing or of another kind is said or passed over, and never believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from antispoofing.errors import CheckpointError

if TYPE_CHECKING:
    from model import Detector

# What a fine-tuned file tells of the epoch that was kept, see `training.history.EpochResult`.
VALIDATION_FIGURES = (
    "validation_loss",
    "validation_auc",
    "validation_auc_low",
    "validation_auc_high",
    "validation_eer",
    "validation_threshold",
)


@dataclass(frozen=True)
class Start:
    """The detector or front end that a fine-tuning started from.

    Attributes:
        file: where it was then; None for random weights.
        sha256: of that file.
        provenance: its own.
    """

    file: str | None
    sha256: str | None
    provenance: dict

    @property
    def is_front_end(self) -> bool:
        """Whether it was a pre-trained front end alone: no detector, with nothing to compare to."""
        return "front_end_sha256" in self.provenance


@dataclass(frozen=True)
class FineTuning:
    """How a detector was fine-tuned.

    Attributes:
        started_from: from what.
        training: the recipe, see `training.recipe.TrainingConfig`, and "clips", how many there were.
        epoch: the figures of the epoch that was kept, VALIDATION_FIGURES among them.
    """

    started_from: Start
    training: dict
    epoch: dict


def read_fine_tuning(detector: Detector) -> FineTuning:
    """Return how `fine_tune_for.py` made a detector.

    Raises:
        CheckpointError: it was not fine-tuned here, or its file was tampered with.
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
        )
    except (KeyError, TypeError, OverflowError):
        known = False
    if not known:
        raise CheckpointError(f"{detector.path} was not written by fine_tune_for.py: it does not say how")
    training = provenance.get("training")
    return FineTuning(start, training if isinstance(training, dict) else {}, epoch)


def kept_epoch(provenance: dict) -> dict:
    """Return the figures of the epoch whose weights a file holds; {} where it tells none."""
    epoch = provenance.get("epoch")
    return epoch if isinstance(epoch, dict) else {}


def stored_calibration(provenance: dict) -> object:
    """Return what a file holds as its calibration; None where it holds none."""
    return provenance.get("calibration")


def is_stand_in(provenance: dict) -> bool:
    """Whether it is the bundled stand-in detector's."""
    return "stand_in" in provenance


def chosen_on(provenance: dict) -> dict | None:
    """Return the stand-in detector's figures on the recordings by which it was chosen; None where untold.

    Returns:
        "auc", "eer", "eer_interval" and "clips", how many of each class.
    """
    told = provenance.get("chosen_on")
    try:
        figures = {name: float(told[name]) for name in ("auc", "eer")}
        figures["eer_interval"] = [float(rate) for rate in told["eer_interval"]]
        figures["clips"] = [int(count) for count in told["clips"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return figures if len(figures["eer_interval"]) == 2 else None


def comes_from_stand_in(provenance: dict) -> bool:
    """Whether it is the stand-in detector's, or of one fine-tuned from it, at whatever remove."""
    while isinstance(origin := provenance.get("started_from"), dict):
        provenance = origin.get("provenance")
        if not isinstance(provenance, dict):
            return False
    return is_stand_in(provenance)
