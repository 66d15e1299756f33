"""The results of a training run, epoch by epoch, and the names of the files that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from antispoofing import metrics, uncertainty
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.scored import Scored

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
        validation_auc_low: Lower end of the AUC's 95 % interval; None if there are too few clips, or groups
            of clips that belong together, to give one.
        validation_auc_high: Upper end of that interval, or None.
        validation_eer: EER of the validation set, a fraction.
        validation_threshold: Score threshold at that EER.
        learning_rate: Learning rate of the last step.
        seconds: Duration of the epoch.
        validation_bonafide: Number of real recordings of the validation set that were scored.
        validation_spoof: Number of its fake recordings that were scored.
        validation_rejected: Number of those real ones that score below the threshold.
        validation_accepted: Number of those fake ones that do not.
        validation_clips: Which clips belong together, in words; see `scoring.clusters.Clustering.describe`.
        validation_bonafide_worth: How many independent clips would tell as much as the real ones about how
            many are rejected; see `uncertainty.worth`.
        validation_spoof_worth: The same for the fake ones and how many are accepted.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auc: float
    validation_auc_low: float | None
    validation_auc_high: float | None
    validation_eer: float
    validation_threshold: float
    learning_rate: float
    seconds: float
    # Results of earlier versions lack these.
    validation_bonafide: int | None = None
    validation_spoof: int | None = None
    validation_rejected: int | None = None
    validation_accepted: int | None = None
    validation_clips: str | None = None
    validation_bonafide_worth: float | None = None
    validation_spoof_worth: float | None = None

    def figures(self) -> dict:
        """Return all figures that there are but the duration, which differs from run to run."""
        return {
            name: value for name, value in asdict(self).items() if name != "seconds" and value is not None
        }


def validation_figures(scored: Scored) -> dict:
    """Return those figures of an `EpochResult`, by name, that follow from the validation set's scores.

    Args:
        scored: The scores of the validation set, of recordings of both classes.
    """
    bonafide, spoof = scored.bonafide, scored.spoof
    eer, clustering = metrics.compute_eer(bonafide, spoof), find_clusters(scored.utterances)
    low, high = uncertainty.intervals(bonafide, spoof, clustering.of(scored))["auc"] or (None, None)
    rejected, accepted = bonafide < eer.threshold, spoof >= eer.threshold
    together = clustering.of(scored) or (None, None)
    figures = {
        "auc": metrics.compute_auc(bonafide, spoof),
        "auc_low": low,
        "auc_high": high,
        "eer": eer.eer,
        "threshold": eer.threshold,
        "bonafide": len(bonafide),
        "spoof": len(spoof),
        "rejected": int(rejected.sum()),
        "accepted": int(accepted.sum()),
        "clips": clustering.describe(scored),
        "bonafide_worth": uncertainty.worth(rejected, together[0]),
        "spoof_worth": uncertainty.worth(accepted, together[1]),
    }
    return {f"validation_{name}": value for name, value in figures.items()}


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch with the lowest validation EER and, among equals, the lowest validation loss."""
    return min(history, key=lambda result: (result.validation_eer, result.validation_loss))
