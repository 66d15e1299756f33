"""A pre-trained front end alone: read without running code, given a fresh back end, fine-tuned."""

import argparse
import collections
import json
import os
import sys
import types
import typing
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from helpers import PRESETS, features

import evaluate_custom
from antispoofing import project
from antispoofing.detectors.checkpoints import FRONT, PRETRAINING_ONLY
from antispoofing.detectors.loading import export_official, load_detector, load_front_end, save_detector
from antispoofing.detectors.pretrained import is_front_end
from antispoofing.errors import CheckpointError
from antispoofing.files import file_sha256
from model import Detector

WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


@pytest.fixture
def pickled_settings(monkeypatch):
    """fairseq's settings as OmegaConf 2.0 to 2.3 pickles them: the same classes, states and built-ins."""

    def pretend(module, *names):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        for name in names:
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
        return sys.modules[module]

    base = pretend("omegaconf.base", "ContainerMetadata", "Metadata")
    pretend("omegaconf")
    nodes = pretend("omegaconf.nodes", "AnyNode", "IntegerNode")
    config = pretend("omegaconf.dictconfig", "DictConfig").DictConfig
    listing = pretend("omegaconf.listconfig", "ListConfig").ListConfig

    def build(cls, **state):
        instance = cls()
        instance.__dict__.update(state)
        return instance

    def node(value, cls=nodes.AnyNode):
        return build(
            cls, _metadata=build(base.Metadata, ref_type=typing.Any, key="k"), _parent=None, _val=value
        )

    about = build(
        base.ContainerMetadata,
        object_type=dict,
        element_type=typing.Any,
        key_type=int,
        resolver_cache=collections.defaultdict(dict),
    )
    items = build(listing, _content=[node(1), node(None), node(2.5)], _metadata=about)
    task = node(argparse.Namespace(arch="wav2vec2", seed=1))
    content = {"lr": items, "task": task, "seed": node(3, nodes.IntegerNode), "none": None}
    return build(config, _content=content, _metadata=about)


def fairseq_content(small_official, **beside) -> dict:
    model = {k.removeprefix(FRONT): v for k, v in small_official.items() if k.startswith(FRONT)}
    return {
        "args": argparse.Namespace(arch="wav2vec2", task=argparse.Namespace(data="/data")),
        "cfg": {"model": {"_name": "wav2vec2"}, "common": None},
        "model": model,
        "optimizer_history": [{"lr_scheduler_state": {"best": None}, "num_updates": 3}],
        "task_state": {},
        "extra_state": {
            "metrics": [(0, "loss", "AverageMeter", {"val": np.float64(0.5), "count": torch.ones(())})]
        },
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(1000)}}},
    } | beside


@pytest.fixture
def fairseq_file(small_official, tmp_path) -> Path:
    path = tmp_path / "xlsr2_300m.pt"
    torch.save(fairseq_content(small_official), path)
    return path


def rewrite(folder: Path, change, name="pytorch_model.bin") -> None:
    """Change the tensors of a Hugging Face folder, and the kind of file."""
    tensors = change(safetensors.torch.load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        safetensors.torch.save_file(tensors, folder / name)


def configure(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same(tensors):
    return tensors


def old_weight_norm(tensors):
    for new, old in WEIGHT_NORM.items():
        tensors = {k.replace(new, old): v for k, v in tensors.items()}
    return tensors


def without_prefix(tensors):
    return {k.removeprefix("wav2vec2."): v for k, v in tensors.items() if k.startswith("wav2vec2.")}


@pytest.mark.parametrize("legacy", [False, True])
def test_fairseq_file_gives_the_features_of_the_same_tensors(legacy, small_official, small_config, tmp_path):
    torch.save(small_official, tmp_path / "whole.pth")
    content = fairseq_content(small_official)
    torch.save(content, tmp_path / "alone.pt", _use_new_zipfile_serialization=not legacy)
    whole = load_detector(tmp_path / "whole.pth", device="cpu", config=small_config)
    alone = load_front_end(tmp_path / "alone.pt", device="cpu", config=small_config)
    torch.testing.assert_close(features(alone), features(whole), atol=1e-6, rtol=0)
    assert not alone.training
    assert [p.requires_grad for p in alone.parameters()] == [p.requires_grad for p in whole.parameters()]
    assert alone.path == tmp_path / "alone.pt"
    assert alone.sha256 == file_sha256(alone.path)
    assert alone.provenance == {
        "front_end_file": "alone.pt",
        "front_end_sha256": alone.sha256,
        "back_end": "fresh, seed 0",
    }
    assert export_official(alone, tmp_path / "official.pth") == []
    exported = torch.load(tmp_path / "official.pth", weights_only=True)
    assert exported.keys() == small_official.keys()
    for key in PRETRAINING_ONLY:
        assert torch.equal(exported[key], small_official[key])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("prefix", [same, without_prefix])
@pytest.mark.parametrize("weight_norm", [same, old_weight_norm])
def test_hugging_face_folder_gives_the_features_of_transformers(
    weight_norm, prefix, name, hugging_face, small_config, tmp_path
):
    theirs = transformers.Wav2Vec2Model.from_pretrained(hugging_face).eval()
    given = safetensors.torch.load_file(hugging_face / "model.safetensors")
    rewrite(hugging_face, lambda tensors: weight_norm(prefix(tensors)), name)
    detector = load_front_end(hugging_face, device="cpu")
    assert detector.config == small_config
    waves = 0.1 * torch.randn(2, 20000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(waves).last_hidden_state
    torch.testing.assert_close(features(detector), expected, atol=1e-6, rtol=0)
    assert detector.path == hugging_face / name
    assert detector.provenance["front_end_file"] == name
    assert detector.provenance["front_end_sha256"] == file_sha256(hugging_face / name)
    left_out = export_official(detector, tmp_path / "official.pth")
    assert left_out == ([] if prefix is same else list(PRETRAINING_ONLY))
    if prefix is same:
        exported = torch.load(tmp_path / "official.pth", weights_only=True)
        assert torch.equal(exported[FRONT + "quantizer.vars"], given["quantizer.codevectors"])
        assert torch.equal(exported[FRONT + "final_proj.bias"], given["project_hid.bias"])
        assert torch.equal(exported[FRONT + "project_q.weight"], given["project_q.weight"])


def test_the_seed_draws_the_back_end_and_nothing_else(fairseq_file, small_config):
    def load(seed):
        return load_front_end(fairseq_file, device="cpu", config=small_config, seed=seed).state_dict()

    one, again, other = load(1), load(1), load(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    changed = {key for key in one if not torch.equal(one[key], other[key])}
    assert "back_end.LL.weight" in changed
    assert "back_end.out_layer.weight" in changed
    assert all(key.startswith("back_end.") for key in changed)


def test_training_leaves_the_file_alone(hugging_face):
    detector = load_front_end(hugging_face, device="cpu")
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert file_sha256(hugging_face / "model.safetensors") == detector.sha256


def test_the_file_may_change_once_it_is_read(fairseq_file, small_config):
    detector = load_front_end(fairseq_file, device="cpu", config=small_config)
    before = features(detector)
    with open(fairseq_file, "r+b") as file:
        file.write(bytes(fairseq_file.stat().st_size))
    assert torch.equal(features(detector), before)


def test_omegaconf_settings_are_passed_over(pickled_settings, small_official, small_config, tmp_path):
    path = tmp_path / "xlsr2_300m.pt"
    torch.save(fairseq_content(small_official, args=None, cfg=pickled_settings), path)
    assert is_front_end(path)
    load_front_end(path, device="cpu", config=small_config)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


class Other:
    pass


@pytest.mark.parametrize("load", [load_front_end, load_detector])
@pytest.mark.parametrize(
    ("beside", "name"), [(RunsCode(), "mkdir"), (Other(), r"test_detectors_pretrained\.Other")]
)
def test_anything_else_is_refused_and_not_run(beside, name, load, small_official, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("args", "cfg", "extra_state"):
        torch.save(fairseq_content(small_official, **{place: {"x": beside}}), "evil.pt")
        with pytest.raises(
            CheckpointError, match=rf"^evil\.pt: refused: it needs Python's \S*{name},.*never code$"
        ):
            load("evil.pt", device="cpu")
    assert not Path("ran").exists()


def _without(key):
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without("encoder.pos_conv.0.weight_g"), r"missing key encoder\.pos_conv\.0\.weight_g$"),
        (lambda m: m | {"lm_head.bias": torch.zeros(3)}, r"unexpected key lm_head\.bias$"),
        (
            lambda m: m | {"mask_emb": torch.zeros(3)},
            r"key mask_emb has shape \(3,\), expected \(64,\)$",
        ),
        (
            lambda m: m | {"mask_emb": argparse.Namespace()},
            r"'mask_emb' is not a tensor \(its type is Placeholder\)$",
        ),
        (lambda m: m | {"mask_emb": torch.zeros(64).to_sparse()}, "mask_emb is not a plain dense"),
        (lambda m: {k: v for k, v in m.items() if "layers.1." not in k}, r"and 19 more\)$"),
    ],
)
def test_wrong_fairseq_files_are_named_in_one_line(damage, words, small_official, small_config, tmp_path):
    content = fairseq_content(small_official)
    path = tmp_path / "wrong.pt"
    torch.save(content | {"model": damage(content["model"])}, path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_front_end(path, device="cpu", config=small_config)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            _without("wav2vec2.encoder.layers.1.attention.k_proj.bias"),
            r"missing key wav2vec2\.encoder\.layers\.1\.attention\.k_proj\.bias$",
        ),
        (
            lambda m: _without("wav2vec2.encoder.pos_conv_embed.conv.weight_g")(old_weight_norm(m)),
            r"missing key wav2vec2\.encoder\.pos_conv_embed\.conv\.weight_g$",
        ),
        (
            lambda m: (
                {k: v for k, v in m.items() if k.startswith("wav2vec2.")}
                | {"lm_head.weight": torch.zeros(32, 64), "lm_head.bias": torch.zeros(32)}
            ),
            r"unexpected key lm_head\.weight \(and 1 more\)$",
        ),
        (lambda m: m | {"wav2vec2.masked_spec_embed": torch.zeros(3)}, r"has shape \(3,\), expected \(64,\)"),
        (lambda m: {"wav2vec2": m | {"step": 3}}, r"'wav2vec2' is not a tensor \(its type is dict\)$"),
        (lambda m: m | {"x": RunsCode()}, "refused.*mkdir"),
    ],
)
def test_wrong_folders_are_named_in_one_line(damage, words, hugging_face):
    rewrite(hugging_face, damage)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_front_end(hugging_face, device="cpu")
    assert str(caught.value).startswith(f"{hugging_face}: ")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "hubert"}, r"config\.json: model_type is 'hubert', but XLS-R's is 'wav2vec2'$"),
        ({"feat_extract_norm": "group"}, "feat_extract_norm is 'group', but XLS-R's is 'layer'$"),
        ({"do_stable_layer_norm": False}, "do_stable_layer_norm is False, but XLS-R's is True$"),
        ({"conv_bias": False}, "conv_bias is False"),
        ({"conv_kernel": [10, 3, 3, 3, 3, 3, 2]}, r"conv_kernel is \[10, 3, 3, 3, 3, 3, 2\]"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "conv_stride is"),
        ({"conv_dim": [32, 32, 32, 32, 32, 32, 64]}, "conv_dim is"),
        ({"conv_dim": []}, r"config\.json: conv_dim is \[\], not a list of channel counts$"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"conv_dim": 32}, "conv_dim is 32, not a list of channel counts$"),
        ({"hidden_size": "64"}, r"config\.json: hidden_size is '64', not an integer from 1 to 65536$"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not an integer from 1 to 65536$"),
        ({"num_attention_heads": 5}, "divisible"),
        ({"intermediate_size": 64}, r"has shape \(128, 64\), expected \(64, 64\)"),
    ],
)
def test_other_architectures_are_named(changes, words, hugging_face):
    configure(hugging_face, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_front_end(hugging_face, device="cpu")
    assert "\n" not in str(caught.value)


def test_what_is_no_front_end(hugging_face, small_pth, tmp_path):
    save_detector(Detector(PRESETS["small"]), tmp_path / "own.safetensors")
    (tmp_path / "damaged.pt").write_bytes(b"no pickle")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("gone.pt", "no such file"),
        ("small.pth", "neither fairseq's pre-training file nor"),
        ("own.safetensors", "neither fairseq's"),
        ("folder", "neither fairseq's"),
        ("damaged.pt", "damaged, or not a PyTorch file"),
    ):
        with pytest.raises(CheckpointError, match=rf"^{tmp_path / name}: {words}"):
            load_front_end(tmp_path / name)
    (hugging_face / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged, or not a safetensors file"):
        load_front_end(hugging_face)
    (hugging_face / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin$"):
        load_front_end(hugging_face)
    for text, words in (("{", "not JSON"), ("[1]", "does not hold a JSON object"), ("\ud800", "not JSON")):
        (hugging_face / "config.json").write_text(text, errors="surrogatepass", encoding="utf-8")
        with pytest.raises(CheckpointError, match=words):
            load_front_end(hugging_face)


def test_scoring_with_a_front_end_alone_is_refused(fairseq_file, hugging_face, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    samples = str(project.SAMPLES / "custom")
    for path in (fairseq_file, hugging_face):
        assert evaluate_custom.main(["--data", samples, "--checkpoint", str(path), "--workers", "0"]) == 2
        error = capsys.readouterr().err
        assert error == (
            f"error: {path}: a pre-trained front end, which cannot score without a back end; "
            f"fine-tune it first: python fine_tune_for.py --checkpoint {path}\n"
        )
    with pytest.raises(CheckpointError, match="of a classifier of transformers, name its folder"):
        load_detector(hugging_face / "model.safetensors")
