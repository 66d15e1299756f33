"""Tasks 4 and 5: fine-tune a detector on the Fake-or-Real data set, report AUC and EER on its test split.

    python fine_tune_for.py                      # for-2seconds/, the first known checkpoint here
    python fine_tune_for.py --data for-norm --checkpoint LA_model.pth --export-official
    python fine_tune_for.py --checkpoint xlsr2_300m.pt   # a pre-trained front end, a fresh back end

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
from pathlib import Path

import torch

import cli
import metrics
import plots
import report
import tasks
from data_sets import SPLITS, Found, Utterance, find_splits, find_utterances
from detector import Detector, load_detector, load_front_end, resolve_device
from errors import CheckpointError, DataError
from evaluation import Scored, summarise
from front_ends import is_front_end
from tracking import Tracker
from training import FINAL, LAST, EpochResult, TrainingConfig, fine_tune, read_provenance

FOR_2SEC_CLIPS = {"training": 6978, "validation": 1413, "testing": 544}  # of each class, as published
OFFICIAL = "final_model.pth"  # with --export-official
TIMED_STEPS = 5  # after these it is said how long the rest will take


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a detector on Fake-or-Real.")
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help=f"a folder with {', '.join(SPLITS)}, each with real and fake, or an archive of it (default: "
        f"{tasks.FAKE_OR_REAL}/)",
    )
    data.add_argument(
        "--download",
        action="store_true",
        help="fetch for-2sec.tar.gz into this folder, and use it; goes on from where it broke off",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the detector to start from, a file or hub:<owner/repo>[@revision][:file] (default: the first "
        "published one here); or a pre-trained front end: xlsr2_300m.pt, or a Hugging Face folder",
    )
    parser.add_argument("--output", type=Path, default=Path("results/for"), help="default: %(default)s")
    parser.add_argument("--epochs", type=cli.whole(1), default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--learning-rate", type=cli.positive, default=5e-5, metavar="X", help="of Adam (default: 5e-5)"
    )
    parser.add_argument("--seed", type=cli.whole(0), default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--export-official",
        action="store_true",
        help="also write final_model.pth, which the original repository loads",
    )
    parser.add_argument(
        "--no-wandb", action="store_true", help="log nothing to Weights & Biases, offline neither"
    )
    parser.add_argument(
        "--crop",
        choices=("start", "random"),
        default="start",
        help="which part of a longer training recording is heard, in each epoch anew (default: start)",
    )
    cli.add_audit_option(parser)
    cli.add_machine_options(parser, ("fp32", "bf16"), batch_size=16)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used."""
    return cli.run_script("fine_tune_for.py", run, parse_args, argv)


def run(args: argparse.Namespace, command: str) -> int:
    """Load, train, test, report. Raises UserError or OSError for what stands in the way."""
    device = resolve_device(args.device)
    checkpoint, data, splits = _find(args)
    _check_output(args.output, checkpoint)
    detector = _starting_point(checkpoint, device, args)
    if args.export_official and not detector.has_official_names:
        raise CheckpointError(f"--export-official: {checkpoint} has no XLS-R front end, so no official names")
    tasks.audit({name: found.utterances for name, found in splits.items()}, args)
    config = TrainingConfig(
        args.epochs,
        args.learning_rate,
        args.batch_size,
        seed=args.seed,
        data=str(data),
        crop=args.crop,
    )
    steps = config.epochs * -(-len(splits["training"].utterances) // config.batch_size)
    print(f"\nFine-tuning {checkpoint} on {device.type}: {config.epochs} epochs, {steps} steps\n")
    settings = dataclasses.asdict(config) | {"detector": detector.describe()}
    with Tracker(args.output, settings, enabled=not args.no_wandb) as tracker:
        progress = _Progress(args.output, config, steps, tracker)
        fine_tune(
            detector,
            splits["training"].utterances,
            splits["validation"].utterances,
            config,
            args.output,
            workers=args.workers,
            on_step=progress.on_step,
            on_epoch=progress.on_epoch,
            on_unreadable=_say_left_out,
        )
        final = tasks.load(args.output / FINAL, device, args)
        tracker.log_testing(_test(final, splits["testing"], args, command))
        if args.export_official:
            whole = load_detector(args.output / FINAL, device="cpu")
            left_out = whole.export_official(args.output / OFFICIAL)
            if left_out:
                print(f"\n{OFFICIAL} lacks {len(left_out)} pre-training-only tensors, as did {checkpoint}")
        print(
            f"\nDetector, history and curves are in {args.output}, the test split's results in its testing/"
        )
    return 0


def _find(args: argparse.Namespace) -> tuple[Path, Path, dict[str, Found]]:
    """The detector to start from, the data set and its splits; fetched where that is asked for."""
    data, checkpoints = tasks.choose(
        [tasks.FAKE_OR_REAL] if args.download else [args.data] if args.data else [],
        [args.checkpoint] if args.checkpoint else [],
        tasks.FAKE_OR_REAL,
        tasks.SAMPLES / "for-2seconds",
        tasks.NO_FAKE_OR_REAL,
    )
    if args.download:
        import download  # and all that fetching needs: half a second

        data = [download.fake_or_real()]
    checkpoint, data = tasks.fetched(checkpoints[0]), Path(data[0])
    folder = find_splits(data)
    if folder is None:
        raise DataError(f"no folder in {data} holds {', '.join(SPLITS)}, each with real and fake")
    return checkpoint, data, {name: _split(folder / name) for name in SPLITS}


def _check_output(output: Path, checkpoint: Path) -> None:
    """Make the folder; OSError if it cannot be written to, CheckpointError if that would lose the start."""
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()
    if checkpoint.resolve() in {(output / name).resolve() for name in (FINAL, LAST, OFFICIAL)}:
        raise CheckpointError(f"{checkpoint} would be overwritten by what it becomes: name another --output")


def _test(final: Detector, testing: Found, args: argparse.Namespace, command: str) -> dict:
    """Score the test split, decide at the threshold chosen on validation, write and print; the summary."""
    _, epoch = read_provenance(final)
    print(f"\nTesting the weights of epoch {epoch['epoch']} (lowest validation EER)", end="")
    folder, threshold = args.output / "testing", epoch["validation_threshold"]
    _, summary = tasks.evaluate("fine-tuned", final, testing, folder, args, command, threshold)
    print(f"\n{report.results({'fine-tuned': summary})}")
    print("That threshold was chosen on the validation split.")
    return summary


def _say_left_out(utterance: Utterance, reason: str) -> None:
    print(report.printable(f"left out of training: {utterance.name}: {reason}"))


def _starting_point(checkpoint: Path, device: torch.device, args: argparse.Namespace) -> Detector:
    options = {"device": device, "precision": args.precision, "frontend": args.frontend}
    if not is_front_end(checkpoint):
        return load_detector(checkpoint, **options)
    detector = load_front_end(checkpoint, **options, seed=args.seed)
    print(
        f"{checkpoint} is a front end alone. The back end is fresh: random weights, seed {args.seed}, so the "
        "first epoch starts from guessing"
    )
    return detector


def _split(folder: Path) -> Found:
    found = find_utterances([folder])
    labels = [u.label for u in found.utterances]
    if set(labels) != {"bonafide", "spoof"}:
        raise DataError(f"{folder} must hold real and fake recordings, and only such")
    counts = [labels.count("bonafide"), labels.count("spoof")]
    print(f"{folder.name}: {counts[0]} real, {counts[1]} fake")
    published = FOR_2SEC_CLIPS[folder.name]
    is_for_2sec = folder.parent.name == tasks.FAKE_OR_REAL.name
    if is_for_2sec and set(counts) != {published} and not folder.resolve().is_relative_to(tasks.SAMPLES):
        print(f"As published, {folder.name} has {published} of each: is the download complete?")
    return found


class _Progress:
    """What is said, written and logged while the training goes on."""

    def __init__(self, output: Path, config: TrainingConfig, steps: int, tracker: Tracker):
        self.output, self.config, self.steps, self.tracker = output, config, steps, tracker
        self.step = 0
        self.history: list[EpochResult] = []
        self.started = time.perf_counter()

    def on_step(self, step: int, loss: float) -> None:
        self.step = step
        self.tracker.log_step(step, loss, self.config.learning_rate)
        if step == TIMED_STEPS and self.steps > 2 * TIMED_STEPS:
            minutes = (time.perf_counter() - self.started) / step * (self.steps - step) / 60
            print(f"about {minutes:.1f} minutes to go, and the time to score validation after each epoch")

    def on_epoch(self, result: EpochResult, scored: Scored) -> None:
        if not self.history:  # now that an earlier run's weights are gone, so must be what tells of them
            report.clear(self.output, [OFFICIAL])
            report.clear(self.output / "testing", report.RESULT_FILES)
        self.history.append(result)
        report.write_history(self.output, self.history)
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
