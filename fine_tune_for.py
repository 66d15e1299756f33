"""Tasks 4 and 5: fine-tune a detector on the Fake-or-Real data set, report AUC and EER on its test split.

    python fine_tune_for.py                      # for-2seconds/, the first known checkpoint here
    python fine_tune_for.py --data for-norm --checkpoint LA_model.pth --export-official

A score is logit 1 (bona fide): higher = more likely real. The weights kept are those of the epoch
with the lowest validation EER; the threshold for decisions on the test split is chosen on the
validation split too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cli
import report
from checkpoints import NO_CHECKPOINT, known_checkpoints
from data_utils import Utterance, find_utterances
from detector import Detector, load_detector, resolve_device
from errors import CheckpointError, DataError
from evaluation import Scored, score_utterances, summarise
from training import EpochResult, TrainingConfig, fine_tune

DEFAULT_DATA = Path("for-2seconds")
SPLITS = ("training", "validation", "testing")
TIMED_STEPS = 5  # after these it is said how long the rest will take


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a detector on Fake-or-Real.")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"a folder with {', '.join(SPLITS)}, each with real and fake (default: {DEFAULT_DATA}/)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the detector to start from (default: the first published one here)",
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
    cli.add_machine_options(parser, batch_size=16)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used."""
    return cli.run_script("fine_tune_for.py", run, parse_args, argv)


def run(args: argparse.Namespace, command: str) -> int:
    """Load, train, test, report. Raises UserError or OSError for what stands in the way."""
    data = args.data or DEFAULT_DATA
    checkpoint = args.checkpoint or next(iter(known_checkpoints()), None)
    device = resolve_device(args.device)
    splits = {name: _split(data, name) for name in SPLITS}
    if checkpoint is None:
        raise CheckpointError(NO_CHECKPOINT)
    args.output.mkdir(parents=True, exist_ok=True)
    detector = load_detector(checkpoint, device=device, precision=args.precision)
    if args.export_official and not detector.has_official_names:
        raise CheckpointError(f"--export-official: {checkpoint} has no XLS-R front end, so no official names")
    config = TrainingConfig(args.epochs, args.learning_rate, args.batch_size, seed=args.seed)

    steps = config.epochs * -(-len(splits["training"]) // config.batch_size)
    print(f"Fine-tuning {checkpoint} on {device.type}: {config.epochs} epochs, {steps} steps\n")
    history = fine_tune(
        detector,
        splits["training"],
        splits["validation"],
        config,
        args.output,
        workers=args.workers,
        on_step=_announce_duration(steps),
        on_epoch=_print_epoch,
        on_unreadable=lambda u, reason: print(report.printable(f"left out of training: {u.name}: {reason}")),
    )
    report.write_history(args.output, history)
    final = load_detector(args.output / "final_model.safetensors", device=device, precision=args.precision)
    _test(final, splits["testing"], args, command)
    if args.export_official:
        left_out = final.export_official(args.output / "final_model.pth")
        if left_out:
            print(f"\nfinal_model.pth lacks {len(left_out)} pre-training-only tensors: {checkpoint} had none")
    print(f"\nDetector, history and curves are in {args.output}, the test split's results in its testing/")
    return 0


def _test(final: Detector, testing: list[Utterance], args: argparse.Namespace, command: str) -> None:
    """Score the test split, decide at the threshold chosen on validation, write and print."""
    epoch = final.provenance["epoch"]
    print(f"\nTesting the weights of epoch {epoch['epoch']} (lowest validation EER)")
    scored = score_utterances(final, testing, batch_size=args.batch_size, workers=args.workers)
    threshold = epoch["validation_threshold"]
    summary = summarise(scored, threshold=threshold, seed=args.seed)
    folder = args.output / "testing"
    folder.mkdir(exist_ok=True)
    about = {"detector": final.describe(), "command": command}
    report.write_results(folder, scored, summary, scored.verdicts(threshold), about, title="FoR, testing")
    if scored.failures:
        print(report.failures_list(scored))
    if "metrics" not in summary:
        raise DataError("no real, or no fake, recording of the testing split could be scored")
    print(f"\n{report.results({'fine-tuned': summary})}")
    print("That threshold was chosen on the validation split.")


def _split(data: Path, name: str) -> list[Utterance]:
    folder = data / name
    if not folder.is_dir():
        raise DataError(
            f"no data: there is no folder {folder}. Fake-or-Real (for-2sec) unpacks to {DEFAULT_DATA}/ with "
            f"{', '.join(SPLITS)}, each with real and fake; it comes from York University's "
            "www.eecs.yorku.ca/~bil/Datasets/for-2sec.tar.gz. Put it here or name its folder with --data"
        )
    utterances = find_utterances([folder]).utterances
    labels = [u.label for u in utterances]
    if not {"bonafide", "spoof"} == set(labels):
        raise DataError(f"{folder} must hold real and fake recordings, and only such")
    print(f"{name}: {labels.count('bonafide')} real, {labels.count('spoof')} fake")
    return utterances


def _announce_duration(steps: int) -> Callable[[int, float], None]:
    """An `on_step` that says, once, how long all steps will take."""
    started = time.perf_counter()

    def on_step(step: int, loss: float) -> None:
        if step == TIMED_STEPS and steps > 2 * TIMED_STEPS:
            minutes = (time.perf_counter() - started) / step * (steps - step) / 60
            print(f"about {minutes:.1f} minutes to go, and the time to score validation after each epoch")

    return on_step


def _print_epoch(result: EpochResult, scored: Scored) -> None:
    print(
        f"epoch {result.epoch}: loss {result.train_loss:.4f}; validation loss {result.validation_loss:.4f}, "
        f"AUC {result.validation_auc:.3f}, EER {100 * result.validation_eer:.1f} %, "
        f"{len(scored.failures)} not scored ({result.seconds:.0f} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
