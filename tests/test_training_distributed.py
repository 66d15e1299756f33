"""Training in two processes takes the same steps as in one, and the processes stay identical."""

import dataclasses
import hashlib
import json
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import SETTINGS, fresh_detector, training_results, write_training_data
from processes import run_group, start_group

import fine_tune_for
from antispoofing import distributed
from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.training.history import STATE
from antispoofing.training.loop import Hooks, fine_tune
from antispoofing.training.recipe import TrainingConfig

# 15 clips that can be read, and one that cannot
SAME = TrainingConfig(epochs=2, learning_rate=1e-5, batch_size=6, freeze_batch_norm=True)
RECIPES = {
    "plain": SAME,
    "last batch of one clip": dataclasses.replace(SAME, batch_size=5),
    "in parts, some of them empty": dataclasses.replace(SAME, batch_size=5, accumulate=2),
    "weighted": dataclasses.replace(SAME, class_weights=(0.1, 0.9), clip_norm=0.1, optimizer="adamw"),
    "scheduled": dataclasses.replace(SAME, warmup=3, schedule="cosine", weight_decay=0.1),
    "balanced": dataclasses.replace(SAME, sampling="balanced", crop="random"),
    "a process without clips": dataclasses.replace(SAME, batch_size=2),
}


def train(config: TrainingConfig, data: Path, output: Path) -> tuple[list[list[float]], str]:
    """Return the number, loss, learning rate and gradient norm of each step, and a digest of the weights."""
    detector = load_detector(STAND_IN, device="cpu")
    detector.config = dataclasses.replace(detector.config, clip_samples=8000)
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    output.mkdir(exist_ok=True)
    steps = []
    hooks = Hooks(on_step=lambda number, *figures: steps.append([number, *figures]))
    training, validation = (find_recordings([data / name]).utterances for name in ("training", "validation"))
    fine_tune(detector, training, validation, config, output, hooks=hooks)
    weights = b"".join(value.numpy().tobytes() for value in detector.state_dict().values())
    return steps, hashlib.sha256(weights).hexdigest()


def train_all(_: list[str]) -> int:
    """Train by each recipe in a process of a group; check that the weights agree, and print the steps."""
    found = {}
    with distributed.group():
        for name, config in RECIPES.items():
            found[name], digest = train(config, Path("data"), Path("out"))
            assert len(set(distributed.all_gather(digest))) == 1
        own_statistics = dataclasses.replace(SAME, freeze_batch_norm=False)
        _, digest = train(own_statistics, Path("data"), Path("out"))
        assert len(set(distributed.all_gather(digest))) == 1
        print(json.dumps(found))
    distributed.finish(0)


def test_two_processes_take_the_steps_of_one(tmp_path):
    """From the same global batches come the same losses and gradient norms, to rounding."""
    write_training_data(tmp_path / "data")
    main, other = run_group(2, train_all, folder=tmp_path)
    assert (main.code, other) == (0, (0, "", "")), main.stderr
    found = json.loads(main.stdout)
    assert found.keys() == RECIPES.keys()
    for name, config in RECIPES.items():
        alone, _ = train(config, tmp_path / "data", tmp_path / "alone")
        assert len(found[name]) == len(alone) == 2 * -(-16 // config.batch_size)
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(alone), atol=1e-5, rtol=1e-5)


@pytest.fixture
def workplace(tmp_path):
    """A folder with the data and the detector of SETTINGS, in which other folders can be made."""
    write_training_data(tmp_path / "data")
    save_detector(fresh_detector(), tmp_path / "start.safetensors")
    return tmp_path


def test_two_processes_resume_as_if_never_stopped(workplace):
    options = (*SETTINGS, "--no-wandb")
    main, other = run_group(2, fine_tune_for.main, *options, folder=workplace / "whole")
    assert other == (main.code, "", main.stderr) == (0, "", "")
    assert "Fine-tuning ../start.safetensors on cpu, in 2 processes: 2 epochs, 8 steps" in main.stdout
    assert main.stdout.count("left out of training: real/1.wav") == 1

    here = workplace / "stopped"
    here.mkdir()
    group = start_group(2, fine_tune_for.main, *options, folders=[here])
    while not (here / "results/for" / STATE).exists():  # after the first step
        time.sleep(0.005)
    for process in group:
        process.send(signal.SIGTERM)
    main, other = (process.end() for process in group)
    assert main.code == other.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; run the same command to resume after step" in main.stdout
    main, other = run_group(2, fine_tune_for.main, *options, folder=here)
    assert other == (main.code, "", main.stderr) == (0, "", "")
    assert "Resuming after step" in main.stdout
    assert training_results(here) == training_results(workplace / "whole")


def test_a_loss_that_is_not_a_number_names_the_clips_of_all_processes(workplace):
    detector = fresh_detector()
    detector.back_end.out_layer.weight.data[:] = 3e38  # whose products are too large for a float32
    save_detector(detector, workplace / "start.safetensors")
    options = (*SETTINGS, "--no-wandb", "--batch-size", 16)
    main, other = run_group(2, fine_tune_for.main, *options, folder=workplace / "here")
    assert main.code == other.code == 2
    assert other.stderr == ""
    (error,) = main.stderr.splitlines()
    assert re.match(r"error: the loss of step 1 of epoch 1 is (nan|inf)", error)
    assert all(f"{('fake', 'real')[i % 2]}/{i}.wav" in error for i in range(16) if i != 1)
