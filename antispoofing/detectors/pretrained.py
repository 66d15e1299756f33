"""Pre-trained front ends alone: fairseq's `xlsr2_300m.pt`, or Hugging Face's folder of the same.

Such a file has no back end and so judges nothing: it is what a fine-tuning may start from. As with
detector files, reading runs no code: what fairseq keeps beside its tensors is not rebuilt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from antispoofing.detectors import checkpoints
from antispoofing.detectors.checkpoints import PRETRAINING_ONLY
from antispoofing.errors import CheckpointError
from model import DetectorConfig, XLSRConfig, build_front_end

ALONE = (
    "a front end alone, without the back end that judges; fine-tune it first: "
    "python fine_tune_for.py --checkpoint"
)


class Placeholder:
    """In place of any harmless class that a file names: takes what it is given and keeps nothing."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


# What fairseq's settings (argparse, OmegaConf) and averages (NumPy) name when pickled.
_STAND_INS = tuple(
    (Placeholder, name)
    for name in (
        "argparse.Namespace",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        "collections.defaultdict",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Float", "Integer", "String")),
        "typing.Any",
    )
)

# A Hugging Face configuration's name of each size, and of what else decides what is computed.
_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "pos_kernel": "num_conv_pos_embeddings",
    "pos_groups": "num_conv_pos_embedding_groups",
}
_ARCHITECTURE = (
    "model_type",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "feat_extract_norm",
    "feat_extract_activation",
    "do_stable_layer_norm",
    "hidden_act",
    "layer_norm_eps",
    "add_adapter",
    "adapter_attn_dim",
)


@dataclass(frozen=True)
class FrontEnd:
    """What a file or folder holds.

    Attributes:
        path: the file of the weights.
        tensors: the weights, by the file's own names.
        name_of: the file's name of a tensor of `Detector.front_end`, or of one of PRETRAINING_ONLY.
        config: as `config.json` has it; None where the file says nothing.
    """

    path: Path
    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    config: DetectorConfig | None


def is_front_end(path: Path) -> bool:
    """Whether this is a front end alone, by its content; of a usual `.pth` no tensor is read.

    Raises:
        CheckpointError: it is damaged, or wants to run code. (What does not exist is no front end.)
    """
    with checkpoints.errors_naming(path):
        return (path / "config.json").is_file() or _fairseq_model(path) is not None


def read_front_end(path: Path) -> FrontEnd:
    """The front end in fairseq's pre-training file, or in a Hugging Face folder.

    Raises:
        CheckpointError: it is none, is damaged, wants to run code, or its architecture is not that
            of the XLS-R family.
    """
    if (path / "config.json").is_file():
        return _read_folder(path)
    model = _fairseq_model(path)
    if model is None:
        kinds = "neither fairseq's pre-training file nor a folder with config.json"
        raise CheckpointError(kinds if path.exists() else "no such file")
    mapped = checkpoints.plain_tensors(model)
    tensors = {key: value.clone() for key, value in mapped.items()}  # the file may change or go
    return FrontEnd(path, tensors, _fairseq_name, config=None)


def _fairseq_model(path: Path) -> dict | None:
    """What stands under `model` beside fairseq's settings and optimiser; None where nothing does."""
    if not path.is_file() or path.suffix.lower() == ".safetensors":
        return None
    content = checkpoints.unpickle(path, _STAND_INS, mmap=True)
    model = content.get("model") if isinstance(content, dict) else None
    if isinstance(model, dict) and any(str(key).startswith("feature_extractor.") for key in model):
        return model
    return None


def _fairseq_name(key: str) -> str:
    return checkpoints.official_name(key).removeprefix(checkpoints.FRONT)


def _read_folder(folder: Path) -> FrontEnd:
    config = _read_config(folder / "config.json")
    path = folder / "model.safetensors"
    if path.is_file():
        tensors, _ = checkpoints.read_safetensors(path)
    else:
        path = folder / "pytorch_model.bin"
        if not path.is_file():
            raise CheckpointError("the folder has neither model.safetensors nor pytorch_model.bin")
        tensors = checkpoints.plain_tensors(checkpoints.unpickle(path))
    return FrontEnd(path, tensors, _hugging_face_name(tensors), config)


def _read_config(path: Path) -> DetectorConfig:
    from transformers import Wav2Vec2Config

    try:
        given = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"config.json is not JSON ({error})") from error
    if not isinstance(given, dict):
        raise CheckpointError("config.json holds no configuration")
    given = Wav2Vec2Config().to_dict() | given  # which need not repeat what is usual
    for name in _SIZES.values():
        if type(given[name]) is not int or given[name] < 1:
            raise CheckpointError(f"config.json: {name} is {given[name]!r}")
    match given["conv_dim"]:
        case [int(channels), *_] if channels > 0:
            front_end = XLSRConfig(channels, **{name: given[theirs] for name, theirs in _SIZES.items()})
        case other:
            raise CheckpointError(f"config.json: conv_dim is {other!r}")
    with torch.device("meta"):
        built = build_front_end(front_end).model.config.to_dict()
    for name in _ARCHITECTURE:
        ours = list(built[name]) if isinstance(built[name], tuple) else built[name]
        if given[name] != ours:
            raise CheckpointError(f"config.json: {name} is {given[name]!r}; XLS-R's is {ours!r}")
    return DetectorConfig(front_end)


def _hugging_face_name(tensors: dict[str, Tensor]) -> Callable[[str], str]:
    """`FrontEnd.name_of` for a file of transformers, which has had several ways to name the same."""
    prefix = "wav2vec2." if any(key.startswith("wav2vec2.") for key in tensors) else ""
    convolution = f"{prefix}encoder.pos_conv_embed.conv."
    before_parametrizations = any(key.startswith(f"{convolution}weight_") for key in tensors)

    def name_of(key: str) -> str:
        if key in PRETRAINING_ONLY:
            key = key.removeprefix(checkpoints.FRONT)
            return key.replace("quantizer.vars", "quantizer.codevectors").replace("final_proj", "project_hid")
        name = prefix + key.removeprefix("front_end.model.")
        if before_parametrizations:
            name = name.replace("parametrizations.weight.original0", "weight_g")
            name = name.replace("parametrizations.weight.original1", "weight_v")
        return name

    return name_of
