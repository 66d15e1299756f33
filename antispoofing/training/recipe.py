"""What a training is set to, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from antispoofing.errors import TrainingError
from antispoofing.training.augment import Augmentation

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")
SAMPLINGS = ("all", "balanced")


@dataclass(frozen=True)
class TrainingConfig:
    """The defaults are the assignment's: Adam and plain cross entropy, a constant learning rate.

    Attributes:
        batch_size: clips of one step, of all processes together.
        accumulate: in how many parts each process computes its clips of a step; the gradient is the same.
        optimizer: one of OPTIMIZERS. Weight decay is added to Adam's gradient, but taken off AdamW's weights
            (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).
        warmup: steps in which the learning rate rises linearly to its full value.
        schedule: what it does then, one of SCHEDULES: stays, or falls to 0 as half a cosine.
        clip_norm: the largest norm of the gradient of a step, in which it is scaled down; None for any.
        class_weights: of spoof and bona fide in the loss, a weighted mean; published are (0.1, 0.9).
        patience: epochs without a better one after which the training ends; None to do all.
        freeze_front_end: train the back end alone.
        freeze_batch_norm: BatchNorm normalises by the statistics it has, and does not renew them.
        lora: rank of what is trained in place of the front end's weights (`lora.py`); None for these.
        gradient_checkpointing: compute the front end's layers again in the backward pass, not keep them.
        sampling: of an epoch, one of SAMPLINGS: every clip once, or as many of each set and class.
        crop: of longer training recordings: "start", or "random", drawn anew in each epoch.
        data: what the data are called, for the record.
    """

    epochs: int = 5
    learning_rate: float = 5e-5
    batch_size: int = 16
    accumulate: int = 1
    optimizer: str = "adam"
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    clip_norm: float | None = None
    class_weights: tuple[float, float] | None = None
    patience: int | None = None
    freeze_front_end: bool = False
    freeze_batch_norm: bool = False
    lora: int | None = None
    gradient_checkpointing: bool = False
    sampling: str = "all"
    crop: str = "start"
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    data: str | None = None

    def __post_init__(self):
        """Raises TrainingError for settings that contradict each other, ValueError for unknown ones."""
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("sampling", SAMPLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.freeze_front_end and self.lora is not None:
            raise TrainingError("LoRA trains the front end: it cannot be frozen as well")
        if self.freeze_front_end and self.gradient_checkpointing:
            raise TrainingError("of a frozen front end nothing is kept: leave out gradient checkpointing")


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Of a step, counted from 1, of a training of so many."""
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup - 1) / max(1, steps - config.warmup)  # 0 at the first step after the warm-up
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def steps_of_an_epoch(config: TrainingConfig, clips: int) -> int:
    """Return how many steps an epoch of so many clips has; the last of them may have fewer clips."""
    return -(-clips // config.batch_size)
