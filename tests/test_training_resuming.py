"""A training that is killed, told to stop, or out of room goes on as if nothing had happened."""

import dataclasses
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import EPOCHS, SETTINGS, STEPS, read_records, training_results, write_splits

from antispoofing.detectors.loading import save_detector
from antispoofing.training.history import STATE
from model import PRESETS, Detector

ROOT = Path(__file__).parents[1]
SECONDS = 240  # many times what any of these needs

# fine_tune_for.py, but killed in the midst of the n-th time that it writes tensors
KILLED_WRITING = """
import os, signal, sys
import safetensors.torch
import fine_tune_for

write, left = safetensors.torch.save_file, int(os.environ["LEFT"])

def half(tensors, path, metadata):
    global left
    left -= 1
    write(tensors, path, metadata)
    if left == 0:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

safetensors.torch.save_file = half
sys.exit(fine_tune_for.main())
"""

# fine_tune_for.py, but after the n-th step no file can be written that is larger than a few bytes
NO_ROOM = """
import os, resource, sys
import fine_tune_for
from antispoofing.training.step import Optimization

step, left = Optimization.step, int(os.environ["LEFT"])

def limited(*args):
    global left
    left -= 1
    if left == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return step(*args)

Optimization.step = limited
sys.exit(fine_tune_for.main())
"""


class Run:
    """fine_tune_for.py, or what stands in for it, in a folder of its own; it has begun to train."""

    def __init__(self, folder: Path, *args, script: str = "", wandb: bool = False, **variables):
        folder.mkdir(exist_ok=True)
        if script:
            (folder / "script.py").write_text(script)
        command = ["script.py" if script else ROOT / "fine_tune_for.py", *SETTINGS, *args]
        self.files = [folder / "stdout.txt", folder / "stderr.txt"]
        with open(self.files[0], "w") as shown, open(self.files[1], "w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *map(str, command), *([] if wandb else ["--no-wandb"])],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
                stdout=shown,
                stderr=said,
                start_new_session=True,
            )
        self.wait_for("Fine-tuning")

    def wait_for(self, words: str) -> None:
        until = time.monotonic() + SECONDS
        while words not in self.files[0].read_text():
            assert self.process.poll() is None, self.files[1].read_text()
            assert time.monotonic() < until
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        """Its exit code, stdout and stderr."""
        code = self.process.wait(SECONDS)
        return code, *(file.read_text() for file in self.files)


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """A folder with the data and what to start from; the results, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("resuming")
    write_splits(folder / "data")
    torch.manual_seed(0)
    save_detector(
        Detector(dataclasses.replace(PRESETS["small"], clip_samples=8000)), folder / "start.safetensors"
    )
    run = Run(folder / "whole")
    started = time.perf_counter()
    code, shown, said = run.end()
    assert code == 0, said
    assert "It goes on" not in shown
    found = training_results(folder / "whole")
    assert len(found["history"]) == EPOCHS
    assert STATE not in found["files"]
    return folder, found, time.perf_counter() - started


def test_killed_at_random_moments(never_killed, request):
    """By SIGKILL, between the beginning of the training and the end of the tests."""
    folder, expected, seconds = never_killed
    moments = random.Random()
    for _ in range(request.config.getoption("--kills")):
        run = Run(folder / "killed")
        time.sleep(moments.uniform(0, seconds))
        run.process.kill()
        run.end()
    code, _, said = Run(folder / "killed").end()
    assert code == 0, said
    assert training_results(folder / "killed") == expected


def test_killed_while_it_writes(never_killed):
    """After each step the state is written, after each epoch the weights too."""
    folder, expected, _ = never_killed
    for left in (1, 3, 3, 1):  # of what is written since the last kill
        code, _, said = Run(folder / "writing", script=KILLED_WRITING, LEFT=str(left)).end()
        assert code == -signal.SIGKILL, said
    code, shown, said = Run(folder / "writing").end()
    assert code == 0, said
    assert "It goes on after step" in shown
    assert training_results(folder / "writing") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_saves(number, never_killed):
    folder, expected, _ = never_killed
    here = folder / number.name
    run = Run(here, "--save-every", 1000)
    run.wait_for("left out of training")
    os.killpg(run.process.pid, number)  # what decodes has it too, as from a terminal or a batch system
    code, shown, said = run.end()
    assert code == 128 + number, said
    assert f"stopped by {number.name}; the same command goes on after step" in shown
    assert said == "stopping after this step\n"
    code, shown, said = Run(here, "--save-every", 1000).end()
    assert code == 0, said
    assert "It goes on after step" in shown
    assert training_results(here) == expected


def test_weights_and_biases_goes_on_in_the_same_run(never_killed):
    folder, _, _ = never_killed
    here = folder / "tracked"
    for _ in range(2):
        run = Run(here, wandb=True, WANDB_MODE="offline")
        run.wait_for("left out of training")
        run.process.kill()
        run.end()
    code, shown, said = Run(here, wandb=True, WANDB_MODE="offline").end()
    assert code == 0, said
    logs = sorted(here.glob("results/for/wandb/offline-run-*/run-*.wandb"))
    named = {path.stem for path in logs}
    assert len(named) == 1 < len(logs)
    assert all(shlex.quote(str(path.parent.relative_to(here))) in shown for path in logs)
    steps = {}
    for record in read_records(logs[-1]):
        if record.WhichOneof("record_type") == "history":
            values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            steps[int(values["_step"])] = values
    assert max(steps) == EPOCHS * STEPS
    assert "validation/auc" in str(steps[EPOCHS * STEPS])


def test_a_full_disk_leaves_the_last_state(never_killed):
    folder, expected, _ = never_killed
    here = folder / "full"
    code, _, said = Run(here, script=NO_ROOM, LEFT="3").end()
    assert code == 2
    assert said.startswith(f"error: results/for/{STATE} cannot be written")
    assert said.count("\n") == 1
    assert sorted(path.name for path in (here / "results/for").iterdir()) == [STATE]
    code, shown, said = Run(here).end()
    assert code == 0, said
    assert "It goes on after step 2 of epoch 1." in shown
    assert training_results(here) == expected
