"""`evaluate_custom_for.py` as a user runs it: before and after fine-tuning, on the same recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import PRESETS, fine_tuned_from
from PIL import Image

import evaluate_custom_for
from antispoofing.commands import tasks
from antispoofing.detectors import provenance
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.files import file_sha256
from antispoofing.metrics import compute_metrics
from antispoofing.report import plots
from antispoofing.scoring.score import score_recordings
from model import Detector


def write_clips(folder: Path, n=6) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        for label, rate in (("Real", 16000), ("Fake", 8000)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            wave = 0.1 * rng.standard_normal(8000) * np.hanning(8000) ** i
            soundfile.write(folder / label / f"{i}.wav", wave, rate)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_detector(Detector(PRESETS["small"]), "start.safetensors")
    fine_tuned_from(Path("start.safetensors"), tasks.FINE_TUNED)
    write_clips(tasks.CUSTOM)
    return tmp_path


def run(*args) -> int:
    return evaluate_custom_for.main([*map(str, args), "--workers", "0"])


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_before_and_after_side_by_side(workplace, capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    folder = workplace / "results" / "custom_for"
    paired = read(folder / "comparison.json")
    found = tasks.find([tasks.CUSTOM])
    for name, path, when in (
        ("before", Path("start.safetensors"), "before"),
        ("fine-tuned", tasks.FINE_TUNED, "after"),
    ):
        content = read(folder / name / "metrics.json")
        assert content["detector"]["sha256"] == file_sha256(path)
        scored = score_recordings(load_detector(path, device="cpu"), found.utterances)
        values = compute_metrics(scored.scores_with_label("bonafide"), scored.scores_with_label("spoof"))
        for metric in ("auc", "eer"):
            assert content["metrics"][metric] == pytest.approx(values[metric])
            assert paired[metric][when] == pytest.approx(values[metric])
        assert ("at_threshold" in content) == (name == "fine-tuned")
        assert f"\n{name}  " in shown
    for metric in ("auc", "eer"):
        low, high = paired[metric]["interval"]
        assert low <= paired[metric]["difference"] <= high
    analysis = (folder / "analysis.md").read_text(encoding="utf-8")
    for words in (
        "## What fine-tuning changed",
        "**Does it carry over?**",
        "| sample rate |",
        "## fine-tuned",
    ):
        assert words in shown
        assert words in analysis
    assert "validation split of the fine-tuning data" in shown
    with Image.open(folder / "change.png") as image:
        assert min(image.size) > 400
    before, after = (
        score_recordings(load_detector(path, device="cpu"), found.utterances)
        for path in ("start.safetensors", tasks.FINE_TUNED)
    )
    drawn = plots.plot_change(before, after).axes[0].collections[1].get_offsets()  # real clips
    assert np.asarray(drawn).tolist() == np.stack([before.scores, after.scores], axis=1)[6:].tolist()


def test_before_may_have_moved_but_not_changed(workplace, capsys):
    Path("start.safetensors").rename("moved.safetensors")
    assert run() == 2
    error = capsys.readouterr().err
    assert "is not here: start.safetensors, sha256 " in error
    assert error.count("\n") == 1
    assert run("--before", "moved.safetensors") == 0
    assert run("--before", tasks.FINE_TUNED) == 2
    error = capsys.readouterr().err
    assert "is not the detector that" in error
    assert "name that one with --before" in error


def test_a_detector_of_unknown_name_is_asked_for_by_its_sha256(workplace, capsys):
    fine_tuned_from(Path("start.safetensors"), tasks.FINE_TUNED, file=None)
    assert run() == 2
    sha256 = file_sha256("start.safetensors")
    assert f"is not here: a file with the sha256 {sha256}. Name it with --before" in capsys.readouterr().err
    assert run("--before", "start.safetensors") == 0


def test_from_random_weights_there_is_no_before(workplace, capsys):
    fine_tuned_from(Path("start.safetensors"), tasks.FINE_TUNED, file=None, sha256=None)
    assert run() == 0
    shown = capsys.readouterr().out
    assert "started from random weights, so there is no detector to compare with" in shown
    assert "What fine-tuning changed" not in shown
    assert run("--before", "start.safetensors") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --before start.safetensors: ")
    assert "None" not in error


def test_from_a_front_end_alone_there_is_no_before(workplace, capsys):
    fine_tuned_from(
        Path("start.safetensors"),
        tasks.FINE_TUNED,
        provenance={"front_end_sha256": "ab"},
        file="xlsr2_300m.pt",
    )
    assert run() == 0
    shown = capsys.readouterr().out
    assert "there is no detector to compare with" in shown
    assert "What fine-tuning changed" not in shown
    assert "## fine-tuned" in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            [],
            "there is no results/for/final_model.safetensors. Run python fine_tune_for.py first",
        ),
        (["--checkpoint", "gone.safetensors"], "gone.safetensors: no such file"),
        (["--checkpoint", "start.safetensors"], "was not written by fine_tune_for.py"),
        (["--checkpoint", "tuned.safetensors"], "no data: there is no Dataset_Speech_Assignment/"),
        (["--checkpoint", "tuned.safetensors", "--data", "unlabelled"], "the recordings must have labels"),
        (["--checkpoint", "tuned.safetensors", "--data", "one"], "the recordings must have labels"),
        (["--checkpoint", "tuned.safetensors", "--data", "gone"], "gone: no such file or folder"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_2(args, words, workplace, capsys):
    tasks.FINE_TUNED.rename("tuned.safetensors")
    tasks.CUSTOM.rename("custom")
    Path("unlabelled").mkdir()
    Path("custom/Real/0.wav").rename("unlabelled/a.wav")
    Path("one").mkdir()
    Path("custom/Real").rename("one/Real")
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert "any recordings" not in error  # which would be refused
    assert "without labels" not in error


def test_the_samples_are_for_a_demonstration_only(workplace, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_custom_for, "CUSTOM_SAMPLES", workplace / "samples" / "custom")
    start = load_detector("start.safetensors", device="cpu")
    start.provenance = {"stand_in": "yes"}
    save_detector(start, "start.safetensors")
    fine_tuned_from(Path("start.safetensors"), tasks.FINE_TUNED)
    for args in ([], ["--data", tasks.CUSTOM]):  # it must be named to be used on real data
        assert run(*args) == 2
        assert "was fine-tuned from the stand-in detector" in capsys.readouterr().err
    assert run("--checkpoint", tasks.FINE_TUNED) == 0
    tasks.CUSTOM.rename("other")
    write_clips(workplace / "samples" / "custom", n=3)
    capsys.readouterr()
    assert run() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("results/for/final_model.safetensors comes from the stand-in")
    assert "demonstration" in shown.splitlines()[0]
    assert "6 recordings: 3 real, 3 fake" in shown

    Path("again").mkdir()
    fine_tuned_from(tasks.FINE_TUNED, Path("again/final.safetensors"))
    assert provenance.comes_from_stand_in(load_detector("again/final.safetensors", device="cpu").provenance)
    Path("LA_model.pth").write_bytes(b"a published detector")
    assert run() == 2
    assert "was fine-tuned from the stand-in detector" in capsys.readouterr().err


def test_results_of_an_earlier_run_do_not_stay(workplace, capsys):
    assert run() == 0
    folder = workplace / "results" / "custom_for"
    assert (folder / "before" / "scores.csv").exists()
    fine_tuned_from(Path("start.safetensors"), tasks.FINE_TUNED, provenance={"front_end_sha256": "ab"})
    assert run() == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "analysis.md",
        "before",
        "duplicates.csv",
        "fine-tuned",
    ]
    assert list((folder / "before").iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.pop("started_from"),
        lambda p: p.update(started_from=None),
        lambda p: p.update(epoch=3),
        lambda p: p["started_from"].pop("sha256"),
        lambda p: p["started_from"].update(file=3),
        lambda p: p["started_from"].update(provenance=None),
        lambda p: p["epoch"].pop("validation_threshold"),
        lambda p: p["epoch"].update(validation_threshold="0"),
        lambda p: p["epoch"].update(validation_threshold=[0.5]),
        lambda p: p["epoch"].pop("validation_auc"),
    ],
)
def test_a_file_without_its_provenance_is_refused(damage, workplace, capsys):
    detector = load_detector(tasks.FINE_TUNED, device="cpu")
    damage(detector.provenance)
    save_detector(detector, tasks.FINE_TUNED)
    assert run() == 2
    error = capsys.readouterr().err
    assert "was not written by fine_tune_for.py" in error
    assert error.count("\n") == 1
