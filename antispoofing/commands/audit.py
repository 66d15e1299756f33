"""Look for the same audio more than once: in a data set, in both of its classes, or in two of its splits.

python -m antispoofing audit --data my_folder
python -m antispoofing audit --data for-2seconds            # within and between its three splits
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from antispoofing.commands import options
from antispoofing.commands.run import run_script
from antispoofing.data.duplicates import DUPLICATES, find_duplicates
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import Utterance, find_recordings, find_splits
from antispoofing.errors import DataError
from antispoofing.project import Invocation
from antispoofing.text import printable


def print_audit(splits: Mapping[str, Sequence[Utterance]], listing: Path) -> None:
    """Compare, print what was found, and list it all in a file; of a single recording nothing is said."""
    audit = find_duplicates(splits)
    audit.write(listing)
    if audit.n_compared > 1:
        print(audit.describe())
    if audit.groups:
        print(f"All are listed in {listing}")


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing audit",
        description="Find the same audio twice: in a set, in both classes, in two splits.",
    )
    options.add_data_options(parser, "as for the other scripts", required=True)
    parser.add_argument(
        "--output", type=Path, default=Path(DUPLICATES), metavar="FILE", help="default: %(default)s"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr for what is missing or cannot be used."""
    return run_script("-m antispoofing audit", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Find, compare, list. Raises UserError or OSError for what stands in the way."""
    if args.output.is_dir() or not args.output.parent.is_dir():
        raise DataError(f"--output {args.output}: a file cannot be written there")
    folder = find_splits(Path(args.data[0])) if len(args.data) == 1 else None
    if folder:
        splits = {name: find_recordings([folder / name]).utterances for name in SPLITS}
    else:
        found = find_recordings(args.data, args.root, args.phase)
        for note in found.shown_notes():
            print(printable(note))
        splits = {"": found.utterances}
    print_audit(splits, args.output)
    return 0
