"""What the scripts' command lines share: options, and errors in one line."""

from __future__ import annotations

import argparse
import io
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from antispoofing import distributed
from antispoofing.data.labels import EVAL, PHASES
from antispoofing.errors import ProcessError, UserError
from antispoofing.report import screen


def finite(text: str) -> float:
    """An argparse type: a number that is not NaN or infinite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    if finite(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return finite(text)


def not_negative(text: str) -> float:
    """An argparse type: a finite number from 0."""
    if finite(text) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return finite(text)


def fraction(text: str) -> float:
    """An argparse type: a number between 0 and 1."""
    if not 0 < finite(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return finite(text)


def whole(minimum: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `minimum`."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and minimum <= int(text) < 2**31):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum}")
        return int(text)

    return parse


def add_data_options(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    """--data, --root, --phase.

    Args:
        what: the data may be, and are where nothing is named.
    """
    parser.add_argument("--data", nargs="+", action="extend", metavar="PATH", help=what, required=required)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="where the recordings of a list of labels are (default: they are looked for beside it)",
    )
    parser.add_argument(
        "--phase", choices=PHASES, help=f"of ASVspoof's sets (default: {EVAL}, as in the published figures)"
    )


def add_checkpoints_option(parser: argparse.ArgumentParser, default: str) -> None:
    """--checkpoint, any number of detectors."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help="detector files, .pth or .safetensors, or hub:<owner/repo>[@revision][:file] "
        f"(default: {default})",
    )


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """--threshold."""
    parser.add_argument(
        "--threshold",
        type=finite,
        metavar="X",
        help="a threshold chosen on other data: score >= X is called real (--threshold=-1e-3 for such a one)",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """--seed, of the bootstrap."""
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the bootstrap (default: 0)")


def add_machine_options(
    parser: argparse.ArgumentParser, precisions: Sequence[str], batch_size: int | None = None
) -> None:
    """--device, --precision, --frontend, --batch-size, --workers.

    Args:
        precisions: that can be asked for, beside auto.
        batch_size: None for what suits the device.
    """
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument(
        "--precision",
        choices=(*precisions, "auto"),
        default="fp32",
        help="of the front end; auto: bf16 where the device is fast at it (default: fp32, as published)",
    )
    parser.add_argument(
        "--frontend",
        choices=("transformers", "fairseq"),
        default="transformers",
        help="what computes XLS-R, with the same scores; fairseq needs requirements-fairseq.txt "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole(1),
        default=batch_size,
        metavar="N",
        help=f"clips (default: {batch_size or '4 on a CPU, 32 on a GPU'})",
    )
    parser.add_argument(
        "--workers",
        type=whole(0),
        metavar="N",
        help="processes that decode ahead, 0 for none (default: what suits the device)",
    )


def add_audit_option(parser: argparse.ArgumentParser) -> None:
    """--no-audit."""
    parser.add_argument(
        "--no-audit", action="store_true", help="do not look for the same audio twice before the work"
    )


def run_script(
    name: str,
    run: Callable[[argparse.Namespace, str], int],
    parse: Callable[[list[str]], argparse.Namespace],
    argv: list[str] | None,
    shares: bool = False,
) -> int:
    """Parse, run, and turn what a user can mend into one line on stderr.

    Args:
        name: of the script, for the command that results record.
        run: takes the parsed arguments and the command line as text; returns the exit code.
        parse: takes the arguments as text; returns them parsed.
        argv: the arguments, or None for the process's own.
        shares: whether it may run in several processes that share the work.

    Returns:
        run's exit code, the highest of all processes; 2 after an error; 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe that lacks a file name's letters
        sys.stdout.reconfigure(errors="backslashreplace")

    def parsed() -> argparse.Namespace:
        if distributed.size() > 1 and not shares:
            raise ProcessError(f"{name} runs in one process: start it without torchrun")
        return parse(argv)

    try:
        with distributed.group():
            try:
                code = run(distributed.together(parsed), shlex.join(["python", name, *argv]))
            except UserError as error:
                if error.process is None:
                    raise
                code = complain(error)
            code = max(distributed.exchange(code))  # torchrun ends all with the first that ends in an error
            distributed.finish(code)
            return code
    except (UserError, OSError) as error:
        return complain(error)
    except KeyboardInterrupt:
        if distributed.is_main():
            print("interrupted", file=sys.stderr)
        return 130


def complain(error: Exception) -> int:
    """Print an error as one line on stderr (of a UserError one for each argument); the exit code, 2.

    What all processes of a group raise, the main one says.
    """
    process = error.process if isinstance(error, UserError) else None
    if process is not None and not distributed.is_main():
        return 2
    process = distributed.rank() if process is None else process
    where = f" (process {process} of {distributed.size()})" if process else ""
    for line in error.args if isinstance(error, UserError) else [error]:
        print(f"error{where}: {screen.printable(str(line))}", file=sys.stderr)
    return 2
