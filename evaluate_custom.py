"""Tasks 1 to 3: score recordings with the published detectors, report AUC and EER.

    python evaluate_custom.py                                   # Dataset_Speech_Assignment, known checkpoints
    python evaluate_custom.py --data my_folder --checkpoint LA_model.pth
    python evaluate_custom.py --data suspicious.mp3 --checkpoint LA_model.pth

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

import cli
import report
from checkpoints import NO_CHECKPOINT, known_checkpoints
from data_utils import FOLDER_LABELS, Found, find_utterances
from detector import Detector, load_detector, resolve_device
from errors import CheckpointError, DataError
from evaluation import score_utterances, summarise
from model import PRESETS

DEFAULT_DATA = Path("Dataset_Speech_Assignment")
SAMPLES = Path(__file__).resolve().parent / "samples" / "custom"

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


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score recordings with speech deepfake detectors. Higher score = more likely real.",
        epilog="With neither data nor checkpoint here, bundled samples are scored with random weights.",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="a folder with real and fake subfolders, or any recordings or folders without labels "
        f"(default: {DEFAULT_DATA}/)",
    )
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help="detector files, .pth or .safetensors (default: every published name present)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/custom"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--threshold",
        type=cli.finite,
        metavar="X",
        help="a threshold chosen on other data: score >= X is called real (--threshold=-1e-3 for such a one)",
    )
    cli.add_machine_options(parser, batch_size=8)
    parser.add_argument(
        "--seed", type=cli.whole(0), default=0, metavar="N", help="of the bootstrap (default: 0)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr for each thing missing or not to be used."""
    return cli.run_script("evaluate_custom.py", run, parse_args, argv)


def run(args: argparse.Namespace, command: str) -> int:
    """Find, score with each detector, report; the exit code.

    A detector that cannot be used is named and costs no other its results; what concerns all of
    them is raised: a UserError, or OSError (--output).
    """
    paths = args.checkpoint or known_checkpoints()
    data = args.data or ([DEFAULT_DATA] if DEFAULT_DATA.exists() else [])
    demonstration = not paths and not data
    if demonstration:
        print(DEMONSTRATION)
        data, paths = [SAMPLES], [None]
    elif not paths:
        raise CheckpointError(NO_CHECKPOINT)
    elif not data:
        raise DataError(NO_DATA)

    device = resolve_device(args.device)
    found = _find(data)
    exit_code = 0
    summaries: dict[str, dict] = {}
    names: dict[str, str] = {}  # of detectors, by sha256
    for path in paths:
        try:
            if path is None:
                name, detector = "random-weights", _random_detector(device, args)
            else:
                detector = load_detector(path, device=device, precision=args.precision)
                if detector.sha256 in names:
                    print(f"{path} is the same detector as {names[detector.sha256]}: scored once.")
                    continue
                name = path.stem
                if name in names.values():
                    name += f"-{detector.sha256[:8]}"
                names[detector.sha256] = name
            summaries[name] = _evaluate(name, detector, found, args, command)
        except (CheckpointError, DataError) as error:
            exit_code = cli.complain(error)
    labelled = {name: summary for name, summary in summaries.items() if "metrics" in summary}
    if labelled:
        print(f"\n{report.results(labelled)}")
    if summaries:
        folders = ", ".join(str(args.output / name) for name in summaries)
        print(f"\nScores, metrics and pictures are in {folders}")
    return exit_code


def _find(data: Sequence[str | Path]) -> Found:
    found = find_utterances(data)
    counts = Counter(u.label for u in found.utterances)
    print(f"{len(found.utterances)} recordings: {counts['bonafide']} real, {counts['spoof']} fake", end="")
    print(f", {counts['']} without a label" if counts[""] else "")
    if found.ignored:
        suffixes = report.printable(", ".join(sorted({p.suffix or p.name for p in found.ignored})))
        print(f"{len(found.ignored)} other files are not recordings ({suffixes}) and were left out.")
    if counts[""] == len(found.utterances) and any(Path(path).is_dir() for path in data):
        print(f"No folder in {found.root} is called {', '.join(FOLDER_LABELS)}: there are no labels.")
    if not counts[""] and not (counts["bonafide"] and counts["spoof"]):
        empty, full = ("real", "fake") if counts["bonafide"] == 0 else ("fake", "real")
        raise DataError(
            f"there are {full} recordings but no {empty} ones, so no AUC or EER; to score them without "
            f"labels, give the {full} folder itself as --data"
        )
    return found


def _random_detector(device: torch.device, args: argparse.Namespace) -> Detector:
    torch.manual_seed(args.seed)
    detector = Detector(PRESETS["small"], args.precision).to(device).eval()
    detector.provenance = {"weights": f"random, seed {args.seed}"}
    return detector


def _evaluate(name: str, detector: Detector, found: Found, args: argparse.Namespace, command: str) -> dict:
    """Score with one detector and write its results folder; returns the summary."""
    folder = args.output / name
    folder.mkdir(parents=True, exist_ok=True)  # before the work, not after
    print(f"\nScoring with {name} on {detector.device.type}, {detector.precision}")
    scored = score_utterances(detector, found.utterances, batch_size=args.batch_size, workers=args.workers)
    summary = summarise(scored, threshold=args.threshold, seed=args.seed)
    verdicts = scored.verdicts(args.threshold)
    about = {
        "data_root": str(found.root),
        "detector": {"name": name} | detector.describe(),
        "command": command,
    }
    report.write_results(folder, scored, summary, verdicts, about, title=name)
    if scored.failures:
        print(report.failures_list(scored))
    _check_scored(summary, all_labelled=all(u.label for u in found.utterances))
    if "metrics" not in summary:
        print(report.scores_table(scored, verdicts))
        print(THRESHOLD_GIVEN if args.threshold is not None else NO_THRESHOLD)
    return summary


def _check_scored(summary: dict, all_labelled: bool) -> None:
    counts = summary["counts"]
    if counts["scored"] == 0:
        raise DataError(f"none of the {counts['files']} recordings could be scored")
    for label, count in (("real", counts["bonafide_scored"]), ("fake", counts["spoof_scored"])):
        if all_labelled and count == 0:
            raise DataError(f"none of the {label} recordings could be scored, so no AUC or EER")


if __name__ == "__main__":
    sys.exit(main())
