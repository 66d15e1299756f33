"""Detectors from files and to files: the published ones' `.pth`, this project's safetensors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from antispoofing import files
from antispoofing.detectors import checkpoints, pretrained
from antispoofing.detectors.devices import ENGINES, resolve_device, resolve_precision
from antispoofing.errors import CheckpointError
from model import AASIST, Detector, DetectorConfig, XLSRConfig


def load_detector(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    engine: str = "transformers",
    config: DetectorConfig | None = None,
) -> Detector:
    """A detector in evaluation mode, from an official `.pth` or one of our safetensors files.

    To score many clips, follow it by `for_scoring`.

    Args:
        checkpoint: `.pth` with official key names, with or without `module.` before each; or a
            file written by `save_detector`.
        device: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device name.
        precision: "fp32" (as published), "bf16", "fp16", "int8", see `Detector`; or "auto", see
            `resolve_precision`.
        engine: what computes XLS-R, "transformers" or "fairseq": the same scores from the same file.
        config: the architecture of an official `.pth`, which does not say its own; XLS-R 300M
            unless given. A safetensors file carries its own, which is used.

    Raises:
        CheckpointError: one line: the file is missing, unreadable, wants to run code, is a front
            end alone, or has a missing, extra or misshapen key (named); or fairseq is wanted for a front
            end that is not XLS-R, or for int8.
        DeviceError: the device is not there, or has not this precision.
        FairseqError: fairseq cannot be imported.
    """
    path = Path(checkpoint)
    target = resolve_device(device)
    precision = resolve_precision(precision, target)
    try:
        with checkpoints.errors_naming(path), ThreadPoolExecutor(1) as beside:
            sha256 = beside.submit(files.file_sha256, path)
            tensors, header = checkpoints.read_tensors(path)
            if header is None:
                detector = _with_weights(config, precision, engine, tensors, checkpoints.official_name)
            else:
                config = DetectorConfig.from_dict(header["config"])
                detector = _with_weights(config, precision, engine, tensors, lambda key: key)
            detector.path, detector.sha256 = path, sha256.result()
    except CheckpointError:
        if pretrained.is_front_end(path):
            raise CheckpointError(f"{path}: {pretrained.ALONE} {path}") from None
        raise
    if header is not None:
        detector.provenance = header["provenance"]
    else:
        detector.provenance = {"official_file": path.name, "official_sha256": detector.sha256}
    return detector.to(target).eval()


def load_front_end(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    engine: str = "transformers",
    config: DetectorConfig | None = None,
    seed: int = 0,
) -> Detector:
    """A detector to fine-tune: its front end from a pre-training file, its back end fresh.

    It is in evaluation mode, but until it is trained its scores are guesses.

    Args:
        checkpoint: fairseq's pre-training file (`xlsr2_300m.pt`), or a Hugging Face folder of
            wav2vec 2.0 with `config.json` and `model.safetensors` or `pytorch_model.bin`.
        device, precision, engine: as in `load_detector`.
        config: the architecture of a fairseq file; XLS-R 300M unless given. A folder carries its
            own, which is used.
        seed: of the back end's random weights. The same seed gives the same ones.

    Raises:
        CheckpointError: one line: as in `load_detector`; or the folder's architecture is not that
            of the XLS-R family.
        DeviceError: the device is not there, or has not this precision.
        FairseqError: fairseq cannot be imported.
    """
    path = Path(checkpoint)
    target = resolve_device(device)
    precision = resolve_precision(precision, target)
    with checkpoints.errors_naming(path):
        file = pretrained.read_front_end(path)
        config = file.config or config
        detector = _with_weights(config, precision, engine, file.tensors, file.name_of, seed)
        detector.path, detector.sha256 = file.path, files.file_sha256(file.path)
    detector.provenance = {
        "front_end_file": file.path.name,
        "front_end_sha256": detector.sha256,
        "back_end": f"fresh, seed {seed}",
    }
    return detector.to(target).eval()


def _with_weights(
    config: DetectorConfig | None,
    precision: str,
    engine: str,
    tensors: dict[str, Tensor],
    name_of: Callable[[str], str],
    back_end_seed: int | None = None,
) -> Detector:
    """A detector with a file's tensors in it.

    Args:
        name_of: the file's name of one of the detector's tensors, or of PRETRAINING_ONLY.
        back_end_seed: of a fresh back end; None where the file has one.

    Raises:
        CheckpointError: a key of the file is missing, extra or misshapen (named as the file does).
    """
    with torch.device("meta"):  # no time spent on random weights that are about to be replaced
        detector = _build(config or DetectorConfig(), precision, engine)
    fresh = {}
    if back_end_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(back_end_seed)
            back_end = AASIST(detector.config.front_end.width)
        fresh = {f"back_end.{key}": value for key, value in back_end.state_dict().items()}
    state = {key: value for key, value in detector.state_dict().items() if key not in fresh}
    names = {key: name_of(key) for key in state}
    pretraining = {key: name_of(key) for key in checkpoints.PRETRAINING_ONLY}
    checkpoints.check_keys(tensors, {names[k]: v for k, v in state.items()}, pretraining.values())
    loaded = {key: tensors[names[key]].to(value.dtype) for key, value in state.items()}
    detector.load_state_dict(loaded | fresh, assign=True)
    detector.pretraining_tensors = {k: tensors[name] for k, name in pretraining.items() if name in tensors}
    return detector


def _build(config: DetectorConfig, precision: str, engine: str) -> Detector:
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "transformers":
        return Detector(config, precision)
    if precision == "int8":
        raise CheckpointError("fairseq has no int8: leave out --frontend fairseq")
    if not isinstance(config.front_end, XLSRConfig):
        raise CheckpointError("its front end is not XLS-R, so not fairseq's: leave out --frontend fairseq")
    from antispoofing.detectors.fairseq import FairseqXLSR  # what it needs is optional

    return Detector(config, precision, FairseqXLSR(config.front_end), engine)


def save_detector(detector: Detector, path: str | Path) -> None:
    """Write a safetensors file whose header holds the configuration and the provenance.

    Raises:
        ValueError: it was made `for_scoring`.
        OSError: the file cannot be written; what was there before still is.
    """
    _check_weights(detector)
    header = {"config": detector.config.to_dict(), "provenance": detector.provenance}
    tensors = detector.state_dict() | detector.pretraining_tensors
    checkpoints.write_safetensors(path, tensors, header)


def export_official(detector: Detector, path: str | Path, pretraining: bool = True) -> list[str]:
    """Write a `.pth` with the official key names, which the original repository loads.

    Args:
        pretraining: also write fairseq's pre-training-only tensors, as far as the file this
            detector came from had them. The original repository's strict load needs them.

    Returns:
        The official names that are not in the file (empty: it loads strictly).

    Raises:
        CheckpointError: the detector's front end is not XLS-R, so it has no official names.
        ValueError: it was made `for_scoring`.
    """
    _check_weights(detector)
    if not detector.has_official_names:
        raise CheckpointError("only a detector with an XLS-R front end has official key names")
    tensors = {checkpoints.official_name(k): v for k, v in detector.state_dict().items()}
    tensors |= detector.pretraining_tensors if pretraining else {}
    checkpoints.write_official(path, tensors)
    return [name for name in checkpoints.PRETRAINING_ONLY if name not in tensors]


def _check_weights(detector: Detector) -> None:
    if detector.scores_only:
        raise ValueError("this detector was made for scoring: load it again to save it")
