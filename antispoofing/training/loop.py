"""The training loop: epochs of steps, validation after each, and the files written on the way.

Targets are the class numbers of the logits: 0 = spoof (fake), 1 = bona fide (real).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from antispoofing import distributed
from antispoofing.classes import CLASSES
from antispoofing.data.recordings import Utterance
from antispoofing.detectors import checkpoints
from antispoofing.detectors.loading import save_detector
from antispoofing.errors import DataError, TrainingError
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.score import default_workers, score_recordings
from antispoofing.scoring.scored import NOT_A_NUMBER, Scored
from antispoofing.training import lora
from antispoofing.training.clips import VariedClips, epoch_order, shard_steps
from antispoofing.training.history import FINAL, LAST, STATE, EpochResult, best_epoch, validation_figures
from antispoofing.training.recipe import TrainingConfig, learning_rate, steps_of_an_epoch
from antispoofing.training.state import TrainingState, identify, restore, write_state
from antispoofing.training.step import MicroBatch, Optimization
from antispoofing.training.stopping import Stopped, StopRequests, stop_requests
from data_utils import LABELS, Batch, make_loader
from model import Detector

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison


@dataclass(frozen=True)
class Hooks:
    """Functions to call during training; by default they do nothing.

    Attributes:
        on_step: Called after each step with its number (from 1), loss, learning rate and gradient norm.
        on_unreadable: Called once for each training recording that is left out, with the reason.
        on_epoch: Called after each epoch with all figures so far and the scored validation set.
    """

    on_step: Callable[[int, float, float, float], None] = lambda step, loss, rate, norm: None
    on_unreadable: Callable[[Utterance, str], None] = lambda utterance, reason: None
    on_epoch: Callable[[Sequence[EpochResult], Scored], None] = lambda history, scored: None


def fine_tune(
    detector: Detector,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainingConfig,
    output: Path,
    *,
    groups: Sequence[SupportsRichComparison] | None = None,
    workers: int | None = 0,
    state: TrainingState | None = None,
    save_every: int | None = None,
    hooks: Hooks = Hooks(),
) -> list[EpochResult]:
    """Train a detector in place, and leave the last epoch's weights in it.

    The weights of the epoch with the lowest validation EER (among equals, the lowest validation loss) are
    written to `final_model.safetensors`, those of the last epoch to `last_model.safetensors`. Each file's
    provenance holds the settings, the epoch's validation figures and a calibration fitted on the validation
    set. `training_state.safetensors`, from which an interrupted run resumes, is written after each epoch and
    when the run is asked to stop. On a CPU, the same seed gives the same weights, interrupted or not.

    In a group of processes, all must call this; the main process writes the files.

    Args:
        detector: The detector to train.
        training: Training recordings with labels.
        validation: Validation recordings with labels.
        config: The recipe.
        output: Existing folder for the files.
        groups: For `sampling="balanced"`, the group of each training recording; None groups them by class.
        workers: Number of loader processes, as in `score_recordings`.
        state: State of an unfinished run to resume, from `state.find_state`; None starts a new run.
        save_every: Number of steps after which the state is also written within an epoch; None for never.
        hooks: Functions to call during training.

    Returns:
        Each epoch's figures.

    Raises:
        DataError: If a class is missing in one of the sets, or none of its recordings can be read.
        TrainingError: If the loss is no longer a number, or the detector cannot be trained as configured.
        Stopped: If a signal asks the run to stop; the exception tells which state was saved.
        OSError: If a file cannot be written; the last state is still there.
    """
    for name, utterances in (("training", training), ("validation", validation)):
        if {u.label for u in utterances} != set(LABELS):
            raise DataError(
                f"the {name} set must hold both real and fake recordings, and none without a label"
            )
    torch.manual_seed(config.seed)
    run = _TrainingRun(
        detector, training, validation, config, output, groups, workers, state, save_every, hooks
    )
    try:
        with stop_requests() as requests:
            while not run.is_done():
                run.do_steps(requests)
                run.end_epoch()
    except Stopped as stopped:
        stopped.saved = run.saved
        raise
    lora.merge(detector)
    return run.state.history


class _TrainingRun:
    """The work of one call of `fine_tune`."""

    def __init__(
        self,
        detector: Detector,
        training: Sequence[Utterance],
        validation: Sequence[Utterance],
        config: TrainingConfig,
        output: Path,
        groups: Sequence[SupportsRichComparison] | None,
        workers: int | None,
        state: TrainingState | None,
        save_every: int | None,
        hooks: Hooks,
    ):
        self.detector, self.training, self.validation = detector, training, validation
        self.config, self.output, self.hooks, self.save_every = config, output, hooks, save_every
        self.workers = default_workers(detector.device) if workers is None else workers
        self.targets = torch.tensor([LABELS.index(u.label) for u in training])
        self.groups: Sequence[SupportsRichComparison] | None = None
        if config.sampling == "balanced":
            self.groups = [u.label for u in training] if groups is None else groups
        self.steps = steps_of_an_epoch(config, len(training))
        self.started_from = {
            "file": detector.path and str(detector.path),
            "sha256": detector.sha256,
            "provenance": detector.provenance,
        }
        self.identity = identify(detector, training, validation, config)
        self.optimization = Optimization(detector, config)
        self.state = state or TrainingState()
        self.saved: tuple[int, int] | None = None
        if not self.state.is_new:
            self.saved = (self.state.epoch, self.state.step)
            with checkpoints.errors_naming(output / STATE):
                restore(self.state, detector, self.optimization)

    def is_done(self) -> bool:
        """Check whether all epochs are done, or too many have passed without a better one."""
        history, patience = self.state.history, self.config.patience
        if patience is not None and history and len(history) - best_epoch(history).epoch >= patience:
            return True
        return self.state.epoch > self.config.epochs

    def do_steps(self, requests: StopRequests) -> None:
        """Take the remaining steps of the epoch, and write the state at the end or when asked to stop."""
        state, before = self.state, (self.state.epoch - 1) * self.steps
        started = time.perf_counter() - state.seconds
        requests.must_wait = True
        self.optimization.train_mode()
        for parts in self._micro_batches():
            number = before + state.step + 1
            rate = learning_rate(self.config, number, self.config.epochs * self.steps)
            result = self.optimization.step(parts, state.epoch, state.step, rate)
            state.step += 1
            state.seconds = time.perf_counter() - started
            if result is not None:
                state.loss += result.loss * result.weight
                state.weight += result.weight
                self.hooks.on_step(number, result.loss, rate, result.gradient_norm)
            must_stop = self._must_stop(requests)
            if must_stop or (self.save_every and number % self.save_every == 0):
                self._save()
            if must_stop:
                raise Stopped(requests.number or signal.SIGTERM)
        self._share_unreadable()
        readable = {u.label for i, u in enumerate(self.training) if i not in state.unreadable}
        for label, word, _ in CLASSES:
            if label not in readable:
                reason = next(r for i, r in state.unreadable.items() if self.training[i].label == label)
                raise DataError(
                    f"none of the {word} training recordings can be read; the first error: {reason}"
                )
        self._save()
        if self._must_stop(requests):
            raise Stopped(requests.number or signal.SIGTERM)
        requests.need_not_wait()

    def _must_stop(self, requests: StopRequests) -> bool:
        """Check whether any process of the group was asked to stop."""
        return distributed.all_sum(requests.number or 0) != [0]

    def _micro_batches(self) -> Iterator[list[MicroBatch]]:
        """Yield this process's clips of each remaining step of the epoch."""
        config, state, sizes = self.config, self.state, self.detector.config
        order = epoch_order(len(self.training), self.groups, config.seed, state.epoch)
        steps = shard_steps(order, config.batch_size, config.accumulate)[state.step :]
        batches = [part for step in steps for part in step]
        clips = VariedClips(
            [utterance.path for utterance in self.training],
            sizes.sample_rate,
            sizes.clip_samples,
            seed=config.seed,
            epoch=state.epoch,
            random_crop=config.crop == "random",
            augmentation=config.augmentation,
            prepare=sizes.prepare,
        )
        parts = map(self._micro_batch, make_loader(clips, batches, self.workers))
        for step in steps:
            yield [next(parts) for _ in step]

    def _micro_batch(self, batch: Batch) -> MicroBatch:
        self._learn_unreadable(batch.failures)
        clips = [i % len(self.training) for i in batch.indices]
        return MicroBatch(batch.waves, self.targets[clips], [self.training[i].name for i in clips])

    def end_epoch(self) -> None:
        """Score the validation set, then write the weights and the state."""
        state, detector = self.state, self.detector
        started = time.perf_counter() - state.seconds
        with lora.merged(detector):
            detector.eval()
            scored = score_recordings(detector, self.validation, workers=self.workers)
            rate = learning_rate(self.config, state.epoch * self.steps, self.config.epochs * self.steps)
            train_loss = state.loss / state.weight
            seconds = time.perf_counter() - started
            result = _epoch_result(state.epoch, train_loss, scored, rate, seconds)
            state.history.append(result)
            detector.provenance = {
                "started_from": self.started_from,
                "training": self._settings(),
                # The duration is left out, so that the same seed gives the same file.
                "epoch": result.figures(),
                "calibration": _calibration(scored),
            }
            if distributed.is_main():
                save_detector(detector, self.output / LAST)
                if best_epoch(state.history) is result:
                    save_detector(detector, self.output / FINAL)
        self.hooks.on_epoch(state.history, scored)
        state.epoch, state.step, state.loss, state.weight, state.seconds = state.epoch + 1, 0, 0.0, 0.0, 0.0
        self._save()

    def _settings(self) -> dict:
        return asdict(self.config) | {"clips": len(self.training) - len(self.state.unreadable)}

    def _save(self) -> None:
        self._share_unreadable()
        if distributed.is_main():
            write_state(self.output, self.state, self.identity, self.detector, self.optimization)
        self.saved = (self.state.epoch, self.state.step)

    def _share_unreadable(self) -> None:
        for from_process in distributed.all_gather(self.state.unreadable):
            self._learn_unreadable(from_process)

    def _learn_unreadable(self, failures: dict[int, str]) -> None:
        for i, reason in failures.items():
            i %= len(self.training)
            if i not in self.state.unreadable:
                self.state.unreadable[i] = reason
                self.hooks.on_unreadable(self.training[i], reason)


def _calibration(scored: Scored) -> dict | None:
    bonafide, spoof = scored.bonafide, scored.spoof
    fitted_on = (
        f"the {len(bonafide)} real and {len(spoof)} fake recordings of its validation set, on which its "
        "epoch was chosen"
    )
    calibration = Calibration.fit(bonafide, spoof, fitted_on)
    return calibration.to_dict() if calibration else None


def _epoch_result(epoch: int, train_loss: float, scored: Scored, rate: float, seconds: float) -> EpochResult:
    if NOT_A_NUMBER in scored.failures.values():
        raise TrainingError(
            f"after epoch {epoch}, the network's outputs are not numbers: try a lower --learning-rate"
        )
    bonafide, spoof = scored.bonafide, scored.spoof
    if len(bonafide) == 0 or len(spoof) == 0:
        raise DataError(
            "none of the real, or none of the fake, recordings of the validation set can be scored"
        )
    has_score = np.isfinite(scored.scores)
    classes = torch.tensor([LABELS.index(u.label) for u in scored.utterances])[has_score]
    loss = F.cross_entropy(torch.from_numpy(scored.logits[has_score]), classes).item()
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        validation_loss=loss,
        learning_rate=rate,
        seconds=seconds,
        **validation_figures(scored),
    )
