"""Detector files: official `.pth` and our safetensors, as plain named tensors.

Reading never runs code from a file: `.pth` is unpickled with `weights_only=True`, safetensors has
no code in it. The network that the tensors belong to is `model.py`'s business.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from antispoofing.errors import CheckpointError, FairseqError
from antispoofing.files import atomic_write

T = TypeVar("T")

DETECTOR = "detector"  # what the header of a detector's safetensors file is called

_MAPPED = 2**26  # bytes of a file that are read until it is opened anew: what was read stays mapped

FRONT = "ssl_model.model."  # official prefix of the XLS-R front end
PRETRAINING_ONLY = tuple(
    FRONT + name
    for name in (
        "quantizer.vars",
        "quantizer.weight_proj.weight",
        "quantizer.weight_proj.bias",
        "project_q.weight",
        "project_q.bias",
        "final_proj.weight",
        "final_proj.bias",
    )
)

# transformers' names -> fairseq's, applied in this order to what follows `front_end.model.`
_RENAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"feature_extractor.conv_layers.\1.2.1."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^masked_spec_embed$", "mask_emb"),
    (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0$", "encoder.pos_conv.0.weight_g"),
    (r"^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1$", "encoder.pos_conv.0.weight_v"),
    (r"^encoder\.pos_conv_embed\.conv\.bias$", "encoder.pos_conv.0.bias"),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"^(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"^(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.", r"\1.fc1."),
    (r"^(encoder\.layers\.\d+)\.feed_forward\.output_dense\.", r"\1.fc2."),
)


def official_name(name: str) -> str:
    """The official key of one of this project's: `back_end.LL.bias` -> `LL.bias`.

    One of PRETRAINING_ONLY is official already, and stays.
    """
    if name in PRETRAINING_ONLY:
        return name
    part, name = name.split(".", 1)
    if part == "back_end":
        return name
    name = name.removeprefix("model.")
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return FRONT + name


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """All tensors of a detector file, and the header of our own kind (None for an official file).

    A `module.` that stands before every key (DataParallel's) is removed.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or wants to run code.
    """
    if not path.is_file():
        raise CheckpointError("not a file" if path.exists() else "no such file")
    if path.suffix.lower() == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return tensors, _header(metadata)
    tensors = plain_tensors(unpickle(path))
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors, None


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Raises what is wrong with a file, or with what was read from it, as one line that names it."""
    try:
        yield
    except FairseqError:  # no fault of the file
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, RuntimeError) as error:  # sizes that make no network, too
        raise CheckpointError(f"{path}: {error}") from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of any safetensors file. Raises CheckpointError if damaged."""
    metadata, keys = _opened(path, lambda file: (file.metadata() or {}, list(file.keys())))
    tensors: dict[str, Tensor] = {}

    def read_some(file: Any) -> None:
        n_bytes = 0
        while keys and n_bytes < _MAPPED:
            key = keys.pop(0)
            tensors[key] = file.get_tensor(key).clone()
            n_bytes += tensors[key].nbytes

    while keys:
        _opened(path, read_some)
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata alone, without the time that tensors take. Raises CheckpointError if damaged."""
    return _opened(path, lambda file: file.metadata() or {})


def _opened(path: Path, read: Callable[[Any], T]) -> T:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return read(file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"damaged, or not a safetensors file ({error})") from error


def _header(metadata: dict[str, str]) -> dict:
    if DETECTOR not in metadata:
        raise CheckpointError(
            "safetensors without a detector's header: not written by this project (of a Hugging Face "
            "folder, name the folder)"
        )
    header = parse_header(metadata, DETECTOR, "config", "provenance")
    if not isinstance(header["provenance"], dict):
        raise CheckpointError("its header's provenance is not an object")
    return header


def parse_header(metadata: dict[str, str], kind: str, *names: str) -> dict:
    """The JSON object that was written as `kind`. Raises CheckpointError if it is none with these names."""
    try:
        header = json.loads(metadata.get(kind, ""))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"its header is not JSON ({error})") from error
    if not (isinstance(header, dict) and header.keys() >= set(names)):
        raise CheckpointError(f"its header has no {' and '.join(names)}")
    return header


def unpickle(path: Path, stand_ins: Sequence[tuple[type, str]] = (), mmap: bool = False) -> object:
    """What PyTorch's `torch.save` wrote, without running code.

    Args:
        stand_ins: classes to build in place of those that the file may name, beside tensors.
        mmap: leave the tensors in the file until they are used, where its format allows it.

    Raises:
        CheckpointError: the file is damaged, of another kind, or names anything else to be run.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            warnings.simplefilter("ignore")  # on a foreign pickle's protocol: the error says it better
            mmap = mmap and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if not wanted:
            raise CheckpointError("damaged, or not a PyTorch file") from error
        reason = f"refused: it needs Python's {wanted[1]}, and only plain tensors are read, never code"
        raise CheckpointError(reason) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what an unpickler raises on bytes that are no pickle has no end
        raise CheckpointError(f"damaged, or not a PyTorch file ({type(error).__name__})") from error


def plain_tensors(content: object) -> dict[str, Tensor]:
    """The content itself. Raises CheckpointError if it is anything but a state dict of dense tensors."""
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a dictionary of tensors")
    if not content:
        raise CheckpointError("holds no tensors")
    for key, value in content.items():
        if not isinstance(key, str):
            raise CheckpointError(f"not a plain state dict: {key!r} is no name")
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"not a plain state dict: {key!r} is a {type(value).__name__}, not a tensor"
            )
        if value.layout != torch.strided or value.is_quantized or value.is_nested or value.is_meta:
            raise CheckpointError(f"key {key} is not a plain dense tensor")
    return content


def check_keys(tensors: dict[str, Tensor], expected: dict[str, Tensor], optional: Container[str]) -> None:
    """Compare names, shapes and kinds of number.

    Args:
        expected: what the network needs; only shape and type are looked at.
        optional: keys that may be there or not.

    Raises:
        CheckpointError: naming the first missing, extra or misshapen key, and how many more.
    """
    missing = [k for k in expected if k not in tensors]
    extra = [k for k in tensors if k not in expected and k not in optional]
    misshapen = [k for k in expected if k in tensors and tensors[k].shape != expected[k].shape]
    mistyped = [
        k
        for k in expected
        if k in tensors and tensors[k].is_floating_point() != expected[k].is_floating_point()
    ]
    problems = []
    for kind, keys in (("missing", missing), ("unexpected", extra)):
        if keys:
            problems.append(f"{kind} key {keys[0]}{_and_more(keys)}")
    if misshapen:
        key = misshapen[0]
        shapes = f"{tuple(tensors[key].shape)}, expected {tuple(expected[key].shape)}"
        problems.append(f"key {key} has shape {shapes}{_and_more(misshapen)}")
    if mistyped:
        problems.append(f"key {mistyped[0]} has type {tensors[mistyped[0]].dtype}{_and_more(mistyped)}")
    if problems:
        raise CheckpointError("; ".join(problems))


def _and_more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def write_safetensors(
    path: str | Path, tensors: dict[str, Tensor], header: dict, kind: str = DETECTOR
) -> None:
    """Write tensors and a JSON header: of a detector, `read_tensors` gives them back.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with _written_whole(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, metadata={kind: json.dumps(header)})


def write_official(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write a plain state dict as `.pth`. Raises OSError as `write_safetensors`."""
    with _written_whole(path) as temporary:
        torch.save({k: v.detach().cpu() for k, v in tensors.items()}, temporary)


@contextmanager
def _written_whole(path: str | Path) -> Iterator[Path]:
    """Do as `files.atomic_write`; an OSError also where torch or safetensors hide the system's own."""
    with atomic_write(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, safetensors.SafetensorError) as error:
            free = shutil.disk_usage(temporary.parent).free / 1e6
            raise OSError(f"{path} cannot be written ({error}); {free:.0f} MB are free there") from error
