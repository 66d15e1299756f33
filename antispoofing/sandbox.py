"""Strangers' files, opened in processes of their own: one that hangs or dies there costs nobody else."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from antispoofing.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


class SandboxError(UserError):
    """Work that did not come to its end; the message is why, in one line."""


class Sandbox:
    """A few processes that work, each with its limits. To be closed, or used as a context.

    Args:
        modules: that they import as they start, so that no work waits for it.
        memory_bytes: that a process may have for its data (on Linux; elsewhere it is not limited).
        processes: so many, of which one works on while another is replaced.
    """

    def __init__(self, modules: Sequence[str] = (), memory_bytes: int = 3 * 2**30, processes: int = 2):
        self._settings = (modules, memory_bytes, processes)
        self._pool = self._started()

    def _started(self) -> ProcessPool:
        modules, memory_bytes, processes = self._settings
        pool = ProcessPool(
            processes,
            initializer=_prepare,
            initargs=(modules, memory_bytes),
            context=multiprocessing.get_context("spawn"),  # a fork would copy what other threads hold
        )
        pool.schedule(_nothing)  # now they start
        return pool

    def call(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns, or raises, in a process of its own. One call at a time.

        Args:
            seconds: after which that process is killed.
            function: of a module, with arguments and a result that can be pickled.

        Raises:
            SandboxError: it takes longer, or the process died.
        """
        if not self._pool.active:  # a process that had nothing to do was killed, by whoever
            self._restart()
        future = self._pool.schedule(function, args=args, kwargs=kwargs, timeout=seconds)
        try:
            return future.result()
        except TimeoutError:
            raise SandboxError(f"it takes more than {seconds:.3g} s to read") from None
        except ProcessExpired:
            raise SandboxError("the program that reads it crashed") from None
        except BrokenProcessPool:
            self._restart()
            raise SandboxError("the program that reads it crashed") from None

    def _restart(self) -> None:
        self.close()
        self._pool = self._started()

    def close(self) -> None:
        """End the processes, with whatever they do."""
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
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _nothing() -> None:
    pass
