"""What is known of a detector, in a few words: which it is, what it was trained on, how often it errs."""

from __future__ import annotations

from pathlib import Path

from antispoofing.commands.tasks import is_of_a_demonstration
from antispoofing.data import download
from antispoofing.detectors.loading import Detector
from antispoofing.errors import CheckpointError
from antispoofing.training.loop import read_provenance

NOT_KNOWN = "not known"
ELSEWHERE = "On other voices, languages, channels and synthesis systems expect more errors."


def card(detector: Detector) -> dict[str, str]:
    """Headings and what there is to say under each."""
    trained_on, errors = _history(detector)
    told = {
        "File's sha256": detector.sha256 or NOT_KNOWN,
        "Trained on": trained_on,
        "Known error rates": errors if errors == NOT_KNOWN else f"{errors}. {ELSEWHERE}",
    }
    if is_of_a_demonstration(detector):
        told["Mind"] = (
            "a small stand-in for demonstrations, not XLS-R 300M: do not judge real recordings by it"
        )
    return told


def _history(detector: Detector) -> tuple[str, str]:
    """What it was trained on, and its error rates."""
    provenance, sha256 = detector.provenance, detector.sha256 or ""
    for known in download.KNOWN.values():
        if known.error_rate and sha256.startswith(known.sha256):
            return "ASVspoof 2019 LA, by Tak et al. (Odyssey 2022)", f"{known.error_rate}, as published"
    if "stand_in" in provenance:
        return "people and machines of Debian's packages; see samples/README.md", _of_stand_in(provenance)
    try:
        origin, epoch = read_provenance(detector)
        settings = provenance["training"]
        sets = ", ".join(Path(path).name for path in settings["data"].split(", "))  # no path of its owner's
        trained_on = f"{settings['clips']} clips of {sets}, starting from {_start(origin)}"
        low, high = epoch["validation_auc_low"], epoch["validation_auc_high"]
    except (CheckpointError, KeyError, TypeError, AttributeError):
        return NOT_KNOWN, NOT_KNOWN
    auc, eer = epoch["validation_auc"], 100 * epoch["validation_eer"]
    return trained_on, (
        f"AUC {auc:.3f} [{low:.3f}, {high:.3f}] and EER {eer:.1f} % "
        "on its validation set, by which the epoch was chosen"
    )


def _start(origin: dict) -> str:
    if origin["provenance"].get("stand_in"):
        return "the stand-in detector"
    return f"the detector with sha256 {origin['sha256'][:8]}..." if origin["sha256"] else "random weights"


def _of_stand_in(provenance: dict) -> str:
    chosen = provenance.get("chosen_on")
    if chosen is None:
        return NOT_KNOWN
    low, high = (100 * rate for rate in chosen["eer_interval"])
    return (
        f"AUC {chosen['auc']:.3f} and EER {100 * chosen['eer']:.1f} % [{low:.1f}, {high:.1f}] on the "
        f"{sum(chosen['clips'])} recordings by which it was chosen"
    )
