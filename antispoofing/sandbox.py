"""Reading untrusted files in separate processes: one that hangs or crashes there affects nobody else."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from antispoofing.errors import UserError

PROCESSES = 2  # while one that was killed is replaced, the other works

P = ParamSpec("P")
T = TypeVar("T")


class SandboxError(UserError):
    """Work that was not finished; the message is the reason, in one line."""


class Sandbox:
    """Two worker processes with limited memory: a context manager, or to be closed after use.

    Args:
        modules: What the processes import as they start, so that no call waits for it.
        memory_bytes: How much memory a process may use for its data (limited on Linux only).
    """

    def __init__(self, modules: Sequence[str] = (), memory_bytes: int = 3 * 2**30):
        self._settings = (modules, memory_bytes)
        self._pool = self._started()

    def _started(self) -> ProcessPool:
        pool = ProcessPool(
            PROCESSES,
            initializer=_prepare,
            initargs=self._settings,
            context=multiprocessing.get_context("spawn"),  # a fork would copy locks that other threads hold
        )
        pool.schedule(_nothing)  # the processes start with the first task
        return pool

    def call(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of the processes, and return or raise what it does.

        Only one thread may call this at a time.

        Args:
            seconds: How long it may take; then the process is killed.
            function: A function of a module, so that it can be pickled.
            *args: Its arguments. Like the result, they must be picklable.
            **kwargs: Its keyword arguments.

        Raises:
            SandboxError: If it takes longer, or if the process dies.
        """
        for _ in range(2):  # the pool breaks when a process dies idle, for instance for lack of memory
            if not self._pool.active:
                self._restart()
            future = self._pool.schedule(function, args=args, kwargs=kwargs, timeout=seconds)
            while not future.done() and self._pool.active:  # a pool that breaks just now forgets the call
                wait([future], timeout=0.5)
            if not future.done():
                continue
            try:
                return future.result()
            except TimeoutError:
                raise SandboxError(f"it takes more than {seconds:.3g} s to read") from None
            except ProcessExpired:
                break
            except BrokenProcessPool:
                continue
        raise SandboxError("the program that reads it crashed")

    def _restart(self) -> None:
        self.close()
        self._pool = self._started()

    def close(self) -> None:
        """End the processes, even if they are working."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _prepare(modules: Sequence[str], memory_bytes: int) -> None:
    for name in modules:
        importlib.import_module(name)
    try:
        import resource
    except ImportError:  # Windows does not have it
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _nothing() -> None:
    pass
