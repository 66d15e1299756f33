"""Tasks 6 and 7: score the custom data with the fine-tuned detector, and report what fine-tuning changed.

    python evaluate_custom_for.py       # results/for/final_model.safetensors, Dataset_Speech_Assignment
    python evaluate_custom_for.py --data my_folder --checkpoint tuned.safetensors
    torchrun --nproc-per-node 2 evaluate_custom_for.py     # in two processes, with the same results

"Before" is the detector that the fine-tuning started from, which the fine-tuned file names. Both score the
same recordings. A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from antispoofing import distributed
from antispoofing.commands import options, tasks
from antispoofing.commands.run import run_script
from antispoofing.data.recordings import Recordings
from antispoofing.detectors.devices import resolve_device
from antispoofing.detectors.provenance import Start, comes_from_stand_in, read_fine_tuning
from antispoofing.errors import CheckpointError, DataError
from antispoofing.files import remove
from antispoofing.project import CUSTOM_SAMPLES, Invocation
from antispoofing.report import plots, results, screen
from antispoofing.report.analysis import analyse, doubtful
from antispoofing.report.comparison import change, compare, difference
from antispoofing.report.groups import clip_properties
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import Rule

if TYPE_CHECKING:
    from model import Detector

BEFORE, AFTER = "before", "fine-tuned"


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Compare a fine-tuned detector with the one it started from, on the same recordings."
    )
    options.add_data_options(
        parser,
        "a folder with real and fake subfolders, a list of labels, a published data set, or any of these as "
        f"zip or tar (default: {tasks.CUSTOM}/)",
        positional=True,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help=f"the fine-tuned detector, as fine_tune_for.py wrote it (default: {tasks.FINE_TUNED})",
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="PATH",
        help="the detector that the fine-tuning started from (default: the path recorded in the fine-tuned "
        "file)",
    )
    options.add_output_option(parser, Path("results/custom_for"))
    options.add_pictures_option(parser)
    options.add_audit_option(parser)
    options.add_machine_options(parser)
    options.add_general_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the script; return 0, or 2 after one line on stderr that says what is wrong."""
    return run_script("evaluate_custom_for.py", run, parse_args, argv, shares=True)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Score the recordings before and after fine-tuning, compare and report; return the exit code.

    Raises:
        UserError: If the options, the data or the detectors cannot be used.
        OSError: If the results cannot be written.
    """
    scoring = options.ScoringOptions.from_args(args)
    before, after, found = distributed.on_all_ranks(
        partial(_find, args, scoring),
        lambda result: {
            "detectors": [detector and tasks.identity(detector) for detector in result[:2]],
            **tasks.must_agree(scoring, result[2]),
        },
    )
    epoch = read_fine_tuning(after).epoch
    if distributed.is_main():
        remove(args.output, ["analysis.md", "comparison.json", *results.picture_files("change")])
        tasks.audit({"": found.utterances}, args.output, not args.no_audit)
        remove(args.output / BEFORE, results.RESULT_FILES)

    evaluations = {}
    for name, detector, limit in ((BEFORE, before, None), (AFTER, after, epoch["validation_threshold"])):
        if detector is None:
            continue
        folder, rule = args.output / name, Rule.from_detector(detector)
        evaluation = tasks.evaluate(
            name, detector, rule, found, folder, scoring, invocation, threshold=limit, pictures=args.pictures
        )
        if evaluation is not None:  # on the main process
            evaluations[name] = evaluation
    if distributed.is_main():
        _report(evaluations, epoch, args, invocation)
    return 0


def _report(
    evaluations: dict[str, tasks.Evaluation], epoch: dict, args: argparse.Namespace, invocation: Invocation
) -> None:
    """Print and write figures and analysis, with a comparison if there is a detector before."""
    if any("metrics" not in result.summary for result in evaluations.values()):
        raise DataError("none of the recordings of one class could be scored, so there is no AUC or EER")
    after = evaluations[AFTER]
    properties = clip_properties(after.scored)
    words = []
    if BEFORE in evaluations:
        before = evaluations[BEFORE]
        paired = compare(before.scored, after.scored, find_clusters(after.scored.utterances))
        results.write_json(args.output / "comparison.json", paired, invocation)
        changed = {"change": plots.plot_change(before.scored, after.scored)}
        results.save_pictures(args.output, changed, args.pictures)
        words += [
            "## What fine-tuning changed",
            difference(BEFORE, AFTER, paired),
            change(before.scored, after.scored, after.summary, properties, epoch),
        ]
    words.append(analyse(AFTER, after.scored, after.summary, properties, after.rule))
    words += filter(None, [doubtful(after.scored)])
    figures = screen.results({name: result.summary for name, result in evaluations.items()})
    figures += (
        "\n\nThe threshold of the confusion table was chosen on the validation split of the fine-tuning data."
    )
    if after.rule.can_be_sure:
        figures += " The verdicts go by the calibration instead."
    tasks.print_analysis(args.output, figures, words)
    print(f"\nScores, metrics, plots and the analysis are in {args.output}")
    tasks.print_next("try the detector in a browser", "app.py", args.checkpoint)


def _find(
    args: argparse.Namespace, scoring: options.ScoringOptions
) -> tuple[Detector | None, Detector, Recordings]:
    """Find the detectors before and after fine-tuning and the recordings, and check the options."""
    tasks.must_exist(args.data or [])
    checkpoint = tasks.fetched(args.checkpoint) if args.checkpoint else tasks.FINE_TUNED
    if args.checkpoint is None and not checkpoint.exists():
        raise CheckpointError(
            f"no fine-tuned detector: there is no {checkpoint}. Run python fine_tune_for.py first, or name "
            "one with --checkpoint"
        )
    resolve_device(args.device)
    after = tasks.load(checkpoint, scoring)
    start = read_fine_tuning(after).started_from
    Rule.from_detector(after)  # refuses a damaged calibration
    found = tasks.find(
        _data(args, after), args.root, args.phase, options.reading(args), must_have_labels=True
    )
    tasks.prepare_output(args.output, (BEFORE, AFTER))
    return _before(args.before, after, start, scoring), after, found


def _data(args: argparse.Namespace, after: Detector) -> Sequence[str | Path]:
    """Return the data to score: as named, else the usual data set; for a demonstration the samples."""
    data = args.data or ([tasks.CUSTOM] if tasks.CUSTOM.exists() else [])
    if args.checkpoint is None and comes_from_stand_in(after.provenance):
        if data or tasks.known_checkpoints():
            raise CheckpointError(
                f"{tasks.FINE_TUNED} was fine-tuned from the stand-in detector, for demonstration. Fine-tune "
                "a published one, or name this one with --checkpoint"
            )
        tasks.print_demonstration(f"{tasks.FINE_TUNED} comes from the stand-in, and there are no data here")
        return [CUSTOM_SAMPLES]
    if not data:
        raise DataError(tasks.NO_LABELLED_CUSTOM)
    return data


def _before(
    named: Path | None, after: Detector, start: Start, scoring: options.ScoringOptions
) -> Detector | None:
    """Return the detector that the fine-tuning started from; None if it did not start from a detector."""
    if start.is_front_end or start.sha256 is None:
        origin = "a front end alone" if start.is_front_end else "random weights"
        if named is not None:
            raise CheckpointError(f"--before {named}: {after.path} started from {origin}; leave --before out")
        print(f"The fine-tuning started from {origin}, so there is no detector to compare with.")
        return None
    if named is not None:
        path = tasks.fetched(named)
    elif start.file is not None and Path(start.file).is_file():
        path = Path(start.file)
    else:
        known = f"{start.file}, sha256" if start.file else "a file with the sha256"
        raise CheckpointError(
            f"the detector that {after.path} started from is not here: {known} {start.sha256}. Name it with "
            "--before"
        )
    before = tasks.load(path, scoring)
    if before.sha256 != start.sha256:
        raise CheckpointError(
            f"{before.path} is not the detector that {after.path} started from, which has the sha256 "
            f"{start.sha256}: name that one with --before"
        )
    return before


if __name__ == "__main__":
    sys.exit(main())
