"""Load detectors from the published `.pth` files and this project's safetensors, and write both.

A detector that only has to score is made faster by `for_scoring`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from antispoofing import files
from antispoofing.detectors import checkpoints, families, hugging_face, pretrained
from antispoofing.detectors.batched import BatchedXLSR, Replayed
from antispoofing.detectors.devices import ENGINES, resolve_device, resolve_precision
from antispoofing.detectors.packed import Int8Linear, PackedXLSR
from antispoofing.errors import CheckpointError
from antispoofing.published import CONFIG, PREPROCESSOR
from model import (
    AASIST,
    AASIST_HEAD,
    DTYPES,
    XLSR,
    Detector,
    DetectorConfig,
    RawConfig,
    SpectrogramFrontEnd,
    TransformersConfig,
    TransformersFrontEnd,
    XLSRConfig,
)

logger = logging.getLogger(__name__)


def load_detector(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    engine: str = "transformers",
    config: DetectorConfig | None = None,
) -> Detector:
    """Load a detector, in evaluation mode, from a published file or one of this project's safetensors.

    To score many clips, pass the result to `for_scoring`.

    Args:
        checkpoint: A file of one of the families (`families.py`), by itself or among what a training script
            saved (`checkpoints.read_tensors`); one written by `save_detector`; a folder with one such file;
            or a Hugging Face folder of a classifier (`hugging_face.py`).
        device: "auto" (CUDA if there is one, else Apple's MPS, else the CPU), or a torch device or its name.
        precision: "fp32" (as published), "bf16", "fp16" or "int8" (see `Detector`), or "auto" (see
            `resolve_precision`).
        engine: What computes XLS-R, "transformers" or "fairseq"; both give the same scores.
        config: The sizes of the front end of a published file, which does not store them; None is XLS-R
            300M. This project's files and Hugging Face folders store their own, which are used instead.

    Raises:
        CheckpointError: If the file is missing, unreadable or only a front end, if it would run code, or if
            a key is missing, unexpected or misshapen, or has values that are not numbers; if the engine is
            fairseq and it is not XLS-R + AASIST or the precision is int8; or if the precision is int8 and the
            front end is not XLS-R.
        DeviceError: If the device is not available, or does not support the precision.
        FairseqError: If fairseq cannot be imported.
        ValueError: If the engine or the precision is unknown.
    """
    path = Path(checkpoint)
    precision, target = _checked(engine, precision, device)
    with _naming(path):
        file, *settings = files_of(path)
        with ThreadPoolExecutor(1) as pool:
            sha256 = pool.submit(sha256_of, [file, *settings])
            read = _read(path, file, config)
            detector = _with_weights(read, precision, engine)
        detector.path, detector.sha256 = file, sha256.result()
    _tell_origin(detector, read)
    return detector.to(target).eval()


def check_detector(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    engine: str = "transformers",
    config: DetectorConfig | None = None,
) -> Detector:
    """Check all of a detector but the values of its weights, which is quick.

    Args:
        checkpoint: As for `load_detector`, and so are the others.
        device: Where it is to compute.
        precision: In which number format.
        engine: By which library.
        config: The sizes of its front end, if the file does not store them.

    Returns:
        The detector without weights, on "meta", and without its file's SHA-256.

    Raises:
        CheckpointError: As in `load_detector`, except for the values.
        DeviceError: If the device is not available, or does not support the precision.
        FairseqError: If fairseq cannot be imported.
        ValueError: If the engine or the precision is unknown.
    """
    path = Path(checkpoint)
    precision, _ = _checked(engine, precision, device)
    with _naming(path):
        file = files_of(path)[0]
        read = _read(path, file, config, only_shapes=True)
        with _naming_family(read.family):
            detector, _ = _network(read, precision, engine)
        detector.path = file
    _tell_origin(detector, read)
    return detector


def _tell_origin(detector: Detector, read: _Contents) -> None:
    """Set a detector's provenance and, if its weights are as others published them, their threshold."""
    assert detector.path is not None  # set by the callers
    if read.header is not None:
        detector.provenance = read.header["provenance"]
    else:
        detector.provenance = {"official_file": detector.path.name, "official_sha256": detector.sha256}
        if detector.config.head != AASIST_HEAD:
            detector.provenance["family"] = families.by_head(detector.config.head).name
    if read.header is None or "family" in detector.provenance:
        detector.published_threshold = families.by_head(detector.config.head).threshold


def _checked(engine: str, precision: str, device: str | torch.device) -> tuple[str, torch.device]:
    """Return the precision and the device that `load_detector` uses; raise what it raises for wrong ones."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    target = resolve_device(device)
    return resolve_precision(precision, target), target


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Report what is wrong with a detector's file in one line, and that it is a front end if that is it."""
    try:
        with checkpoints.errors_naming(path):
            yield
    except CheckpointError:
        try:
            is_alone = pretrained.is_front_end(path)
        except CheckpointError:  # what is wrong with it is said anyway
            is_alone = False
        if is_alone:
            raise CheckpointError(f"{path}: {pretrained.ALONE} {path}") from None
        raise


class _Contents(NamedTuple):
    """A detector or a front end, as read from a file.

    Attributes:
        config: The detector's configuration.
        tensors: The weights by the file's own keys.
        name_of: Gives the file's key for a key of the detector, or for one of PRETRAINING_ONLY.
        header: The header of this project's files; None for others.
        family: The name of the family as which the file was recognised; "" if it says itself what it is.
    """

    config: DetectorConfig
    tensors: dict[str, Tensor]
    name_of: Callable[[str], str]
    header: dict | None = None
    family: str = ""


def _read(given: Path, file: Path, config: DetectorConfig | None, only_shapes: bool = False) -> _Contents:
    """Read a detector.

    Args:
        given: As for `load_detector`.
        file: The file of its weights, by `files_of`.
        config: As for `load_detector`.
        only_shapes: As for `checkpoints.read_tensors`.
    """
    classifier = hugging_face.read_classifier(given, only_shapes)
    if classifier is not None:
        return _Contents(classifier.config, classifier.tensors, classifier.name_of)
    tensors, header = checkpoints.read_tensors(file, only_shapes, families.owned)
    if header is not None:
        return _Contents(DetectorConfig.from_dict(header["config"]), tensors, lambda key: key, header)
    prefix, tensors = families.without_prefix(tensors)
    tensors = checkpoints.without_wrappers(tensors)
    if prefix and not only_shapes:
        logger.info("%s: its weights are those whose names begin with %s", file, prefix)
    family = families.recognise(tensors)
    return _Contents(family.config(tensors, config), tensors, family.name_of(tensors), family=family.name)


def files_of(checkpoint: Path) -> list[Path]:
    """Return the files that a detector consists of, its weights first.

    Args:
        checkpoint: As for `load_detector`.

    Raises:
        CheckpointError: If it is a folder without, or with several, files of weights.
    """
    if pretrained.is_classifier(checkpoint):
        return [pretrained.find_weights(checkpoint), *(checkpoint / name for name in (CONFIG, PREPROCESSOR))]
    return [checkpoints.only_file(checkpoint) if checkpoint.is_dir() else checkpoint]


def sha256_of(paths: Sequence[Path]) -> str:
    """Return the SHA-256 in hexadecimal of a detector's file; of several, that of their SHA-256s in a row."""
    digests = [files.file_sha256(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def load_front_end(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    engine: str = "transformers",
    config: DetectorConfig | None = None,
    seed: int = 0,
) -> Detector:
    """Load a pre-trained front end and give it a fresh back end, to be fine-tuned.

    The detector is in evaluation mode, but until it is trained its scores are guesses.

    Args:
        checkpoint: fairseq's pre-training file (`xlsr2_300m.pt`), or a Hugging Face folder of
            wav2vec 2.0 with `config.json` and `model.safetensors` or `pytorch_model.bin`.
        device: As for `load_detector`.
        precision: As for `load_detector`.
        engine: As for `load_detector`.
        config: The architecture of a fairseq file; None is XLS-R 300M. A folder stores its own, which is
            used instead.
        seed: The seed of the back end's random weights.

    Raises:
        CheckpointError: As for `load_detector`, or if the folder's architecture is not of the XLS-R family.
        DeviceError: If the device is not available, or does not support the precision.
        FairseqError: If fairseq cannot be imported.
        ValueError: If the engine or the precision is unknown.
    """
    path = Path(checkpoint)
    precision, target = _checked(engine, precision, device)
    with checkpoints.errors_naming(path):
        file = pretrained.read_front_end(path)
        read = _Contents(file.config or config or DetectorConfig(), file.tensors, file.name_of)
        detector = _with_weights(read, precision, engine, seed)
        detector.path, detector.sha256 = file.path, files.file_sha256(file.path)
    detector.provenance = {
        "front_end_file": file.path.name,
        "front_end_sha256": detector.sha256,
        "back_end": f"fresh, seed {seed}",
    }
    return detector.to(target).eval()


def _with_weights(read: _Contents, precision: str, engine: str, back_end_seed: int | None = None) -> Detector:
    """Build a detector and fill it with a file's tensors; with a seed, its back end gets random weights."""
    with _naming_family(read.family):
        detector, fresh = _network(read, precision, engine, back_end_seed)
        state = {key: value for key, value in detector.state_dict().items() if key not in fresh}
        names = {key: read.name_of(key) for key in state}
        loaded = {key: read.tensors[names[key]].to(value.dtype) for key, value in state.items()}
        checkpoints.check_values({names[key]: value for key, value in loaded.items()})
    detector.load_state_dict(loaded | fresh, assign=True)
    pretraining = {key: read.name_of(key) for key in checkpoints.PRETRAINING_ONLY}
    detector.pretraining_tensors = {
        key: read.tensors[name] for key, name in pretraining.items() if name in read.tensors
    }
    return detector


@contextmanager
def _naming_family(family: str) -> Iterator[None]:
    """Add to an error as which family the file was read, if that was told by its keys alone."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error} (read as {family})" if family else str(error)) from error


def _network(
    read: _Contents, precision: str, engine: str, back_end_seed: int | None = None
) -> tuple[Detector, dict[str, Tensor]]:
    """Build a detector without weights, on "meta", and check that a file has the tensors that it needs.

    Returns:
        The detector, and the random weights of its back end by key; there are none without a seed.
    """
    with torch.device("meta"):  # random weights take time, and would be replaced at once
        detector = _build(read.config, precision, engine)
    fresh = {}
    if back_end_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(back_end_seed)
            back_end = AASIST(detector.config.front_end.width)
        fresh = {f"back_end.{key}": value for key, value in back_end.state_dict().items()}
    front_end, mask = detector.front_end, "masked_spec_embed"
    if (
        isinstance(front_end, XLSR | TransformersFrontEnd)
        and read.name_of(f"front_end.model.{mask}") not in read.tensors
    ):
        front_end.model.register_parameter("masked_spec_embed", None)  # of pre-training: some lack it
    state = {key: value for key, value in detector.state_dict().items() if key not in fresh}
    pretraining = [read.name_of(key) for key in checkpoints.PRETRAINING_ONLY]
    checkpoints.check_keys(read.tensors, {read.name_of(k): v for k, v in state.items()}, pretraining)
    return detector, fresh


def _build(config: DetectorConfig, precision: str, engine: str) -> Detector:
    if precision == "int8" and isinstance(config.front_end, TransformersConfig):
        raise CheckpointError(
            "its front end is not XLS-R, which alone computes in int8: choose another --precision"
        )
    back_end = families.by_head(config.head).build(config.front_end.width, **config.head_sizes)
    if isinstance(config.front_end, RawConfig):
        precision = "fp32"  # there is no front end that could compute in another
    if engine == "transformers":
        return Detector(config, precision, back_end=back_end)
    if config.head != AASIST_HEAD:
        raise CheckpointError("fairseq computes XLS-R + AASIST only: leave out --frontend fairseq")
    if precision == "int8":
        raise CheckpointError("fairseq does not support int8: leave out --frontend fairseq")
    if not isinstance(config.front_end, XLSRConfig):
        raise CheckpointError(
            "its front end is not XLS-R, so fairseq cannot compute it: leave out --frontend fairseq"
        )
    from antispoofing.detectors.fairseq import FairseqXLSR

    return Detector(config, precision, FairseqXLSR(config.front_end), engine, back_end)


def for_scoring(detector: Detector) -> Detector:
    """Make a detector as fast as possible for scoring, and put it into evaluation mode.

    With XLS-R on a CPU, or XLS-R + AASIST on CUDA, it can then no longer be trained or saved.

    Returns:
        The same detector.

    Raises:
        DeviceError: If the device does not support the precision.
    """
    detector.eval()
    if detector.scores_only:
        return detector
    resolve_precision(detector.precision, detector.device)
    if isinstance(detector.front_end, XLSR) and detector.device.type == "cuda":
        if detector.config.head == AASIST_HEAD:  # no card has run other families yet
            detector.scores_only = True
            detector.front_end = Replayed(BatchedXLSR(detector.front_end, DTYPES[detector.precision]))
            detector.back_end = Replayed(detector.back_end)
    elif isinstance(detector.front_end, XLSR) and detector.device.type == "cpu":
        detector.scores_only = True
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # or the layout of the weights, and the last digits, would depend on it
            detector.front_end = PackedXLSR(detector.front_end, detector.precision)
        finally:
            torch.set_num_threads(threads)
    elif isinstance(detector.config.front_end, RawConfig) and detector.device.type == "cpu":
        # Convolutions and pooling are faster so; PyTorch's annotations lack the argument.
        detector.back_end.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif detector.precision == "int8" and isinstance(detector.front_end, SpectrogramFrontEnd):
        detector.scores_only = True
        projection = detector.front_end.proj  # its one linear layer
        detector.front_end.add_module("proj", Int8Linear(projection.weight, projection.bias))
    return detector


def save_detector(detector: Detector, path: str | Path) -> None:
    """Write a detector as safetensors, with its configuration and provenance in the header.

    Raises:
        ValueError: If the detector has been prepared by `for_scoring`, which gives up its weights.
        OSError: If the file cannot be written; what was there before is still there.
    """
    _check_weights(detector)
    header = {"config": detector.config.to_dict(), "provenance": detector.provenance}
    tensors = detector.state_dict() | detector.pretraining_tensors
    checkpoints.write_safetensors(path, tensors, header)


def export_official(detector: Detector, path: str | Path) -> list[str]:
    """Write a detector as a `.pth` with the official keys, which the original repository loads.

    Args:
        detector: A detector whose front end is XLS-R.
        path: The file to write.

    Returns:
        The official keys that the file lacks; if there are none, it loads strictly.

    Raises:
        CheckpointError: If it is not XLS-R + AASIST, since there are no official keys for others.
        ValueError: If the detector has been prepared by `for_scoring`, which gives up its weights.
        OSError: If the file cannot be written; what was there before is still there.
    """
    _check_weights(detector)
    if not detector.has_official_names:
        raise CheckpointError("only XLS-R + AASIST has official keys")
    tensors = {checkpoints.official_name(k): v for k, v in detector.state_dict().items()}
    tensors |= detector.pretraining_tensors
    checkpoints.write_official(path, tensors)
    return [name for name in checkpoints.PRETRAINING_ONLY if name not in tensors]


def _check_weights(detector: Detector) -> None:
    if detector.scores_only:
        raise ValueError("this detector was prepared for scoring only: load it again to save it")
