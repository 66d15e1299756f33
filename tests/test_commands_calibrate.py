"""`python -m antispoofing calibrate`: what it fits, writes and refuses, and that everything then uses it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import copy_samples

import evaluate_custom
from antispoofing.commands.calibrate import main
from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import load_detector
from antispoofing.scoring.calibration import Calibration, calibration_file, find_calibration, held_out_figures
from antispoofing.scoring.decision import CALIBRATION, LOGITS, Rule


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(STAND_IN, "detector.safetensors")
    copy_samples(tmp_path / "data", 20)
    return tmp_path


def calibrated() -> dict:
    return json.loads(Path("detector.safetensors.calibration.json").read_text(encoding="utf-8"))


def test_by_recordings_and_by_their_scores_it_is_the_same(workplace, capsys):
    assert main(["detector.safetensors", "--data", "data", "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "The calibration is in detector.safetensors.calibration.json" in shown
    by_data = calibrated()
    assert by_data["calibration"]["fitted_on"] == "20 real and 20 fake recordings of data"
    Path("detector.safetensors.calibration.json").unlink()
    arguments = ["--data", "data", "--checkpoint", "detector.safetensors", "--workers", "0"]
    assert evaluate_custom.main(arguments) == 0
    assert main(["detector.safetensors", "--scores", "results/custom/detector/scores.csv"]) == 0
    by_scores = calibrated()
    assert by_scores["detector_sha256"] == by_data["detector_sha256"]
    for name in ("slope", "intercept", "bound", "real_from", "fake_to"):
        assert by_scores["calibration"][name] == pytest.approx(by_data["calibration"][name])
    detector = load_detector("detector.safetensors", device="cpu")
    assert Rule.from_detector(detector).basis == CALIBRATION
    capsys.readouterr()
    assert evaluate_custom.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "; it was fitted on these very clips" in shown
    assert "detector: calibrated, it has a Cllr of" in shown
    assert "The calibration was fitted on these very clips" in " ".join(shown.split())
    found = json.loads(Path("results/custom/detector/metrics.json").read_text(encoding="utf-8"))
    assert found["calibrated"].keys() == {"cllr", "act_dcf", "sure", "wrong", "fitted_on_these_clips"}
    assert found["calibrated"]["cllr"] >= found["metrics"]["min_cllr"]
    next(Path("data/Fake").iterdir()).unlink()
    assert evaluate_custom.main(arguments) == 0
    assert "on these very clips" not in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_written_to_is_told_before_scoring(workplace, capsys, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", f"{folder}/tmpabc")

    monkeypatch.setattr("antispoofing.commands.tasks.check_writable", refuse)
    monkeypatch.setattr("antispoofing.scoring.score.score_recordings", None)
    assert main(["detector.safetensors", "--data", "data"]) == 2
    words = "the calibration is kept beside the detector, in .: Permission denied"
    assert capsys.readouterr().err == f"error: {words}\n"


def test_a_calibration_beside_the_file_comes_before_the_one_in_it(workplace):
    detector = load_detector("detector.safetensors", device="cpu")
    assert Rule.from_detector(detector).basis == LOGITS
    detector.provenance["calibration"] = Calibration(1.0, 0.0, 5.0, "inside").to_dict()
    assert find_calibration(detector).fitted_on == "inside"
    beside = {
        "detector_sha256": detector.sha256,
        "calibration": Calibration(2.0, 0.0, 5.0, "beside").to_dict(),
    }
    Path("detector.safetensors.calibration.json").write_text(json.dumps(beside), encoding="utf-8")
    assert find_calibration(detector).fitted_on == "beside"


def test_files_of_one_name_have_calibrations_of_their_own(workplace):
    assert calibration_file(Path("x.pth")) != calibration_file(Path("x.safetensors"))


def test_held_out_figures_do_not_depend_on_the_order_of_clips():
    rng = np.random.default_rng(3)
    bonafide, spoof = rng.normal(1, 1, 60), rng.normal(-1, 1, 60)
    groups = np.repeat(np.arange(12), 5), 12 + np.repeat(np.arange(12), 5)
    orders = rng.permutation(60), rng.permutation(60)
    for of_clips in (None, groups):
        shuffled = of_clips and tuple(
            100 - of_class[order] for of_class, order in zip(groups, orders, strict=True)
        )
        found = held_out_figures(bonafide[orders[0]], spoof[orders[1]], shuffled)
        assert found == pytest.approx(held_out_figures(bonafide, spoof, of_clips))


OTHER = json.dumps(Calibration(1.0, 0.0, 3.0, "x").to_dict())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f'{{"detector_sha256": "0", "calibration": {OTHER}}}',
         "is the calibration of another detector than detector.safetensors: remove it, or calibrate again"),
        ("{}", "not a calibration, or damaged: remove it, or calibrate again"),
        ("[1]", "not a calibration, or damaged"),
        ("{", "not a calibration, or damaged"),
        ('{"detector_sha256": "0", "calibration": {"slope": -1}}', "not a calibration, or damaged"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_belong_there_is_refused(content, words, workplace, capsys):
    Path("detector.safetensors.calibration.json").write_text(content, encoding="utf-8")
    assert evaluate_custom.main(["--data", "data", "--checkpoint", "detector.safetensors"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: detector.safetensors.calibration.json")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--scores", "gone.csv"], "gone.csv: No such file or directory"),
        (["--scores", "reversed.csv"], "higher scores do not mean more likely real"),
        (["--scores", "real.csv"], "a calibration needs scores of both real and fake recordings"),
        (["--scores", "other/scores.csv"], "has the scores of another detector than detector.safetensors"),
        (["--data", "data/Real"], "the recordings must have labels, both real and fake"),
        (["--data", "data", "--checkpoint", "x"], "unrecognized arguments"),
        ([], "name either --data or --scores"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(args, words, workplace, capsys):
    Path("reversed.csv").write_text("path,score,label\na,0,real\nb,1,fake\n", encoding="utf-8")
    Path("real.csv").write_text("path,score,label\na,0,real\n", encoding="utf-8")
    Path("other").mkdir()
    Path("other/scores.csv").write_text("path,score,label\na,1,real\nb,0,fake\n", encoding="utf-8")
    Path("other/metrics.json").write_text('{"detector": {"sha256": "0"}}', encoding="utf-8")
    try:
        assert main(["detector.safetensors", *args]) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    assert words in capsys.readouterr().err
    assert not Path("detector.safetensors.calibration.json").exists()


def test_held_out_figures_are_of_clips_that_a_calibration_was_not_fitted_on():
    rng = np.random.default_rng(0)
    bonafide, spoof = rng.normal(2, 1, 400), rng.normal(-2, 1, 300)
    found = held_out_figures(bonafide, spoof, None)
    assert found["clips"] == 700
    assert found["min_cllr"] < found["cllr"] < found["min_cllr"] + 0.05
    assert found["wrong"] < 0.05 * found["sure"]
    assert found["sure"] > 350
    few = rng.integers(0, 4, 400), rng.integers(4, 20, 300)
    assert held_out_figures(bonafide, spoof, few) is None  # four speakers are too few for five folds
    assert held_out_figures(bonafide[:4], spoof, None) is None


def test_speakers_are_held_out_whole():
    """Clips of a speaker are alike, so a fold that shares speakers with others looks better than it is."""
    rng = np.random.default_rng(1)
    speakers = np.repeat(np.arange(10), 40)
    shifts = 2 * rng.standard_normal(20)
    bonafide, spoof = 2 + shifts[speakers], shifts[speakers + 10]
    bonafide, spoof = (scores + 0.1 * rng.standard_normal(400) for scores in (bonafide, spoof))
    alone = held_out_figures(bonafide, spoof, None)
    together = held_out_figures(bonafide, spoof, (speakers, speakers + 10))
    assert together["cllr"] > alone["cllr"] + 0.01
