"""python -m antispoofing COMMAND ...: what needs no script of its own.

From another folder: python path/to/antispoofing COMMAND ...
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

if not __package__:  # started by its path, which is then where Python looks for modules first
    sys.path[0] = str(Path(__file__).resolve().parents[1])

COMMANDS = {
    "metrics": "what a file of scores is worth: AUC, EER, by attack and codec",
    "audit": "the same audio twice: in a data set, in both classes, in two splits",
    "download": "fetch the data set, the published detectors, a detector of the Hugging Face Hub",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    listed = "\n".join(f"  {name:10}{words}" for name, words in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing",
        usage="%(prog)s COMMAND ...",
        description=f"commands:\n{listed}\n\nWhat one takes is told by COMMAND --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    command = parser.parse_args(argv[:1]).command
    return importlib.import_module(f"antispoofing.commands.{command}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
