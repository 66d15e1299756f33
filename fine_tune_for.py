"""Tasks 4 and 5: fine-tune a detector on the Fake-or-Real data set, report AUC and EER on its test split.

    python fine_tune_for.py                      # for-2seconds/, the first known checkpoint here
    python fine_tune_for.py --data for-norm --checkpoint LA_model.pth --export-official
    python fine_tune_for.py --checkpoint xlsr2_300m.pt   # a pre-trained front end, a fresh back end
    torchrun --nproc-per-node 2 fine_tune_for.py         # in two processes, each step shared by them

A score is logit 1 (bona fide): higher = more likely real. The weights kept are those of the epoch
with the lowest validation EER; the threshold for decisions on the test split is chosen on the
validation split too.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from antispoofing import distributed, metrics
from antispoofing.commands import tasks, training_options
from antispoofing.commands.options import add_audit_option, add_machine_options, run_script
from antispoofing.data.recordings import Found, Utterance
from antispoofing.data.splits import FRACTION, Splits, find_training_data
from antispoofing.detectors.loading import Detector, load_detector, load_front_end, resolve_device
from antispoofing.detectors.pretrained import is_front_end
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.report import plots, screen
from antispoofing.scoring.score import Scored, summarise
from antispoofing.training.loop import Hooks, fine_tune, read_provenance, steps_of_an_epoch
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.state import (
    FINAL,
    LAST,
    STATE,
    EpochResult,
    TrainingState,
    find_state,
    identify,
    sole_writer,
)
from antispoofing.training.step import check
from antispoofing.training.stopping import Stopped
from antispoofing.training.tracking import Tracker

FOR_2SEC_CLIPS = {"training": 6978, "validation": 1413, "testing": 544}  # of each class, as published
TESTING = "testing"  # of the results
OFFICIAL = "final_model.pth"  # with --export-official
TIMED_STEPS = 5  # after these it is said how long the rest will take


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a detector on Fake-or-Real, or on other data.")
    training_options.add_data_options(parser)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the detector to start from, a file or hub:<owner/repo>[@revision][:file] (default: the first "
        "published one here); or a pre-trained front end: xlsr2_300m.pt, or a Hugging Face folder",
    )
    parser.add_argument("--output", type=Path, default=Path("results/for"), help="default: %(default)s")
    parser.add_argument(
        "--export-official",
        action="store_true",
        help="also write final_model.pth, which the original repository loads",
    )
    parser.add_argument(
        "--no-wandb", action="store_true", help="log nothing to Weights & Biases, offline neither"
    )
    training_options.add_recipe_options(parser)
    training_options.add_augmentation_options(parser)
    training_options.add_resuming_options(parser)
    add_audit_option(parser)
    add_machine_options(parser, ("fp32", "bf16", "fp16"), batch_size=16)
    args = parser.parse_args(argv)
    if args.validation_fraction is not None and args.validation_split is None:
        parser.error("--validation-fraction is of --validation-split, which is not there")
    return args


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used.

    After Ctrl-C 130, after SIGTERM 143.
    """
    return run_script("fine_tune_for.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, command: str) -> int:
    """Load, train, test, report. Raises UserError or OSError for what stands in the way."""
    config, splits, detector = distributed.together(lambda: _find(args))
    with ExitStack() as stack:
        state = distributed.together(
            lambda: _state(args, config, splits, detector, stack),
            lambda found: (
                identify(detector, splits.training, splits.validation, config)
                | {STATE: (found.epoch, found.step)}
            ),
        )
        return _train(args, command, config, splits, detector, state)


def _train(
    args: argparse.Namespace,
    command: str,
    config: TrainingConfig,
    splits: Splits,
    detector: Detector,
    state: TrainingState,
) -> int:
    """From this state to the end, the tests included; the exit code."""
    if distributed.is_main() and state.is_new:
        tasks.audit(_by_name(splits), args)
    of_epoch = steps_of_an_epoch(config, splits.training)
    steps = config.epochs * of_epoch
    _announce(args.output, config, steps, detector, state)
    settings = dataclasses.asdict(config) | {"detector": detector.describe()}
    is_logged = distributed.is_main() and not args.no_wandb
    try:
        with Tracker(args.output, settings, state.run, enabled=is_logged) as tracker:
            done = (state.epoch - 1) * of_epoch + state.step
            progress = _Progress(args.output, config, steps, done, tracker)
            history = fine_tune(
                detector,
                splits.training,
                splits.validation,
                config,
                args.output,
                groups=splits.groups(),
                workers=args.workers,
                state=state,
                save_every=args.save_every,
                hooks=Hooks(progress.on_step, _say_left_out, progress.on_epoch),
            )
            if len(history) < config.epochs:
                print(f"ended early: {config.patience} epochs without a better one")
            _test(splits.testing, args, command, detector.device, tracker)
    except Stopped as stopped:
        print(f"\n{stopped}", end="")
        if stopped.saved:
            print(f"; the same command goes on {_place(*stopped.saved)}", end="")
        print()
        return stopped.exit_code
    if distributed.is_main():
        if args.export_official:
            whole = load_detector(args.output / FINAL, device="cpu")
            left_out = whole.export_official(args.output / OFFICIAL)
            if left_out:
                print(f"\n{OFFICIAL} lacks {len(left_out)} pre-training-only tensors, as did {detector.path}")
        screen.clear(args.output, [STATE])
    where = f", the test split's results in its {TESTING}/" if splits.testing else ""
    print(f"\nDetector, history and curves are in {args.output}{where}")
    return 0


def _announce(
    output: Path, config: TrainingConfig, steps: int, detector: Detector, state: TrainingState
) -> None:
    """Print what begins."""
    processes = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
    print(f"\nFine-tuning {detector.path} on {detector.device.type}{processes}: ", end="")
    print(f"{config.epochs} epochs, {steps} steps")
    if not state.is_new:
        print(f"It goes on {_place(state.epoch, state.step)}.")
    elif (output / FINAL).exists():
        print(f"{output / FINAL} is of an earlier training: the first epoch will replace it.")
    print()


def _place(epoch: int, step: int) -> str:
    return f"after step {step} of epoch {epoch}" if step else f"after epoch {epoch - 1}"


def _find(args: argparse.Namespace) -> tuple[TrainingConfig, Splits, Detector]:
    """The recipe, the data and the detector to start from; fetched where that is asked for."""
    data, checkpoints = tasks.choose(
        [tasks.FAKE_OR_REAL] if args.download else args.data or [],
        [args.checkpoint] if args.checkpoint else [],
        tasks.FAKE_OR_REAL,
        tasks.SAMPLES / "for-2seconds",
        tasks.NO_FAKE_OR_REAL,
    )
    device = resolve_device(args.device)
    if args.download:
        from antispoofing.data import download  # and all that fetching needs: half a second

        data = [download.fake_or_real()]
    checkpoint, paths = tasks.fetched(checkpoints[0]), [Path(path) for path in data]
    config = training_options.config_from(args, ", ".join(map(str, data)))
    fraction = args.validation_fraction or FRACTION
    splits = find_training_data(paths, args.validation_split, fraction, args.seed)
    _describe(splits)
    steps = config.epochs * steps_of_an_epoch(config, splits.training)
    if config.warmup >= steps:
        raise TrainingError(f"--warmup {config.warmup}: the whole training has {steps} steps")
    _check_output(args.output, checkpoint)
    options = {"device": device, "precision": args.precision, "frontend": args.frontend}
    if is_front_end(checkpoint):
        if config.freeze_batch_norm:
            raise TrainingError("--freeze-batchnorm: a fresh back end has no statistics to keep")
        detector = load_front_end(checkpoint, **options, seed=args.seed)
        print(
            f"{checkpoint} is a front end alone. The back end is fresh: random weights, seed {args.seed}, so "
            "the first epoch starts from guessing"
        )
    else:
        detector = load_detector(checkpoint, **options)
    if args.export_official and not detector.has_official_names:
        raise CheckpointError(f"--export-official: {checkpoint} has no XLS-R front end, so no official names")
    check(detector, config)
    return config, splits, detector


def _state(
    args: argparse.Namespace, config: TrainingConfig, splits: Splits, detector: Detector, stack: ExitStack
) -> TrainingState:
    """Where to go on. Raises TrainingError where that is not possible.

    Args:
        stack: to leave when this process is to write to the output folder no more.
    """
    if distributed.is_main():
        stack.enter_context(sole_writer(args.output))
    if args.restart:
        return TrainingState()
    try:
        state = find_state(args.output, identify(detector, splits.training, splits.validation, config))
    except (CheckpointError, TrainingError) as error:
        raise TrainingError(f"{error}; --restart begins anew, another --output leaves it") from error
    if state is None and args.resume:
        raise TrainingError(f"--resume: there is no unfinished training in {args.output}")
    return state or TrainingState()


def _describe(splits: Splits) -> None:
    """Print what was found."""
    for note in splits.notes:
        print(screen.printable(note))
    published = FOR_2SEC_CLIPS if _is_for_2sec(splits) else {}
    for name, utterances in _by_name(splits).items():
        counts = Counter(u.label for u in utterances)
        print(f"{name}: {counts['bonafide']} real, {counts['spoof']} fake")
        if name in published and set(counts.values()) != {published[name]}:
            print(f"As published, {name} has {published[name]} of each: is the download complete?")
    if not splits.testing:
        print("There is no split to test on: the figures will be of the validation set alone.")


def _is_for_2sec(splits: Splits) -> bool:
    """Whether the data are Fake-or-Real's two-second clips, and not the samples of them."""
    folders = [found.root.parent for found in splits.testing.values()]
    names = [folder.name for folder in folders if not folder.is_relative_to(tasks.SAMPLES)]
    return names == [tasks.FAKE_OR_REAL.name]


def _by_name(splits: Splits) -> dict[str, Sequence[Utterance]]:
    """Each split's recordings; where several data sets are tested on, with the set's name."""
    testing = {f"testing-{name}": found.utterances for name, found in splits.testing.items()}
    if len(testing) == 1:
        testing = {"testing": next(iter(testing.values()))}
    return {"training": splits.training, "validation": splits.validation} | testing


def _check_output(output: Path, checkpoint: Path) -> None:
    """Make the folder; OSError if it cannot be written to, CheckpointError if that would lose the start."""
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
    if checkpoint.resolve() in {(output / name).resolve() for name in (FINAL, LAST, OFFICIAL)}:
        raise CheckpointError(f"{checkpoint} would be overwritten by what it becomes: name another --output")


def _test(
    testing: dict[str, Found], args: argparse.Namespace, command: str, device: torch.device, tracker: Tracker
) -> None:
    """Score the test splits, decide at the threshold chosen on validation, write and print."""
    if not testing:
        return
    final = distributed.together(lambda: tasks.load(args.output / FINAL, device, args))
    _, epoch = read_provenance(final)
    print(f"\nTesting the weights of epoch {epoch['epoch']} (lowest validation EER)", end="")
    summaries = {}
    for name, found in testing.items():
        folder = args.output / TESTING
        name, folder = ("fine-tuned", folder) if len(testing) == 1 else (name, folder / name)
        result = tasks.evaluate(name, final, found, folder, args, command, epoch["validation_threshold"])
        summaries[name] = result and result[1]
    if not distributed.is_main():
        return
    print(f"\n{screen.results(summaries)}")
    print("That threshold was chosen on the validation split.")
    tracker.log_testing(summaries)


def _say_left_out(utterance: Utterance, reason: str) -> None:
    print(screen.printable(f"left out of training: {utterance.name}: {reason}"))


class _Progress:
    """What is said, written and logged while the training goes on."""

    def __init__(self, output: Path, config: TrainingConfig, steps: int, done: int, tracker: Tracker):
        self.output, self.config, self.steps, self.tracker = output, config, steps, tracker
        self.step = done
        self.timed = 0
        self.started = time.perf_counter()

    def on_step(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        self.step = step
        self.timed += 1
        self.tracker.log_step(step, loss, learning_rate, gradient_norm)
        if self.timed == TIMED_STEPS and self.steps > 2 * TIMED_STEPS:
            minutes = (time.perf_counter() - self.started) / self.timed * (self.steps - step) / 60
            print(f"about {minutes:.1f} minutes to go, and the time to score validation after each epoch")

    def on_epoch(self, history: Sequence[EpochResult], scored: Scored) -> None:
        if not distributed.is_main():
            return
        if len(history) == 1:  # now that an earlier run's weights are gone, so must be what tells of them
            screen.clear(self.output, [OFFICIAL])
            testing = self.output / TESTING
            for folder in (testing, *filter(Path.is_dir, testing.glob("*"))):
                screen.clear(folder, screen.RESULT_FILES)
        screen.write_history(self.output, history)
        result = history[-1]
        print(
            f"epoch {result.epoch}: loss {result.train_loss:.4f}; validation loss "
            f"{result.validation_loss:.4f}, AUC {result.validation_auc:.3f}, "
            f"EER {100 * result.validation_eer:.1f} %, {len(scored.failures)} not scored "
            f"({result.seconds:.0f} s)"
        )
        points = metrics.error_rates(scored.scores_of("bonafide"), scored.scores_of("spoof"))
        summary = summarise(scored, seed=self.config.seed)
        self.tracker.log_epoch(result, self.step, plots.plot_roc(points, summary))


if __name__ == "__main__":
    sys.exit(main())
