"""A training run that is killed, stopped, or out of disk space resumes as if nothing had happened."""

import functools
import os
import random
import resource
import shlex
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
from helpers import (
    EPOCHS,
    SETTINGS,
    STEPS,
    fresh_detector,
    read_records,
    training_results,
    write_training_data,
)
from processes import Started

import fine_tune_for
from antispoofing.detectors.loading import save_detector
from antispoofing.training.history import STATE
from antispoofing.training.step import Optimization


def killed_writing(argv: list[str], left: int) -> int:
    """Run fine_tune_for.py, and kill it halfway through the `left`-th file of tensors that it writes."""
    write = safetensors.torch.save_file

    def half(tensors, path, metadata):
        nonlocal left
        left -= 1
        write(tensors, path, metadata)
        if left == 0:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = half
    return fine_tune_for.main(argv)


def without_room(argv: list[str], left: int) -> int:
    """Run fine_tune_for.py; from the `left`-th step on, only small files can be written."""
    step = Optimization.step

    def limited(*args):
        nonlocal left
        left -= 1
        if left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return step(*args)

    Optimization.step = limited
    return fine_tune_for.main(argv)


def started(folder: Path, *args, main=fine_tune_for.main, wandb: bool = False, **variables) -> Started:
    """Start the program, or a stand-in for it, and wait until it trains."""
    folder.mkdir(exist_ok=True)
    options = [*SETTINGS, *args, *([] if wandb else ["--no-wandb"])]
    process = Started(main, *options, folder=folder, **variables)
    process.wait_for("Fine-tuning")
    return process


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """A folder with data and a detector to start from, the results of a run, and its duration in s."""
    folder = tmp_path_factory.mktemp("resuming")
    write_training_data(folder / "data")
    save_detector(fresh_detector(), folder / "start.safetensors")
    run = started(folder / "whole")
    begun = time.perf_counter()
    code, shown, said = run.end()
    assert code == 0, said
    assert "Resuming" not in shown
    found = training_results(folder / "whole")
    assert len(found["history"]) == EPOCHS
    assert STATE not in found["files"]
    return folder, found, time.perf_counter() - begun


@pytest.mark.slow
def test_killed_at_random_moments(never_killed, request):
    """By SIGKILL, between the beginning of the training and the end of the tests."""
    folder, expected, seconds = never_killed
    moments = random.Random()
    for _ in range(request.config.getoption("--kills")):
        run = started(folder / "killed")
        time.sleep(moments.uniform(0, seconds))
        run.kill()
    code, _, said = started(folder / "killed").end()
    assert code == 0, said
    assert training_results(folder / "killed") == expected


def test_killed_while_it_writes(never_killed):
    """After each step the state is written, after each epoch the weights too."""
    folder, expected, _ = never_killed
    for left in (1, 3, 3, 1):  # of what is written since the last kill
        code, _, said = started(folder / "writing", main=functools.partial(killed_writing, left=left)).end()
        assert code == -signal.SIGKILL, said
    code, shown, said = started(folder / "writing").end()
    assert code == 0, said
    assert "Resuming after step" in shown
    assert training_results(folder / "writing") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_saves_the_state(number, never_killed):
    folder, expected, _ = never_killed
    here = folder / number.name
    run = started(here, "--save-every", 1000)
    run.wait_for("left out of training")
    run.send(number)  # what decodes has it too
    code, shown, said = run.end()
    assert code == 128 + number, said
    assert f"stopped by {number.name}; run the same command to resume after step" in shown
    assert said == "stopping after this step\n"
    code, shown, said = started(here, "--save-every", 1000).end()
    assert code == 0, said
    assert "Resuming after step" in shown
    assert training_results(here) == expected


@pytest.mark.slow
def test_weights_and_biases_goes_on_in_the_same_run(never_killed):
    folder, _, _ = never_killed
    here = folder / "tracked"
    for _ in range(2):
        run = started(here, wandb=True, WANDB_MODE="offline")
        run.wait_for("left out of training")
        run.kill()
    code, shown, said = started(here, wandb=True, WANDB_MODE="offline").end()
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
    code, _, said = started(here, main=functools.partial(without_room, left=3)).end()
    assert code == 2
    assert said.startswith(f"error: results/for/{STATE} cannot be written")
    assert said.count("\n") == 1
    assert sorted(path.name for path in (here / "results/for").iterdir()) == [STATE]
    code, shown, said = started(here).end()
    assert code == 0, said
    assert "Resuming after step 2 of epoch 1." in shown
    assert training_results(here) == expected
