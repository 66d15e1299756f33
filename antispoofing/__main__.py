"""The commands that need no script of their own: `python -m antispoofing COMMAND ...`.

From another folder, run `python path/to/antispoofing COMMAND ...`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

if not __package__:  # started by its path: Python would look for modules in this folder first
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from antispoofing import project

COMMANDS = {
    "metrics": "AUC, EER and more of a file of scores, also by attack and codec",
    "calibrate": "fit a detector's calibration, so that its verdicts say how sure they are",
    "audit": "find duplicate recordings in a data set, in both classes or in two splits",
    "download": "fetch a data set, a published detector or a detector of the Hugging Face Hub",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    listed = "\n".join(f"  {name:10}{words}" for name, words in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing",
        usage="%(prog)s COMMAND ...",
        description=f"commands:\n{listed}\n\nCOMMAND --help describes a command and its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"{project.NAME} {project.version()}")
    command = parser.parse_args(argv[:1]).command
    return importlib.import_module(f"antispoofing.commands.{command}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
