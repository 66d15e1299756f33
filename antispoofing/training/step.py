"""One step of the training: forward, backward, update; in parts, in lower precision, in several processes.

Targets are the class numbers of the logits: 0 = spoof (fake), 1 = bona fide (real).
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from antispoofing import distributed
from antispoofing.errors import TrainingError
from antispoofing.training import lora
from antispoofing.training.convolutions import ConvolutionStack
from antispoofing.training.recipe import TrainingConfig
from model import XLSR, Detector

_STREAM = 3  # of random numbers; clips.py has the first two


@dataclass(frozen=True)
class MicroBatch:
    """Clips computed at once: waves [B, T] and targets int64 [B], on the CPU, and the clips' names."""

    waves: Tensor
    targets: Tensor
    names: Sequence[str]


@dataclass(frozen=True)
class StepResult:
    """Of one step, of all processes.

    Attributes:
        loss: weighted mean of the clips' cross entropies, in nats.
        weight: sum of their weights: their number, where classes have none.
        gradient_norm: before it is clipped.
    """

    loss: float
    weight: float
    gradient_norm: float


class Optimization:
    """A detector that is trained, in place.

    In a group of processes each computes its clips of a step, and the gradient is that of all of them.
    BatchNorm normalises by the clips that it sees: on CUDA those of all processes (SyncBatchNorm), on a CPU
    those of one part of one process; the statistics it keeps for evaluation are the mean of all processes'.

    Attributes:
        optimizer, scaler: torch's; the second is of fp16's loss.
    """

    def __init__(self, detector: Detector, config: TrainingConfig):
        """Raises TrainingError as `check`."""
        check(detector, config)
        self.detector, self.config = detector, config
        if config.freeze_front_end:
            detector.front_end.requires_grad_(False)
        if config.lora is not None:
            lora.add_lora(detector, config.lora)
        if config.gradient_checkpointing:
            detector.front_end.model.activation_checkpointing_enable({"use_reentrant": False})
        device = detector.device
        if device.type == "cpu" and config.gradient_checkpointing:
            _give_back_freed_memory()
        if device.type == "cpu" and isinstance(detector.front_end, XLSR):
            model = detector.front_end.model
            model.feature_extractor = ConvolutionStack(model.feature_extractor, config.gradient_checkpointing)
        self.trained = [p for p in detector.parameters() if p.requires_grad]
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self.optimizer = make(self.trained, **rates, fused=True)  # in one pass over the weights
        self.scaler = torch.amp.GradScaler(device.type, enabled=detector.precision == "fp16")
        self.class_weights = torch.tensor(config.class_weights or (1.0, 1.0))
        self.network: nn.Module = detector
        if distributed.size() > 1:
            on_cuda = device.type == "cuda"
            if on_cuda and not config.freeze_batch_norm:
                nn.SyncBatchNorm.convert_sync_batchnorm(detector)
            self.network = DistributedDataParallel(
                detector,
                device_ids=[device] if on_cuda else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
        self.norms = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train_mode(self) -> None:
        """Everything but what is frozen in training mode."""
        self.detector.train()
        if self.config.freeze_front_end:
            self.detector.front_end.eval()
        if self.config.freeze_batch_norm:
            for norm in self.norms:
                norm.eval()

    def step(
        self, parts: Sequence[MicroBatch], epoch: int, number: int, learning_rate: float
    ) -> StepResult | None:
        """Take a step with these clips and those of the other processes; None where nobody has any.

        Args:
            parts: this process's clips, each part to be computed by itself.
            number: of the step in its epoch, from 0. What is random follows from it, the epoch, the seed and
                the process.

        Raises:
            TrainingError: the loss or the gradient is no number; with the clips' names.
            ProcessError: another process has ended, or is out of reach.
        """
        parts = [part for part in parts if len(part.targets)]
        weights = [self.class_weights[part.targets] for part in parts]
        (total,) = distributed.all_sum(sum(weight.sum().item() for weight in weights))
        if total == 0:
            return None
        place = np.random.SeedSequence((_STREAM, self.config.seed, epoch, number, distributed.rank()))
        torch.manual_seed(int(place.generate_state(1, np.uint32)[0]))
        self.optimizer.zero_grad()
        losses = self._gradient(parts, [weight / total for weight in weights])
        (loss,) = distributed.all_sum(sum(part_losses.sum().item() for part_losses in losses))
        if not math.isfinite(loss):
            _refuse(f"loss of step {number + 1} of epoch {epoch}", loss, _strange(parts, losses))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1  # such a step is left out
        if not overflow and not torch.isfinite(norm):
            names = [name for part in parts for name in part.names]
            _refuse(f"gradient of step {number + 1} of epoch {epoch}", norm.item(), names)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.trained, self.config.clip_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self.config.freeze_batch_norm:
            distributed.all_mean([s for norm in self.norms for s in (norm.running_mean, norm.running_var)])
        return StepResult(loss, total, norm.item())

    def _gradient(self, parts: Sequence[MicroBatch], weights: Sequence[Tensor]) -> list[Tensor]:
        """Forward and backward; the clips' weighted losses [B] of each part."""
        losses = []
        with distributed.as_process_errors(("gloo", "NCCL")):
            for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
                is_last = i + 1 == len(parts)  # after which the processes' gradients are averaged
                alone = distributed.size() > 1 and not is_last
                with self.network.no_sync() if alone else nullcontext():
                    logits = self.network(part.waves)
                    each = F.cross_entropy(logits, part.targets.to(logits.device), reduction="none")
                    loss = each * weight.to(logits.device)
                    self.scaler.scale(loss.sum() * distributed.size()).backward()
                losses.append(loss.detach().cpu())
            if not parts:  # the others wait for it all the same
                silence = torch.zeros(1, self.detector.config.clip_samples)
                if self.detector.device.type != "cuda":  # where BatchNorm need not hear it
                    self.detector.eval()
                self.scaler.scale(self.network(silence).sum() * 0).backward()
                self.train_mode()
        return losses


def check(detector: Detector, config: TrainingConfig) -> None:
    """Raises TrainingError for what this detector cannot do."""
    wanted = {"LoRA": config.lora is not None, "gradient checkpointing": config.gradient_checkpointing}
    for what, is_wanted in wanted.items():
        if is_wanted and not isinstance(detector.front_end, XLSR):
            raise TrainingError(f"{what} needs an XLS-R front end, computed by transformers")


def _give_back_freed_memory() -> None:
    """Have the system take back at once the memory of a tensor of a megabyte or more.

    glibc keeps what was freed for later, in places that later tensors often do not fit: half a gigabyte with
    XLS-R 300M. It goes for memory what it gains in time, as gradient checkpointing does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:  # it is glibc's
        mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def _refuse(what: str, value: float, names: list[str]) -> NoReturn:
    """Raise it on all processes, to be said once, with the clips of all."""
    clips = ", ".join(name for from_process in distributed.all_gather(names) for name in from_process)
    error = TrainingError(f"the {what} is {value}: try a lower learning rate, or look at these: {clips}")
    error.process = 0
    raise error


def _strange(parts: Sequence[MicroBatch], losses: Sequence[Tensor]) -> list[str]:
    """The clips whose own loss is no number."""
    names = [name for part in parts for name in part.names]
    values = torch.cat([*losses, torch.empty(0)])
    return [name for name, loss in zip(names, values, strict=True) if not loss.isfinite()]
