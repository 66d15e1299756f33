"""Tasks 1 to 3: score recordings with the published detectors; report AUC and EER.

    python evaluate_custom.py                               # Dataset_Speech_Assignment/
    python evaluate_custom.py --data my_folder --checkpoint LA_model.pth
    python evaluate_custom.py --data suspicious.mp3 --checkpoint LA_model.pth
    python evaluate_custom.py --data long.wav --timeline    # the whole recording, window by window
    torchrun --nproc-per-node 2 evaluate_custom.py          # in two processes, with the same results

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
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
from antispoofing.report.analysis import analyse, doubtful
from antispoofing.report.comparison import compare_all
from antispoofing.report.detector_card import verdict_note
from antispoofing.report.groups import clip_properties
from antispoofing.scoring import score_files
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.timeline import hop_samples
from antispoofing.text import counted

if TYPE_CHECKING:
    from model import Detector


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Score recordings with speech deepfake detectors. Higher score = more likely real.",
        epilog="If this folder has neither data nor a detector, the bundled samples are scored with a small "
        "stand-in detector.",
    )
    options.add_data_options(
        parser,
        "a folder with real and fake subfolders, a list of labels, a published data set, any of these as zip "
        f"or tar, or any recordings without labels (default: {tasks.CUSTOM}/)",
        positional=True,
    )
    options.add_checkpoints_option(parser, "the published detectors in this folder")
    options.add_output_option(parser, Path("results/custom"))
    options.add_threshold_option(parser, several=True)
    options.add_pictures_option(parser)
    options.add_timeline_options(parser)
    options.add_audit_option(parser)
    options.add_machine_options(parser)
    options.add_scores_as_option(parser, score_files.FORMATS)
    options.add_general_options(parser)
    args = parser.parse_args(argv)
    if args.hop and not args.timeline:
        parser.error("--hop needs --timeline")
    if args.timeline and distributed.size() > 1:
        raise ProcessError("--timeline runs in one process: start it without torchrun")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the script; return 0, or 2 after one line on stderr for each thing that cannot be used."""
    return run_script("evaluate_custom.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Score the recordings with each detector and report; return the exit code.

    An error that concerns a single detector is printed, and the other detectors are still evaluated.

    Raises:
        UserError: If the options, the data or the device cannot be used.
        OSError: If the results cannot be written.
    """
    scoring = options.ScoringOptions.from_args(args)
    checkpoints, thresholds, found = distributed.on_all_ranks(
        partial(_find, args),
        lambda result: {
            "number of detectors": len(result[0]),
            **tasks.must_agree(scoring, result[2], args.offset),
        },
    )
    usable, exit_code = _usable(args, scoring, checkpoints, thresholds)
    next_start = usable[0][0] if usable and args.checkpoint else None
    if distributed.is_main() and usable:
        remove(args.output, ["analysis.md"])
        tasks.audit({"": found.utterances}, args.output, not args.no_audit)
    evaluations: dict[str, tasks.Evaluation] = {}
    names: dict[str, str] = {}  # by the SHA-256 of the detector's file
    for path, threshold in usable:
        try:
            detector, rule = distributed.on_all_ranks(
                partial(_load, path, threshold, scoring),
                lambda loaded: {"detector": tasks.identity(loaded[0])},
            )
            digest = tasks.digest(detector)
            if digest in names:
                print(f"{detector.path} is the same detector as {names[digest]}: scored once.")
                continue
            names[digest] = name = tasks.distinct_name(detector, names.values())
            if distributed.is_main():
                timelines.remove_timelines(args.output / name)
            evaluation = tasks.evaluate(
                name,
                detector,
                rule,
                found,
                args.output / name,
                scoring,
                invocation,
                threshold=threshold,
                offset=args.offset,
                pictures=args.pictures,
                has_timelines=args.timeline,
            )
        except (CheckpointError, DataError) as error:
            exit_code = print_error(error)
            continue
        if evaluation is not None:  # on the main process
            evaluations[name] = evaluation
            _present(name, detector, evaluation, args)
    if evaluations:
        _report(evaluations, args)
    if any("metrics" in evaluation.summary for evaluation in evaluations.values()):
        words = "fine-tune a detector on Fake-or-Real (tasks 4 and 5)"
        tasks.print_next(words, "fine_tune_for.py", next_start)
    return exit_code


def _find(args: argparse.Namespace) -> tuple[Sequence[Path], Sequence[float | None], Recordings]:
    """Find detectors, their thresholds and recordings, and check the options before any work is done."""
    data, checkpoints = tasks.choose(
        args.data or [], args.checkpoint or [], tasks.CUSTOM, CUSTOM_SAMPLES, tasks.NO_CUSTOM
    )
    thresholds = args.threshold or [None] * len(checkpoints)
    if len(thresholds) != len(checkpoints):
        raise DataError(
            f"--threshold: {len(thresholds)} for {counted(len(checkpoints), 'detector')}; name one for each, "
            f"in the order {', '.join(map(str, checkpoints))}"
        )
    resolve_device(args.device)
    found = tasks.find(data, args.root, args.phase, options.reading(args))
    for format_ in args.scores_as:
        score_files.names_in(format_, found.utterances)
    return checkpoints, thresholds, found


def _usable(
    args: argparse.Namespace,
    scoring: options.ScoringOptions,
    checkpoints: Sequence[Path],
    thresholds: Sequence[float | None],
) -> tuple[list[tuple[Path, float | None]], int]:
    """Return the detectors that can be loaded, with their thresholds, and the exit code for the others."""

    def check(checkpoint: Path, threshold: float | None) -> Path:
        path = tasks.fetched(checkpoint)
        detector = tasks.check(path, scoring)
        Rule.from_detector(detector, threshold)
        if args.timeline:
            hop_samples(detector.config, args.hop)
        return path

    usable, exit_code = [], 0
    for checkpoint, threshold in zip(checkpoints, thresholds, strict=True):
        try:
            usable.append((distributed.on_all_ranks(partial(check, checkpoint, threshold)), threshold))
        except (CheckpointError, DataError, DownloadError) as error:
            exit_code = print_error(error)
    if usable:
        names = [tasks.plain_name(path) for path, _ in usable]
        distributed.on_all_ranks(partial(tasks.prepare_output, args.output, names))
    return usable, exit_code


def _load(
    checkpoint: Path, threshold: float | None, scoring: options.ScoringOptions
) -> tuple[Detector, Rule]:
    """Load a detector and its decision rule."""
    detector = tasks.load(checkpoint, scoring)
    return detector, Rule.from_detector(detector, threshold)


def _present(name: str, detector: Detector, evaluation: tasks.Evaluation, args: argparse.Namespace) -> None:
    """Write scores in other formats and timelines; without labels and timelines, print the scores."""
    scored, summary, rule = evaluation
    folder = args.output / name
    for format_ in args.scores_as:
        score_files.write_scores(folder, format_, scored)
    if args.timeline:
        timelines.write_timelines(name, detector, rule, scored.utterances, folder, args.hop)
    elif "metrics" not in summary:
        print(screen.scores_table(scored, rule.verdicts(scored.logits)))
        print(f"\n{screen.analysis_text([f'Verdict: {rule.describe()}.', verdict_note(detector)])}")


def _report(evaluations: Mapping[str, tasks.Evaluation], args: argparse.Namespace) -> None:
    """Print and write figures and analysis, if there are labels; print where everything is."""
    labelled = {name: result for name, result in evaluations.items() if "metrics" in result.summary}
    if labelled:
        figures = screen.results({name: result.summary for name, result in labelled.items()})
        properties = clip_properties(next(iter(labelled.values())).scored)
        words = [
            analyse(name, result.scored, result.summary, properties, result.rule)
            for name, result in labelled.items()
        ]
        words += compare_all({name: result.scored for name, result in labelled.items()})
        words += filter(None, [doubtful(next(iter(labelled.values())).scored)])
        tasks.print_analysis(args.output, figures, words)
    folders = ", ".join(str(args.output / name) for name in evaluations)
    print(f"\n{'Scores, metrics and plots' if labelled else 'Scores'} are in {folders}")
    if labelled:
        print(f"The analysis is in {args.output / 'analysis.md'}")


if __name__ == "__main__":
    sys.exit(main())
