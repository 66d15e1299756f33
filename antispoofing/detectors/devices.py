"""Where a detector computes, and how exactly: what the command line's words mean on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.errors import DeviceError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16", "int8")  # of the front end, see `model.Detector`
ENGINES = ("transformers", "fairseq")  # what computes XLS-R, see `loading.load_detector`


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """ "auto" takes CUDA, else Apple's MPS, else the CPU; of a machine's processes each its own CUDA device.

    Raises:
        DeviceError: it is not there.
    """
    import torch

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
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
