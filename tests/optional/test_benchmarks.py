"""The benchmarks run, and report figures for everything they name."""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT, copy_samples

from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import save_detector
from model import Detector

LORA = ", LoRA, checkpointing"
BENCHMARKS = ROOT / "benchmarks"


def run(folder, name, *args) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, args)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_throughput(tmp_path):
    copy_samples(tmp_path / "data", 3)
    options = ("--rounds", 1, "--precisions", "fp32", "bf16", "--json", "all.json")
    shown = run(tmp_path, "throughput.py", "--data", "data", "--checkpoint", STAND_IN, *options)
    result = json.loads((tmp_path / "all.json").read_text())
    assert (result["clips"], result["rounds"]) == (6, 1)
    assert result["original"] == "this network, fp32"
    assert 1.5 < result["gflop_per_clip"] < 3
    assert result["ways"].keys() == {"original", "fp32", "bf16"}
    assert result["ways"]["original"]["against_original"] == {"median": 1, "lowest": 1, "highest": 1}
    for way in ("fp32", "bf16"):
        entry = result["ways"][way]
        reached = result["gflop_per_clip"] / entry["network_seconds_per_clip"]
        assert 0 < entry["fraction_of_peak"]["median"] < 1
        assert reached < entry["matrix_peak_gflop_per_second"]
        assert 0.1 < entry["peak_memory_gb"] < 2
        assert entry["one_recording_command_seconds"] > 0
        assert entry["clips_per_second"] > 0
    moved = result["ways"]["bf16"]["drift"]
    assert 1e-4 < moved["features_moved_of_mean_magnitude"] < 0.05
    assert moved["counts"] == {"bonafide": 3, "spoof": 3}
    for entry in result["decoding"].values():
        assert all(entry[name]["clips_per_second"] > 0 for name in ("here", "librosa"))
    for words in ("original", "fp32", "bf16", "bf16 compared with fp32", "600 s, mp3, 44100 Hz"):
        assert words in shown


def test_training(tmp_path, small_config):
    save_detector(Detector(small_config), tmp_path / "toy.safetensors")
    options = ("--checkpoint", "toy.safetensors", "--rounds", 1, "--steps", 1, "--json", "all.json")
    shown = run(tmp_path, "training.py", *options)
    result = json.loads((tmp_path / "all.json").read_text())
    assert (result["batch_size"], result["rounds"], result["steps"]) == (4, 1, 1)
    assert result["original"] == "fairseq"
    ways = result["ways"]
    assert ways.keys() == {
        "original",
        *(precision + how for precision in ("fp32", "bf16") for how in ("", ", checkpointing", LORA)),
    }
    for way, entry in ways.items():
        assert way in shown
        assert entry["seconds_per_step"] > 0
        assert 0.1 < entry["state_gb"] + entry["kept_gb"] < entry["peak_gb"] < 2
        assert ("kept_of_full" in entry) == ("," in way)
    weights = sum(p.numel() for p in Detector(small_config).parameters()) * 4e-9
    assert ways["fp32"]["state_gb"] == pytest.approx(4 * weights, rel=0.05)  # gradients, two moments
    assert weights < ways["fp32" + LORA]["state_gb"] < 0.9 * ways["fp32"]["state_gb"]


def test_audit(tmp_path):
    shown = run(tmp_path, "audit.py", "--clips", 20, "--rounds", 1)
    assert "s (recordings: 20)" in shown
    assert "ratio: median" in shown


def test_splicing(tmp_path):
    options = ("--recordings", 12, "--seconds", 6, "--stretches", 4)
    shown = run(tmp_path, "splicing.py", *options)
    assert shown.startswith("people: 3; synthetic voices: 5; detector: detector.safetensors")
    assert re.search(r"a stretch of 4 s: AUC of windows \d\.\d{4} .* of 12 recordings", shown)


def test_coverage(tmp_path):
    shown = run(tmp_path, "coverage.py", "--sets", 4, "--claims", 3, "--json", "all.json")
    found = json.loads((tmp_path / "all.json").read_text())
    assert len(found["intervals"]) == 16 + 36 + 4
    assert [cell["clips"] for cell in found["intervals"] if cell["without"] == 1] == [
        "5 speakers x 25, ICC 0.3, one in ten hard"
    ]
    made = {claim["words"]: max(true for _, true in claim["shares"].values()) for claim in found["claims"]}
    untrue = {
        "before is the better",
        "(worse)",
        "these clips are easier",
    }  # have no set in which they are true
    assert all((share > 0) == (words not in untrue) for words, share in made.items()), made
    assert len(found["mixed"]) == 5
    assert all(entry["sure"] == 0 for entry in found["sure"] if entry["clips"] == 18)
    assert "called mixed" in shown


def test_page(tmp_path):
    shown = run(tmp_path, "page.py", "--starts", 1, "--rounds", 2)
    for name in ("start-up", "answer in the browser", "answer by HTTP", "first answer in the browser"):
        assert re.search(rf"^{name}: median \d+\.\d\d s", shown, re.MULTILINE)


def test_gpu(tmp_path):
    shown = run(tmp_path, "gpu.py", "--dry-run", "--json", "all.json")
    parts = json.loads((tmp_path / "all.json").read_text())["parts"]
    assert parts.keys() == {
        "parity",
        "network",
        "training",
        "gradients",
        "lora",
        "files",
        "command",
        "profile",
    }
    for name, lines in parts.items():
        assert lines, name
        assert not {"failed", "ended"} & {line["what"] for line in lines}, lines
    exact = [line for line in parts["parity"] if line["what"].endswith("fp32")]
    assert [line["right"] for line in exact] == [True, True]
    losses = {line["what"]: line["first loss"] for line in parts["training"]}
    assert losses["fp32, transformers' convolutions"] == pytest.approx(losses["fp32"], abs=1e-3)
    gradients = {line["what"]: line["right"] for line in parts["gradients"]}
    assert gradients["fp32"] is gradients["fp32, transformers' convolutions"] is True
    assert {line["failures"] for line in parts["files"]} == {0}
    for words in ("parity: what plain, fp32", "8 FLAC files, bf16"):
        assert words in shown


def test_a_part_that_fails_or_takes_too_long_costs_the_others_nothing(tmp_path):
    script = (
        "import sys, time; sys.argv = ['gpu.py', '--dry-run', '--only', 'lora', 'files', 'parity', "
        "'--seconds', '20', '--json', 'all.json']; import gpu; "
        "gpu.PARTS['lora'] = lambda bench: 1 / 0; gpu.PARTS['files'] = lambda bench: time.sleep(99); "
        "gpu.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment).returncode == 1
    parts = json.loads((tmp_path / "all.json").read_text())["parts"]
    assert parts["lora"] == [{"what": "failed", "why": "ZeroDivisionError: division by zero"}]
    assert parts["files"] == [{"what": "ended", "why": "it took too long"}]
    assert len(parts["parity"]) == 4


def test_damage(tmp_path):
    shown = run(tmp_path, "damage.py", "--files", 20, "--longest", 3, "--json", "all.json")
    found = json.loads((tmp_path / "all.json").read_text())
    assert len(found) == 20 + len({one["kind"] for one in found})
    assert {one["outcome"] for one in found if not one["damage"]} == {"whole"}
    assert re.search(r"^other lengths +\d+ +\d+ +\d+ +0 ", shown, re.MULTILINE)


def test_families(tmp_path):
    options = ("--toy", "--clips", 1, "--rounds", 1, "--precisions", "fp32", "--json", "all.json")
    shown = run(tmp_path, "families.py", "--families", "spectra-aasist3", "raw-aasist", *options)
    found = json.loads((tmp_path / "all.json").read_text())["families"]
    assert found.keys() == {"spectra-aasist3", "raw-aasist"}
    for ways in found.values():
        assert ways.keys() == {"plain", "fp32"}
        assert ways["plain"]["against_plain"] == {"median": 1, "lowest": 1, "highest": 1}
        assert ways["fp32"]["clips_per_second"] > 0
    for words in ("Spectra-AASIST3", "AASIST on raw waveforms", "rounds: 1"):
        assert words in shown
