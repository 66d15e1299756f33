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
    validation_interval,
)
from antispoofing.errors import CheckpointError
from antispoofing.published import claimed_name, published_detector
from antispoofing.text import auc_text, eer_text

if TYPE_CHECKING:
    from antispoofing.detectors.family import Family
    from model import Detector

NOT_KNOWN = "not known"
ELSEWHERE = "Expect more errors on other voices, languages, channels and synthesis systems."


# From samples/README.md, which says how they were measured.
STAND_IN_ERRORS = "16.8 % on a test set of other people and mostly other systems, 11.7 % on the samples"
STAND_IN = "a small stand-in for demonstrations, not XLS-R 300M: do not judge real recordings by it"


def verdict_note(detector: Detector) -> str:
    """Return what everybody should know who reads a detector's verdict, in a sentence or two."""
    _, errors = _history(detector)
    words = [warning] if (warning := name_warning(detector)) else []
    if comes_from_stand_in(detector.provenance):
        words.append(f"This detector is {STAND_IN}.")
    if errors == NOT_KNOWN:
        return " ".join([*words, "Its error rates are not known, so its verdicts may be worthless."])
    return " ".join([*words, f"Its error rates, each at the best threshold for that set: {errors}."])


def name_warning(detector: Detector) -> str | None:
    """Return the warning that a file is not the published one that it is named after; None if it is."""
    path, sha256 = detector.path, detector.sha256 or ""
    if path is None or claimed_name(path.name, sha256) is None:
        return None
    return f"{path.name} is not the published file of that name: its sha256 is {sha256[:8]}..."


def detector_card(detector: Detector) -> dict[str, str]:
    """Return what is known of a detector, as headings and the text under each."""
    trained_on, errors = _history(detector)
    card = {
        "File's sha256": detector.sha256 or NOT_KNOWN,
        "Trained on": trained_on,
        "Known error rates": errors if errors == NOT_KNOWN else f"{errors}. {ELSEWHERE}",
    }
    if family := published_family(detector):
        card["Family"], card["Licence"] = family.name, family.licence
    if comes_from_stand_in(detector.provenance):
        card["Caution"] = STAND_IN
    if warning := name_warning(detector):
        card["Not what its name says"] = warning
    return card


def _history(detector: Detector) -> tuple[str, str]:
    """Return what a detector was trained on, and its error rates."""
    if known := published_detector(detector.sha256 or ""):
        return known.trained_on, f"{known.error_rate}, as published; elsewhere: {known.elsewhere}"
    if family := published_family(detector):
        errors = f"not known for this file; EERs of published ones: {family.figures}"
        return (
            f"not known for this file; published ones: {family.trained_on}",
            errors if family.figures else NOT_KNOWN,
        )
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
    auc = auc_text(made.epoch["validation_auc"], validation_interval(made.epoch))
    return trained_on, (
        f"AUC {auc} and EER {eer_text(made.epoch['validation_eer'])} % on its validation set, on which the "
        "epoch was chosen"
    )


def family_notes(detector: Detector) -> list[str]:
    """Return what to know before a detector of another family than XLS-R + AASIST scores, a line each."""
    family, notes = published_family(detector), []
    if family:
        notes.append(f"Family: {family.name}; licence: {family.licence}")
    if detector.config.hears_whole:
        seconds = detector.config.heard_samples / detector.config.sample_rate
        notes.append(f"It hears recordings whole, of longer ones the first {seconds:g} s")
    if detector.config.score_is_difference:
        notes.append("Its score is logit 1 - logit 0, and its logit 0 is given as 0")
    return notes


def published_family(detector: Detector) -> Family | None:
    """Return the family of a detector that others published; None for XLS-R + AASIST and for one's own."""
    if "family" not in detector.provenance:
        return None
    from antispoofing.detectors.families import by_head  # takes torch to import

    return by_head(detector.config.head)


def _start(origin: Start) -> str:
    if is_stand_in(origin.provenance):
        return "the stand-in detector"
    return f"the detector with sha256 {origin.sha256[:8]}..." if origin.sha256 else "random weights"


def _stand_in_errors(provenance: dict) -> str:
    figures = chosen_on(provenance)
    if figures is None:
        return NOT_KNOWN
    return (
        f"EER {100 * figures['eer']:.1f} % on the {sum(figures['clips'])} recordings on which it was chosen, "
        f"{STAND_IN_ERRORS}"
    )
