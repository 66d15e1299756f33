"""Around a training by `fine_tune_for.py`: what it starts from, how it goes, what it has come to."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed, metrics
from antispoofing.commands import tasks
from antispoofing.commands.options import ScoringOptions
from antispoofing.data.recordings import Utterance
from antispoofing.data.splits import Splits
from antispoofing.detectors.provenance import read_fine_tuning
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.files import remove
from antispoofing.project import SAMPLES, Invocation
from antispoofing.report import plots, results, screen
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable
from antispoofing.training.history import FINAL, LAST, EpochResult
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.tracking import Tracker

if TYPE_CHECKING:
    from antispoofing.training.state import TrainingState
    from model import Detector

FOR_2SEC_CLIPS = {"training": 6978, "validation": 1413, "testing": 544}  # of each class, as published
TESTING = "testing"  # of the results
OFFICIAL = "final_model.pth"  # with --export-official
TIMED_STEPS = 5  # after these it is said how long the rest will take


def by_name(splits: Splits) -> dict[str, Sequence[Utterance]]:
    """Return each split's recordings; where several data sets are tested on, with the set's name."""
    testing = {f"testing-{name}": found.utterances for name, found in splits.testing.items()}
    if len(testing) == 1:
        testing = {"testing": next(iter(testing.values()))}
    return {"training": splits.training, "validation": splits.validation} | testing


def describe_splits(splits: Splits) -> None:
    """Print what was found."""
    for note in splits.notes:
        print(printable(note))
    published = FOR_2SEC_CLIPS if _is_for_2sec(splits) else {}
    for name, utterances in by_name(splits).items():
        counts = Counter(u.label for u in utterances)
        print(f"{name}: {counts['bonafide']} real, {counts['spoof']} fake")
        if name in published and set(counts.values()) != {published[name]}:
            print(f"As published, {name} has {published[name]} of each: is the download complete?")
    if not splits.testing:
        print("There is no split to test on: the figures will be of the validation set alone.")


def _is_for_2sec(splits: Splits) -> bool:
    """Whether the data are Fake-or-Real's two-second clips, and not the samples of them."""
    folders = [found.root.parent for found in splits.testing.values()]
    names = [folder.name for folder in folders if not folder.is_relative_to(SAMPLES)]
    return names == [tasks.FAKE_OR_REAL.name]


def prepare_output(output: Path, checkpoint: Path) -> None:
    """Make the output folder.

    Raises:
        OSError: it cannot be written to.
        CheckpointError: what the training starts from would be overwritten.
    """
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
    if checkpoint.resolve() in {(output / name).resolve() for name in (FINAL, LAST, OFFICIAL)}:
        raise CheckpointError(f"{checkpoint} would be overwritten by what it becomes: name another --output")


def load_start(checkpoint: Path, config: TrainingConfig, options: ScoringOptions) -> Detector:
    """Load the detector to start from, or a front end and a fresh back end, which is said.

    Raises:
        CheckpointError: see `load_detector`.
        TrainingError: it cannot be trained as configured.
    """
    from antispoofing.detectors import loading, pretrained
    from antispoofing.training.step import check

    how = {"device": options.device, "precision": options.precision, "engine": options.engine}
    if pretrained.is_front_end(checkpoint):
        if config.freeze_batch_norm:
            raise TrainingError("--freeze-batchnorm: a fresh back end has no statistics to keep")
        detector = loading.load_front_end(checkpoint, **how, seed=config.seed)
        print(
            f"{checkpoint} is a front end alone. The back end is fresh: random weights, seed {config.seed}, "
            "so the first epoch starts from guessing"
        )
    else:
        detector = loading.load_detector(checkpoint, **how)
    check(detector, config)
    return detector


def starting_state(
    output: Path, identity: dict, *, resume: bool, restart: bool, stack: ExitStack
) -> TrainingState:
    """Find where a training goes on, or begins, and be the only one that writes to its folder.

    Args:
        identity: from `state.identify`.
        resume, restart: --resume, --restart.
        stack: to leave when this process is to write to the folder no more.

    Raises:
        TrainingError: it cannot go on there, or another one is writing there.
    """
    from antispoofing.training.state import TrainingState, find_state, sole_writer

    if distributed.is_main():
        stack.enter_context(sole_writer(output))
    if restart:
        return TrainingState()
    try:
        state = find_state(output, identity)
    except (CheckpointError, TrainingError) as error:
        raise TrainingError(f"{error}; --restart begins anew, another --output leaves it") from error
    if state is None and resume:
        raise TrainingError(f"--resume: there is no unfinished training in {output}")
    return state or TrainingState()


def announce(
    output: Path, config: TrainingConfig, steps: int, detector: Detector, state: TrainingState
) -> None:
    """Print what begins."""
    processes = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
    print(f"\nFine-tuning {detector.path} on {detector.device.type}{processes}: ", end="")
    print(f"{config.epochs} epochs, {steps} steps")
    if not state.is_new:
        print(f"It goes on {place(state.epoch, state.step)}.")
    elif (output / FINAL).exists():
        print(f"{output / FINAL} is of an earlier training: the first epoch will replace it.")
    print()


def place(epoch: int, step: int) -> str:
    """Say how far a training is."""
    return f"after step {step} of epoch {epoch}" if step else f"after epoch {epoch - 1}"


def print_left_out(utterance: Utterance, reason: str) -> None:
    """Print that a recording is left out of training, and why."""
    print(printable(f"left out of training: {utterance.name}: {reason}"))


class Progress:
    """What is said, written and logged while the training goes on.

    Args:
        output: the training's folder.
        steps: of the whole training.
        done: of these, before it goes on.
    """

    def __init__(self, output: Path, config: TrainingConfig, steps: int, done: int, tracker: Tracker):
        self.output, self.config, self.steps, self.tracker = output, config, steps, tracker
        self.step = done
        self.timed = 0
        self.started = time.perf_counter()

    def on_step(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """Log a step, and say how long the rest will take."""
        self.step = step
        self.timed += 1
        self.tracker.log_step(step, loss, learning_rate, gradient_norm)
        if self.timed == TIMED_STEPS and self.steps > 2 * TIMED_STEPS:
            minutes = (time.perf_counter() - self.started) / self.timed * (self.steps - step) / 60
            print(f"about {minutes:.1f} minutes to go, and the time to score validation after each epoch")

    def on_epoch(self, history: Sequence[EpochResult], scored: Scored) -> None:
        """Say, write and log what an epoch has come to."""
        if not distributed.is_main():
            return
        if len(history) == 1:  # now that an earlier run's weights are gone, so must be what tells of them
            remove(self.output, [OFFICIAL])
            testing = self.output / TESTING
            for folder in (testing, *filter(Path.is_dir, testing.glob("*"))):
                remove(folder, results.RESULT_FILES)
        results.write_history(self.output, history)
        result = history[-1]
        print(
            f"epoch {result.epoch}: loss {result.train_loss:.4f}; validation loss "
            f"{result.validation_loss:.4f}, AUC {result.validation_auc:.3f}, "
            f"EER {100 * result.validation_eer:.1f} %, {len(scored.failures)} not scored "
            f"({result.seconds:.0f} s)"
        )
        if self.tracker.is_on:
            points = metrics.error_rates(scored.bonafide, scored.spoof)
            interval = (result.validation_auc_low, result.validation_auc_high)
            roc = plots.plot_roc(points, result.validation_auc, interval)
            self.tracker.log_epoch(result, self.step, roc)


def score_test_splits(
    splits: Splits, output: Path, options: ScoringOptions, invocation: Invocation, tracker: Tracker
) -> None:
    """Score the test splits, decide at the threshold chosen on validation, write and print."""
    if not splits.testing:
        return
    final = distributed.on_all_ranks(lambda: tasks.load(output / FINAL, options))
    epoch = read_fine_tuning(final).epoch
    print(f"\nTesting the weights of epoch {epoch['epoch']} (lowest validation EER)", end="")
    threshold, summaries = epoch["validation_threshold"], {}
    for name, found in splits.testing.items():
        folder = output / TESTING
        name, folder = ("fine-tuned", folder) if len(splits.testing) == 1 else (name, folder / name)
        result = tasks.evaluate(name, final, found, folder, options, invocation, threshold=threshold)
        summaries[name] = result and result[1]
    if not distributed.is_main():
        return
    print(f"\n{screen.results(summaries)}")
    print("That threshold was chosen on the validation split.")
    tracker.log_testing(summaries)
