"""The recipe of a training run, and the learning rates that follow from it."""

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
    """A recipe; the defaults are the assignment's: Adam, plain cross entropy, a constant learning rate.

    Attributes:
        epochs: Number of epochs.
        learning_rate: Learning rate after the warm-up.
        batch_size: Clips in a step, over all processes.
        accumulate: Micro-batches into which each process divides its share of a step. The gradient is that
            of the whole step, except that BatchNorm, in the back end, normalises each micro-batch by itself
            (unless it is frozen), and that dropout draws differently.
        optimizer: One of OPTIMIZERS. Adam adds weight decay to the gradient, AdamW subtracts it from the
            weights (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).
        weight_decay: Weight decay.
        warmup: Number of steps over which the learning rate rises linearly to its full value.
        schedule: What the learning rate does after the warm-up, one of SCHEDULES: stay constant, or fall to 0
            along half a cosine.
        clip_norm: Norm to which a step's gradient is scaled down if it is larger; None to leave it as it is.
        class_weights: Weights of spoof and bona fide in the loss, a weighted mean; the published recipe has
            (0.1, 0.9). None weights both classes equally.
        patience: Number of epochs without a better one after which training ends; None to do all epochs.
        freeze_front_end: Train the back end alone.
        freeze_batch_norm: Let BatchNorm normalise by its stored statistics, and leave these unchanged.
        lora: Rank of the LoRA matrices that are trained instead of the front end's weights (see `lora.py`);
            None to train the weights themselves.
        gradient_checkpointing: Recompute the front end's activations in the backward pass to save memory.
        sampling: One of SAMPLINGS: every clip once an epoch, or equally many of each data set and class.
        crop: Which part of a longer recording is the clip: "start", or "random", drawn anew in each epoch.
        augmentation: Random changes made to each clip.
        seed: Seed of everything random.
        data: Name of the data, for the record.

    Raises:
        TrainingError: If settings contradict each other.
        ValueError: If a setting has an unknown value.
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

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("sampling", SAMPLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.freeze_front_end and self.lora is not None:
            raise TrainingError(
                "--lora trains the front end, which --freeze-frontend freezes: leave out one of the two"
            )
        if self.freeze_front_end and self.gradient_checkpointing:
            raise TrainingError(
                "--gradient-checkpointing saves nothing with --freeze-frontend: leave out one of the two"
            )


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 1, in a run of `steps` steps."""
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup - 1) / max(1, steps - config.warmup)  # 0 at the first step after the warm-up
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def steps_of_an_epoch(config: TrainingConfig, clips: int) -> int:
    """Return the number of steps in an epoch of `clips` clips; the last step may have fewer clips."""
    return -(-clips // config.batch_size)
