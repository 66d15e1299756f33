"""Look for audio that occurs twice: within a data set, in both of its classes, or in two of its splits.

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
from antispoofing.progress import warn
from antispoofing.project import Invocation
from antispoofing.text import printable


def print_audit(splits: Mapping[str, Sequence[Utterance]], listing: Path, *, is_silent: bool = False) -> None:
    """Compare recordings, write the groups of duplicates to a CSV file, and print a summary.

    Args:
        splits: As for `duplicates.find_duplicates`.
        listing: The CSV file.
        is_silent: Whether to print nothing.
    """
    audit = find_duplicates(splits)
    audit.write(listing)
    if is_silent:
        return
    say = warn if audit.groups else print
    say(audit.describe())
    if audit.groups:
        say(f"All of them are listed in {listing}")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing audit",
        description="Find audio that occurs twice: within a data set, in both classes, or in two splits.",
    )
    options.add_data_options(
        parser,
        "recordings to compare: a folder, a list of labels, a published data set, or any of these as zip or "
        "tar",
        required=True,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(DUPLICATES),
        metavar="FILE",
        help="CSV file that lists the duplicates (default: %(default)s)",
    )
    options.add_version(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on stderr that says what is wrong."""
    return run_script("-m antispoofing audit", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Find the recordings, compare them and list the duplicates; return the exit code.

    Raises:
        DataError: If the recordings cannot be found or read, or --output is no place for a file.
        OSError: If the listing cannot be written.
    """
    if args.output.is_dir() or not args.output.parent.is_dir():
        raise DataError(f"--output {args.output}: name a file in an existing folder")
    reading = options.reading(args)
    folder = find_splits(Path(args.data[0])) if len(args.data) == 1 else None
    if folder:
        splits = {
            name: find_recordings([folder / name], args.root, args.phase, reading).utterances
            for name in SPLITS
        }
    else:
        found = find_recordings(args.data, args.root, args.phase, reading)
        for note in found.shown_notes():
            print(printable(note))
        splits = {"": found.utterances}
    print_audit(splits, args.output)
    return 0
