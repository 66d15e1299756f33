"""A detector's card says only what its file or its digest shows."""

import re
from pathlib import Path

import pytest
from helpers import PRESETS, ROOT

from antispoofing import published
from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import load_detector
from antispoofing.report.detector_card import (
    NOT_KNOWN,
    STAND_IN_ERRORS,
    detector_card,
    name_warning,
    verdict_note,
)
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
        f"{published.PUBLISHED[name].error_rate}, as published; elsewhere: "
        f"{published.PUBLISHED[name].elsewhere}" in card["Known error rates"]
    )
    assert "23.6 % on average over eight sets" in verdict_note(detector)
    detector.sha256 = "0" * 64
    assert detector_card(detector)["Trained on"] == detector_card(detector)["Known error rates"] == NOT_KNOWN


def test_the_stand_in_says_that_it_is_one():
    card = detector_card(load_detector(STAND_IN, device="cpu"))
    assert "EER 5.9 % on the 153 recordings on which it was chosen, 16.8 % on" in card["Known error rates"]
    assert "do not judge real recordings by it" in card["Caution"]
    note = verdict_note(load_detector(STAND_IN, device="cpu"))
    assert note.startswith("This detector is a small stand-in for demonstrations")
    assert STAND_IN_ERRORS in note
    readme = (ROOT / "samples" / "README.md").read_text(encoding="utf-8")
    for row, figure in (("test set", "16.8 %"), ("`custom`", "11.7 %")):
        assert re.search(rf"^\| {row} \| [^|]+ \| [^|]+ \| {re.escape(figure)}", readme, re.M)


@pytest.mark.parametrize(
    ("name", "sha256", "is_named"),
    [
        ("LA_model.pth", "0" * 64, True),
        ("LA_model.pth", published.PUBLISHED["LA_model.pth"].sha256 + "0" * 56, False),
        ("LA_model.pth", published.PUBLISHED["Best_LA_model_for_DF.pth"].sha256 + "0" * 56, True),
        ("best_SSL_model_LA.pth", published.PUBLISHED["LA_model.pth"].sha256 + "0" * 56, False),
        ("best_SSL_model_LA.pth", "0" * 64, True),
        ("mine.pth", "0" * 64, False),
    ],
)
def test_a_file_under_a_published_name_that_is_another_is_told(name, sha256, is_named):
    detector = Detector(PRESETS["small"])
    detector.path, detector.sha256 = Path("somewhere", name), sha256
    warning = f"{name} is not the published file of that name: its sha256 is {sha256[:8]}..."
    assert (name_warning(detector) == warning) == is_named
    assert (warning in verdict_note(detector)) == is_named
    assert ("Not what its name says" in detector_card(detector)) == is_named


def test_a_detector_of_which_nothing_is_known_says_so():
    detector = Detector(PRESETS["small"])
    assert verdict_note(detector) == "Its error rates are not known, so its verdicts may be worthless."


def test_a_fine_tuned_detector_names_its_training_but_no_folder():
    card = detector_card(fine_tuned())
    assert card["Trained on"] == (
        "70 clips of for-2seconds, other.zip, starting from the detector with sha256 abababab..."
    )
    assert card["Known error rates"].startswith(
        "AUC 0.9500 [0.9000, 0.9900] and EER 10.00 % on its validation set"
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
