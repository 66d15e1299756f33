"""The command as a user runs it, on a miniature of the Fake-or-Real layout."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import official_shapes
from PIL import Image
from test_tracking import read_history

import fine_tune_for
import plots
from checkpoints import FRONT, sha256_of
from data_sets import find_utterances
from detector import Detector, load_detector, load_front_end
from evaluation import Scored
from model import PRESETS
from recipe import TrainingConfig
from tracking import Tracker
from training_state import EpochResult


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """for-2seconds/ with 12 and 2 x 4 clips, noise and tones, and a detector to start from."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, n in (("training", 12), ("validation", 4), ("testing", 4)):
        for i in range(n):
            label = ("fake", "real")[i % 2]
            folder = Path("for-2seconds", split, label)
            folder.mkdir(parents=True, exist_ok=True)
            wave = 0.05 * rng.standard_normal(8000)
            if label == "fake":
                wave += 0.2 * np.sin(0.3 * np.arange(8000))
            soundfile.write(folder / f"file{i}.wav_16k.wav", wave, 16000)
    torch.manual_seed(0)
    Detector(PRESETS["small"]).save("start.safetensors")
    return tmp_path


def run(*args, wandb=False) -> int:
    options = ["--workers", "0"] + ([] if wandb else ["--no-wandb"])
    return fine_tune_for.main([*map(str, args), *options])


def test_the_whole_run(not_logged_in, workplace, capsys):
    options = ("--checkpoint", "start.safetensors", "--epochs", 2, "--batch-size", 4, "--learning-rate", 1e-3)
    for path in ("training/fake/bad.wav", "testing/real/bad.wav"):
        Path("for-2seconds", path).write_bytes(b"bad")
    assert run(*options, wandb=True) == 0
    shown = capsys.readouterr().out
    assert "training: 6 real, 7 fake\nAs published, training has 6978 of each" in shown
    assert "2 epochs, 8 steps" in shown
    assert "fine-tuned, at threshold" in shown
    assert "That threshold was chosen on the validation split." in shown
    assert "left out of training: fake/bad.wav: libsndfile" in shown
    assert "not scored: real/bad.wav: libsndfile" in shown

    folder = workplace / "results" / "for"
    final = load_detector(folder / "final_model.safetensors", device="cpu")
    epoch = final.provenance["epoch"]
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    kept = history[epoch["epoch"] - 1]
    assert float(kept["validation_eer"]) == epoch["validation_eer"]
    assert float(kept["validation_eer"]) == min(float(row["validation_eer"]) for row in history)
    assert float(kept["learning_rate"]) == 1e-3
    found = json.loads((folder / "testing" / "metrics.json").read_text(encoding="utf-8"))
    assert found["at_threshold"]["threshold"] == epoch["validation_threshold"]
    assert found["counts"]["bonafide_scored"] == found["counts"]["spoof_scored"] == 2
    rows, config, summary = read_history(folder)
    assert [row["_step"] for row in rows] == list(range(1, 9))
    assert config["learning_rate"] == 1e-3
    assert config["data"] == final.provenance["training"]["data"] == "for-2seconds"
    assert summary["testing/eer"] == found["metrics"]["eer"]
    for logged, row in zip((rows[3], rows[7]), history, strict=True):  # each epoch's last step
        for name in ("loss", "auc", "eer"):
            assert logged[f"validation/{name}"] == float(row[f"validation_{name}"])
        assert logged["train/epoch_loss"] == float(row["train_loss"])
    assert found["detector"]["sha256"] == sha256_of(folder / "final_model.safetensors")
    with Image.open(folder / "history.png") as image:
        assert min(image.size) > 400


def test_curves_show_the_history(workplace, capsys):
    assert run("--checkpoint", "start.safetensors", "--epochs", 1) == 0
    results = [
        EpochResult(1, 0.7, 0.8, 0.5, 0.4, 0.9, 0.5, 0.0, 5e-5, 1.0),
        EpochResult(2, 0.4, 0.6, 0.9, 0.4, 0.9, 0.2, 0.0, 5e-5, 1.0),
        EpochResult(3, 0.1, 0.9, 0.8, 0.4, 0.9, 0.3, 0.0, 5e-5, 1.0),
    ]
    losses, eers = plots.plot_history(results).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[0.7, 0.4, 0.1], [0.8, 0.6, 0.9]]
    assert eers.lines[0].get_ydata().tolist() == [50, 20, 30]
    assert eers.lines[1].get_xydata().tolist() == [[2, 20]]


def test_what_is_missing_is_one_line_and_exit_code_2(workplace, capsys):
    Path("for-2seconds").rename("elsewhere")
    for folder in ("half/training/real", "half/validation", "half/testing", "none/training"):
        Path(folder).mkdir(parents=True)
    soundfile.write("half/training/real/a.wav", np.zeros(8000), 16000)
    for args, words in (
        (["--checkpoint", "start.safetensors"], "no data: there is no for-2seconds/ in this folder"),
        (["--data", "elsewhere"], "no checkpoint: none of"),
        (["--data", "half", "--checkpoint", "start.safetensors"], "no recordings in"),
        (
            ["--data", "none", "--checkpoint", "start.safetensors"],
            "none has no training, validation, testing",
        ),
        (["--data", "gone", "--checkpoint", "start.safetensors"], "gone: no such file or folder"),
        (["--data", "elsewhere", "--checkpoint", "gone.pth"], "gone.pth: no such file"),
        (["--data", "elsewhere", "--checkpoint", "start.safetensors", "--device", "cuda:99"], "cuda:99"),
    ):
        assert run(*args) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert words in error


def test_an_earlier_run_is_neither_lost_nor_mixed_in(workplace, capsys):
    assert run("--checkpoint", "start.safetensors", "--epochs", 1) == 0
    folder = workplace / "results" / "for"
    final = (folder / "final_model.safetensors").read_bytes()
    assert run("--checkpoint", folder / "final_model.safetensors", "--epochs", 1) == 2
    assert "would be overwritten by what it becomes" in capsys.readouterr().err
    assert (folder / "final_model.safetensors").read_bytes() == final

    (folder / "final_model.pth").write_bytes(b"of an earlier run")
    progress = fine_tune_for._Progress(
        folder, TrainingConfig(epochs=2), 2, Tracker(folder, {}, "one", enabled=False)
    )
    scored = Scored(find_utterances(["for-2seconds/validation"]).utterances, np.zeros((4, 2)), {})
    progress.on_epoch([EpochResult(1, 0.7, 0.8, 0.5, 0.4, 0.6, 0.5, 0.0, 5e-5, 1.0)], scored)
    assert sorted(p.name for p in folder.iterdir()) == [
        "duplicates.csv",
        "final_model.safetensors",
        "history.csv",
        "history.png",
        "last_model.safetensors",
        "testing",
    ]
    assert list((folder / "testing").iterdir()) == []
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        assert [row["train_loss"] for row in csv.DictReader(file)] == ["0.7"]


def test_a_spectrogram_detector_is_not_exported(workplace, capsys):
    assert run("--checkpoint", "start.safetensors", "--epochs", 1, "--export-official") == 2
    assert "has no XLS-R front end" in capsys.readouterr().err
    assert not Path("results/for/history.csv").exists()  # said before the work, not after


def test_an_xlsr_detector_comes_back_official(workplace, capsys, small_pth, small_config):
    load_detector(small_pth, device="cpu", config=small_config).save("xlsr.safetensors")
    assert run("--checkpoint", "xlsr.safetensors", "--epochs", 1, "--export-official") == 0
    exported = workplace / "results" / "for" / "final_model.pth"
    assert torch.load(exported, weights_only=True).keys() == official_keys_of_two_layers()
    final = load_detector(workplace / "results" / "for" / "final_model.safetensors", device="cpu")
    again = load_detector(exported, device="cpu", config=small_config)
    waves = 0.1 * torch.randn(2, 64600)
    torch.testing.assert_close(again.score(waves), final.score(waves), atol=1e-6, rtol=0)


def test_a_front_end_alone_gets_a_fresh_back_end(
    workplace, capsys, monkeypatch, small_official, small_config
):
    model = {k.removeprefix(FRONT): v for k, v in small_official.items() if k.startswith(FRONT)}
    torch.save({"args": None, "model": model}, "xlsr2_300m.pt")
    # a fairseq file is taken for XLS-R 300M
    monkeypatch.setattr(fine_tune_for, "load_front_end", partial(load_front_end, config=small_config))
    assert run("--checkpoint", "xlsr2_300m.pt", "--epochs", 1, "--seed", 3, "--export-official") == 0
    shown = capsys.readouterr().out
    assert "xlsr2_300m.pt is a front end alone. The back end is fresh: random weights, seed 3" in shown
    assert shown.index("fresh") < shown.index("Fine-tuning")
    assert torch.load("results/for/final_model.pth", weights_only=True).keys() == small_official.keys()
    final = load_detector("results/for/final_model.safetensors", device="cpu")
    assert final.provenance["started_from"] == {
        "file": "xlsr2_300m.pt",
        "sha256": sha256_of("xlsr2_300m.pt"),
        "provenance": {
            "front_end_file": "xlsr2_300m.pt",
            "front_end_sha256": sha256_of("xlsr2_300m.pt"),
            "back_end": "fresh, seed 3",
        },
    }


def official_keys_of_two_layers() -> set[str]:
    layers = tuple(f"ssl_model.model.encoder.layers.{i}." for i in range(2, 24))
    return {key for key in official_shapes() if not key.startswith(layers)}
