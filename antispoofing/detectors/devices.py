"""Devices and precisions: what the command line's names for them mean on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.errors import DeviceError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16", "int8")  # of the front end; see `model.Detector`
ENGINES = ("transformers", "fairseq")  # what computes XLS-R; see `loading.load_detector`


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device with this name after checking that it works.

    Args:
        name: A torch device, or its name; "auto" is CUDA if there is one, else Apple's MPS, else the CPU.
            In a group of processes, "cuda" gives each process of a machine its own device.

    Raises:
        DeviceError: If the device is not available, or not of a kind that is supported.
    """
    import torch

    if name == "auto":
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, is_there in available.items() if is_there), "cpu")
    if name == "cuda" and distributed.size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise DeviceError(f"--device {str(name)!r} is not supported: choose auto, cpu, cuda or mps")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        remedy = "choose another one, or auto"
        if str(name).startswith("cuda") and distributed.size() > 1:
            remedy = "choose cpu, or start no more processes on a machine than it has GPUs"
        raise DeviceError(f"--device {str(name)!r} is not available here: {remedy}") from error
    if device.type == "cuda":
        # cuDNN's convolutions would otherwise round their inputs to TF32, and fp32 should mean fp32.
        torch.backends.cudnn.allow_tf32 = False
        if device.index is not None:
            # Otherwise whatever names no device, as CUDA graphs do, would end up on the first one.
            torch.cuda.set_device(device)
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return the precision with this name after checking that it suits the device.

    Args:
        name: One of PRECISIONS; "auto" is bf16 if the device has instructions for it, else fp32.
        device: Where the detector will compute.

    Raises:
        DeviceError: If the name is fp16 and the device is not CUDA, or int8 and the device is not a CPU.
        ValueError: If the name is unknown.
    """
    if name not in (*PRECISIONS, "auto"):
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)} and auto, not {name!r}")
    if name == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    needs = {"fp16": "cuda", "int8": "cpu"}.get(name, device.type)
    if needs != device.type:
        raise DeviceError(
            f"--precision {name} needs {needs}, but the device is {device.type}: choose another --precision "
            "or --device"
        )
    return name


def _has_bf16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # bf16 is ARM's
