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
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.commands import fine_tuning, options, tasks, training_options
from antispoofing.commands.run import run_script
from antispoofing.data.splits import FRACTION, Splits, find_training_data
from antispoofing.detectors.devices import resolve_device
from antispoofing.errors import CheckpointError, TrainingError
from antispoofing.files import remove
from antispoofing.project import SAMPLES, Invocation
from antispoofing.training.history import FINAL, STATE
from antispoofing.training.recipe import TrainingConfig, steps_of_an_epoch
from antispoofing.training.stopping import Stopped
from antispoofing.training.tracking import Tracker

if TYPE_CHECKING:
    from antispoofing.training.state import TrainingState
    from model import Detector


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a detector on Fake-or-Real, or on other data.")
    training_options.add_data_options(parser)
    training_options.add_start_options(parser)
    options.add_output_option(parser, Path("results/for"))
    training_options.add_recipe_options(parser)
    training_options.add_augmentation_options(parser)
    training_options.add_resuming_options(parser)
    options.add_audit_option(parser)
    options.add_machine_options(parser, training_options.PRECISIONS, batch_size=16)
    args = parser.parse_args(argv)
    if args.validation_fraction is not None and args.validation_split is None:
        parser.error("--validation-fraction is of --validation-split, which is not there")
    return args


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr for what is missing or cannot be used.

    After Ctrl-C 130, after SIGTERM 143.
    """
    return run_script("fine_tune_for.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Find, load, train, test, report. Raises UserError or OSError for what stands in the way."""
    from antispoofing.training.state import identify

    scoring = options.ScoringOptions.from_args(args)
    config, splits, detector = distributed.on_all_ranks(lambda: _find(args, scoring))
    identity = identify(detector, splits.training, splits.validation, config)
    how = {"resume": args.resume, "restart": args.restart}
    with ExitStack() as stack:
        state = distributed.on_all_ranks(
            lambda: fine_tuning.starting_state(args.output, identity, **how, stack=stack),
            lambda found: identity | {STATE: (found.epoch, found.step)},
        )
        return _train(args, scoring, invocation, config, splits, detector, state)


def _find(
    args: argparse.Namespace, scoring: options.ScoringOptions
) -> tuple[TrainingConfig, Splits, Detector]:
    """The recipe, the data and the detector to start from; fetched where that is asked for."""
    data, checkpoints = tasks.choose(
        [tasks.FAKE_OR_REAL] if args.download else args.data or [],
        [args.checkpoint] if args.checkpoint else [],
        tasks.FAKE_OR_REAL,
        SAMPLES / "for-2seconds",
        tasks.NO_FAKE_OR_REAL,
    )
    resolve_device(args.device)
    if args.download:
        from antispoofing.data import download  # and all that fetching needs: half a second

        data = [download.fake_or_real()]
    checkpoint, paths = tasks.fetched(checkpoints[0]), [Path(path) for path in data]
    config = training_options.config_from(args, ", ".join(map(str, data)))
    fraction = args.validation_fraction or FRACTION
    splits = find_training_data(paths, args.validation_split, fraction, args.seed)
    fine_tuning.describe_splits(splits)
    steps = config.epochs * steps_of_an_epoch(config, len(splits.training))
    if config.warmup >= steps:
        raise TrainingError(f"--warmup {config.warmup}: the whole training has {steps} steps")
    fine_tuning.prepare_output(args.output, checkpoint)
    detector = fine_tuning.load_start(checkpoint, config, scoring)
    if args.export_official and not detector.has_official_names:
        raise CheckpointError(f"--export-official: {checkpoint} has no XLS-R front end, so no official names")
    return config, splits, detector


def _train(
    args: argparse.Namespace,
    scoring: options.ScoringOptions,
    invocation: Invocation,
    config: TrainingConfig,
    splits: Splits,
    detector: Detector,
    state: TrainingState,
) -> int:
    """From this state to the end, the tests included; the exit code."""
    from antispoofing.detectors.loading import export_official, load_detector
    from antispoofing.training.loop import Hooks, fine_tune

    if distributed.is_main() and state.is_new:
        tasks.audit(fine_tuning.by_name(splits), args.output, not args.no_audit)
    from_epoch = steps_of_an_epoch(config, len(splits.training))
    steps = config.epochs * from_epoch
    fine_tuning.announce(args.output, config, steps, detector, state)
    settings = dataclasses.asdict(config) | {"detector": detector.describe()}
    is_logged = distributed.is_main() and not args.no_wandb
    try:
        with Tracker(args.output, settings, state.run, enabled=is_logged) as tracker:
            done = (state.epoch - 1) * from_epoch + state.step
            progress = fine_tuning.Progress(args.output, config, steps, done, tracker)
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
            if len(history) < config.epochs:
                print(f"ended early: {config.patience} epochs without a better one")
            fine_tuning.score_test_splits(splits, args.output, scoring, invocation, tracker)
    except Stopped as stopped:
        print(f"\n{stopped}", end="")
        if stopped.saved:
            print(f"; the same command goes on {fine_tuning.place(*stopped.saved)}", end="")
        print()
        return stopped.exit_code
    if distributed.is_main():
        if args.export_official:
            whole = load_detector(args.output / FINAL, device="cpu")
            left_out = export_official(whole, args.output / fine_tuning.OFFICIAL)
            if left_out:
                lacking = f"{len(left_out)} pre-training-only tensors, as did {detector.path}"
                print(f"\n{fine_tuning.OFFICIAL} lacks {lacking}")
        remove(args.output, [STATE])
    where = f", the test split's results in its {fine_tuning.TESTING}/" if splits.testing else ""
    print(f"\nDetector, history and curves are in {args.output}{where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
