"""A training step: forward, backward, update; in micro-batches, lower precision and several processes.

Targets are the class numbers of the logits: 0 = spoof (fake), 1 = bona fide (real).
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel as DDP

from antispoofing import distributed
from antispoofing.detectors.families import FAMILIES, by_head
from antispoofing.errors import TrainingError
from antispoofing.training import lora
from antispoofing.training.convolutions import BatchedConvolutionStack, ConvolutionStack
from antispoofing.training.recipe import TrainingConfig
from model import XLSR, Detector

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

_STREAM = 3  # number of the random stream; the first two are in clips.py


@dataclass(frozen=True)
class MicroBatch:
    """Clips that are computed together.

    Attributes:
        waves: float32 [B, T], on the CPU.
        targets: int64 [B], on the CPU.
        names: Names of the clips.
    """

    waves: Tensor
    targets: Tensor
    names: Sequence[str]


@dataclass(frozen=True)
class StepResult:
    """The figures of one step, over all processes.

    Attributes:
        loss: Weighted mean of the clips' cross entropies in nats.
        weight: Sum of the clips' weights, which is their number if classes are not weighted.
        gradient_norm: Norm of the gradient before it is clipped.
    """

    loss: float
    weight: float
    gradient_norm: float


class Optimization:
    """A detector in training, with its optimizer.

    In a group of processes, each computes its own clips of a step, and the gradient is that of all clips.
    In training, BatchNorm normalises by the statistics of a batch: on CUDA the clips of all processes
    (SyncBatchNorm), on a CPU one micro-batch of one process. The running statistics, for evaluation, are the
    mean over all processes.

    Args:
        detector: The detector, which is trained in place.
        config: The recipe.

    Attributes:
        trained: The parameters that are trained.
        optimizer: Their optimizer.
        scaler: The loss scaler for fp16; it does nothing in other precisions.

    Raises:
        TrainingError: If the detector cannot be trained as configured, see `check`.
    """

    def __init__(self, detector: Detector, config: TrainingConfig):
        check(detector, config)
        self.detector, self.config = detector, config
        if config.freeze_front_end:
            detector.front_end.requires_grad_(False)
        if config.lora is not None:
            lora.add_lora(detector, config.lora)
        device = detector.device
        if isinstance(detector.front_end, XLSR):
            _prepare(detector.front_end.model, device, config.gradient_checkpointing)
        self.trained = [p for p in detector.parameters() if p.requires_grad]
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self.optimizer = make(self.trained, **rates, fused=True)  # one pass over the weights is faster
        self.scaler = torch.amp.GradScaler(device.type, enabled=detector.precision == "fp16")
        self.class_weights = torch.tensor(config.class_weights or (1.0, 1.0))
        self.network: nn.Module = detector
        if distributed.size() > 1:
            on_cuda = device.type == "cuda"
            if on_cuda and not config.freeze_batch_norm:
                nn.SyncBatchNorm.convert_sync_batchnorm(detector)
            self.network = DDP(
                detector,
                device_ids=[device] if on_cuda else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
            )
        self.norms = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train_mode(self) -> None:
        """Put everything that is not frozen into training mode."""
        self.detector.train()
        if self.config.freeze_front_end:
            self.detector.front_end.eval()
        if self.config.freeze_batch_norm:
            for norm in self.norms:
                norm.eval()

    def step(
        self, parts: Sequence[MicroBatch], epoch: int, number: int, learning_rate: float
    ) -> StepResult | None:
        """Take a step with this process's clips and those of the other processes.

        Dropout follows from the seed, the epoch, the step and the process alone.

        Args:
            parts: This process's micro-batches; they may be empty.
            epoch: Number of the epoch.
            number: Number of the step in its epoch, from 0.
            learning_rate: Learning rate of the step.

        Returns:
            The step's figures; None if no process has any clips, so that no step is taken.

        Raises:
            TrainingError: If the loss or the gradient is not a number; the message names the clips.
            ProcessError: If another process has ended or cannot be reached.
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
            _refuse(f"loss of step {number + 1} of epoch {epoch}", loss, _not_a_number(parts, losses))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        # In fp16, the scaler skips a step that overflows and lowers its scale, which is not to blame below 1.
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not may_overflow and not torch.isfinite(norm):
            names = [name for part in parts for name in part.names]
            _refuse(f"gradient of step {number + 1} of epoch {epoch}", norm.item(), names)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.trained, self.config.clip_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self.config.freeze_batch_norm:
            statistics = [s for norm in self.norms for s in (norm.running_mean, norm.running_var)]
            distributed.all_mean([s for s in statistics if s is not None])
        return StepResult(loss, total, norm.item())

    def _gradient(self, parts: Sequence[MicroBatch], weights: Sequence[Tensor]) -> list[Tensor]:
        """Run the forward and backward passes; return the weighted losses [B] of each micro-batch."""
        losses, network = [], self.network
        with distributed.as_process_errors(("gloo", "NCCL")):
            for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
                # DDP averages the processes' gradients once a step, after the last micro-batch.
                is_last = i + 1 == len(parts)
                with network.no_sync() if isinstance(network, DDP) and not is_last else nullcontext():
                    logits = network(part.waves)
                    each = F.cross_entropy(logits, part.targets.to(logits.device), reduction="none")
                    loss = each * weight.to(logits.device)
                    self.scaler.scale(loss.sum() * distributed.size()).backward()
                losses.append(loss.detach().cpu())
            if not parts:  # the other processes wait for this one's gradient, which is 0
                silence = torch.zeros(1, self.detector.config.clip_samples)
                # Silence must not change the running statistics; but SyncBatchNorm waits for every process.
                if self.detector.device.type != "cuda":
                    self.detector.eval()
                self.scaler.scale(network(silence).sum() * 0).backward()
                self.train_mode()
        return losses


def check(detector: Detector, config: TrainingConfig) -> None:
    """Check that a detector can be trained as configured.

    Raises:
        TrainingError: If detectors of its family cannot be trained, or the recipe needs an XLS-R front end
            computed by transformers, and this is not one.
    """
    family = by_head(detector.config.head)
    if not family.trainable:
        choice = " or ".join(family.name for family in FAMILIES if family.trainable)
        raise TrainingError(f"{family.name} can score, but not be fine-tuned here: choose {choice}")
    wanted = {"--lora": config.lora is not None, "--gradient-checkpointing": config.gradient_checkpointing}
    for what, is_wanted in wanted.items():
        if is_wanted and not isinstance(detector.front_end, XLSR):
            raise TrainingError(
                f"{what} needs an XLS-R front end computed by transformers: leave it out, or choose such "
                "a detector and --frontend transformers"
            )


def _prepare(model: Wav2Vec2Model, device: torch.device, checkpointing: bool) -> None:
    """Turn on gradient checkpointing if wanted, and replace the convolutions by faster ones."""
    if checkpointing:
        # The older name, which later versions warn of, is the only one before transformers 5.23.
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
        enable = getattr(model, next(name for name in names if hasattr(model, name)))
        enable({"use_reentrant": False})
    if device.type == "cpu" and checkpointing:
        _return_freed_memory()
    stack = {"cpu": ConvolutionStack, "cuda": BatchedConvolutionStack}.get(device.type)
    if stack is not None:
        model.set_submodule("feature_extractor", stack(model.feature_extractor, checkpointing))


def _return_freed_memory() -> None:
    """Make glibc return the memory of tensors of a megabyte or more to the system at once.

    glibc keeps freed memory for later, in places that later tensors often do not fit: half a gigabyte with
    XLS-R 300M. Like gradient checkpointing, this saves memory and costs time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:  # only glibc has it
        mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def _refuse(what: str, value: float, names: list[str]) -> NoReturn:
    """Raise a TrainingError on all processes, with the clips of all of them; it is printed only once."""
    clips = ", ".join(name for from_process in distributed.all_gather(names) for name in from_process)
    error = TrainingError(
        f"the {what} is {value}: try a lower --learning-rate, or check these clips: {clips}"
    )
    error.process = 0
    raise error


def _not_a_number(parts: Sequence[MicroBatch], losses: Sequence[Tensor]) -> list[str]:
    """Return the names of the clips whose own loss is not a number."""
    names = [name for part in parts for name in part.names]
    values = torch.cat([*losses, torch.empty(0)])
    return [name for name, loss in zip(names, values, strict=True) if not loss.isfinite()]
