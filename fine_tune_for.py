"""Tasks 4 and 5: fine-tune a detector on the Fake-or-Real data set; report AUC and EER on its test split.

    python fine_tune_for.py                      # for-2seconds/, the first published detector here
    python fine_tune_for.py --data for-norm --checkpoint LA_model.pth --export-official
    python fine_tune_for.py --checkpoint xlsr2_300m.pt   # a pre-trained front end, a new back end
    torchrun --nproc-per-node 2 fine_tune_for.py         # in two processes that share each step

A score is logit 1 (bona fide): higher = more likely real. The weights that are kept are those of the epoch
with the lowest validation EER. The threshold for decisions on the test split is chosen on the validation
split as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.commands import fine_tuning, options, tasks, training_options
from antispoofing.commands.run import run_script
from antispoofing.data.splits import FRACTION, Splits, find_training_data
from antispoofing.detectors.devices import resolve_device
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.files import remove
from antispoofing.progress import warn
from antispoofing.project import SAMPLES, Invocation
from antispoofing.text import counted
from antispoofing.training.history import FINAL, STATE, best_epoch
from antispoofing.training.recipe import TrainingConfig, steps_of_an_epoch
from antispoofing.training.stopping import Stopped
from antispoofing.training.tracking import Tracker

if TYPE_CHECKING:
    from antispoofing.training.state import TrainingState
    from model import Detector


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Fine-tune a detector on Fake-or-Real, or on other data.")
    training_options.add_data_options(parser)
    training_options.add_start_options(parser)
    options.add_output_option(parser, Path("results/for"))
    training_options.add_recipe_options(parser)
    training_options.add_augmentation_options(parser)
    training_options.add_resuming_options(parser)
    options.add_audit_option(parser)
    options.add_machine_options(parser, training_options.PRECISIONS, batch_size=16)
    options.add_general_options(parser)
    args = parser.parse_args(argv)
    if args.validation_fraction is not None and args.validation_split is None:
        parser.error("--validation-fraction needs --validation-split")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the script; return 0, or 2 after one line on stderr that says what is wrong.

    The exit code is 130 after Ctrl-C and 143 after SIGTERM.
    """
    return run_script("fine_tune_for.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Fine-tune the detector, test it and report; return the exit code.

    Raises:
        UserError: If the options, the data or the detector cannot be used.
        OSError: If the results cannot be written.
    """
    from antispoofing.training.state import identify

    scoring = options.ScoringOptions.from_args(args)
    config, splits, detector = distributed.on_all_ranks(partial(_find, args, scoring))
    identity = identify(detector, splits.training, splits.validation, config)
    starting_state = partial(fine_tuning.starting_state, resume=args.resume, restart=args.restart)
    with ExitStack() as stack:
        state = distributed.on_all_ranks(
            partial(starting_state, args.output, identity, stack=stack),
            lambda found: identity | {STATE: (found.epoch, found.step)},
        )
        if distributed.is_main() and state.is_new:
            tasks.audit(fine_tuning.by_name(splits), args.output, not args.no_audit)
        fine_tuning.announce(args.output, config, len(splits.training), detector, state)
        settings = dataclasses.asdict(config) | {"detector": detector.describe()}
        is_logged = distributed.is_main() and not args.no_wandb
        try:
            with Tracker(args.output, settings, state.run, enabled=is_logged) as tracker:
                _train(args, config, splits, detector, state, tracker)
                fine_tuning.score_test_splits(splits, args.output, scoring, invocation, tracker)
        except Stopped as stopped:
            warn(f"\n{fine_tuning.describe_stop(stopped, args.restart)}")
            return stopped.exit_code
        if distributed.is_main():
            _finish(args, detector, splits)
    return 0


def _find(
    args: argparse.Namespace, scoring: options.ScoringOptions
) -> tuple[TrainingConfig, Splits, Detector]:
    """Find the data and the detector to start from, download them if asked to, and check the options."""
    data: Sequence[str | Path] = [tasks.FAKE_OR_REAL] if args.download else args.data or []
    data, checkpoints = tasks.choose(
        data,
        [args.checkpoint] if args.checkpoint else [],
        tasks.fake_or_real(),
        SAMPLES / "for-2seconds",
        tasks.NO_FAKE_OR_REAL,
    )
    resolve_device(args.device)
    if args.download:
        from antispoofing.data import download  # takes half a second to import

        data = [download.fake_or_real()]
    tasks.must_exist(data)
    checkpoint = tasks.fetched(checkpoints[0])
    config = training_options.config_from(args, ", ".join(map(str, data)))
    fraction = args.validation_fraction or FRACTION
    splits = find_training_data(
        [Path(path) for path in data], args.validation_split, fraction, args.seed, options.reading(args)
    )
    fine_tuning.describe_splits(splits)
    steps = config.epochs * steps_of_an_epoch(config, len(splits.training))
    if config.warmup >= steps:
        raise TrainingError(f"--warmup {config.warmup}: it must be less than the number of steps, {steps}")
    fine_tuning.prepare_output(args.output, checkpoint)
    detector = fine_tuning.load_start(checkpoint, config, scoring)
    if args.export_official and not detector.has_official_names:
        raise CheckpointError(
            f"--export-official: {checkpoint} is not XLS-R + AASIST, so its tensors have no official names; "
            "leave that option out"
        )
    return config, splits, detector


def _train(
    args: argparse.Namespace,
    config: TrainingConfig,
    splits: Splits,
    detector: Detector,
    state: TrainingState,
    tracker: Tracker,
) -> None:
    """Train from the given state to the last epoch."""
    from antispoofing.training.loop import Hooks, fine_tune

    steps_per_epoch = steps_of_an_epoch(config, len(splits.training))
    steps, done = config.epochs * steps_per_epoch, (state.epoch - 1) * steps_per_epoch + state.step
    progress = fine_tuning.Progress(args.output, steps, steps_per_epoch, done, tracker)
    try:
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
            hooks=Hooks(progress.on_step, fine_tuning.print_left_out, progress.on_epoch),
        )
    finally:
        progress.close()
    if len(history) < config.epochs:
        epochs = counted(len(history) - best_epoch(history).epoch, "epoch")
        print(f"Ended early: {epochs} in a row brought no improvement (--patience)")


def _finish(args: argparse.Namespace, detector: Detector, splits: Splits) -> None:
    """Export the detector if asked to, remove the state of the finished run, print where everything is."""
    from antispoofing.detectors.loading import export_official, load_detector

    if args.export_official:
        final = load_detector(args.output / FINAL, device="cpu")
        missing = export_official(final, args.output / fine_tuning.OFFICIAL)
        if missing:
            tensors = (
                f"{counted(len(missing), 'tensor')} that only pre-training uses, as {detector.path} does"
            )
            print(f"\n{fine_tuning.OFFICIAL} lacks {tensors}: load it with strict=False")
    remove(args.output, [STATE])
    tests = f"; the test results are in {args.output / fine_tuning.TESTING}" if splits.testing else ""
    print(f"\nDetector, history and curves are in {args.output}{tests}")
    final = args.output / FINAL
    words = "see what it changes on your own data (tasks 6 and 7)"
    tasks.print_next(words, "evaluate_custom_for.py", None if final == tasks.FINE_TUNED else final)


if __name__ == "__main__":
    sys.exit(main())
