"""The detector: front end and back end together, from a file and to a file.

    from data_utils import load_audio, pad
    from detector import load_detector

    detector = load_detector("LA_model.pth")
    score = detector.score(torch.from_numpy(pad(load_audio("clip.wav")))[None])

Convention, here and everywhere: logit 0 = spoof (fake), logit 1 = bona fide (real). The score of a
clip is logit 1: **higher = more likely real**.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from antispoofing import distributed
from antispoofing.detectors import checkpoints, pretrained
from antispoofing.detectors.packed import Int8Linear, PackedXLSR
from antispoofing.errors import CheckpointError, DeviceError
from model import (
    AASIST,
    BONAFIDE,
    MIN_SAMPLES,
    XLSR,
    DetectorConfig,
    SpectrogramFrontEnd,
    XLSRConfig,
    build_front_end,
)

PRECISIONS = ("fp32", "bf16", "fp16", "int8")


class Detector(nn.Module):
    """Front end and back end together: `detector(waves)` gives logits, `detector.score(waves)` scores.

    Args:
        config: the architecture.
        precision: of the front end: "fp32"; "bf16" or (on CUDA) "fp16" by autocast; "int8" (on a CPU,
            `for_scoring` only) for the linear layers of XLS-R's transformer in int8 and the rest in
            bf16. The back end is 1 % of the work and stays in float32: close node gates change order
            at lower precision.
        frontend: "transformers", or "fairseq" for the same XLS-R as fairseq itself computes it.

    Raises:
        CheckpointError: fairseq is wanted for a front end that is not XLS-R, or int8 of fairseq.
        FairseqError: fairseq cannot be imported.
    """

    def __init__(
        self,
        config: DetectorConfig | None = None,
        precision: str = "fp32",
        frontend: str = "transformers",
    ):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        if (frontend, precision) == ("fairseq", "int8"):
            raise CheckpointError("fairseq has no int8: leave out --frontend fairseq")
        self.config = config or DetectorConfig()
        self.precision = precision
        self.frontend = frontend
        self.front_end = _build_front_end(self.config, frontend)
        self.back_end = AASIST(self.config.front_end.width)
        self.scores_only = False  # its weights are no longer there to be trained or saved
        self.provenance: dict = {}  # where the weights come from: JSON types, saved with them
        self.path: Path | None = None  # the file the weights were read from
        self.sha256: str | None = None  # of that file
        # fairseq's pre-training-only tensors, by official name: no score depends on them, but a
        # strict load in the original repository wants them back.
        self.pretraining_tensors: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.back_end.out_layer.weight.device

    @property
    def has_official_names(self) -> bool:
        """Whether `export_official` can write it: its front end is XLS-R."""
        return isinstance(self.config.front_end, XLSRConfig)

    def describe(self) -> dict:
        """What identifies it, as JSON types: for the results it gives."""
        return {
            "sha256": self.sha256,
            "provenance": self.provenance,
            "config": self.config.to_dict(),
            "frontend": self.frontend if self.has_official_names else None,
            "precision": self.precision,
            "device": str(self.device),
        }

    def features(self, waves: Tensor) -> Tensor:
        """Waves [B, T] -> float32 frames [B, F, width] (F = 201 for 64600 samples)."""
        if waves.ndim != 2 or waves.shape[1] < MIN_SAMPLES:
            raise ValueError(
                f"waves must be [batch, samples >= {MIN_SAMPLES}], not {tuple(waves.shape)}; "
                "see data_utils.pad"
            )
        if self.precision == "int8" and not self.scores_only:
            raise ValueError("int8 is for scoring only: call for_scoring() first")
        waves = waves.to(self.device, torch.float32, non_blocking=True)
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            return self.front_end(waves).float()

    def forward(self, waves: Tensor) -> Tensor:
        """Raw logits of 16 kHz mono waves in [-1, 1].

        Args:
            waves: [B, T], T = config.clip_samples as published (other lengths from 1040 run).

        Returns:
            [B, 2] float32: index 0 = spoof (fake), index 1 = bona fide (real).
        """
        frames = self.features(waves)
        if self.training or self.device.type != "cpu":
            return self.back_end(frames)
        # Clip by clip: the last digits would depend on the size of the batch.
        return torch.cat([self.back_end(clip) for clip in frames.split(1)])

    @torch.inference_mode()
    def score(self, waves: Tensor) -> Tensor:
        """Scores [B] of waves [B, T]: logit 1 (bona fide), higher = more likely real."""
        return self(waves)[:, BONAFIDE]

    def for_scoring(self) -> Detector:
        """Itself, in evaluation mode and as fast as it can: on a CPU no longer to be trained or saved.

        Raises:
            DeviceError: int8, which this PyTorch cannot do.
        """
        self.eval()
        if self.scores_only:  # already
            return self
        if self.device.type == "cpu" and isinstance(self.front_end, XLSR):
            self.scores_only = True
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(1)  # or how the weights lie, and last digits, would depend on it
                self.front_end = PackedXLSR(self.front_end, self.precision)
            finally:
                torch.set_num_threads(threads)
        elif self.precision == "int8" and isinstance(self.front_end, SpectrogramFrontEnd):
            self.scores_only = True
            projection = self.front_end.proj  # its one linear layer
            self.front_end.proj = Int8Linear(projection.weight, projection.bias)
        return self

    def save(self, path: str | Path) -> None:
        """Write a safetensors file whose header holds the configuration and the provenance.

        Raises:
            ValueError: it was made `for_scoring`.
        """
        self._check_weights()
        header = {"config": self.config.to_dict(), "provenance": self.provenance}
        checkpoints.write_safetensors(path, self.state_dict() | self.pretraining_tensors, header)

    def export_official(self, path: str | Path, pretraining: bool = True) -> list[str]:
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
        self._check_weights()
        if not self.has_official_names:
            raise CheckpointError("only a detector with an XLS-R front end has official key names")
        tensors = {checkpoints.official_name(k): v for k, v in self.state_dict().items()}
        tensors |= self.pretraining_tensors if pretraining else {}
        checkpoints.write_official(path, tensors)
        return [name for name in checkpoints.PRETRAINING_ONLY if name not in tensors]

    def _check_weights(self) -> None:
        if self.scores_only:
            raise ValueError("this detector was made for_scoring(): load it again to save it")


def _build_front_end(config: DetectorConfig, frontend: str) -> nn.Module:
    if frontend == "transformers":
        return build_front_end(config.front_end)
    if frontend != "fairseq":
        raise ValueError(f"frontend must be transformers or fairseq, not {frontend!r}")
    if not isinstance(config.front_end, XLSRConfig):
        raise CheckpointError("its front end is not XLS-R, so not fairseq's: leave out --frontend fairseq")
    from antispoofing.detectors.fairseq import FairseqXLSR  # what it needs is optional

    return FairseqXLSR(config.front_end)


def load_detector(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    frontend: str = "transformers",
    config: DetectorConfig | None = None,
) -> Detector:
    """A detector in evaluation mode, from an official `.pth` or one of our safetensors files.

    To score many clips, follow it by `.for_scoring()`.

    Args:
        checkpoint: `.pth` with official key names, with or without `module.` before each; or a
            file written by `Detector.save`.
        device: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device name.
        precision: "fp32" (as published), "bf16", "fp16", "int8", see `Detector`; or "auto", see
            `resolve_precision`.
        frontend: "transformers" or "fairseq", see `Detector`: the same scores from the same file.
        config: the architecture of an official `.pth`, which does not say its own; XLS-R 300M
            unless given. A safetensors file carries its own, which is used.

    Raises:
        CheckpointError: one line: the file is missing, unreadable, wants to run code, is a front
            end alone, or has a missing, extra or misshapen key (named); or as in `Detector`.
        DeviceError: the device is not there, or has not this precision.
        FairseqError: fairseq cannot be imported.
    """
    path = Path(checkpoint)
    target = resolve_device(device)
    precision = resolve_precision(precision, target)
    try:
        with checkpoints.errors_of(path), ThreadPoolExecutor(1) as beside:
            sha256 = beside.submit(checkpoints.sha256_of, path)
            tensors, header = checkpoints.read_tensors(path)
            if header is None:
                detector = _with_weights(config, precision, frontend, tensors, checkpoints.official_name)
            else:
                config = DetectorConfig.from_dict(header["config"])
                detector = _with_weights(config, precision, frontend, tensors, lambda key: key)
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
    frontend: str = "transformers",
    config: DetectorConfig | None = None,
    seed: int = 0,
) -> Detector:
    """A detector to fine-tune: its front end from a pre-training file, its back end fresh.

    It is in evaluation mode, but until it is trained its scores are guesses.

    Args:
        checkpoint: fairseq's pre-training file (`xlsr2_300m.pt`), or a Hugging Face folder of
            wav2vec 2.0 with `config.json` and `model.safetensors` or `pytorch_model.bin`.
        device, precision, frontend: as in `load_detector`.
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
    with checkpoints.errors_of(path):
        file = pretrained.read_front_end(path)
        config = file.config or config
        detector = _with_weights(config, precision, frontend, file.tensors, file.name_of, seed)
        detector.path, detector.sha256 = file.path, checkpoints.sha256_of(file.path)
    detector.provenance = {
        "front_end_file": file.path.name,
        "front_end_sha256": detector.sha256,
        "back_end": f"fresh, seed {seed}",
    }
    return detector.to(target).eval()


def _with_weights(
    config: DetectorConfig | None,
    precision: str,
    frontend: str,
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
        detector = Detector(config, precision, frontend)
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


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """ "auto" takes CUDA, else Apple's MPS, else the CPU; of a machine's processes each its own CUDA device.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, there in available.items() if there), "cpu")
    if name == "cuda" and distributed.size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise DeviceError(f"device {name!r} is none of cpu, cuda, mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"device {name!r} is not available here") from error
    if device.type == "cuda":
        # fp32 means fp32: cuDNN's convolutions would otherwise round their inputs to TF32.
        torch.backends.cudnn.allow_tf32 = False
        if distributed.size() > 1:
            torch.cuda.set_device(device)  # also for what names no device: not all of it on the first
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """ "auto" takes bf16 where the device has instructions for it, else fp32; never int8 or fp16.

    Raises:
        DeviceError: fp16 on anything but CUDA, or int8 on anything but a CPU.
    """
    if name == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    needs = {"fp16": "cuda", "int8": "cpu"}.get(name, device.type)
    if needs != device.type:
        raise DeviceError(f"precision {name} is for {needs}, not for {device.type}")
    return name


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
