"""Detector files: what is written is read back, and what is wrong is named in one line."""

import argparse
import json
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from helpers import PRESETS

from antispoofing.detectors import checkpoints
from antispoofing.detectors.checkpoints import PRETRAINING_ONLY
from antispoofing.detectors.loading import check_detector, export_official, load_detector, save_detector
from antispoofing.errors import CheckpointError
from model import Detector


def test_official_to_own_file_and_back_keeps_every_tensor(small_pth, small_official, small_config, tmp_path):
    detector = load_detector(small_pth, device="cpu", config=small_config)
    save_detector(detector, tmp_path / "own.safetensors")
    again = load_detector(tmp_path / "own.safetensors", device="cpu")
    assert again.config == small_config
    assert again.provenance == {"official_file": "small.pth", "official_sha256": detector.sha256}
    assert export_official(again, tmp_path / "official.pth") == []
    exported = torch.load(tmp_path / "official.pth", weights_only=True)
    assert exported.keys() == small_official.keys()
    for key, value in small_official.items():
        assert exported[key].dtype == value.dtype
        assert torch.equal(exported[key], value), key


def test_pretraining_tensors_can_be_left_out_and_it_is_said(small_pth, small_config, tmp_path):
    detector = load_detector(small_pth, device="cpu", config=small_config)
    detector.pretraining_tensors.clear()
    left_out = export_official(detector, tmp_path / "official.pth")
    assert left_out == list(PRETRAINING_ONLY)
    exported = torch.load(tmp_path / "official.pth", weights_only=True)
    assert not set(PRETRAINING_ONLY) & exported.keys()
    again = load_detector(tmp_path / "official.pth", device="cpu", config=small_config)
    assert export_official(again, tmp_path / "twice.pth") == list(PRETRAINING_ONLY)


def test_spectrogram_detector_round_trips_and_has_no_official_form(tmp_path):
    torch.manual_seed(0)
    detector = Detector(PRESETS["small"]).eval()
    detector.provenance = {"trained_on": "noise", "steps": 3}
    save_detector(detector, tmp_path / "small.safetensors")
    again = load_detector(tmp_path / "small.safetensors", device="cpu")
    waves = 0.1 * torch.randn(2, 64600)
    torch.testing.assert_close(again.score(waves), detector.score(waves), atol=1e-6, rtol=0)
    assert again.config == PRESETS["small"]
    assert again.provenance == detector.provenance
    assert not again.training
    with pytest.raises(CheckpointError, match="XLS-R"):
        export_official(again, tmp_path / "official.pth")


def _without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without("LL.bias"), r"missing key LL\.bias \(read as"),
        # many ports fail to notice a positional convolution with random weights
        (
            _without("ssl_model.model.encoder.pos_conv.0.weight_g"),
            r"missing key \S+pos_conv\.0\.weight_g \(read as",
        ),
        (
            lambda state: state | {"extra.weight": torch.zeros(1)},
            r"unexpected key extra\.weight \(read as",
        ),
        (
            lambda state: state | {"LL.weight": torch.zeros(128, 65)},
            r"key LL\.weight has shape \(128, 65\), expected \(128, 64\) \(read as",
        ),
        (
            lambda state: {k: v for k, v in state.items() if "layers.1." not in k},
            r"and 19 more\) \(read as",
        ),
        (lambda state: state | {"epoch": 3}, r"'epoch' is not a tensor \(its type is int\)$"),
        (lambda state: {"model": {"epoch": 3}}, r"'model' is not a tensor \(its type is dict\)$"),
        (
            lambda state: {"epoch": 3, "model": state, "ema": state},
            r"several dictionaries of tensors \(model, ema\): save the one that you want",
        ),
        (lambda state: list(state.values()), "not a dictionary of tensors: its type is list$"),
        (lambda state: {}, "holds no tensors$"),
        (lambda state: {3: torch.zeros(1)} | state, "the key 3 is not a string$"),
        (lambda state: state | {"LL.bias": torch.zeros(128).to_sparse()}, r"LL\.bias is not a plain dense"),
        (
            lambda state: state | {"LL.bias": torch.zeros(128, dtype=torch.int8)},
            r"LL\.bias has type torch\.int8, expected a floating-point type \(read as",
        ),
    ],
)
def test_wrong_official_files_are_named_in_one_line(damage, words, small_official, small_config, tmp_path):
    path = tmp_path / "wrong.pth"
    torch.save(damage(small_official), path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_detector(path, device="cpu", config=small_config)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def _trained(state: dict) -> dict:
    """Return what a training script may save beside the weights."""
    optimizer = {
        "state": {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 1}],
    }
    settings = argparse.Namespace(folder=Path("data"), lr=1e-3)
    figures = {"eer": np.float64(0.1), "random": np.random.default_rng(0).random(3)}
    return {"epoch": 3, "optimizer": optimizer, "args": settings, "best": figures, "scheduler": {}} | state


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: {"model": state}, "as model"),
        (lambda state: _trained({"model_state_dict": state}), "as model_state_dict"),
        (
            lambda state: _trained({"checkpoint": {"state_dict": state, "step": 7}}),
            "as checkpoint.state_dict",
        ),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, ""),
        (lambda state: {f"module.module.{key}": value for key, value in state.items()}, ""),
        (lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}, ""),
        (lambda state: {f"module._orig_mod.module.{key}": value for key, value in state.items()}, ""),
        (lambda state: {key.replace("model.", "model._orig_mod.", 1): v for key, v in state.items()}, ""),
        (lambda state: {f"model.{key}": v for key, v in state.items()}, "begin with model."),  # Lightning
        (
            lambda state: _trained({"state_dict": {f"net.detector.{key}": v for key, v in state.items()}}),
            "as state_dict|begin with net.detector.",
        ),
    ],
)
def test_weights_are_found_in_what_training_scripts_save(
    wrap, said, small_official, small_config, small_pth, tmp_path, logged
):
    expected = load_detector(small_pth, device="cpu", config=small_config).state_dict()
    torch.save(wrap(small_official), tmp_path / "checkpoint.pth")
    detector = load_detector(tmp_path / "checkpoint.pth", device="cpu", config=small_config)
    assert detector.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in detector.state_dict().items())
    lines = logged.text.splitlines()
    assert len(lines) == (said.count("|") + 1 if said else 0)
    assert all(words in line for words, line in zip(said.split("|"), lines, strict=False))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {
            "model": state,
            "criterion": {"weight": torch.ones(2)},
            "rng": {"cpu": torch.zeros(3)},
        },
        lambda state: {
            "state_dict": {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2)}
        },
        lambda state: {f"module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(3)},
        lambda state: {1: "a number as a key", "trainer": {"networks": {"detector": state}}},
    ],
)
def test_weights_are_told_from_other_tensors(wrap, small_official, small_config, small_pth, tmp_path):
    expected = load_detector(small_pth, device="cpu", config=small_config).state_dict()
    torch.save(wrap(small_official), tmp_path / "checkpoint.pth")
    found = load_detector(tmp_path / "checkpoint.pth", device="cpu", config=small_config).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    check_detector(tmp_path / "checkpoint.pth", device="cpu", config=small_config)


def test_a_dictionary_that_contains_itself_is_searched_once(small_official, tmp_path):
    content = {"model": {"epoch": 3}, "trainer": {"history": {}}}
    content["trainer"]["self"] = content["trainer"]
    for _ in range(30):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        load_detector(tmp_path / "odd.pth")


def test_threads_may_read_files_at_once(small_official, small_config, tmp_path):
    torch.save({"model": small_official, "args": argparse.Namespace()}, tmp_path / "a.pth")

    def check(_):
        return check_detector(tmp_path / "a.pth", device="cpu", config=small_config)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(check, range(24)))) == 24


def test_a_check_reads_no_values(small_official, small_config, tmp_path):
    """And kinds of tensors that there are not without values do not stop it."""
    with warnings.catch_warnings(action="ignore"):
        odd = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    for beside in ({}, {"aux": odd}):
        torch.save({"model": small_official} | beside, tmp_path / "a.pth")
        detector = check_detector(tmp_path / "a.pth", device="cpu", config=small_config)
        assert detector.back_end.out_layer.weight.is_meta
        assert detector.sha256 is None
    save_detector(
        load_detector(tmp_path / "a.pth", device="cpu", config=small_config), tmp_path / "a.safetensors"
    )
    for name in ("a.pth", "a.safetensors"):
        torch.save({"model": small_official}, tmp_path / "a.pth")
        tensors, _ = checkpoints.read_tensors(tmp_path / name, only_shapes=True)
        assert all(value.is_meta for value in tensors.values())


def test_a_header_without_numbers_is_refused(small_pth, small_config, tmp_path):
    detector = load_detector(small_pth, device="cpu", config=small_config)
    detector.provenance["note"] = float("nan")
    save_detector(detector, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"its header is not JSON \(NaN"):
        load_detector(tmp_path / "a.safetensors", device="cpu")


def test_settings_in_place_of_a_detector_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the settings of a model: name its folder"):
        load_detector(tmp_path / "config.json")


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_wants_code_is_refused_and_not_run(legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"LL.bias": RunsCode()}, "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"evil\.pth: refused.*mkdir"):
        load_detector("evil.pth")
    Path("plain.pth").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(CheckpointError, match=r"plain\.pth: "):
        load_detector("plain.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"refused.*torch\.nn\.modules\.linear\.Linear"):
        load_detector(tmp_path / "module.pth")


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged, or not a"),
        (b"\x00" * 1000, "damaged, or not a"),
        (b"\n<!DOCTYPE html><html>quota exceeded</html>", "a web page in place of the file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer .*git lfs pull",
        ),
    ],
)
def test_files_that_are_not_detectors(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_detector(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_file(small_pth, small_config):
    content = small_pth.read_bytes()
    small_pth.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_detector(small_pth, config=small_config)


def test_half_precision_files_are_scored_in_float32(small_official, small_config, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in small_official.items()}
    torch.save(half, tmp_path / "half.pth")
    detector = load_detector(tmp_path / "half.pth", device="cpu", config=small_config)
    assert {p.dtype for p in detector.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("no json", "not JSON"),
        ("[1]", "does not have config and provenance"),
        ("null", "does not have config and provenance"),
        ("{}", "does not have config and provenance"),
        ('{"config": {}, "provenance": {}}', "configuration"),
        ('{"config": {}, "provenance": [1]}', "provenance in its header is not a JSON object"),
        (
            '{"config": {"front_end": {"kind": "xlsr", "heads": 5}, "labels": []}, "provenance": {}}',
            "label order",
        ),
    ],
)
def test_headers_that_say_nothing_usable(header, words, tmp_path):
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, path, metadata={"detector": header})
    with pytest.raises(CheckpointError, match=words) as caught:
        load_detector(path)
    assert str(caught.value).startswith(str(path))


def test_sizes_that_make_no_network(tmp_path):
    detector = Detector(PRESETS["small"])
    config = detector.config.to_dict() | {"front_end": {"kind": "xlsr", "heads": 7}}
    path = tmp_path / "odd.safetensors"
    header = json.dumps({"config": config, "provenance": {}})
    safetensors.torch.save_file(detector.state_dict(), path, metadata={"detector": header})
    with pytest.raises(CheckpointError, match="divisible"):
        load_detector(path)


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_files_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    save_detector(Detector(PRESETS["small"]), tmp_path / "detector.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "detector.safetensors"
    save_detector(Detector(PRESETS["small"]), path)
    before = path.read_bytes()

    def interrupted(tensors, name, metadata):
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_detector(Detector(PRESETS["small"]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_and_foreign_safetensors(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        load_detector(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"a folder without a detector file \(\.safetensors, \.pth"):
        load_detector(tmp_path)
    safetensors.torch.save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a detector of a kind that can be loaded"):
        load_detector(tmp_path / "foreign.safetensors")


def test_own_file_is_checked_as_strictly(tmp_path):
    save_detector(Detector(PRESETS["small"]), tmp_path / "whole.safetensors")
    with safetensors.safe_open(tmp_path / "whole.safetensors", "pt") as file:
        header = file.metadata()
    tensors = safetensors.torch.load_file(tmp_path / "whole.safetensors")
    del tensors["front_end.proj.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "part.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match=r"missing key front_end\.proj\.weight"):
        load_detector(tmp_path / "part.safetensors")
