"""The three scripts without arguments, in an empty folder: the bundled samples and stand-in detector."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from antispoofing.data.recordings import find_recordings
from antispoofing.project import SAMPLES


def run(folder, script, *args) -> list[str]:
    done = subprocess.run(
        [sys.executable, ROOT / script, *args], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_first_script(tmp_path):
    shown = run(tmp_path, "evaluate_custom.py")
    assert shown[0].startswith("Neither Dataset_Speech_Assignment/ nor a published detector")
    assert "STAND-IN DETECTOR" in shown[1]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in shown if line.startswith("detector  ")] == [
        line for line in readme if line.startswith("detector  ")
    ]
    found = read(tmp_path / "results/custom/detector/metrics.json")
    assert found["counts"]["bonafide_scored"] == found["counts"]["spoof_scored"] == 60
    assert found["metrics"]["auc"] > 0.8  # on people and systems that it never met


@pytest.mark.slow
def test_the_other_scripts_after_it(tmp_path):
    shown = run(tmp_path, "fine_tune_for.py", "--epochs", "1", "--no-wandb")
    assert shown[0].startswith("Neither for-2seconds/ nor a published detector")
    assert read(tmp_path / "results/for/testing/metrics.json")["counts"]["failed"] == 0

    run(tmp_path, "evaluate_custom.py")
    before = read(tmp_path / "results/custom/detector/metrics.json")
    shown = run(tmp_path, "evaluate_custom_for.py")
    assert shown[0].startswith("results/for/final_model.safetensors comes from the stand-in")
    paired = read(tmp_path / "results/custom_for/comparison.json")
    assert paired["auc"]["before"] == before["metrics"]["auc"]
    assert (tmp_path / "results/custom_for/analysis.md").is_file()


def test_to_start_a_script_takes_none_of_the_slow_packages():
    slow = {"av", "librosa", "matplotlib", "scipy.stats", "sklearn", "torch", "transformers", "wandb"}
    slow |= {"huggingface_hub", "numba"}
    code = "import evaluate_custom, evaluate_custom_for, fine_tune_for, app, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not slow & set(done.stdout.split())


def test_every_sample_is_attributed_once():
    """By `samples/README.md`: under each folder's heading, lists like "- **june-wallack-** 01 `vm-login`"."""
    attributed, folder = [], ""
    for line in (SAMPLES / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            folder = line.removeprefix("### ")
        elif found := re.fullmatch(r"- \*\*(\S+-)\*\* (.+)", line):
            numbers = re.findall(r"(?:^|, )(\d+) ", found[2])
            attributed += [f"{folder}/{found[1]}{number}.flac" for number in numbers]
    assert len(attributed) > 300
    assert sorted(attributed) == [u.name for u in find_recordings([SAMPLES]).utterances]
