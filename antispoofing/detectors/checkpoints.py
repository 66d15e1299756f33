"""Detector files, the official `.pth` and this project's safetensors, as plain named tensors.

Reading never runs code from a file: a `.pth` is unpickled with `weights_only=True`, what training scripts
keep beside the tensors is not rebuilt, and safetensors cannot hold code. The network that the tensors belong
to is defined in `model.py`.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import threading
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from antispoofing.errors import CheckpointError, FairseqError
from antispoofing.files import atomic_write, in_its_place
from antispoofing.published import CONFIG, DETECTOR_SUFFIXES, WEIGHTS

logger = logging.getLogger(__name__)

T = TypeVar("T")

DETECTOR = "detector"  # the metadata key under which a detector's safetensors file keeps its header

# After this many bytes a file is opened anew, because what has been read stays mapped until it is closed.
_MAPPED_BYTES = 2**26

FRONT = "ssl_model.model."  # the official prefix of the XLS-R front end's keys
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


_DEEPEST, _MOST = 3, 100  # levels of dictionaries that are searched, and dictionaries in each
_UNPICKLING = threading.Lock()  # PyTorch's list of safe classes is one for all threads


class Placeholder:
    """A stand-in for any harmless class that a file names; it accepts whatever it is given and drops it."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


# The classes that settings (argparse, OmegaConf, pathlib), figures and random states (NumPy) are made of.
_STAND_INS = tuple(
    (Placeholder, name)
    for name in (
        "argparse.Namespace",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        "collections.defaultdict",
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        "numpy.dtype",
        "numpy.ndarray",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Float", "Integer", "String")),
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "typing.Any",
    )
)

# Patterns that turn transformers' names (after `front_end.model.`) into fairseq's, applied in this order.
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
    """Translate one of this project's keys into the official one: `back_end.LL.bias` -> `LL.bias`.

    The keys in PRETRAINING_ONLY are official already and are returned as they are.
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


def read_tensors(
    path: Path, only_shapes: bool = False, is_wanted: Callable[[dict], bool] = lambda tensors: False
) -> tuple[dict[str, Tensor], dict | None]:
    """Read all tensors of a detector file, and the header if this project wrote it.

    Of what a training script saved, that is the one dictionary of tensors among other things, under whatever
    name. What DataParallel and torch.compile put before the keys (`module.`, `_orig_mod.`) is removed.

    Args:
        path: The file.
        only_shapes: Whether to leave the values in the file, which is quick: the tensors are then on "meta".
        is_wanted: Tells which of several dictionaries of tensors is the detector's.

    Returns:
        The tensors by key, and the header; None in place of the header for a file that others published.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind, or if it would run code.
    """
    if not path.is_file():
        raise CheckpointError("not a file" if path.exists() else "no such file")
    if path.name == CONFIG:
        raise CheckpointError("the settings of a model: name its folder")
    if path.suffix.lower() == ".safetensors":
        tensors, metadata = read_safetensors(path, only_shapes)
        if DETECTOR in metadata:
            return tensors, _header(metadata)
    else:
        content, place = _state_dict(unpickle(path, only_shapes=only_shapes), is_wanted)
        tensors = plain_tensors(content, only_shapes)
        if place and not only_shapes:
            logger.info("%s: its weights are what it holds as %s", path, place)
    return without_wrappers(tensors), None


def without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by their keys without what DataParallel and torch.compile put before these."""
    renamed = {re.sub(r"(^|\.)_orig_mod\.", r"\1", key): value for key, value in tensors.items()}
    while renamed and all(key.startswith("module.") for key in renamed):
        renamed = {key.removeprefix("module."): value for key, value in renamed.items()}
    return renamed if len(renamed) == len(tensors) else tensors


def _state_dict(content: object, is_wanted: Callable[[dict], bool]) -> tuple[object, str]:
    """Return the one dictionary of tensors in what a training script saved, and its name there.

    Of several, it is the one that is wanted. A content that is, or holds, no dictionary of tensors is
    returned as it is, with the name "".

    Raises:
        CheckpointError: If there are several, and not just one of them is wanted.
    """
    inside = _dictionaries(content, "")
    found: dict[str, dict] = {}
    for _ in range(_DEEPEST):  # a dictionary may contain itself
        found |= {name: value for name, value in inside.items() if _are_tensors(value)}
        inside = {k: v for name, value in inside.items() for k, v in _dictionaries(value, f"{name}.").items()}
    chosen = found if len(found) < 2 else {name: value for name, value in found.items() if is_wanted(value)}
    if len(chosen) == 1:
        name, value = chosen.popitem()
        return value, name
    if found:
        raise CheckpointError(
            f"holds several dictionaries of tensors ({', '.join(found)}): save the one that you want in a "
            "file of its own, by torch.save"
        )
    return content, ""


def _dictionaries(content: object, prefix: str) -> dict[str, dict]:
    """Return the dictionaries in a dictionary that is not itself one of tensors, by their names there."""
    if not isinstance(content, dict) or _are_tensors(content):
        return {}
    named = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, dict)}
    return {f"{prefix}{key}": value for key, value in list(named.items())[:_MOST]}


def _are_tensors(content: dict) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def only_file(folder: Path) -> Path:
    """Return the detector file in a folder: the only one, or the one with a name that transformers gives it.

    Raises:
        CheckpointError: If there is none, or several.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in DETECTOR_SUFFIXES and path.is_file()
    )
    if not found:
        raise CheckpointError(f"a folder without a detector file ({', '.join(DETECTOR_SUFFIXES)})")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"a folder with several detector files, so name one of them: {names}")
    return found[0]


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Report whatever is wrong with a file, or with what was read from it, in one line that names it.

    Raises:
        CheckpointError: If the block raises what files with senseless sizes or contents may make it raise.
        FairseqError: If the block raises one.
    """
    try:
        yield
    except FairseqError:  # not the file's fault
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, RuntimeError) as error:  # torch's too, for impossible sizes
        raise CheckpointError(f"{path}: {error}") from error
    except (LookupError, ArithmeticError, AttributeError, MemoryError) as error:
        kind = type(error).__name__
        raise CheckpointError(f"{path}: its contents or sizes make no sense ({kind}: {error})") from error


def read_safetensors(path: Path, only_shapes: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of any safetensors file; `only_shapes` is that of `read_tensors`.

    Raises:
        CheckpointError: If the file is damaged or is not a safetensors file.
    """
    metadata, keys = _with_opened(path, lambda file: (file.metadata() or {}, list(file.keys())))
    tensors: dict[str, Tensor] = {}

    def read_some(file: safetensors.safe_open) -> None:
        n_bytes = 0
        while keys and n_bytes < _MAPPED_BYTES:
            key = keys.pop(0)
            mapped = file.get_tensor(key)
            tensors[key] = mapped.to("meta") if only_shapes else mapped.clone()
            n_bytes += 0 if only_shapes else mapped.nbytes

    while keys:
        _with_opened(path, read_some)
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """Read only the metadata of a safetensors file, which is quick.

    Raises:
        CheckpointError: If the file is damaged or is not a safetensors file.
    """
    return _with_opened(path, lambda file: file.metadata() or {})


def _with_opened(path: Path, read: Callable[[safetensors.safe_open], T]) -> T:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return read(file)
    except safetensors.SafetensorError as error:
        reason = in_its_place(path) or f"damaged, or not a safetensors file ({error})"
        raise CheckpointError(reason) from error


def _header(metadata: dict[str, str]) -> dict:
    header = parse_header(metadata, DETECTOR, "config", "provenance")
    if not isinstance(header["provenance"], dict):
        raise CheckpointError("the provenance in its header is not a JSON object")
    return header


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def parse_header(metadata: dict[str, str], kind: str, *names: str) -> dict:
    """Return the JSON object that the metadata holds under the key `kind`.

    Args:
        metadata: The metadata of a safetensors file.
        kind: The key.
        *names: The names that the object must have.

    Raises:
        CheckpointError: If there is no JSON object there, or if it lacks one of the names.
    """
    try:
        header = json.loads(metadata.get(kind, ""), parse_constant=_refuse_constant)
    except ValueError as error:
        raise CheckpointError(f"its header is not JSON ({error})") from error
    if not (isinstance(header, dict) and header.keys() >= set(names)):
        raise CheckpointError(f"its header does not have {' and '.join(names)}")
    return header


def unpickle(path: Path, mmap: bool = False, only_shapes: bool = False) -> object:
    """Read what PyTorch's `torch.save` wrote, without running code.

    Args:
        path: The file.
        mmap: Whether to leave the tensors in the file until they are used, if its format allows that.
        only_shapes: Whether to leave them there altogether, with tensors on "meta".

    Raises:
        CheckpointError: If the file is damaged or of another kind, or if it names any class or function
            other than tensors and those that a `Placeholder` replaces.
    """
    try:
        with (
            _UNPICKLING,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(list(_STAND_INS)),
        ):
            # torch may warn of a foreign pickle's protocol, but the errors below say it better.
            warnings.simplefilter("ignore")
            mmap = mmap and zipfile.is_zipfile(path)
            return torch.load(path, "meta" if only_shapes else "cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if not wanted:
            raise CheckpointError(in_its_place(path) or "damaged, or not a PyTorch file") from error
        reason = f"refused: it needs Python's {wanted[1]}, but only plain tensors are read, never code"
        raise CheckpointError(reason) from error
    except (OSError, MemoryError):
        raise
    except NotImplementedError:  # by tensors of which there is no kind on "meta"
        if only_shapes:
            return unpickle(path)
        raise
    except Exception as error:  # bytes that are not a pickle can make an unpickler raise anything
        reason = in_its_place(path) or f"damaged, or not a PyTorch file ({type(error).__name__})"
        raise CheckpointError(reason) from error


def plain_tensors(content: object, only_shapes: bool = False) -> dict[str, Tensor]:
    """Return the content unchanged if it is a state dict of dense tensors, with `only_shapes` on "meta".

    Raises:
        CheckpointError: If it is anything else.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"not a dictionary of tensors: its type is {type(content).__name__}")
    if not content:
        raise CheckpointError("holds no tensors")
    for key, value in content.items():
        if not isinstance(key, str):
            raise CheckpointError(f"not a plain state dict: the key {key!r} is not a string")
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise CheckpointError(f"not a plain state dict: {key!r} is not a tensor (its type is {kind})")
        is_dense = value.layout == torch.strided and not (value.is_quantized or value.is_nested)
        if not is_dense or (value.is_meta and not only_shapes):
            raise CheckpointError(f"key {key} is not a plain dense tensor")
    return content


def check_keys(tensors: dict[str, Tensor], expected: dict[str, Tensor], optional: Container[str]) -> None:
    """Check the tensors' names, their shapes, and whether they are floating-point.

    Args:
        tensors: The tensors of a file.
        expected: The tensors that the network needs; their values do not matter.
        optional: Keys that the file may have in addition.

    Raises:
        CheckpointError: If a key is missing, unexpected, misshapen or of the wrong type; the message names
            the first of each kind and counts the others.
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
        key = mistyped[0]
        wanted = "a floating-point" if expected[key].is_floating_point() else "an integer"
        types = f"{tensors[key].dtype}, expected {wanted} type"
        problems.append(f"key {key} has type {types}{_and_more(mistyped)}")
    if problems:
        raise CheckpointError("; ".join(problems))


def check_values(tensors: dict[str, Tensor]) -> None:
    """Check that all values are finite numbers.

    Raises:
        CheckpointError: If one is not; the message names its key.
    """
    broken = [
        key
        for key, value in tensors.items()
        # The sum shows quickly that all are; only if it does not, each value is looked at.
        if value.is_floating_point()
        and not value.sum(dtype=torch.float32).isfinite()
        and not value.isfinite().all()
    ]
    if broken:
        raise CheckpointError(f"key {broken[0]} has values that are not numbers{_and_more(broken)}")


def _and_more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def write_safetensors(
    path: str | Path, tensors: dict[str, Tensor], header: dict, kind: str = DETECTOR
) -> None:
    """Write a safetensors file of tensors with a JSON header; `read_tensors` reads a detector's.

    Args:
        path: The file to write.
        tensors: The tensors by key.
        header: The header, as JSON types.
        kind: The metadata key of the header.

    Raises:
        OSError: If the file cannot be written; what was there before is still there.
    """
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with _written_whole(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, metadata={kind: json.dumps(header)})


def write_official(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write a plain state dict as a `.pth` file.

    Raises:
        OSError: If the file cannot be written; what was there before is still there.
    """
    with _written_whole(path) as temporary:
        torch.save({k: v.detach().cpu() for k, v in tensors.items()}, temporary)


@contextmanager
def _written_whole(path: str | Path) -> Iterator[Path]:
    """Do what `files.atomic_write` does, and turn the errors of torch and safetensors into an OSError."""
    with atomic_write(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, safetensors.SafetensorError) as error:
            free = shutil.disk_usage(temporary.parent).free / 1e6
            raise OSError(f"{path} cannot be written ({error}); free space there: {free:.0f} MB") from error
