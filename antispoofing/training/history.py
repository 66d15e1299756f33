"""The results of a training run, epoch by epoch, and the names of the files that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

FINAL, LAST = "final_model.safetensors", "last_model.safetensors"  # weights of the best and the last epoch
STATE = "training_state.safetensors"  # exists while a training run is unfinished


@dataclass(frozen=True)
class EpochResult:
    """The figures of one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean cross entropy of the training clips in nats, with the recipe's class weights.
        validation_loss: Mean cross entropy of the validation set in nats, without class weights.
        validation_auc: AUC of the validation set.
        validation_auc_low: Lower end of the AUC's 95 % bootstrap interval.
        validation_auc_high: Upper end of that interval.
        validation_eer: EER of the validation set, a fraction.
        validation_threshold: Score threshold at that EER.
        learning_rate: Learning rate of the last step.
        seconds: Duration of the epoch.
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

    def figures(self) -> dict:
        """Return all figures but the duration, which differs from run to run."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch with the lowest validation EER and, among equals, the lowest validation loss."""
    return min(history, key=lambda result: (result.validation_eer, result.validation_loss))
