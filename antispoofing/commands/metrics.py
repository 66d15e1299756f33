"""What a file of scores is worth, whoever made it.

    python -m antispoofing metrics results/custom/LA_model/scores.csv
    python -m antispoofing metrics scores.txt --keys keys/LA/CM/trial_metadata.txt --by attack codec

A score is higher = more likely real, as in all these formats.
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
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing metrics",
        description="AUC and EER of a file of scores. Higher score = more likely real.",
    )
    parser.add_argument("scores", type=Path, help="UTT SCORE, or CSV or TSV with columns path and score")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="a list of labels (default: the scores' own column label)"
    )
    parser.add_argument("--phase", choices=PHASES, help=f"of the keys (default: {EVAL})")
    parser.add_argument(
        "--by",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help=f"also each group of a column (default: {', '.join(USUAL_BREAKDOWN)}, where they are told)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also write metrics.json and pictures there"
    )
    options.add_threshold_option(parser)
    options.add_seed_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr for each thing that is wrong."""
    return run_script("-m antispoofing metrics", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Read, sum up, print. Raises UserError or OSError for what stands in the way."""
    if args.output and (args.output / "scores.csv").resolve() == args.scores.resolve():
        raise DataError(f"{args.scores} would be overwritten by what is made of it: name another --output")
    scored = _read(args)
    columns = _columns_to_break_down(scored, args.by)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    summary = summarise(scored, threshold=args.threshold, seed=args.seed)
    if "metrics" not in summary:
        raise DataError(f"{args.scores}: AUC and EER need scores of both real and fake recordings")
    name = args.scores.stem
    if scored.failures:
        print(screen.failures_list(scored))
    print(f"\n{screen.results({name: summary})}")
    groups = {}
    for column in columns:
        groups[column] = dict(_by_group(scored, column, args))
        print(f"\n{screen.results_table(groups[column], column)}")
    if groups:
        print("\nA group of one class only is held against all clips of the other.")
    if args.output:
        about = {"scores": str(args.scores), "scores_sha256": file_sha256(args.scores)}
        if args.keys:
            about |= {"keys": str(args.keys), "keys_sha256": file_sha256(args.keys)}
        verdicts = scored.verdicts(args.threshold)
        summary |= {"by": groups} if groups else {}
        results.write_results(args.output, scored, summary, verdicts, about, invocation, title=name)
        print(f"\nMetrics and pictures are in {args.output}")
    return 0


def _read(args: argparse.Namespace) -> Scored:
    """The scores with their labels, and a few words on both."""
    scores = read_scores(args.scores)
    if args.keys is None:
        if args.phase:
            raise DataError("--phase is of the keys: name them with --keys")
        if not any(score.label for score in scores):
            raise DataError(f"{args.scores} has no labels: name a list of them with --keys")
        utterances = [Utterance(s.name, s.name, s.label, s.name, s.columns) for s in scores]
        return as_scored(utterances, scores)
    keys = read_labels(args.keys, args.phase)
    if args.phase and not keys.phase:
        raise DataError(f"--phase {args.phase}: {args.keys} has no phases")
    scored, without = with_keys(scores, keys)
    print(printable(keys.describe()))
    if without:
        print(f"{without} of the {len(scores)} scores are of none of these and were left out")
    return scored


def _columns_to_break_down(scored: Scored, wanted: Sequence[str] | None) -> list[str]:
    there = dict.fromkeys(name for utterance in scored.utterances for name in utterance.columns)
    if wanted is None:
        return [name for name in USUAL_BREAKDOWN if name in there]
    if missing := next((name for name in wanted if name.lower() not in there), None):
        raise DataError(f"--by {missing}: the columns are {', '.join(there) or 'none'}")
    return [name.lower() for name in wanted]


def _by_group(scored: Scored, column: str, args: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Each group of a column, and `summarise` of it."""
    values = {column: [utterance.columns.get(column, "") for utterance in scored.utterances]}
    for group, members in property_groups(scored, values, fewest=1, most=None).get(column, {}).items():
        chosen = scored.subset(with_other_class(scored, members))
        yield printable(group), summarise(chosen, threshold=args.threshold, seed=args.seed)
