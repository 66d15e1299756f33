"""Pre-trained front ends without a back end: fairseq's `xlsr2_300m.pt`, or a Hugging Face folder.

Such a file cannot score, but fine-tuning can start from it. As with detector files, reading one never runs
code.
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
from antispoofing.published import CONFIG, WEIGHTS
from model import XLSR, DetectorConfig, XLSRConfig

# The error for scoring with such a file; its path follows.
ALONE = (
    "a pre-trained front end, which cannot score without a back end; fine-tune it first: "
    "python fine_tune_for.py --checkpoint"
)


# What the names of the classes of models that are front ends end with; in some settings there is none.
_FRONT_ENDS = ("Model", "ForPreTraining", "ForCTC")


MOST = 2**16  # of a size: far more than there are

# What a Hugging Face configuration calls each size, and the other settings that decide what is computed.
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
    """A pre-trained front end as read from a file or folder.

    Attributes:
        path: The file that holds the weights.
        tensors: The weights by the file's own keys.
        name_of: Gives the file's key for a key of the detector's front end, or for one of PRETRAINING_ONLY.
        config: The architecture from `config.json`; None for fairseq's file, which does not store it.
    """

    path: Path
    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    config: DetectorConfig | None


def is_front_end(path: Path) -> bool:
    """Check by its content whether a file or folder is a front end without a back end.

    This is quick: the tensors of a `.pth` in today's format are not read. A path that does not exist is not
    a front end.

    Raises:
        CheckpointError: If the file is damaged, or would run code.
    """
    with checkpoints.errors_naming(path):
        if (path / CONFIG).is_file():
            # Other folders have one too: that of Spectra-AASIST is empty.
            settings = read_json(path / CONFIG)
            architecture = _architecture(settings)
            return settings.get("model_type") == "wav2vec2" and (
                not architecture or architecture.endswith(_FRONT_ENDS)
            )
        return _fairseq_model(path) is not None


def is_classifier(folder: Path) -> bool:
    """Check whether a Hugging Face folder holds a classifier of whole recordings, of any kind.

    Raises:
        CheckpointError: If its `config.json` is damaged.
    """
    if not (folder / CONFIG).is_file():
        return False
    return _architecture(read_json(folder / CONFIG)).endswith(("Classification", "ForXVector"))


def _architecture(settings: dict) -> str:
    """Return the name of the class of a model of transformers; "" if its settings do not tell it."""
    match settings.get("architectures"):
        case [str(architecture), *_]:
            return architecture
    return ""


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file holds anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path.name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} does not hold a JSON object")
    return content


def read_front_end(path: Path) -> FrontEnd:
    """Read a front end from fairseq's pre-training file, or from a Hugging Face folder.

    Raises:
        CheckpointError: If the path is neither, if a file is damaged or would run code, or if the
            architecture is not of the XLS-R family.
    """
    if (path / CONFIG).is_file():
        return _read_folder(path)
    model = _fairseq_model(path)
    if model is None:
        kinds = "neither fairseq's pre-training file nor a folder with config.json"
        raise CheckpointError(kinds if path.exists() else "no such file")
    mapped = checkpoints.plain_tensors(model)
    tensors = {key: value.clone() for key, value in mapped.items()}  # the file may change or vanish later
    return FrontEnd(path, tensors, _fairseq_name, config=None)


def _fairseq_model(path: Path) -> dict | None:
    """Return what fairseq's file holds under `model`, or None if this is not such a file."""
    if not path.is_file() or path.suffix.lower() == ".safetensors":
        return None
    content = checkpoints.unpickle(path, mmap=True)
    model = content.get("model") if isinstance(content, dict) else None
    if isinstance(model, dict) and any(str(key).startswith("feature_extractor.") for key in model):
        return model
    return None


def _fairseq_name(key: str) -> str:
    return checkpoints.official_name(key).removeprefix(checkpoints.FRONT)


def _read_folder(folder: Path) -> FrontEnd:
    config = read_config(folder / CONFIG)
    path = find_weights(folder)
    tensors, _ = checkpoints.read_tensors(path)
    return FrontEnd(path, tensors, _hugging_face_name(tensors), config)


def find_weights(folder: Path) -> Path:
    """Return the file of weights of a Hugging Face folder.

    Raises:
        CheckpointError: If there is none, or if there are several.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    if any((folder / f"{name}.index.json").is_file() for name in WEIGHTS):
        raise CheckpointError(
            "the weights are in several files, which cannot be read: load the model with transformers, and "
            "save it with save_pretrained(folder, max_shard_size='100GB')"
        )
    raise CheckpointError(f"the folder has neither {' nor '.join(WEIGHTS)}")


def read_config(path: Path) -> DetectorConfig:
    """Read the sizes of an XLS-R front end from the `config.json` of a Hugging Face folder.

    Raises:
        CheckpointError: If it is not JSON, or the architecture is not of the XLS-R family.
    """
    from transformers import Wav2Vec2Config

    given = Wav2Vec2Config().to_dict() | read_json(path)  # the file need not repeat the defaults
    for name in _SIZES.values():
        if type(given[name]) is not int or not 0 < given[name] <= MOST:
            raise CheckpointError(f"config.json: {name} is {given[name]!r}, not an integer from 1 to {MOST}")
    match given["conv_dim"]:
        case [int(channels), *_] if channels > 0:
            front_end = XLSRConfig(channels, **{name: given[theirs] for name, theirs in _SIZES.items()})
        case other:
            raise CheckpointError(f"config.json: conv_dim is {other!r}, not a list of channel counts")
    with torch.device("meta"):
        built = XLSR(front_end).model.config.to_dict()
    for name in _ARCHITECTURE:
        ours = list(built[name]) if isinstance(built[name], tuple) else built[name]
        if given[name] != ours:
            raise CheckpointError(f"config.json: {name} is {given[name]!r}, but XLS-R's is {ours!r}")
    return DetectorConfig(front_end)


def _hugging_face_name(tensors: dict[str, Tensor]) -> Callable[[str], str]:
    """Return `FrontEnd.name_of` for a file of transformers, whose names differ from version to version."""
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
