"""What a training has come to, epoch by epoch, which epoch's weights are kept, and in which files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

FINAL, LAST = "final_model.safetensors", "last_model.safetensors"  # the best epoch's weights, the last one's
STATE = "training_state.safetensors"  # of an unfinished training


@dataclass(frozen=True)
class EpochResult:
    """One epoch: losses are mean cross entropies in nats; AUC and EER are of the validation set.

    train_loss has the recipe's class weights, validation_loss has none. validation_auc_low and _high are
    the AUC's 95 % bootstrap interval, validation_threshold is the one at the EER, learning_rate that of
    the last step.
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
        """All but the time that it took, which is another in each run."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """The one with the lowest validation EER; of equals, the lowest validation loss."""
    return min(history, key=lambda result: (result.validation_eer, result.validation_loss))
