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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.commands import options, tasks, timelines
from antispoofing.commands.run import print_error, run_script
from antispoofing.data.recordings import Recordings
from antispoofing.detectors.devices import resolve_device
from antispoofing.errors import CheckpointError, DataError, DownloadError, ProcessError
from antispoofing.files import remove
from antispoofing.project import CUSTOM_SAMPLES, Invocation
from antispoofing.report import screen
from antispoofing.report.analysis import analyse
from antispoofing.report.comparison import compare_all
from antispoofing.report.groups import clip_properties
from antispoofing.scoring import score_files
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import hop_samples

if TYPE_CHECKING:
    from model import Detector

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
    options.add_output_option(parser, Path("results/custom"))
    options.add_threshold_option(parser)
    options.add_timeline_options(parser)
    options.add_audit_option(parser)
    options.add_machine_options(parser)
    options.add_scores_as_option(parser, score_files.FORMATS)
    options.add_seed_option(parser)
    args = parser.parse_args(argv)
    if args.hop and not args.timeline:
        parser.error("--hop needs --timeline")
    if args.timeline and distributed.size() > 1:
        raise ProcessError("--timeline runs in one process: start it without torchrun")
    return args


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr for each thing missing or not to be used."""
    return run_script("evaluate_custom.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Find, load and score with each detector, report; the exit code.

    A detector that cannot be used is named and costs no other its results; what concerns all of
    them is raised: a UserError, or OSError (--output).
    """
    scoring = options.ScoringOptions.from_args(args)
    checkpoints, found = distributed.on_all_ranks(
        lambda: _find(args),
        lambda result: {
            "number of detectors": len(result[0]),
            **tasks.must_agree(scoring, result[1], args.offset),
        },
    )
    if distributed.is_main():
        remove(args.output, ["analysis.md"])
        tasks.audit({"": found.utterances}, args.output, not args.no_audit)
    exit_code = 0
    scored: dict[str, tuple[Scored, dict]] = {}
    names: dict[str, str] = {}  # of detectors, by sha256
    for path in checkpoints:
        try:
            detector, rule = distributed.on_all_ranks(
                lambda path=path: _load(path, scoring, args),
                lambda loaded: {"detector": tasks.identity(loaded[0])},
            )
            if detector.sha256 in names:
                print(f"{detector.path} is the same detector as {names[detector.sha256]}: scored once.")
                continue
            names[detector.sha256] = name = _name(detector, names.values())
            folder = args.output / name
            if distributed.is_main():
                timelines.remove_timelines(folder)
            how = {"threshold": args.threshold, "offset": args.offset}
            result = tasks.evaluate(name, detector, found, folder, scoring, invocation, **how)
        except (CheckpointError, DataError, DownloadError) as error:
            exit_code = print_error(error)
            continue
        if result is None:  # the main process has it
            continue
        scored[name] = result
        for format_ in args.scores_as:
            score_files.write_scores(folder, format_, result[0])
        if args.timeline:
            timelines.write_timelines(name, detector, rule, found.utterances, folder, args.hop)
        elif "metrics" not in result[1]:
            print(screen.scores_table(result[0], result[0].verdicts(args.threshold)))
            print(THRESHOLD_GIVEN if args.threshold is not None else NO_THRESHOLD)
    if scored:
        _report(scored, args)
    return exit_code


def _find(args: argparse.Namespace) -> tuple[Sequence[Path], Recordings]:
    """The detectors and the recordings; what is wrong with the options is said before the work."""
    data, checkpoints = tasks.choose(
        args.data or [], args.checkpoint or [], tasks.CUSTOM, CUSTOM_SAMPLES, tasks.NO_CUSTOM
    )
    resolve_device(args.device)
    found = tasks.find(data, args.root, args.phase)
    for format_ in args.scores_as:
        score_files.names_in(format_, found.utterances)
    return checkpoints, found


def _load(
    checkpoint: Path, scoring: options.ScoringOptions, args: argparse.Namespace
) -> tuple[Detector, Rule]:
    """A detector and what decides by it; what is wrong with them is said before the work."""
    detector = tasks.load(tasks.fetched(checkpoint), scoring)
    if args.timeline:
        hop_samples(detector.config, args.hop)
    return detector, Rule.from_detector(detector, args.threshold)


def _name(detector: Detector, taken: Sequence[str]) -> str:
    """What its results are called: as its file, and where that is taken by its sha256 too."""
    name = detector.path.stem
    return f"{name}-{detector.sha256[:8]}" if name in taken else name


def _report(scored: dict[str, tuple[Scored, dict]], args: argparse.Namespace) -> None:
    """Figures and analysis of the detectors that have both, and where everything is."""
    labelled = {name: result for name, result in scored.items() if "metrics" in result[1]}
    if labelled:
        figures = screen.results({name: summary for name, (_, summary) in labelled.items()})
        any_scored, _ = next(iter(labelled.values()))
        properties = clip_properties(any_scored)
        words = [analyse(name, *labelled[name], properties, args.threshold, args.seed) for name in labelled]
        words += compare_all({name: scored for name, (scored, _) in labelled.items()}, args.seed)
        tasks.print_analysis(args.output, figures, words)
    print(f"\nScores, metrics and pictures are in {', '.join(str(args.output / name) for name in scored)}")
    if labelled:
        print(f"The analysis is in {args.output / 'analysis.md'}")


if __name__ == "__main__":
    sys.exit(main())
