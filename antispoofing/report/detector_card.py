"""A detector's card: which one it is, what it was trained on, and how often it is known to err."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing.detectors.provenance import (
    Start,
    chosen_on,
    comes_from_stand_in,
    is_stand_in,
    read_fine_tuning,
)
from antispoofing.errors import CheckpointError
from antispoofing.published import published_detector

if TYPE_CHECKING:
    from model import Detector

NOT_KNOWN = "not known"
ELSEWHERE = "Expect more errors on other voices, languages, channels and synthesis systems."


def detector_card(detector: Detector) -> dict[str, str]:
    """Return what is known of a detector, as headings and the text under each."""
    trained_on, errors = _history(detector)
    card = {
        "File's sha256": detector.sha256 or NOT_KNOWN,
        "Trained on": trained_on,
        "Known error rates": errors if errors == NOT_KNOWN else f"{errors}. {ELSEWHERE}",
    }
    if comes_from_stand_in(detector.provenance):
        card["Caution"] = (
            "a small stand-in for demonstrations, not XLS-R 300M: do not judge real recordings by it"
        )
    return card


def _history(detector: Detector) -> tuple[str, str]:
    """Return what a detector was trained on, and its error rates."""
    if known := published_detector(detector.sha256 or ""):
        return "ASVspoof 2019 LA, by Tak et al. (Odyssey 2022)", f"{known.error_rate}, as published"
    if is_stand_in(detector.provenance):
        errors = _stand_in_errors(detector.provenance)
        return "human and synthetic voices from Debian packages; see samples/README.md", errors
    try:
        made = read_fine_tuning(detector)
        # Only the names of the data are shown, since their paths may be private.
        sets = ", ".join(Path(path).name for path in made.training["data"].split(", "))
        trained_on = f"{made.training['clips']} clips of {sets}, starting from {_start(made.started_from)}"
    except (CheckpointError, KeyError, AttributeError):
        return NOT_KNOWN, NOT_KNOWN
    epoch = made.epoch
    low, high = epoch["validation_auc_low"], epoch["validation_auc_high"]
    auc, eer = epoch["validation_auc"], 100 * epoch["validation_eer"]
    return trained_on, (
        f"AUC {auc:.3f} [{low:.3f}, {high:.3f}] and EER {eer:.1f} % "
        "on its validation set, on which the epoch was chosen"
    )


def _start(origin: Start) -> str:
    if is_stand_in(origin.provenance):
        return "the stand-in detector"
    return f"the detector with sha256 {origin.sha256[:8]}..." if origin.sha256 else "random weights"


def _stand_in_errors(provenance: dict) -> str:
    figures = chosen_on(provenance)
    if figures is None:
        return NOT_KNOWN
    low, high = (100 * rate for rate in figures["eer_interval"])
    return (
        f"AUC {figures['auc']:.3f} and EER {100 * figures['eer']:.1f} % [{low:.1f}, {high:.1f}] on the "
        f"{sum(figures['clips'])} recordings on which it was chosen"
    )
