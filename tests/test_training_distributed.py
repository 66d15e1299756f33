"""Training in two processes: the steps of one, and no state in which they differ."""

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import (
    ROOT,
    SETTINGS,
    errors_in,
    finish_torchrun,
    start_torchrun,
    torchrun,
    training_results,
    write_splits,
)

from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.training.history import STATE
from antispoofing.training.loop import Hooks, fine_tune
from antispoofing.training.recipe import TrainingConfig
from model import PRESETS, Detector

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
    """The loss, learning rate and gradient's norm of each step, and a digest of the weights after them."""
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


if __name__ == "__main__":  # under torchrun
    from antispoofing import distributed

    with distributed.group():
        data = Path("data")
        found = {}
        for name, config in RECIPES.items():
            found[name], digest = train(config, data, Path("out"))
            assert len(set(distributed.exchange(digest))) == 1
        own_statistics = dataclasses.replace(SAME, freeze_batch_norm=False)
        _, digest = train(own_statistics, data, Path("out"))
        assert len(set(distributed.exchange(digest))) == 1
        print(json.dumps(found))
    distributed.finish(0)


def test_two_processes_take_the_steps_of_one(tmp_path):
    """The same global batches: losses, which may differ by 1e-4, and gradients' norms, to rounding."""
    write_splits(tmp_path / "data")
    code, shown, said = torchrun(tmp_path, 2, __file__, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert code == 0, said
    found = json.loads(shown)
    assert found.keys() == RECIPES.keys()
    for name, config in RECIPES.items():
        alone, _ = train(config, tmp_path / "data", tmp_path / "alone")
        assert len(found[name]) == len(alone) == 2 * -(-16 // config.batch_size)
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(alone), atol=1e-5, rtol=1e-5)


@pytest.fixture
def workplace(tmp_path):
    """The data, and what SETTINGS start from, beside folders to run in."""
    write_splits(tmp_path / "data")
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["small"], clip_samples=8000)
    save_detector(Detector(config), tmp_path / "start.safetensors")
    return tmp_path


def test_told_to_stop_two_processes_go_on_as_if_never_stopped(workplace):
    script = (ROOT / "fine_tune_for.py", *SETTINGS, "--no-wandb")
    for name in ("whole", "stopped"):
        (workplace / name).mkdir()
    code, shown, said = torchrun(workplace / "whole", 2, *script)
    assert (code, errors_in(said)) == (0, [])
    assert "Fine-tuning ../start.safetensors on cpu, in 2 processes: 2 epochs, 8 steps" in shown
    assert shown.count("left out of training: real/1.wav") == 1

    process = start_torchrun(workplace / "stopped", "--standalone", "--nproc-per-node", 2, *script)
    state = workplace / "stopped/results/for" / STATE
    while not state.exists():  # after the first step
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, shown, _ = finish_torchrun(process)
    assert code != 0
    assert "stopped by SIGTERM; the same command goes on after step" in shown
    code, shown, said = torchrun(workplace / "stopped", 2, *script)
    assert (code, errors_in(said)) == (0, [])
    assert "It goes on after step" in shown
    assert training_results(workplace / "stopped") == training_results(workplace / "whole")


def test_a_loss_that_is_no_number_names_the_clips_of_all_processes(workplace):
    whole = Detector(dataclasses.replace(PRESETS["small"], clip_samples=8000))
    whole.back_end.out_layer.bias.data[:] = float("nan")
    save_detector(whole, workplace / "start.safetensors")
    (workplace / "here").mkdir()
    script = (ROOT / "fine_tune_for.py", *SETTINGS, "--no-wandb", "--batch-size", 16)
    code, _, said = torchrun(workplace / "here", 2, *script)
    assert code != 0
    (error,) = errors_in(said)
    assert error.startswith("error: the loss of step 1 of epoch 1 is nan")
    assert all(f"{('fake', 'real')[i % 2]}/{i}.wav" in error for i in range(16) if i != 1)


def test_accelerate_launches_it_too(workplace):
    (workplace / "here").mkdir()
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]  # its word for torchrun
    command = [
        *launch,
        "--num_processes",
        2,
        ROOT / "fine_tune_for.py",
        *SETTINGS,
        "--no-wandb",
        "--epochs",
        1,
    ]
    done = subprocess.run(
        [*map(str, command)], cwd=workplace / "here", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "on cpu, in 2 processes" in done.stdout
