"""Steps of `fine_tune_for.py` before, during and after training: what to start from, progress, tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from antispoofing import distributed, metrics
from antispoofing.classes import FAKE, REAL
from antispoofing.commands import tasks
from antispoofing.commands.options import ScoringOptions
from antispoofing.data.recordings import Utterance
from antispoofing.data.splits import Splits
from antispoofing.detectors.provenance import read_fine_tuning
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.files import remove
from antispoofing.progress import bar
from antispoofing.project import SAMPLES, Invocation
from antispoofing.published import CONFIG
from antispoofing.report import plots, results, screen
from antispoofing.report.summary import summarise
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import Scored
from antispoofing.text import auc_text, counted, eer_text, printable
from antispoofing.training.history import FINAL, LAST, STATE, EpochResult
from antispoofing.training.recipe import TrainingConfig, steps_of_an_epoch
from antispoofing.training.stopping import Stopped
from antispoofing.training.tracking import Tracker

if TYPE_CHECKING:
    from antispoofing.training.state import TrainingState
    from model import Detector

FOR_2SEC_CLIPS = {"training": 6978, "validation": 1413, "testing": 544}  # of each class, as published
TESTING = "testing"  # folder of the test results
OFFICIAL = "final_model.pth"  # written with --export-official
TESTED_AS = "fine-tuned"  # the detector's name in the test results
TIMED_STEPS = 5  # steps that the remaining time is estimated from


def by_name(splits: Splits) -> dict[str, Sequence[Utterance]]:
    """Return the recordings of each split; with several test sets, their names include the data set's."""
    named: dict[str, Sequence[Utterance]] = {"training": splits.training, "validation": splits.validation}
    for name, found in splits.testing.items():
        named["testing" if len(splits.testing) == 1 else f"testing-{name}"] = found.utterances
    return named


def describe_splits(splits: Splits) -> None:
    """Print how many recordings each split has, and what is unusual about them."""
    for note in splits.notes:
        print(printable(note))
    published = FOR_2SEC_CLIPS if _is_for_2sec(splits) else {}
    for name, utterances in by_name(splits).items():
        counts = Counter(u.label for u in utterances)
        print(f"{name}: {counts[REAL.label]} real, {counts[FAKE.label]} fake")
        if name in published and set(counts.values()) != {published[name]}:
            print(f"The published {name} split has {published[name]} of each: is the download complete?")
    if not splits.testing:
        print("There is no test split: all figures will be those of the validation split.")


def _is_for_2sec(splits: Splits) -> bool:
    """Check whether the data are Fake-or-Real's two-second clips, and not just samples of them."""
    folders = [found.root.parent for found in splits.testing.values()]
    names = [folder.name for folder in folders if not folder.is_relative_to(SAMPLES)]
    return names == [tasks.FAKE_OR_REAL.name]


def prepare_output(output: Path, checkpoint: Path) -> None:
    """Make the output folder and check that training may write to it.

    Raises:
        DataError: If it cannot be written to.
        CheckpointError: If training would overwrite the detector that it starts from.
    """
    tasks.prepare_output(output, [TESTING])
    if checkpoint.resolve() in {(output / name).resolve() for name in (FINAL, LAST, OFFICIAL)}:
        raise CheckpointError(
            f"{checkpoint} would be overwritten by the fine-tuned one: name another --output"
        )


def load_start(checkpoint: Path, config: TrainingConfig, options: ScoringOptions) -> Detector:
    """Load the detector to start from; a front end alone gets a new back end, and a notice is printed.

    Raises:
        CheckpointError: If the file cannot be used, see `load_detector` and `load_front_end`.
        DeviceError: If the device does not support the precision.
        FairseqError: If fairseq is asked for and cannot be imported.
        TrainingError: If the detector cannot be trained as configured.
    """
    from antispoofing.detectors import checkpoints, loading, pretrained
    from antispoofing.training.step import check

    device, precision, engine = options.device, options.precision, options.engine
    if checkpoint.is_dir() and not (checkpoint / CONFIG).is_file():
        with checkpoints.errors_naming(checkpoint):
            checkpoint = checkpoints.only_file(checkpoint)
    if pretrained.is_front_end(checkpoint):
        if config.freeze_batch_norm:
            raise TrainingError(
                f"--freeze-batchnorm: {checkpoint} is a front end alone, and its new back end has no "
                "statistics to keep; leave that option out"
            )
        detector = loading.load_front_end(
            checkpoint, device=device, precision=precision, engine=engine, seed=config.seed
        )
        print(
            f"{checkpoint} is a front end alone. It gets a new back end with random weights (seed "
            f"{config.seed}), so the first epoch starts from guessing."
        )
    else:
        detector = loading.load_detector(checkpoint, device=device, precision=precision, engine=engine)
    try:
        check(detector, config)
    except TrainingError as error:
        raise TrainingError(f"{checkpoint}: {error}") from error
    return detector


def starting_state(
    output: Path, identity: dict, *, resume: bool, restart: bool, stack: ExitStack
) -> TrainingState:
    """Return the state to train from, a saved one or a new one; lock the output folder for this run.

    Args:
        output: The output folder.
        identity: What a saved state must agree with, from `state.identify`.
        resume: Whether there must be a saved state (--resume).
        restart: Whether to discard a saved state (--restart).
        stack: Releases the lock when it is closed.

    Raises:
        TrainingError: If a saved state is damaged or belongs to other settings, if there is none to resume,
            or if another run is writing to the folder.
    """
    from antispoofing.training.state import TrainingState, find_state, sole_writer

    if distributed.is_main():
        stack.enter_context(sole_writer(output))
    if restart:
        if distributed.is_main():  # at once, or a run that fails before it saves a state would bring it back
            remove(output, [STATE])
        return TrainingState()
    try:
        state = find_state(output, identity)
    except (CheckpointError, TrainingError) as error:
        raise TrainingError(f"{error}; --restart discards it, another --output keeps it") from error
    if state is None and resume:
        raise TrainingError(f"--resume: there is no unfinished training run in {output}")
    return state or TrainingState()


def announce(
    output: Path, config: TrainingConfig, clips: int, detector: Detector, state: TrainingState
) -> None:
    """Print what is about to be trained, for how long, and where the run starts or resumes.

    Args:
        output: The output folder.
        config: The recipe.
        clips: The number of training recordings.
        detector: The detector to start from.
        state: The state to train from.
    """
    steps = config.epochs * steps_of_an_epoch(config, clips)
    processes = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
    length = f"{counted(config.epochs, 'epoch')}, {counted(steps, 'step')}"
    print(f"\nFine-tuning {detector.path} on {detector.device.type}{processes}: {length}")
    if not state.is_new:
        print(f"Resuming {place(state.epoch, state.step)}.")
    elif (output / FINAL).exists():
        print(f"{output / FINAL} is from an earlier run: the first epoch will replace it.")
    print()


def place(epoch: int, step: int) -> str:
    """Describe how far a training run is: "after step 3 of epoch 1", or "after epoch 1"."""
    return f"after step {step} of epoch {epoch}" if step else f"after epoch {epoch - 1}"


def describe_stop(stopped: Stopped, restarted: bool) -> str:
    """Say what stopped a training run, and how to resume it if its state was saved.

    Args:
        stopped: From the training loop.
        restarted: Whether the command has --restart, which would discard that state.
    """
    if stopped.saved is None:
        return str(stopped)
    command = "the same command without --restart" if restarted else "the same command"
    return f"{stopped}; run {command} to resume {place(*stopped.saved)}"


def duration(seconds: float) -> str:
    """Return a length of time in words, in days, hours or minutes: "2.5 hours"."""
    for unit, length in (("days", 86400), ("hours", 3600)):
        if (number := seconds / length) >= 2:
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
    return counted(max(1, round(seconds / 60)), "minute")


def print_left_out(utterance: Utterance, reason: str) -> None:
    """Print that a recording is left out of training, and why."""
    tqdm.write(printable(f"left out of training: {utterance.name}: {reason}"))


class Progress:
    """Prints, writes and logs how training proceeds.

    Args:
        output: The output folder.
        steps: The number of steps of the whole run.
        of_epoch: The number of steps of an epoch.
        done: How many of them were done before this run started or resumed.
        tracker: Logs steps and epochs.
    """

    def __init__(self, output: Path, steps: int, of_epoch: int, done: int, tracker: Tracker):
        self.output, self.steps, self.of_epoch, self.tracker = output, steps, of_epoch, tracker
        self.step = done
        self._bar: tqdm | None = None
        self.timed = 0
        self.started = time.perf_counter()

    def on_step(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """Log and show a step, and once estimate the remaining time."""
        if self._bar is None:  # each epoch has its own, since the validation split follows
            self._bar = bar(what="training", unit="step", total=self.steps, initial=self.step)
        self._bar.update(step - self.step)
        self.step = step
        if step % self.of_epoch == 0:
            self.close()
        self.timed += 1
        self.tracker.log_step(step, loss, learning_rate, gradient_norm)
        if self.timed == TIMED_STEPS and self.steps > 2 * TIMED_STEPS:
            left = duration((time.perf_counter() - self.started) / self.timed * (self.steps - step))
            tqdm.write(f"About {left} to go, plus the time to score the validation split after each epoch")

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_epoch(self, history: Sequence[EpochResult], scored: Scored) -> None:
        """Print, write and log the figures of the epoch that has ended."""
        if not distributed.is_main():
            return
        if len(history) == 1:
            self._remove_earlier_results()
        results.write_history(self.output, history)
        result = history[-1]
        print(
            f"epoch {result.epoch}: loss {result.train_loss:.4f}; validation loss "
            f"{result.validation_loss:.4f}, AUC {auc_text(result.validation_auc)}, "
            f"EER {eer_text(result.validation_eer)} %, {len(scored.failures)} not scored "
            f"({result.seconds:.0f} s)"
        )
        if self.tracker.is_on:
            title = f"validation, epoch {result.epoch}"
            summary = summarise(scored, find_clusters(scored.utterances))
            points = {title: metrics.error_rates(scored.bonafide, scored.spoof)}
            self.tracker.log_epoch(result, self.step, plots.plot_roc(points, {title: summary}))

    def _remove_earlier_results(self) -> None:
        """Remove what belongs to the weights of an earlier run, which the first epoch has replaced."""
        remove(self.output, [OFFICIAL])
        testing = self.output / TESTING
        for folder in (testing, *filter(Path.is_dir, testing.glob("*"))):
            remove(folder, results.RESULT_FILES)


def score_test_splits(
    splits: Splits, output: Path, options: ScoringOptions, invocation: Invocation, tracker: Tracker
) -> None:
    """Score the test splits with the best epoch's weights; print, write and log the results.

    Errors are counted at the threshold that was chosen on the validation split.
    """
    if not splits.testing:
        return
    final = distributed.on_all_ranks(lambda: tasks.load(output / FINAL, options))
    epoch, rule = read_fine_tuning(final).epoch, Rule.from_detector(final)
    threshold, summaries, has_several = epoch["validation_threshold"], {}, len(splits.testing) > 1
    end = "\n" if has_several else ""
    print(f"\nTesting the weights of epoch {epoch['epoch']} (lowest validation EER, then loss)", end=end)
    for name, found in splits.testing.items():
        folder = output / TESTING / name if has_several else output / TESTING
        if has_several:
            print(f"\nTest split of {name}:", end="")
        result = tasks.evaluate(
            TESTED_AS, final, rule, found, folder, options, invocation, threshold=threshold
        )
        if result is not None:
            summaries[name] = result.summary
    if not distributed.is_main():
        return
    rows = {f"{TESTED_AS}, {name}" if has_several else TESTED_AS: s for name, s in summaries.items()}
    print(f"\n{screen.results(rows)}")
    print("\nThe threshold of the confusion table was chosen on the validation split.")
    tracker.log_testing(summaries)
