"""Compute AUC, EER and other metrics from a file of scores, whatever system produced it.

    python -m antispoofing metrics results/custom/LA_model/scores.csv
    python -m antispoofing metrics scores.txt --keys keys/LA/CM/trial_metadata.txt --by attack codec

In every format that is read, a higher score means more likely real.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from antispoofing.commands import options
from antispoofing.commands.run import run_script
from antispoofing.data.labels import EVAL, PHASES, read_labels
from antispoofing.data.recordings import Utterance
from antispoofing.errors import DataError
from antispoofing.files import file_sha256
from antispoofing.project import Invocation
from antispoofing.report import results, screen
from antispoofing.report.groups import property_groups, with_other_class
from antispoofing.report.summary import summarise
from antispoofing.scoring.score_files import as_scored, read_scores, with_keys
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable

USUAL_BREAKDOWN = ("attack", "codec")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing metrics",
        description="Compute AUC, EER and more from a file of scores. Higher score = more likely real.",
    )
    parser.add_argument(
        "scores",
        type=Path,
        help="file of scores: lines of UTT SCORE, or a CSV or TSV with columns path and score",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="list with the labels of the scored recordings (default: the column label of the scores)",
    )
    parser.add_argument("--phase", choices=PHASES, help=f"which phase of the keys to use (default: {EVAL})")
    parser.add_argument(
        "--by",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="also report the figures for each value of these columns of the keys or scores (default: "
        f"{' and '.join(USUAL_BREAKDOWN)}, if there are such columns)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write scores, metrics and plots to (default: write nothing)",
    )
    options.add_threshold_option(parser)
    options.add_seed_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on stderr for each thing that is wrong."""
    return run_script("-m antispoofing metrics", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Read scores and labels, and print and write the metrics; return the exit code.

    Raises:
        DataError: If scores or labels cannot be read, do not belong together, or lack a class.
        OSError: If the results cannot be written.
    """
    if args.output and (args.output / "scores.csv").resolve() == args.scores.resolve():
        raise DataError(f"{args.scores} would be overwritten by the results: name another --output")
    scored = _read(args)
    columns = _columns_to_break_down(scored, args.by)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    summary = summarise(scored, threshold=args.threshold, seed=args.seed)
    if "metrics" not in summary:
        raise DataError(f"{args.scores}: AUC and EER need scores of both real and fake recordings")
    name = args.scores.stem
    if scored.failures:
        listed = "see failures.csv" if args.output else "with --output, failures.csv lists them all"
        print(screen.failures_list(scored, listed))
    print(f"\n{screen.results({name: summary})}")
    groups = {}
    for column in columns:
        groups[column] = dict(_by_group(scored, column, args))
        print(f"\n{screen.results_table(groups[column], column)}")
    if groups:
        print("\nA group of a single class is compared with all clips of the other class.")
    if args.output:
        about = {"scores": str(args.scores), "scores_sha256": file_sha256(args.scores)}
        if args.keys:
            about |= {"keys": str(args.keys), "keys_sha256": file_sha256(args.keys)}
        verdicts = scored.verdicts(args.threshold)
        summary |= {"by": groups} if groups else {}
        results.write_results(args.output, scored, summary, verdicts, about, invocation, title=name)
        print(f"\nScores, metrics and plots are in {args.output}")
    return 0


def _read(args: argparse.Namespace) -> Scored:
    """Read the scores and their labels, and print what was found."""
    scores = read_scores(args.scores)
    if not scores:
        raise DataError(f"{args.scores} has a header but no rows")
    if args.keys is None:
        if args.phase:
            raise DataError("--phase selects a phase of the keys: name their file with --keys")
        if not any(score.label for score in scores):
            raise DataError(f"{args.scores} has no labels: name a list of labels with --keys")
        utterances = [Utterance(s.name, s.name, s.label, s.name, s.columns) for s in scores]
        return as_scored(utterances, scores)
    keys = read_labels(args.keys, args.phase)
    if args.phase and not keys.phase:
        raise DataError(f"--phase {args.phase}: {args.keys} has no phases")
    scored, without = with_keys(scores, keys)
    print(printable(keys.describe()))
    if without:
        print(f"Scores left out because the keys do not list their trials: {without} of {len(scores)}")
    return scored


def _columns_to_break_down(scored: Scored, wanted: Sequence[str] | None) -> list[str]:
    present = dict.fromkeys(name for utterance in scored.utterances for name in utterance.columns)
    if wanted is None:
        return [name for name in USUAL_BREAKDOWN if name in present]
    if missing := next((name for name in wanted if name.lower() not in present), None):
        known = f"; choose from {', '.join(present)}" if present else ", nor any other to break down by"
        raise DataError(f"--by {missing}: there is no such column{known}")
    return [name.lower() for name in wanted]


def _by_group(scored: Scored, column: str, args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Yield the name and the summary of each group of a column."""
    values = {column: [utterance.columns.get(column, "") for utterance in scored.utterances]}
    for group, members in property_groups(scored, values, fewest=1, most=None).get(column, {}).items():
        chosen = scored.subset(with_other_class(scored, members))
        yield printable(group), summarise(chosen, threshold=args.threshold, seed=args.seed)
