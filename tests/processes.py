"""Processes that run a program's `main`, forked from one that has imported what the programs need.

Python and its imports take four seconds of a processor; a fork of a process that has them takes a hundredth.
Where it matters how a user starts a program (torchrun, a script's path), tests start just that.
"""

import functools
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS = 240  # until a process counts as hanging: many times what any needs
PRELOADED = ("fine_tune_for", "evaluate_custom", "evaluate_custom_for", "app", "antispoofing.training.loop")
PRELOADED += ("antispoofing.detectors.packed", "antispoofing.report.plots")
PRELOADED += ("matplotlib.figure", "scipy.stats", "torch._dynamo")


class Ended(NamedTuple):
    """What a process left: its exit code (negative: the signal that ended it), stdout and stderr."""

    code: int
    stdout: str
    stderr: str


@functools.cache
def _forks():
    """The context in which processes are forked; the one that they are forked from starts here."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    os.environ["PRELOAD"] = "1"
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        del os.environ["PRELOAD"]
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


if os.environ.pop("PRELOAD", None):
    for name in PRELOADED:
        importlib.import_module(name)


def _run(main: Callable, args: list[str], folder: Path, variables: dict[str, str], files: list[Path]) -> None:
    """In the fork: as if Python had been started there with these arguments."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # of what it starts itself: the system's own
    for number, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv[1:] = args
    sys.exit(main(args))


class Started:
    """A process that runs `main` with these arguments in a folder, in a session of its own."""

    def __init__(self, main: Callable[[list[str]], int], *args, folder: Path, name: str = "", **variables):
        folder.mkdir(exist_ok=True)
        self.files = [folder / f"{name}{stream}.txt" for stream in ("stdout", "stderr")]
        for file in self.files:
            file.write_text("")
        words = [str(arg) for arg in args]
        environment = os.environ | variables
        self._process = _forks().Process(target=_run, args=(main, words, folder, environment, self.files))
        self._process.start()
        self.pid = self._process.pid

    def wait_for(self, words: str) -> None:
        """Wait until stdout has these words."""
        until = time.monotonic() + SECONDS
        while words not in self.files[0].read_text():
            assert self._process.is_alive(), self.files[1].read_text()
            assert time.monotonic() < until
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it started, as a terminal or a batch system does."""
        os.killpg(self.pid, number)

    def kill(self) -> Ended:
        """Kill it, not what it started."""
        self._process.kill()
        return self.end()

    def end(self) -> Ended:
        """Wait for its end."""
        self._process.join(SECONDS)
        if self._process.exitcode is None:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"it hangs: {[file.read_text() for file in self.files]}")
        return Ended(self._process.exitcode, *(file.read_text() for file in self.files))


def run(main: Callable[[list[str]], int], *args, folder: Path, **variables) -> Ended:
    """Run `main` in a process of its own, to its end."""
    return Started(main, *args, folder=folder, **variables).end()


def start_group(n: int, main: Callable, *args, folders: list[Path], **variables) -> list[Started]:
    """Start n processes that are one group, as torchrun does, in as many folders as there are machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    on_each = n // len(folders)
    group = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": on_each, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    group["OMP_NUM_THREADS"] = 1  # which torchrun sets
    started = []
    for rank in range(n):
        own = group | {"RANK": rank, "LOCAL_RANK": rank % on_each}
        numbers = {name: str(value) for name, value in own.items()}
        folder = folders[rank // on_each]
        started.append(Started(main, *args, folder=folder, name=f"{rank}-", **numbers, **variables))
    return started


def run_group(n: int, main: Callable, *args, folder: Path, **variables) -> list[Ended]:
    """Run `main` in n processes that are one group, to their end."""
    return [process.end() for process in start_group(n, main, *args, folders=[folder], **variables)]
