"""Compute AUC, EER and other metrics from files of scores, whatever systems produced them.

    python -m antispoofing metrics results/custom/LA_model/scores.csv
    python -m antispoofing metrics scores.txt --keys keys/LA/CM/trial_metadata.txt --by attack codec
    python -m antispoofing metrics a/scores.csv b/scores.csv --output compared    # and which is better

In every format that is read, a higher score means more likely real.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count
from pathlib import Path

from antispoofing.commands import options
from antispoofing.commands.run import run_script
from antispoofing.data.labels import EVAL, PHASES, read_labels
from antispoofing.data.recordings import Utterance
from antispoofing.data.words import plain
from antispoofing.errors import DataError
from antispoofing.files import file_sha256
from antispoofing.metrics import precision
from antispoofing.project import Invocation
from antispoofing.report import results, screen
from antispoofing.report.comparison import compare_all
from antispoofing.report.groups import crossed, property_groups, with_other_class
from antispoofing.report.summary import over_groups, summarise
from antispoofing.scoring.asv_scores import read_asv_rates
from antispoofing.scoring.clusters import COLUMNS, find_clusters
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score_files import as_scored, read_scores, with_keys
from antispoofing.scoring.scored import Scored
from antispoofing.tdcf import AsvRates, min_tdcf
from antispoofing.text import eer_text, printable

USUAL_BREAKDOWN = ("attack", "codec")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing metrics",
        description="Compute AUC, EER and more from files of scores. Higher score = more likely real.",
    )
    parser.add_argument(
        "scores",
        type=Path,
        nargs="+",
        help="file of scores: lines of UTT SCORE, or a CSV or TSV with columns path and score; several files "
        "of the same recordings are compared",
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
        "--asv-scores",
        type=Path,
        metavar="FILE",
        help="scores of the speaker verification system of ASVspoof 2019 or 2021 LA: also report the min "
        "t-DCF",
    )
    parser.add_argument(
        "--prevalence",
        type=options.share,
        metavar="SHARE",
        help="with --threshold: also report how often each verdict is right where this share of all clips "
        "is fake, such as 0.01",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write scores, metrics, plots, and the table as CSV and LaTeX to (default: write "
        "nothing)",
    )
    options.add_threshold_option(parser)
    options.add_pictures_option(parser)
    options.add_version(parser)
    args = parser.parse_args(argv)
    if args.prevalence is not None and args.threshold is None:
        parser.error("--prevalence needs --threshold")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on stderr for each thing that is wrong."""
    return run_script("-m antispoofing metrics", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Read scores and labels, and print and write the metrics; return the exit code.

    Raises:
        DataError: If scores or labels cannot be read, do not belong together, or lack a class.
        OSError: If the results cannot be written.
    """
    names = _names(args.scores)
    several = len(names) > 1
    folders = {name: args.output / name if args.output and several else args.output for name in names}
    _check_output({args.output, *folders.values()}, [*args.scores, args.keys, args.asv_scores])
    scored = {name: _read(path, args) for name, path in names.items()}
    columns = {name: _columns_to_break_down(of_file, args.by) for name, of_file in scored.items()}
    asv = read_asv_rates(args.asv_scores, args.phase) if args.asv_scores else None
    with_columns = _with_all_columns(scored) if several else scored  # so that all have the same clusters
    summaries = {name: _summarise(names[name], of_file, args, asv) for name, of_file in with_columns.items()}
    compared = screen.analysis_text(_compared(with_columns)) if several else ""
    for folder in filter(None, folders.values()):
        folder.mkdir(parents=True, exist_ok=True)
    for of_file in scored.values():
        if of_file.failures:
            listed = "see failures.csv" if args.output else "with --output, failures.csv lists them all"
            print(screen.failures_list(of_file, listed))
    print(f"\n{screen.results(summaries)}")
    for name, of_file in scored.items():
        groups = {column: dict(_by_group(of_file, column, args)) for column in columns[name]}
        _print_groups(groups, name if several else "")
        if crossed_eers := crossed(of_file, *USUAL_BREAKDOWN) if args.by is None else None:
            print(f"\nEER %, attacks by codecs\n{screen.crossed_table(crossed_eers)}")
        if groups:
            summaries[name]["by"] = groups
        if folder := folders[name]:
            rule, about = _rule(of_file, args.threshold), _about(names[name], args)
            results.write_results(
                folder, of_file, summaries[name], rule, about, invocation, title=name, formats=args.pictures
            )
    if compared:
        print(f"\n{compared}")
    if args.output:
        if several:
            results.write_overlaid(args.output, scored, summaries, args.pictures)
        results.write_tables(args.output, summaries)
        print(f"\nScores, metrics and plots are in {args.output}")
    return 0


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return a name for each file of scores: its own, or its folder's if it is one of this project's."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("the same file of scores is named twice")
    names: dict[str, Path] = {}
    for path in paths:
        folder = path.resolve().parent.name
        own = printable(folder if path.name == "scores.csv" and folder else path.stem)
        own = own.encode("utf-8", "backslashreplace").decode()  # a name need not be UTF-8
        own = own.strip(".").replace(".", "-") or "scores"  # no parent folder, nor a name of a result
        free = (f"{own}-{number}" for number in count(2))
        names[own if own not in names else next(name for name in free if name not in names)] = path
    return names


def _check_output(folders: Collection[Path | None], inputs: Sequence[Path | None]) -> None:
    """Check that no results will overwrite what they are computed from.

    Raises:
        DataError: If one of the input files is in a folder that results are written to.
    """
    written = {folder.resolve() for folder in folders if folder}
    if found := next((path for path in inputs if path and path.resolve().parent in written), None):
        raise DataError(
            f"{found} is in the folder of the results, which could overwrite it: name another --output"
        )


def _summarise(
    path: Path, scored: Scored, args: argparse.Namespace, asv: tuple[AsvRates, str] | None
) -> dict:
    """Return the figures of a file of scores."""
    summary = summarise(scored, find_clusters(scored.utterances), threshold=args.threshold)
    if "metrics" not in summary:
        raise DataError(f"{path}: AUC and EER need scores of both real and fake recordings")
    if asv:
        rates, formula = asv
        try:
            cost = min_tdcf(scored.bonafide, scored.spoof, rates, formula)
        except ValueError as error:
            raise DataError(f"{args.asv_scores}: {error}") from error
        summary["min_tdcf"] = {"value": cost, "formula": formula, "asv": rates._asdict()}
    if args.prevalence is not None:
        at = summary["at_threshold"]
        at["prevalence"] = args.prevalence
        at["precision"] = precision(at["frr"], at["far"], args.prevalence)
    return summary


def _rule(scored: Scored, threshold: float | None) -> Rule | None:
    """Return the rule for verdicts; None to keep those that a scores.csv of this project has."""
    keeps = results.has_verdicts({column for u in scored.utterances for column in u.columns})
    return None if keeps and threshold is None else Rule(threshold)


def _about(path: Path, args: argparse.Namespace) -> dict[str, str]:
    """Return which files the figures are of."""
    files = {"scores": path, "keys": args.keys, "asv_scores": args.asv_scores}
    about: dict[str, str] = {}
    for what, file in files.items():
        if file:
            about |= {what: str(file), f"{what}_sha256": file_sha256(file)}
    return about


def _read(path: Path, args: argparse.Namespace) -> Scored:
    """Read a file of scores and their labels, and print what was found."""
    scores = read_scores(path)
    if not scores:
        raise DataError(f"{path} has a header but no rows")
    if args.keys is None:
        if args.phase:
            raise DataError("--phase selects a phase of the keys: name their file with --keys")
        if not any(score.label for score in scores):
            raise DataError(f"{path} has no labels: name a list of labels with --keys")
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


def _with_all_columns(scored: Mapping[str, Scored]) -> dict[str, Scored]:
    """Return the same scores; each recording has the columns of all files that tell what belongs together.

    Where files differ, the first counts.
    """
    known: dict[str, dict[str, str]] = {}
    for of_file in reversed(list(scored.values())):
        for u in of_file.utterances:
            telling = {name: value for name, value in u.columns.items() if plain(name) in COLUMNS}
            known[u.name] = known.get(u.name, {}) | telling
    return {
        title: Scored(
            [replace(u, columns=known[u.name]) for u in of_file.utterances], of_file.logits, of_file.failures
        )
        for title, of_file in scored.items()
    }


def _compared(scored: Mapping[str, Scored]) -> list[str]:
    """Compare each pair of files of scores, and say which cannot be compared."""
    pairs = list(combinations(scored.items(), 2))
    sections = []
    for before, after in pairs:
        try:
            sections += compare_all(_same_recordings(before, after), len(pairs))
        except DataError as error:
            sections.append(
                f"## {printable(after[0])} against {printable(before[0])}\n\nNo comparison: {error}."
            )
    return sections


def _same_recordings(*files: tuple[str, Scored]) -> dict[str, Scored]:
    """Return the scores of the recordings that two files both have, in the same order.

    A label that one of them lacks is taken from the other.

    Raises:
        DataError: If no recording is in both, or one has different labels.
    """
    (first_title, first), (title, other) = files
    places = {u.name: i for i, u in enumerate(other.utterances)}
    indices = [i for i, u in enumerate(first.utterances) if u.name in places]
    if not indices:
        raise DataError("no recording is in both files")
    others = [places[first.utterances[i].name] for i in indices]
    utterances = []
    for i, k in zip(indices, others, strict=True):
        u, label = first.utterances[i], other.utterances[k].label
        if label and u.label and label != u.label:
            raise DataError(f"{u.name} has another label in {title} than in {first_title}")
        utterances.append(u if u.label else replace(u, label=label))
    return {
        first_title: Scored(utterances, first.logits[indices], {}),
        title: Scored(utterances, other.logits[others], {}),
    }


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
    clustering = find_clusters(scored.utterances, without=[column])
    for group, members in property_groups(scored, values, fewest=1, most=None).get(column, {}).items():
        chosen = with_other_class(scored, members)
        part, together = scored.subset(chosen), clustering.subset(chosen)
        yield printable(group), summarise(part, together, threshold=args.threshold)


def _print_groups(groups: Mapping[str, Mapping[str, dict]], name: str) -> None:
    for column, summaries in groups.items():
        print(f"\n{name}\n" if name else "")
        print(screen.results_table(summaries, column))
        if len(summaries) > 1:
            macro, worst = over_groups(summaries)
            highest = eer_text(summaries[worst]["metrics"]["eer"])
            print(
                f"mean EER of these {len(summaries)}: {eer_text(macro)} %; the highest: {worst}, {highest} %"
            )
    if groups:
        print("\nA group of a single class is compared with all clips of the other class.")
