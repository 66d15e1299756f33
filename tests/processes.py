"""Processes that run a program's `main`, forked from one that has already imported what programs need.

Starting Python with its imports takes seconds of processor time; such a fork takes a twentieth of a second.
Where it matters how a user starts a program (torchrun, a script's path), the tests start it just like that.
"""

import functools
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

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 240  # after this time a process counts as hanging; all need far less
PRELOADED = ("fine_tune_for", "evaluate_custom", "evaluate_custom_for", "app", "antispoofing.training.loop")
PRELOADED += ("antispoofing.detectors.packed", "antispoofing.report.plots")
PRELOADED += ("matplotlib.figure", "pytest", "scipy.stats", "torch._dynamo")


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal that ended it), stdout and stderr."""

    code: int
    stdout: str
    stderr: str


@functools.cache
def _forks():
    """Start the process that others are forked from; return the context in which they are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        multiprocessing.forkserver.ensure_running()
    return context


def _run(main: Callable, args: list[str], folder: Path, variables: dict[str, str], files: list[Path]) -> None:
    """Run `main` in the fork, as if Python had been started there with these arguments."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # its own children start in the system's default way
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
        """Wait until these words are in stdout."""
        until = time.monotonic() + SECONDS
        while words not in self.files[0].read_text():
            assert self._process.is_alive(), self.files[1].read_text()
            assert time.monotonic() < until
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process and all its children, as a terminal or a batch system does."""
        os.killpg(self.pid, number)

    def kill(self) -> Ended:
        """Kill the process, but not its children."""
        self._process.kill()
        return self.end()

    def end(self) -> Ended:
        """Wait until the process ends."""
        self._process.join(SECONDS)
        if self._process.exitcode is None:
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"it hangs: {[file.read_text() for file in self.files]}")
        return Ended(self._process.exitcode, *(file.read_text() for file in self.files))


def run(main: Callable[[list[str]], int], *args, folder: Path, **variables) -> Ended:
    """Run `main` in a process of its own until it ends."""
    return Started(main, *args, folder=folder, **variables).end()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_group(n: int, main: Callable, *args, folders: list[Path], **variables) -> list[Started]:
    """Start a group of n processes as torchrun does, with a folder for each machine."""
    on_each = n // len(folders)
    group = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": on_each}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    group["OMP_NUM_THREADS"] = 1  # as torchrun does
    started = []
    for rank in range(n):
        own = group | {"RANK": rank, "LOCAL_RANK": rank % on_each}
        numbers = {name: str(value) for name, value in own.items()}
        folder = folders[rank // on_each]
        started.append(Started(main, *args, folder=folder, name=f"{rank}-", **numbers, **variables))
    return started


def run_group(n: int, main: Callable, *args, folder: Path, **variables) -> list[Ended]:
    """Run `main` in a group of n processes until all have ended."""
    return [process.end() for process in start_group(n, main, *args, folders=[folder], **variables)]
