"""Fine-tuning: the loop, what it keeps, and what it writes down.

Targets are the class numbers of the logits: 0 = spoof (fake), 1 = bona fide (real).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import metrics
from data_sets import Utterance
from data_utils import default_workers, make_loader
from detector import Detector
from errors import CheckpointError, DataError, TrainingError
from evaluation import NOT_A_NUMBER, Scored, score_utterances
from model import BONAFIDE, SPOOF

FINAL, LAST = "final_model.safetensors", "last_model.safetensors"  # the best epoch's weights, the last one's
CLASS_OF = {"spoof": SPOOF, "bonafide": BONAFIDE}


@dataclass(frozen=True)
class TrainingConfig:
    """The assignment's settings: Adam and plain cross entropy, no schedule."""

    epochs: int = 5
    learning_rate: float = 5e-5
    batch_size: int = 16
    weight_decay: float = 0.0
    seed: int = 0
    crop: str = "start"  # of longer training recordings; or "random", drawn anew in each epoch
    data: str | None = None  # what the data set is called, for the record


@dataclass(frozen=True)
class EpochResult:
    """One epoch: losses are mean cross entropies in nats; AUC and EER are of the validation set.

    validation_auc_low and _high are the AUC's 95 % bootstrap interval, validation_threshold is the
    one at the EER.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auc: float
    validation_auc_low: float
    validation_auc_high: float
    validation_eer: float
    validation_threshold: float
    learning_rate: float
    seconds: float


def fine_tune(
    detector: Detector,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainingConfig,
    output: Path,
    *,
    workers: int | None = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_epoch: Callable[[EpochResult, Scored], None] = lambda result, scored: None,
    on_unreadable: Callable[[Utterance, str], None] = lambda utterance, reason: None,
) -> list[EpochResult]:
    """Train a detector in place; the weights after the last epoch stay in it.

    The epoch with the lowest validation EER (of equals, the lowest validation loss) is written to
    `final_model.safetensors`, the last one to `last_model.safetensors`, each with its settings and
    validation figures as provenance. On a CPU, the same seed gives the same weights.

    Args:
        training, validation: recordings with labels.
        output: an existing folder.
        workers: as in `evaluation.score_utterances`.
        on_step: called after each step with its number from 1 and its loss.
        on_epoch: called after each epoch with its figures and the scored validation set.
        on_unreadable: called once for each training recording that is left out, with the reason.

    Raises:
        DataError: a class is missing, or cannot be read, in one of the sets.
        TrainingError: the loss is no longer a number.
    """
    for name, utterances in (("training", training), ("validation", validation)):
        if {u.label for u in utterances} != set(CLASS_OF):
            raise DataError(f"the {name} set must hold real and fake recordings, and only such")
    torch.manual_seed(config.seed)
    order = torch.Generator().manual_seed(config.seed)
    sizes = detector.config
    loader = make_loader(
        training,
        BatchSampler(RandomSampler(training, generator=order), config.batch_size, drop_last=False),
        sizes.sample_rate,
        sizes.clip_samples,
        default_workers(detector.device) if workers is None else workers,
        crop_seed=config.seed if config.crop == "random" else None,
    )
    targets = torch.tensor([CLASS_OF[u.label] for u in training], device=detector.device)
    trainable = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    before = {
        "file": detector.path and str(detector.path),
        "sha256": detector.sha256,
        "provenance": detector.provenance,
    }
    history: list[EpochResult] = []
    unreadable: dict[int, str] = {}
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        first_step = (epoch - 1) * len(loader) + 1
        loader.dataset.epoch = epoch
        train_loss = _train_epoch(detector, loader, targets, optimizer, first_step, on_step, unreadable)
        if epoch == 1:
            for i, reason in sorted(unreadable.items()):
                on_unreadable(training[i], reason)
        detector.eval()
        scored = score_utterances(detector, validation, workers=workers)
        result = _epoch_result(epoch, train_loss, scored, config, time.perf_counter() - started)
        history.append(result)
        detector.provenance = {
            "started_from": before,
            "training": asdict(config) | {"clips": len(training) - len(unreadable)},
            # without the time it took: the same seed is to give the same file
            "epoch": {k: v for k, v in asdict(result).items() if k != "seconds"},
        }
        detector.save(output / LAST)
        if best_epoch(history) is result:
            detector.save(output / FINAL)
        on_epoch(result, scored)
    return history


def read_provenance(detector: Detector) -> tuple[dict, dict]:
    """What `fine_tune` wrote into a file: "started_from" and "epoch".

    Raises:
        CheckpointError: the detector was not fine-tuned here, or its file was tampered with.
    """
    try:
        origin, epoch = detector.provenance["started_from"], detector.provenance["epoch"]
        figures = [epoch[f.name] for f in fields(EpochResult) if f.name.startswith("validation_")]
        known = (
            isinstance(origin["file"], str | None)
            and isinstance(origin["sha256"], str | None)
            and isinstance(origin["provenance"], dict)
            and all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise CheckpointError(f"{detector.path} was not written by fine_tune_for.py: it does not say how")
    return origin, epoch


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """The one with the lowest validation EER; of equals, the lowest validation loss."""
    return min(history, key=lambda result: (result.validation_eer, result.validation_loss))


def _train_epoch(
    detector: Detector,
    loader: DataLoader,
    targets: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    step: int,
    on_step: Callable[[int, float], None],
    unreadable: dict[int, str],
) -> float:
    """One pass over the training set; the mean loss per clip. Adds to `unreadable` what is, and why."""
    detector.train()
    total, clips = 0.0, 0
    for number, (indices, waves, failures, _) in enumerate(loader, start=step):
        unreadable.update(failures)
        if not indices:
            continue
        loss = F.cross_entropy(detector(waves), targets[indices])
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss at step {number} is {loss.item()}: try a lower learning rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(indices)
        clips += len(indices)
        on_step(number, loss.item())
    if clips == 0:
        reason = next(iter(unreadable.values()))
        raise DataError(f"none of the training recordings can be read; the first: {reason}")
    return total / clips


def _epoch_result(
    epoch: int, train_loss: float, scored: Scored, config: TrainingConfig, seconds: float
) -> EpochResult:
    if NOT_A_NUMBER in scored.failures.values():
        raise TrainingError(f"after epoch {epoch} the network gives no numbers: try a lower learning rate")
    bonafide, spoof = scored.scores_of("bonafide"), scored.scores_of("spoof")
    if len(bonafide) == 0 or len(spoof) == 0:
        raise DataError("no real, or no fake, recording of the validation set can be scored")
    values = metrics.compute_metrics(bonafide, spoof)
    low, high = metrics.bootstrap_intervals(bonafide, spoof, seed=config.seed)["auc"]
    there = np.isfinite(scored.scores)
    classes = torch.tensor([CLASS_OF[u.label] for u in scored.utterances])[there]
    loss = F.cross_entropy(torch.from_numpy(scored.logits[there]), classes).item()
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        validation_loss=loss,
        validation_auc=values["auc"],
        validation_auc_low=low,
        validation_auc_high=high,
        validation_eer=values["eer"],
        validation_threshold=values["threshold"],
        learning_rate=config.learning_rate,
        seconds=seconds,
    )
