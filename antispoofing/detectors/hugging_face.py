"""Folders of transformers' models for sequence classification: Wav2Vec2, HuBERT and WavLM.

Such a folder says by itself how clips are prepared (`preprocessor_config.json`) and what the outputs mean
(`id2label` in `config.json`). Where it does not say which output means real, it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from antispoofing.detectors import checkpoints, pretrained
from antispoofing.detectors.families import by_head
from antispoofing.errors import CheckpointError
from antispoofing.published import CONFIG, PREPROCESSOR
from data_utils import SAMPLE_RATE
from model import DetectorConfig, FrontEndConfig, TransformersConfig, TransformersFrontEnd

KINDS = ("wav2vec2", "hubert", "wavlm")  # as `model_type`, and as the beginning of the keys
SUPPORTED = "ForSequenceClassification"  # the end of the names of such models
NORMALISE_EPS = 1e-7  # of transformers' feature extractor

# Settings of a configuration that say how to compute, and not what.
_NOT_ARCHITECTURE = {"torch_dtype", "dtype", "attn_implementation", "_attn_implementation", "auto_map"}
_NOT_ARCHITECTURE |= {"return_dict", "use_return_dict"}

_REAL = {"real", "bonafide", "genuine", "human", "authentic", "natural"}
_FAKE = {"fake", "spoof", "spoofed", "synthetic", "deepfake", "ai", "aigenerated", "generated", "machine"}


@dataclass(frozen=True)
class Classifier:
    """A classifier as read from a folder.

    Attributes:
        tensors: The weights by the file's own keys.
        name_of: Gives the file's key for a key of the detector.
        config: The detector's configuration.
    """

    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    config: DetectorConfig


def read_classifier(folder: Path, only_shapes: bool = False) -> Classifier | None:
    """Read a folder with a model for sequence classification; return None if this is not one.

    Args:
        folder: The folder.
        only_shapes: As for `checkpoints.read_tensors`.

    Raises:
        CheckpointError: If it is one, but cannot be used: the message says why.
    """
    if not pretrained.is_classifier(folder):
        return None
    settings = pretrained.read_json(folder / CONFIG)
    kind = settings.get("model_type")
    architecture = settings["architectures"][0]
    if kind not in KINDS or not architecture.endswith(SUPPORTED):
        raise CheckpointError(
            f"a classifier of the kind {architecture}, which is not supported (only {SUPPORTED} of "
            f"{', '.join(KINDS)})"
        )
    tensors, _ = checkpoints.read_tensors(pretrained.find_weights(folder), only_shapes)
    real = _real_output(settings)
    projection = next(iter(tensors["projector.weight"].shape), 0) if "projector.weight" in tensors else 0
    layers = settings.get("num_hidden_layers", 12)  # the default of all kinds
    if type(layers) is not int or not 0 < layers <= pretrained.MOST:
        raise CheckpointError(f"config.json: num_hidden_layers is {layers!r}")
    if f"{kind}.encoder.layers.{layers - 1}.attention.k_proj.weight" not in tensors:
        raise CheckpointError(f"the weights have fewer than the {layers} layers that config.json promises")
    states = layers + 1 if settings.get("use_weighted_layer_sum") else 0
    front_end = _front_end(folder, settings)
    config = DetectorConfig(
        front_end,
        head="hugging-face",
        head_sizes={"projection": projection, "real": real, "states": states},
        normalise_eps=_normalise_eps(folder),
        hears_whole=True,
        score_is_difference=True,
    )
    family = replace(by_head(config.head), front_end=f"{kind}.")
    return Classifier(tensors, family.name_of(tensors), config)


def _front_end(folder: Path, settings: dict) -> FrontEndConfig:
    """Return the front end's configuration: XLS-R's where it is of that family, which is computed faster."""
    if settings["model_type"] == "wav2vec2":
        try:
            return pretrained.read_config(folder / CONFIG).front_end
        except CheckpointError:
            pass  # another architecture
    computed = {name: value for name, value in settings.items() if name not in _NOT_ARCHITECTURE}
    config = TransformersConfig(json.dumps(computed))
    try:
        with torch.device("meta"):
            TransformersFrontEnd(config)
    except Exception as error:  # whatever transformers raises for settings that make no sense
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"config.json: transformers cannot build this: {reason}") from error
    return config


def _real_output(settings: dict) -> int:
    """Return which output means real."""
    labels = settings.get("id2label")
    words = (
        [re.sub(r"[^a-z]", "", str(labels.get(name, "")).lower()) for name in ("0", "1")]
        if isinstance(labels, dict)
        else []
    )
    if not isinstance(labels, dict) or len(labels) != 2:
        raise CheckpointError("config.json: id2label must have two labels, real and fake")
    for real in (0, 1):
        if words[real] in _REAL and words[1 - real] in _FAKE:
            return real
    given = ", ".join(map(str, labels.values()))
    raise CheckpointError(
        f"config.json does not say which output means real (id2label: {given}): if you know it, write "
        '"real" and "fake" into a copy (python -m antispoofing download makes one of a hub: name)'
    )


def _normalise_eps(folder: Path) -> float:
    """Return what is added to the variance of a clip to normalise it; 0.0 if it is not normalised."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise CheckpointError(f"the folder has no {path.name}, which says how clips are prepared")
    settings = pretrained.read_json(path)
    if settings.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise CheckpointError(
            f"{path.name}: the sample rate is {settings['sampling_rate']!r}, not {SAMPLE_RATE} Hz"
        )
    return NORMALISE_EPS if settings.get("do_normalize", True) else 0.0
