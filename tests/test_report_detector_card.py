"""A detector's card says only what its file or its digest shows."""

from pathlib import Path

import pytest
from helpers import PRESETS

from antispoofing import published
from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import load_detector
from antispoofing.report.detector_card import NOT_KNOWN, detector_card
from model import Detector

EPOCH = {
    "validation_loss": 0.3,
    "validation_auc": 0.95,
    "validation_auc_low": 0.9,
    "validation_auc_high": 0.99,
    "validation_eer": 0.1,
    "validation_threshold": 0.0,
}


def fine_tuned(**changes):
    detector = Detector(PRESETS["small"])
    detector.sha256, detector.path = "ef" * 32, Path("final.safetensors")
    detector.provenance = {
        "started_from": {"file": "/home/somebody/LA.pth", "sha256": "ab" * 32, "provenance": {}},
        "training": {"clips": 70, "data": "/home/somebody/for-2seconds, other.zip"},
        "epoch": EPOCH,
    } | changes
    return detector


@pytest.mark.parametrize("name", ["LA_model.pth", "Best_LA_model_for_DF.pth"])
def test_a_published_file_is_known_by_its_digest(name):
    detector = Detector(PRESETS["small"])
    detector.provenance = {"official_file": "renamed.pth"}
    detector.sha256 = published.PUBLISHED[name].sha256 + "0" * 56
    card = detector_card(detector)
    assert card["Trained on"].startswith("ASVspoof 2019 LA")
    assert (
        f"{published.PUBLISHED[name].error_rate}, as published. Expect more errors"
        in card["Known error rates"]
    )
    detector.sha256 = "0" * 64
    assert detector_card(detector)["Trained on"] == detector_card(detector)["Known error rates"] == NOT_KNOWN


def test_the_stand_in_says_that_it_is_one():
    card = detector_card(load_detector(STAND_IN, device="cpu"))
    assert "EER 5.9 % [1.9, 10.5] on the 153 recordings on which it was chosen" in card["Known error rates"]
    assert "do not judge real recordings by it" in card["Caution"]


def test_a_fine_tuned_detector_names_its_training_but_no_folder():
    card = detector_card(fine_tuned())
    assert card["Trained on"] == (
        "70 clips of for-2seconds, other.zip, starting from the detector with sha256 abababab..."
    )
    assert card["Known error rates"].startswith(
        "AUC 0.950 [0.900, 0.990] and EER 10.0 % on its validation set"
    )
    assert "somebody" not in str(card)
    assert "Caution" not in card
    from_stand_in = fine_tuned(started_from={"file": None, "sha256": None, "provenance": {"stand_in": "yes"}})
    assert detector_card(from_stand_in)["Trained on"].endswith("starting from the stand-in detector")
    assert "Caution" in detector_card(from_stand_in)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": None},
        {"training": {"clips": 1, "data": None}},
        {"epoch": {}},
        {"epoch": EPOCH | {"validation_auc": 10**400}},
        {"started_from": 1},
    ],
)
def test_missing_or_damaged_history_is_not_known(changes):
    card = detector_card(fine_tuned(**changes))
    assert card["Trained on"] == card["Known error rates"] == NOT_KNOWN


@pytest.mark.parametrize("figures", [5, {}, {"auc": 1, "eer": 0, "eer_interval": [0], "clips": [1]}])
def test_a_stand_in_with_nonsensical_figures(figures):
    detector = Detector(PRESETS["small"])
    detector.provenance = {"stand_in": "yes", "chosen_on": figures}
    assert detector_card(detector)["Known error rates"] == NOT_KNOWN
