"""From a command line to an exit code: what a user can mend is one line on stderr."""

from __future__ import annotations

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from antispoofing import distributed
from antispoofing.errors import ProcessError, UserError
from antispoofing.project import Invocation
from antispoofing.text import printable


class _Screen(logging.Handler):
    """Prints what the library logs, as a command's own words; warnings on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        file = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(printable(record.getMessage()), file=file)


@contextmanager
def _library_on_screen() -> Iterator[None]:
    logger, handler = logging.getLogger("antispoofing"), _Screen()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def run_script(
    name: str,
    run: Callable[[argparse.Namespace, Invocation], int],
    parse: Callable[[list[str]], argparse.Namespace],
    argv: list[str] | None,
    shares: bool = False,
) -> int:
    """Parse, run, and turn what a user can mend into one line on stderr.

    Args:
        name: of the script, or "-m" and a module with its command, for the command that results record.
        run: takes the parsed arguments and what was asked for and when; returns the exit code.
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
            raise ProcessError(f"{name.split()[-1]} runs in one process: start it without torchrun")
        return parse(argv)

    try:
        with distributed.group(), _library_on_screen():
            try:
                args = distributed.on_all_ranks(parsed)
                code = run(args, Invocation.now(shlex.join(["python", *name.split(), *argv])))
            except UserError as error:
                if error.process is None:
                    raise
                code = print_error(error)
            code = max(distributed.all_gather(code))  # torchrun ends all with the first that ends in an error
            distributed.finish(code)
            return code
    except (UserError, OSError) as error:
        return print_error(error)
    except KeyboardInterrupt:
        if distributed.is_main():
            print("interrupted", file=sys.stderr)
        return 130


def print_error(error: Exception) -> int:
    """Print an error as one line on stderr (of a UserError one for each argument); the exit code, 2.

    What all processes of a group raise, the main one says.
    """
    process = error.process if isinstance(error, UserError) else None
    if process is not None and not distributed.is_main():
        return 2
    process = distributed.rank() if process is None else process
    where = f" (process {process} of {distributed.size()})" if process else ""
    for line in error.args if isinstance(error, UserError) else [error]:
        print(f"error{where}: {printable(str(line))}", file=sys.stderr)
    return 2
