"""Weights & Biases gets the figures of a training run, and no failure of it stops the run."""

import pytest
import wandb
from helpers import read_history
from matplotlib.figure import Figure

from antispoofing.training import tracking
from antispoofing.training.history import EpochResult
from antispoofing.training.tracking import Tracker

RESULT = EpochResult(1, 0.7, 0.6, 0.9, 0.85, 0.95, 0.2, 0.1, 5e-5, 3.0)
TESTING = {"metrics": {"auc": 0.8, "eer": 0.25}, "intervals_95": {"auc": [0.7, 0.9], "eer": [0.2, 0.3]}}


def test_an_offline_run_holds_what_was_logged(not_logged_in, tmp_path, logged):
    folder = tmp_path / "two words"
    folder.mkdir()
    with Tracker(folder, {"learning_rate": 5e-5, "detector": {"sha256": "ab"}}, "one") as tracker:
        tracker.log_step(1, 0.9, 5e-5, 3.0)
        tracker.log_step(2, 0.5, 5e-5, 3.0)
        tracker.log_epoch(RESULT, 2, Figure())
        tracker.log_testing({"fine-tuned": TESTING})
    rows, config, summary = read_history(folder)
    assert [row["train/loss"] for row in rows] == [0.9, 0.5]
    assert (
        rows[1].items()
        >= {
            "epoch": 1,
            "train/epoch_loss": 0.7,
            "train/learning_rate": 5e-5,
            "train/gradient_norm": 3.0,
            "validation/loss": 0.6,
            "validation/auc": 0.9,
            "validation/eer": 0.2,
            "_step": 2,
        }.items()
    )
    assert rows[1]["validation/roc._type"] == "image-file"
    (run,) = folder.glob("wandb/offline-run-*")
    assert (run / "files" / rows[1]["validation/roc.path"]).is_file()
    assert config["learning_rate"] == 5e-5
    assert config["detector"] == {"sha256": "ab"}
    assert summary["testing/auc"] == 0.8
    assert summary["testing/eer_95"] == [0.2, 0.3]
    (record,) = logged.records
    assert record.levelname == "INFO"
    assert f"to upload it: wandb sync '{run}'" in record.getMessage()


@pytest.mark.parametrize("off", ["--no-wandb", "WANDB_MODE=disabled"])
def test_nothing_is_logged_when_it_is_off(off, not_logged_in, tmp_path, capsys, logged, monkeypatch):
    if off != "--no-wandb":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(tmp_path, {}, "one", enabled=off != "--no-wandb") as tracker:
        tracker.log_step(1, 0.9, 5e-5, 3.0)
        tracker.log_epoch(RESULT, 1, Figure())
        tracker.log_testing({"fine-tuned": TESTING})
    assert not list(tmp_path.glob("**/*run-*"))
    assert (capsys.readouterr(), logged.messages) == (("", ""), [])


@pytest.mark.parametrize("when", ["init", "log", "finish"])
def test_a_failure_is_reported_once_and_stops_nothing(when, not_logged_in, tmp_path, logged, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no disk\nno more")

    monkeypatch.setattr(wandb if when == "init" else wandb.Run, when, fail)
    with Tracker(tmp_path, {}, "one") as tracker:
        run = wandb.run
        tracker.log_step(1, 0.9, 5e-5, 3.0)
        tracker.log_epoch(RESULT, 1, Figure())
        tracker.log_testing({"fine-tuned": TESTING})
    (record,) = logged.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "wandb failed; training continues without it: RuntimeError: no disk no more"
    )
    monkeypatch.undo()
    if run is not None:
        run.finish()


def test_an_interrupted_run_is_closed(not_logged_in, tmp_path, logged):
    with pytest.raises(KeyboardInterrupt), Tracker(tmp_path, {}, "one") as tracker:
        tracker.log_step(1, 0.9, 5e-5, 3.0)
        raise KeyboardInterrupt
    assert wandb.run is None
    assert "wandb sync" in logged.text
    assert [row["train/loss"] for row in read_history(tmp_path)[0]] == [0.9]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WANDB_MODE": "online"}, ""),  # nobody is logged in, and nobody is asked to
        ({"WANDB_API_KEY": "too short"}, "wandb cannot log online, so the run is kept offline: "),
        (
            {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},  # nobody listens there
            "wandb cannot log online, so the run is kept offline: CommError",
        ),
    ],
)
def test_a_run_that_cannot_be_online_is_kept_offline(
    variables, said, not_logged_in, tmp_path, logged, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 2)
    with Tracker(tmp_path, {}, "one") as tracker:
        tracker.log_step(1, 0.9, 5e-5, 3.0)
    assert [row["train/loss"] for row in read_history(tmp_path)[0]] == [0.9]
    assert logged.messages[0].startswith(said or "wandb kept this run offline")
    assert "wandb sync" in logged.messages[-1]
