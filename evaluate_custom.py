"""Tasks 1 to 3: score recordings with the published detectors, report AUC and EER.

    python evaluate_custom.py                                   # Dataset_Speech_Assignment, known checkpoints
    python evaluate_custom.py --data my_folder --checkpoint LA_model.pth
    python evaluate_custom.py --data suspicious.mp3 --checkpoint LA_model.pth

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

import report
from checkpoints import KNOWN_NAMES, CheckpointError
from data_utils import DataError, Utterance, find_utterances
from detector import Detector, DeviceError, load_detector, resolve_device
from evaluation import score_utterances, summarise
from model import PRESETS

DEFAULT_DATA = Path("Dataset_Speech_Assignment")
SAMPLES = Path(__file__).resolve().parent / "samples" / "custom"

NO_CHECKPOINT = (
    f"no checkpoint: none of {', '.join(KNOWN_NAMES)} is in this folder. LA_model.pth and "
    "Best_LA_model_for_DF.pth are at https://drive.google.com/drive/folders/"
    "1c4ywztEVlYVijfwbGLl9OEa1SNtFKppB; put them here or name a file with --checkpoint"
)
NO_DATA = (
    f"no data: there is no {DEFAULT_DATA}/ in this folder. Unzip the assignment's data set here, or name "
    "a folder with real and fake subfolders, or any recordings, with --data"
)
DEMONSTRATION = (
    f"Neither {DEFAULT_DATA}/ nor a published checkpoint is in this folder, so this is a demonstration:\n"
    "a few bundled clips, scored by a small detector with RANDOM WEIGHTS. Its numbers mean nothing.\n"
)
THRESHOLD_GIVEN = "verdict: real where score >= the threshold given"
NO_THRESHOLD = (
    "verdict: the larger of the network's two logits, which is not calibrated; --threshold X calls a "
    "recording real where score >= X"
)
MOST_FAILURES = 10  # reasons shown on screen; failures.csv has all


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score recordings with speech deepfake detectors. Higher score = more likely real.",
        epilog="With neither data nor checkpoint here, bundled samples are scored with random weights.",
    )
    data_help = "a folder with real and fake subfolders, or any recordings or folders without labels"
    checkpoint_help = "detector files, .pth or .safetensors (default: every published name present)"
    threshold_help = "a threshold chosen on other data: score >= X is called real"
    workers = min(4, os.cpu_count() or 1)
    add = parser.add_argument
    add("--data", nargs="+", metavar="PATH", help=f"{data_help} (default: {DEFAULT_DATA}/)")
    add("--checkpoint", nargs="+", type=Path, metavar="PATH", help=checkpoint_help)
    add("--output", type=Path, default=Path("results/custom"), metavar="DIR", help="default: %(default)s")
    add("--threshold", type=_finite, metavar="X", help=threshold_help)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="default: %(default)s, as published")
    add("--batch-size", type=_at_least(1), default=8, metavar="N", help="default: %(default)s")
    add("--workers", type=_at_least(0), default=workers, metavar="N", help="processes that decode ahead")
    add("--seed", type=_at_least(0), default=0, metavar="N", help="of the bootstrap (default: %(default)s)")
    return parser.parse_args(argv)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError("must be a finite number")
    return float(text)


def _at_least(minimum: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return int(text)

    return whole_number


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used."""
    args = parse_args(argv)
    try:
        run(args, command=shlex.join(["python", "evaluate_custom.py", *(argv or sys.argv[1:])]))
    except (DataError, CheckpointError, DeviceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace, command: str) -> None:
    """Find, score, report. Raises DataError, CheckpointError or DeviceError for what is missing."""
    paths = args.checkpoint or [Path(name) for name in KNOWN_NAMES if Path(name).is_file()]
    data = args.data or ([DEFAULT_DATA] if DEFAULT_DATA.exists() else [])
    demonstration = not paths and not data
    if demonstration:
        print(DEMONSTRATION)
        data = [SAMPLES]
    elif not paths:
        raise CheckpointError(NO_CHECKPOINT)
    elif not data:
        raise DataError(NO_DATA)

    utterances = _find(data)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output {args.output}: {error.strerror}") from error
    detectors = _random_detector(args) if demonstration else _load_each(paths, args)
    summaries = {}
    for name, detector in detectors:
        summaries[name] = _evaluate(name, detector, utterances, args, command)
    _print_summaries(summaries)
    folders = ", ".join(str(args.output / name) for name in summaries)
    print(f"\nScores, metrics and pictures are in {folders}")


def _find(data: Sequence[str | Path]) -> list[Utterance]:
    utterances, ignored = find_utterances(data)
    counts = Counter(u.label for u in utterances)
    print(f"{len(utterances)} recordings: {counts['bonafide']} real, {counts['spoof']} fake", end="")
    print(f", {counts['']} without a label" if counts[""] else "")
    if ignored:
        suffixes = ", ".join(sorted({p.suffix or p.name for p in ignored}))
        print(f"{len(ignored)} other files are not recordings ({suffixes}) and were left out.")
    if (counts["bonafide"] == 0) != (counts["spoof"] == 0):
        empty, full = ("real", "fake") if counts["bonafide"] == 0 else ("fake", "real")
        raise DataError(
            f"there are {full} recordings but no {empty} ones, so no AUC or EER; to score them without "
            f"labels, give the {full} folder itself as --data"
        )
    return utterances


def _load_each(paths: Sequence[Path], args: argparse.Namespace) -> Iterator[tuple[str, Detector]]:
    """Each distinct detector with the name its results go under; one in memory at a time."""
    seen: dict[str, str] = {}
    for path in paths:
        detector = load_detector(path, device=args.device, precision=args.precision)
        if detector.sha256 in seen:
            print(f"{path} is the same detector as {seen[detector.sha256]}: scored once.")
            continue
        name = path.stem if path.stem not in seen.values() else f"{path.stem}-{detector.sha256[:8]}"
        seen[detector.sha256] = name
        yield name, detector


def _random_detector(args: argparse.Namespace) -> Iterator[tuple[str, Detector]]:
    torch.manual_seed(args.seed)
    detector = Detector(PRESETS["small"], args.precision).to(resolve_device(args.device)).eval()
    detector.provenance = {"weights": f"random, seed {args.seed}"}
    yield "random-weights", detector


def _evaluate(
    name: str, detector: Detector, utterances: list[Utterance], args: argparse.Namespace, command: str
) -> dict:
    """Score with one detector and write its results folder; returns the summary."""
    print(f"\nScoring with {name} on {detector.device.type}, {detector.precision}")
    scored = score_utterances(detector, utterances, batch_size=args.batch_size, workers=args.workers)
    summary = summarise(scored, threshold=args.threshold, seed=args.seed)
    verdicts = scored.verdicts(args.threshold)
    about = {
        "detector": {
            "name": name,
            "sha256": detector.sha256,
            "provenance": detector.provenance,
            "config": detector.config.to_dict(),
            "precision": detector.precision,
            "device": str(detector.device),
        },
        "command": command,
    }
    report.write_results(args.output / name, scored, summary, verdicts, about, title=name)
    for i, reason in sorted(scored.failures.items())[:MOST_FAILURES]:
        print(f"not scored: {utterances[i].name}: {reason}")
    if len(scored.failures) > MOST_FAILURES:
        print(f"... and {len(scored.failures) - MOST_FAILURES} more not scored, see failures.csv")
    _check_scored(summary, labelled=any(u.label for u in utterances))
    if "metrics" not in summary:
        print(report.scores_table(scored, verdicts))
        print(THRESHOLD_GIVEN if args.threshold is not None else NO_THRESHOLD)
    return summary


def _check_scored(summary: dict, labelled: bool) -> None:
    counts = summary["counts"]
    if counts["scored"] == 0:
        raise DataError(f"none of the {counts['files']} recordings could be scored")
    for label, count in (("real", counts["bonafide_scored"]), ("fake", counts["spoof_scored"])):
        if labelled and count == 0:
            raise DataError(f"none of the {label} recordings could be scored, so no AUC or EER")


def _print_summaries(summaries: dict[str, dict]) -> None:
    labelled = {name: summary for name, summary in summaries.items() if "metrics" in summary}
    if labelled:
        print(f"\n{report.results_table(labelled)}\n\n{report.CONVENTION}")
    for name, summary in labelled.items():
        print("\n".join(report.cautions(name, summary)))
        if "at_threshold" in summary:
            print(f"\n{name}, {report.confusion_table(summary['at_threshold'])}")
        if summary["reversed"]:
            print(f"\n{report.reversal_warning(name, summary)}")


if __name__ == "__main__":
    sys.exit(main())
