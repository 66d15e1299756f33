"""Tasks 1 to 3: score recordings with the published detectors, report AUC and EER.

    python evaluate_custom.py                                   # Dataset_Speech_Assignment, known checkpoints
    python evaluate_custom.py --data my_folder --checkpoint LA_model.pth
    python evaluate_custom.py --data suspicious.mp3 --checkpoint LA_model.pth
    python evaluate_custom.py --data long.wav --timeline        # the whole recording, window by window
    torchrun --nproc-per-node 2 evaluate_custom.py              # in two processes, with the same results

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from antispoofing import distributed
from antispoofing.commands import options, tasks
from antispoofing.data.recordings import Found
from antispoofing.detectors.loading import PRECISIONS, Detector, resolve_device
from antispoofing.errors import CheckpointError, DataError, DownloadError, ProcessError
from antispoofing.report import screen
from antispoofing.report.analysis import analyse
from antispoofing.report.comparison import compare_all
from antispoofing.report.groups import clip_properties
from antispoofing.scoring import score_files
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score import Scored
from antispoofing.scoring.timeline import cautions, hop_samples, overall, score_windows
from data_utils import load_audio
from decoding import AudioError

TIMELINES = "timelines"  # in a detector's folder
MOST_TOLD = 20  # recordings, on screen
THRESHOLD_GIVEN = "verdict: real where score >= the threshold given"
NO_THRESHOLD = (
    "verdict: the larger of the network's two logits, which is not calibrated; --threshold X calls a "
    "recording real where score >= X"
)


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score recordings with speech deepfake detectors. Higher score = more likely real.",
        epilog="With neither data nor checkpoint here, bundled samples are scored with a small stand-in.",
    )
    options.add_data_options(
        parser,
        "a folder with real and fake subfolders, a list of labels, a published data set, any of these as zip "
        f"or tar, or any recordings without labels (default: {tasks.CUSTOM}/)",
    )
    options.add_checkpoints_option(parser, "every published name present")
    parser.add_argument(
        "--output", type=Path, default=Path("results/custom"), metavar="DIR", help="default: %(default)s"
    )
    options.add_threshold_option(parser)
    parser.add_argument(
        "--offset",
        type=options.not_negative,
        default=0.0,
        metavar="SECONDS",
        help="where in each recording its clip begins (default: 0, as published)",
    )
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="also score each whole recording window by window: where it sounds synthetic",
    )
    parser.add_argument(
        "--hop",
        type=options.positive,
        metavar="SECONDS",
        help="of --timeline, from one window to the next (default: half a window)",
    )
    options.add_audit_option(parser)
    options.add_machine_options(parser, PRECISIONS)
    parser.add_argument(
        "--scores-as",
        nargs="+",
        action="extend",
        choices=score_files.FORMATS,
        default=[],
        help="also write the scores in these formats of the field",
    )
    options.add_seed_option(parser)
    args = parser.parse_args(argv)
    if args.hop and not args.timeline:
        parser.error("--hop needs --timeline")
    if args.timeline and distributed.size() > 1:
        raise ProcessError("--timeline runs in one process: start it without torchrun")
    return args


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr for each thing missing or not to be used."""
    return options.run_script("evaluate_custom.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, command: str) -> int:
    """Find, score with each detector, report; the exit code.

    A detector that cannot be used is named and costs no other its results; what concerns all of
    them is raised: a UserError, or OSError (--output).
    """
    checkpoints, device, found = distributed.together(
        lambda: _find(args),
        lambda result: {"number of detectors": len(result[0])} | tasks.alike(args, result[-1]),
    )
    if distributed.is_main():
        screen.clear(args.output, ["analysis.md"])
        tasks.audit({"": found.utterances}, args)
    exit_code = 0
    results: dict[str, tuple[Scored, dict]] = {}
    names: dict[str, str] = {}  # of detectors, by sha256
    for path in checkpoints:
        try:
            detector, rule = distributed.together(
                lambda path=path: _load(path, device, args),
                lambda loaded: {"detector": tasks.identity(loaded[0])},
            )
            if detector.sha256 in names:
                print(f"{detector.path} is the same detector as {names[detector.sha256]}: scored once.")
                continue
            name = detector.path.stem
            if name in names.values():
                name += f"-{detector.sha256[:8]}"
            names[detector.sha256] = name
            if distributed.is_main() and (old := args.output / name / TIMELINES).exists():
                shutil.rmtree(old)  # an earlier run's must not stay beside new scores
            result = tasks.evaluate(
                name, detector, found, args.output / name, args, command, args.threshold, args.offset
            )
        except (CheckpointError, DataError, DownloadError) as error:
            exit_code = options.complain(error)
            continue
        if result is None:  # the main process has it
            continue
        results[name] = scored, summary = result
        for format_ in args.scores_as:
            score_files.write_scores(args.output / name, format_, scored)
        if args.timeline:
            _write_timelines(name, detector, rule, found, args)
        elif "metrics" not in summary:
            print(screen.scores_table(scored, scored.verdicts(args.threshold)))
            print(THRESHOLD_GIVEN if args.threshold is not None else NO_THRESHOLD)
    if not results:
        return exit_code
    labelled = {name: result for name, result in results.items() if "metrics" in result[1]}
    if labelled:
        figures = screen.results({name: summary for name, (_, summary) in labelled.items()})
        any_scored, _ = next(iter(labelled.values()))
        properties = clip_properties(any_scored)
        words = [analyse(name, *labelled[name], properties, args.threshold, args.seed) for name in labelled]
        words += compare_all({name: scored for name, (scored, _) in labelled.items()}, args.seed)
        screen.say_analysis(args.output, figures, words)
    folders = ", ".join(str(args.output / name) for name in results)
    print(f"\nScores, metrics and pictures are in {folders}")
    if labelled:
        print(f"The analysis is in {args.output / 'analysis.md'}")
    return exit_code


def _load(checkpoint: Path, device: torch.device, args: argparse.Namespace) -> tuple[Detector, Rule]:
    """A detector and what decides by it; what is wrong with them is said before the work."""
    detector = tasks.load(tasks.fetched(checkpoint), device, args)
    if args.timeline:
        hop_samples(detector.config, args.hop)
    return detector, Rule.of(detector, args.threshold)


def _write_timelines(
    name: str, detector: Detector, rule: Rule, found: Found, args: argparse.Namespace
) -> None:
    """Each recording's windows as CSV and picture; the first few are told on screen."""
    folder, rate = args.output / name / TIMELINES, detector.config.sample_rate
    print(f"\nTimelines, {name}: {screen.printable(rule.describe())}.")
    print(f"The whole recording is {overall(rule)}.")
    for number, utterance in enumerate(found.utterances):
        try:
            wave = load_audio(utterance.path, rate)
            timeline = score_windows(detector, wave, rule, args.hop)
        except AudioError as error:
            lines = [screen.printable(f"no timeline: {utterance.name}: {error}")]
        else:
            screen.write_timeline(folder, utterance.name, wave, rate, timeline, name)
            lines = screen.timeline_lines(utterance.name, timeline, cautions(wave, rate))
        if number < MOST_TOLD:
            print("\n".join(lines))
    left = len(found.utterances) - MOST_TOLD
    if left > 0:
        print(f"... and {left} more")
    print(f"Windows and pictures are in {folder}")


def _find(args: argparse.Namespace) -> tuple[Sequence[Path], torch.device, Found]:
    """The detectors, the device, the recordings."""
    data, checkpoints = tasks.choose(
        args.data or [], args.checkpoint or [], tasks.CUSTOM, tasks.SAMPLES / "custom", tasks.NO_CUSTOM
    )
    device = resolve_device(args.device)
    found = tasks.find(data, args.root, args.phase)
    for format_ in args.scores_as:
        score_files.names_in(format_, found.utterances)  # what is wrong with them is said before the work
    return checkpoints, device, found


if __name__ == "__main__":
    sys.exit(main())
