"""`fine_tune_for.py` as a user runs it, on a miniature of the Fake-or-Real layout."""

import csv
import dataclasses
import json
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import PRESETS, read_history
from PIL import Image
from weights import official_shapes

import fine_tune_for
from antispoofing.commands import fine_tuning, tasks
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors import loading
from antispoofing.detectors.checkpoints import FRONT
from antispoofing.detectors.loading import load_detector, load_front_end, save_detector
from antispoofing.files import file_sha256
from antispoofing.report import plots
from antispoofing.scoring.scored import Scored
from antispoofing.training.augment import KINDS
from antispoofing.training.history import STATE, EpochResult
from antispoofing.training.stopping import Stopped
from antispoofing.training.tracking import Tracker
from model import Detector


def run(*args, wandb=False) -> int:
    options = ["--workers", "0"] + ([] if wandb else ["--no-wandb"])
    return fine_tune_for.main([*map(str, args), *options])


def test_the_whole_run(not_logged_in, workplace, capsys):
    options = ("--checkpoint", "start.safetensors", "--epochs", 2, "--batch-size", 4, "--learning-rate", 1e-3)
    for path in ("training/fake/bad.wav", "testing/real/bad.wav"):
        Path("for-2seconds", path).write_bytes(b"bad")
    assert run(*options, wandb=True) == 0
    shown = capsys.readouterr().out
    assert "training: 6 real, 7 fake\nThe published training split has 6978 of each" in shown
    assert "2 epochs, 8 steps" in shown
    assert "fine-tuned, at threshold" in shown
    assert "The threshold of the confusion table was chosen on the validation split." in shown
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
    assert found["detector"]["sha256"] == file_sha256(folder / "final_model.safetensors")
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
            "none has neither the folders training, validation, testing",
        ),
        (["--data", "gone", "--checkpoint", "start.safetensors"], "gone: no such file or folder"),
        (["--data", "elsewhere", "--checkpoint", "gone.pth"], "gone.pth: no such file"),
        (
            ["--data", "elsewhere", "--checkpoint", "start.safetensors", "--device", "cuda:99"],
            "choose another one, or auto",
        ),
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
    assert "would be overwritten by the fine-tuned one" in capsys.readouterr().err
    assert (folder / "final_model.safetensors").read_bytes() == final

    (folder / "final_model.pth").write_bytes(b"of an earlier run")
    (folder / "testing" / "another set").mkdir()
    (folder / "testing" / "another set" / "metrics.json").write_bytes(b"of an earlier run")
    progress = fine_tuning.Progress(folder, 2, 1, 0, Tracker(folder, {}, "one", enabled=False))
    scored = Scored(find_recordings(["for-2seconds/validation"]).utterances, np.zeros((4, 2)), {})
    progress.on_epoch([EpochResult(1, 0.7, 0.8, 0.5, 0.4, 0.6, 0.5, 0.0, 5e-5, 1.0)], scored)
    assert sorted(p.name for p in folder.iterdir()) == [
        "duplicates.csv",
        "final_model.safetensors",
        "history.csv",
        "history.png",
        "last_model.safetensors",
        "testing",
    ]
    assert not [path for path in (folder / "testing").rglob("*") if path.is_file()]
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        assert [row["train_loss"] for row in csv.DictReader(file)] == ["0.7"]


def test_a_spectrogram_detector_is_not_exported(workplace, capsys):
    assert run("--checkpoint", "start.safetensors", "--epochs", 1, "--export-official") == 2
    assert "is not XLS-R + AASIST" in capsys.readouterr().err
    assert not Path("results/for/history.csv").exists()  # refused before the work, not after it


def test_an_xlsr_detector_comes_back_official(workplace, capsys, small_pth, small_config):
    save_detector(load_detector(small_pth, device="cpu", config=small_config), "xlsr.safetensors")
    assert run("--checkpoint", "xlsr.safetensors", "--epochs", 1, "--export-official") == 0
    exported = workplace / "results" / "for" / "final_model.pth"
    assert torch.load(exported, weights_only=True).keys() == official_keys_of_two_layers()
    final = load_detector(workplace / "results" / "for" / "final_model.safetensors", device="cpu")
    again = load_detector(exported, device="cpu", config=small_config)
    waves = 0.1 * torch.randn(2, 64600)
    torch.testing.assert_close(again.score(waves), final.score(waves), atol=1e-6, rtol=0)


def test_a_front_end_alone_gets_a_new_back_end(workplace, capsys, monkeypatch, small_official, small_config):
    model = {k.removeprefix(FRONT): v for k, v in small_official.items() if k.startswith(FRONT)}
    torch.save({"args": None, "model": model}, "xlsr2_300m.pt")
    # without a configuration, a fairseq file is taken for XLS-R 300M
    monkeypatch.setattr(loading, "load_front_end", partial(load_front_end, config=small_config))
    assert run("--checkpoint", "xlsr2_300m.pt", "--epochs", 1, "--seed", 3, "--export-official") == 0
    shown = capsys.readouterr().out
    assert "xlsr2_300m.pt is a front end alone. It gets a new back end with random weights (seed 3)" in shown
    assert shown.index("new back end") < shown.index("Fine-tuning")
    assert torch.load("results/for/final_model.pth", weights_only=True).keys() == small_official.keys()
    final = load_detector("results/for/final_model.safetensors", device="cpu")
    assert final.provenance["started_from"] == {
        "file": "xlsr2_300m.pt",
        "sha256": file_sha256("xlsr2_300m.pt"),
        "provenance": {
            "front_end_file": "xlsr2_300m.pt",
            "front_end_sha256": file_sha256("xlsr2_300m.pt"),
            "back_end": "fresh, seed 3",
        },
    }


OPTIONS = (
    {
        "--optimizer adamw --weight-decay 0.5": {"optimizer": "adamw", "weight_decay": 0.5},
        "--warmup 2": {"warmup": 2},
        "--schedule cosine": {"schedule": "cosine"},
        "--clip-norm 0.001": {"clip_norm": 0.001},
        "--accumulate 2": {"accumulate": 2},
        "--class-weights 0.1 0.9": {"class_weights": [0.1, 0.9]},
        "--freeze-frontend": {"freeze_front_end": True},
        "--freeze-batchnorm": {"freeze_batch_norm": True},
        "--precision bf16": {},
        "--sampling balanced": {"sampling": "balanced"},
        "--crop random": {"crop": "random"},
        "--seed 1": {"seed": 1},
    }
    | {
        f"--rawboost {k}": {"augmentation": {"rawboost": k, "kinds": [], "probability": 0.5}}
        for k in range(1, 9)
    }
    | {
        f"--augment {kind}": {"augmentation": {"rawboost": 0, "kinds": [kind], "probability": 0.5}}
        for kind in KINDS
    }
)
PLAIN = ("--epochs", 1, "--batch-size", 4, "--learning-rate", 1e-3, "--no-audit")


@pytest.mark.slow
def test_every_option_is_recorded_and_changes_the_training(workplace, no_pictures):
    """Run the command with each of them, on a small network."""
    torch.manual_seed(0)
    save_detector(Detector(dataclasses.replace(PRESETS["small"], clip_samples=8000)), "start.safetensors")
    for path in Path("for-2seconds/training").rglob("*.wav"):  # long enough for a crop
        wave, rate = soundfile.read(path)
        soundfile.write(path, np.tile(wave, 10), rate)
    digests = {}
    for options, expected in {"": {}, **OPTIONS}.items():
        assert run("--checkpoint", "start.safetensors", *PLAIN, *options.split()) == 0
        final = load_detector("results/for/final_model.safetensors", device="cpu")
        settings = final.provenance["training"]
        assert {name: settings[name] for name in expected} == expected, options
        digests[options] = file_sha256("results/for/final_model.safetensors")
        settings.pop("augmentation")
        if options == "":
            default = settings
        assert {name for name in settings if settings[name] != default[name]} == expected.keys() - {
            "augmentation"
        }
    assert len(set(digests.values())) == len(digests)


def test_options_of_an_xlsr_front_end(workplace, small_pth, small_config):
    save_detector(load_detector(small_pth, device="cpu", config=small_config), "xlsr.safetensors")
    digests = {}
    for options in ("", "--gradient-checkpointing", "--lora 4", "--lora 4 --gradient-checkpointing"):
        assert run("--checkpoint", "xlsr.safetensors", *PLAIN, *options.split()) == 0
        final = load_detector("results/for/final_model.safetensors", device="cpu")
        assert final.provenance["training"]["lora"] == (4 if "lora" in options else None)
        weights = final.state_dict()
        digests[options] = {name: value.numpy().tobytes() for name, value in weights.items()}
    assert digests[""] == digests["--gradient-checkpointing"] != digests["--lora 4"]
    assert digests["--lora 4"] == digests["--lora 4 --gradient-checkpointing"]


def test_it_ends_early_when_nothing_gets_better(workplace, capsys):
    options = ("--checkpoint", "start.safetensors", *PLAIN, "--epochs", 50, "--patience", 2)
    assert run(*options) == 0
    with open("results/for/history.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best = load_detector("results/for/final_model.safetensors", device="cpu").provenance["epoch"]["epoch"]
    assert len(rows) == best + 2 < 50
    assert "Ended early: 2 epochs in a row brought no improvement" in capsys.readouterr().out


def test_data_without_a_testing_split(workplace, capsys):
    rows = [("path", "speaker", "label")]
    for path in sorted(Path("for-2seconds/training").rglob("*.wav")):
        rows.append((str(path), f"s{int(path.stem) // 4}", path.parent.name))
    Path("list.csv").write_text("\n".join(map(",".join, rows)))
    options = ("--data", "list.csv", "--checkpoint", "start.safetensors", "--epochs", 1)
    assert run(*options) == 2
    assert "--validation-split" in capsys.readouterr().err
    assert run(*options, "--validation-split", "speaker", "--validation-fraction", 0.3) == 0
    shown = capsys.readouterr().out
    assert "training: 4 real, 4 fake\nvalidation: 2 real, 2 fake" in shown
    assert "There is no test split" in shown
    assert "Detector, history and curves are in results/for\n" in shown
    assert not Path("results/for/testing").exists()


def test_several_data_sets_are_tested_each_by_itself(workplace, capsys):
    shutil.copytree("for-2seconds", "other")
    options = (
        "--data",
        "for-2seconds",
        "other",
        "--sampling",
        "balanced",
        "--checkpoint",
        "start.safetensors",
    )
    assert run(*options, "--epochs", 1) == 0
    shown = capsys.readouterr().out
    assert "AUDIT: 40 of 40 recordings" in shown
    assert "20 in two splits" not in shown
    for name in ("for-2seconds", "other"):
        found = json.loads(Path("results/for/testing", name, "metrics.json").read_text(encoding="utf-8"))
        assert found["counts"]["scored"] == 4
        assert found["detector"]["name"] == "fine-tuned"
        assert f'\nTest split of {name}:\nScoring with detector "fine-tuned" on cpu' in shown
        assert f"\nfine-tuned, {name}  " in shown
        assert f"{name}, at threshold" in shown


def test_a_speaker_in_two_splits_is_reported(workplace, capsys):
    rows = ["path,speaker,label"]
    for i in range(8):
        path = Path("for-2seconds/training", ("fake", "real")[i % 2], f"{i}.wav")
        rows.append(f"{path},ann,{path.parent.name}")
    Path("list.csv").write_text("\n".join(rows))
    options = ("--data", "list.csv", "--validation-split", "recording", "--checkpoint", "start.safetensors")
    assert run(*options, "--epochs", 1) == 0
    assert "AUDIT: list.csv: training and validation have 1 speaker in common" in capsys.readouterr().out


def test_an_unfinished_run_with_other_settings_is_not_lost(workplace, capsys, monkeypatch):
    def fail(*args):
        raise OSError("no power")

    monkeypatch.setattr(fine_tuning, "score_test_splits", fail)
    options = ("--checkpoint", "start.safetensors", *PLAIN)
    assert run(*options, "--resume") == 2
    assert "--resume: there is no unfinished training run in results/for" in capsys.readouterr().err
    assert run(*options) == 2
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    state = Path("results/for", STATE).read_bytes()
    capsys.readouterr()
    assert run(*options, "--learning-rate", 2e-3) == 2
    error = capsys.readouterr().err
    assert "with learning_rate 0.001, not 0.002; --restart discards it" in error
    assert Path("results/for", STATE).read_bytes() == state
    elsewhere = Path("for-2seconds").resolve()  # the same data under another name
    assert run(*options, "--data", elsewhere, "--resume") == 0  # only the test is left to do
    assert "Resuming after epoch 1." in capsys.readouterr().out
    assert not Path("results/for", STATE).exists()
    Path("results/for", STATE).write_bytes(state)
    assert run(*options, "--learning-rate", 2e-3, "--restart") == 0
    shown = capsys.readouterr().out
    assert "Resuming" not in shown
    assert "results/for/final_model.safetensors is from an earlier run" in shown
    for left, words in (
        (state, "its final_model.safetensors is missing or another run's"),
        (state[:1000], f"results/for/{STATE}: damaged"),
    ):
        Path("results/for", STATE).write_bytes(left)
        assert run(*options) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: results/for")
        assert words in error
        assert "; --restart discards it" in error


def test_a_restart_that_fails_at_once_does_not_bring_the_discarded_run_back(workplace, capsys, monkeypatch):
    def fail(*args):
        raise OSError("no power")

    options = ("--checkpoint", "start.safetensors", *PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "score_test_splits", fail)
        assert run(*options) == 2
    assert Path("results/for", STATE).exists()
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "announce", fail)
        assert run(*options, "--restart") == 2
    assert run(*options, "--resume") == 2
    assert "--resume: there is no unfinished training run" in capsys.readouterr().err


def test_a_command_that_restarts_is_not_the_one_to_resume_with():
    stopped = Stopped(signal.SIGTERM)
    stopped.saved = (2, 0)
    assert fine_tuning.describe_stop(stopped, restarted=False) == (
        "stopped by SIGTERM; run the same command to resume after epoch 1"
    )
    assert fine_tuning.describe_stop(stopped, restarted=True) == (
        "stopped by SIGTERM; run the same command without --restart to resume after epoch 1"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "1 minute"),
        (100, "2 minutes"),
        (7100, "118 minutes"),
        (7200, "2 hours"),
        (9000, "2.5 hours"),
        (40 * 3600, "40 hours"),
        (432000, "5 days"),
        (15 * 86400, "15 days"),
        (150 * 86400, "150 days"),
    ],
)
def test_the_remaining_time_has_a_sensible_unit(seconds, words):
    assert fine_tuning.duration(seconds) == words


def test_downloaded_data_are_found_without_naming_them(workplace, capsys):
    Path("data").mkdir()
    Path("for-2seconds").rename("data/for-2seconds")
    Path("data").rename(tasks.DOWNLOADED)
    assert run("--checkpoint", "start.safetensors", *PLAIN) == 0
    assert "training: 6 real, 6 fake" in capsys.readouterr().out
    shutil.copytree(tasks.DOWNLOADED / "for-2seconds", "for-2seconds")
    Path("for-2seconds/training/real/1.wav").unlink()
    assert run("--checkpoint", "start.safetensors", *PLAIN) == 0
    assert "training: 5 real, 6 fake" in capsys.readouterr().out  # the usual name comes first


def test_an_output_that_cannot_be_written_is_named(workplace, capsys):
    Path("file").touch()
    assert run("--checkpoint", "start.safetensors", "--output", "file") == 2
    assert capsys.readouterr().err == "error: --output file: File exists\n"


def test_options_that_would_do_nothing_are_refused(workplace, capsys):
    assert run("--checkpoint", "start.safetensors", "--epochs", 2, "--warmup", 2) == 2
    assert capsys.readouterr().err == "error: --warmup 2: it must be less than the number of steps, 2\n"
    with pytest.raises(SystemExit):
        run("--checkpoint", "start.safetensors", "--validation-fraction", 0.3)
    assert "--validation-fraction needs --validation-split" in capsys.readouterr().err


@pytest.mark.parametrize("fraction", ["0", "0.51", "1", "nan", "x"])
def test_more_than_half_or_nothing_is_not_held_out(fraction, workplace, capsys):
    with pytest.raises(SystemExit):
        run("--data", "list.csv", "--validation-split", "speaker", "--validation-fraction", fraction)
    assert "argument --validation-fraction: " in capsys.readouterr().err


def official_keys_of_two_layers() -> set[str]:
    layers = tuple(f"ssl_model.model.encoder.layers.{i}." for i in range(2, 24))
    return {key for key in official_shapes() if not key.startswith(layers)}
