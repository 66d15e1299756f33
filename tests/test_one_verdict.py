"""The same heard span gets the same verdict in every output, whatever the rule goes by."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import ROOT

import evaluate_custom
from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.sandbox import Sandbox
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.decision import CALIBRATION, GIVEN, LOGITS, VALIDATION
from antispoofing.web import api, html
from antispoofing.web.limits import Limits
from antispoofing.web.service import Service

CLIPS = ROOT / "samples" / "custom"


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Short and long recordings of people and machines, with labels, below the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder, prefixes in (("Real", ("ivrvoice", "june")), ("Fake", ("piper", "festival"))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for prefix in prefixes:
            clips = sorted((CLIPS / folder).glob(f"{prefix}*"))[:6]
            for clip in clips[:3]:
                shutil.copy(clip, tmp_path / "data" / folder)
            joined = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])
            soundfile.write(tmp_path / "data" / folder / f"{prefix}-long.flac", joined, 16000)
    return tmp_path / "data"


def detector_with(basis) -> Path:
    """Save the stand-in with what a rule goes by; with several of them, the first counts."""
    detector = load_detector(STAND_IN, device="cpu")
    if basis in (GIVEN, CALIBRATION):
        calibration = Calibration(1.0, -0.4, 4.0, "made up", real_from=1.0, fake_to=-1.0)
        detector.provenance["calibration"] = calibration.to_dict()
    if basis != LOGITS:
        detector.provenance["epoch"] = {"validation_threshold": 0.9}
    save_detector(detector, "detector.safetensors")
    return Path("detector.safetensors")


def rows(path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "basis", [CALIBRATION, LOGITS, *(pytest.param(b, marks=pytest.mark.slow) for b in (GIVEN, VALIDATION))]
)
def test_every_output_has_the_same_verdict(basis, recordings, capsys):
    path = detector_with(basis)
    options = ["--threshold", "0.3"] if basis == GIVEN else []
    arguments = ["--data", "data", "--checkpoint", str(path), "--workers", "0", "--no-audit", *options]
    assert evaluate_custom.main([*arguments, "--timeline"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    folder = Path("results/custom/detector")
    scores = {row["path"]: row for row in rows(folder / "scores.csv")}
    assert {row["rule"] for row in scores.values()} == {basis}
    assert len({row["verdict"] for row in scores.values()}) == (3 if basis == CALIBRATION else 2)
    for name, row in scores.items():
        first = rows(folder / "timelines" / f"{name}.csv")[0]
        assert float(first["score"]) == pytest.approx(float(row["score"]), abs=1e-5)
        assert float(first["margin"]) == pytest.approx(float(row["margin"]), abs=1e-4)
        assert first["verdict"] == row["verdict"]
    # the analysis counts these verdicts
    for label, wrong in (("bonafide", "fake"), ("spoof", "real")):
        of_class = [row["verdict"] for row in scores.values() if row["label"] == label]
        word = {"bonafide": "real", "spoof": "fake"}[label]
        assert f"of the {word} clips, {of_class.count(wrong)} of {len(of_class)} (" in shown
    described = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["verdicts"]
    assert " ".join(described.split()) in shown
    if basis == GIVEN:
        return  # the page takes no threshold
    with Sandbox(["data_utils"]) as sandbox:
        service = Service({"detector": load_detector(path, device="cpu")}, sandbox, Limits())
        for name, row in scores.items():
            file = recordings / name
            (answer,) = api.score(service, [str(file)], ["detector"])
            (result,) = answer["results"]
            assert (result["verdict"], result["rule"]) == (row["verdict"], basis)
            whole = api.timeline(service, str(file), ["detector"])["results"][0]
            assert whole["windows"][0]["verdict"] == row["verdict"]
            assert [window["verdict"] for window in whole["windows"]] == [
                window["verdict"] for window in rows(folder / "timelines" / f"{name}.csv")
            ]
            assert f"{name}, as a whole: {whole['overall'].upper()}" in shown
        listed = html.scores_csv(
            service.score(service.uploaded([recordings / name for name in scores]), ["detector"]),
            service.chosen(["detector"]),
        )
    by_name = {Path(row["path"]).name: row for row in csv.DictReader(listed.splitlines())}
    for name, row in scores.items():
        assert by_name[Path(name).name]["verdict"] == row["verdict"]
        assert by_name[Path(name).name]["rule"] == basis
