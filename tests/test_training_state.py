"""A state that does not belong to the run is refused in one line, whatever is wrong with it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, fresh_detector

from antispoofing.detectors import checkpoints
from antispoofing.detectors.loading import save_detector
from antispoofing.detectors.provenance import (
    VALIDATION_COUNTS,
    VALIDATION_FIGURES,
    VALIDATION_INTERVAL,
    VALIDATION_WORTH,
)
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.training.history import FINAL, LAST, STATE, EpochResult
from antispoofing.training.loop import fine_tune
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.state import find_state, identify, restore, sole_writer
from antispoofing.training.step import Optimization

RECIPE = TrainingConfig(epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    """A folder with a state after one epoch, and the identity of its run."""
    folder = tmp_path_factory.mktemp("trained")
    detector = fresh_detector()
    identity = identify(detector, clips, clips, RECIPE)
    fine_tune(detector, clips, clips, RECIPE, folder)
    return folder, identity


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def rewrite(folder: Path, change) -> None:
    """Let `change` edit the state's tensors and header."""
    tensors, metadata = checkpoints.read_safetensors(folder / STATE)
    header = json.loads(metadata["training"])
    change(tensors, header)
    checkpoints.write_safetensors(folder / STATE, tensors, header, "training")


def test_a_state_is_found_again(trained, clips):
    folder, identity = trained
    state = find_state(folder, identity)
    assert (state.epoch, state.step, len(state.history), state.is_new) == (2, 0, 1, False)
    elsewhere = identify(fresh_detector(), clips, clips, dataclasses.replace(RECIPE, data="elsewhere"))
    assert find_state(folder, elsewhere).run == state.run


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, header: header["state"].update(unknown=1),
        lambda tensors, header: header["state"]["history"][0].pop("train_loss"),
        lambda tensors, header: header.update(identity=[1]),
        lambda tensors, header: header.update(state=None),
        lambda tensors, header: header.pop("state"),
    ],
)
def test_headers_of_another_version(change, trained, folder):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=STATE):
        find_state(folder, trained[1])


@pytest.mark.parametrize("change", [{"old_setting": 1}, {"lora": 4}])
def test_settings_are_compared_in_both_directions(change, trained, folder):
    rewrite(folder, lambda tensors, header: header["identity"].update(change))
    (name,) = change
    with pytest.raises(TrainingError, match=f"unfinished training run with {name} {change[name]}, not None"):
        find_state(folder, trained[1])


@pytest.mark.parametrize(
    "name, value",
    [
        ("nonsense", torch.zeros(1)),
        ("optimizer.x.step", torch.zeros(())),
        ("optimizer.0.exp_avg", torch.zeros(3)),
        ("optimizer.0.exp_avg_sq", None),
        ("network.back_end.out_layer.bias", None),
        ("network.back_end.out_layer.bias", torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_tensors_that_do_not_fit(name, value, trained, folder):
    def change(tensors, header):
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    rewrite(folder, change)
    state = find_state(folder, trained[1])
    detector = fresh_detector()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        restore(state, detector, Optimization(detector, RECIPE))


def test_the_best_weights_must_be_there(trained, folder):
    shutil.copy(folder / FINAL, folder / "kept")
    save_detector(fresh_detector(), folder / FINAL)
    for _ in range(2):
        with pytest.raises(TrainingError, match=f"its {FINAL} is missing or another run's"):
            find_state(folder, trained[1])
        (folder / FINAL).unlink(missing_ok=True)
    (folder / "kept").rename(folder / FINAL)
    (folder / LAST).unlink()  # these are not needed to resume
    assert find_state(folder, trained[1])


def test_a_folder_has_one_writer(tmp_path):
    code = (
        "import sys; from pathlib import Path; from antispoofing.training.state import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(TrainingError, match="another training run is writing to"), sole_writer(tmp_path):
            pass
        other.kill()
    with sole_writer(tmp_path):  # the killed one left its file
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_fine_tuned_file_has_the_validation_figures_of_an_epoch():
    figures = [
        field.name for field in dataclasses.fields(EpochResult) if field.name.startswith("validation_")
    ]
    known = {*VALIDATION_FIGURES, *VALIDATION_INTERVAL, *VALIDATION_COUNTS, *VALIDATION_WORTH}
    assert set(figures) == {*known, "validation_clips"}
