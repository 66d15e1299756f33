"""From a command line to an exit code: an error that a user can mend becomes one line on stderr."""

from __future__ import annotations

import argparse
import io
import logging
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

from antispoofing import distributed
from antispoofing.errors import ProcessError, UserError, describe
from antispoofing.progress import quiet
from antispoofing.project import Invocation
from antispoofing.text import printable

T = TypeVar("T")


class _Screen(logging.Handler):
    """A log handler that prints messages as a command's own output, warnings and errors on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message on one line."""
        file = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(printable(record.getMessage()), file=file)


@contextmanager
def _library_on_screen() -> Iterator[None]:
    """Print what the library logs until the block ends."""
    logger, handler = logging.getLogger("antispoofing"), _Screen()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _UntilClosed:
    """A stream that goes on in silence when its reader has gone, so that `| head` loses no results."""

    def __init__(self, stream: io.TextIOWrapper):
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._do(self._stream.write, text)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def _do(self, work: Callable[..., T], *args: str) -> T:
        try:
            return work(*args)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return work(*args)  # what the stream has kept goes there, too


@contextmanager
def _streams_until_closed() -> Iterator[None]:
    """Let stdout and stderr lose their readers until the block ends, if they are pipes."""
    before = sys.stdout, sys.stderr
    try:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            with suppress(OSError):  # it has no number
                if isinstance(stream, io.TextIOWrapper) and stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
                    setattr(sys, name, _UntilClosed(stream))
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed before the start
            stream.flush()
        sys.stdout, sys.stderr = before


def run_script(
    name: str,
    run: Callable[[argparse.Namespace, Invocation], int],
    parse: Callable[[list[str]], argparse.Namespace],
    argv: list[str] | None,
    shares: bool = False,
) -> int:
    """Parse a command line and run a script; turn a `UserError` or `OSError` into one line on stderr.

    Args:
        name: The script's file name, or "-m", a module and its command; results record the command line.
        run: Takes the parsed arguments and the invocation; returns the exit code.
        parse: Takes the arguments as text; returns them parsed.
        argv: The arguments; None for those of this process.
        shares: Whether the script can share its work among the processes that torchrun starts.

    Returns:
        The exit code of `run`, the highest one of all processes; 2 after an error; 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):  # the encoding may lack characters of a file's name
        sys.stdout.reconfigure(errors="backslashreplace")

    def parsed() -> argparse.Namespace:
        if distributed.size() > 1 and not shares:
            raise ProcessError(f"{name.split()[-1]} runs in one process: start it without torchrun")
        return parse(arguments)

    try:
        with _streams_until_closed(), distributed.group(), _library_on_screen():
            try:
                args = distributed.on_all_ranks(parsed)
                with quiet() if getattr(args, "quiet", False) else nullcontext():
                    code = run(args, Invocation.now(shlex.join(["python", *name.split(), *arguments])))
            except UserError as error:
                if error.process is None:
                    raise
                code = print_error(error)
            # torchrun ends all processes as soon as one of them fails, so all return the same code.
            code = max(distributed.all_gather(code))
            distributed.finish(code)
            return code
    except (UserError, OSError) as error:
        return print_error(error)
    except KeyboardInterrupt:
        if distributed.is_main():
            print("interrupted", file=sys.stderr)
        return 130


def print_error(error: Exception) -> int:
    """Print an error on stderr, a `UserError` with one line for each argument; return the exit code, 2.

    An error that was raised on all processes of a group is printed by the main one.
    """
    process = error.process if isinstance(error, UserError) else None
    if process is not None and not distributed.is_main():
        return 2
    process = distributed.rank() if process is None else process
    where = f" (process {process} of {distributed.size()})" if process else ""
    for line in error.args if isinstance(error, UserError) else [describe(error)]:
        print(f"error{where}: {printable(str(line))}", file=sys.stderr)
    return 2
