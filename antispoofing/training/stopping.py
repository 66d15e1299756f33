"""Stopping by Ctrl-C or a signal: a training run ends at a point from which it can resume."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from antispoofing import distributed

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """A training run was asked to stop.

    It is a BaseException, so that `except Exception` does not catch it.

    Attributes:
        exit_code: Exit code as shells have it, 128 plus the number of the signal.
        saved: Epoch and step after which the state was last written; None if it was not.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        self.saved: tuple[int, int] | None = None


class StopRequests:
    """The signals received within `stop_requests`.

    Attributes:
        number: Number of the first signal; None if there was none.
        must_wait: Whether the current work must not be interrupted; it checks `number` when it is done.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.must_wait = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Stop at once; if the current work must not be interrupted, stop only at a second signal.

        In a group of processes, a second signal waits, too, since torchrun sends each signal twice.
        """
        is_first, self.number = self.number is None, self.number or number
        if not self.must_wait or (distributed.size() == 1 and not is_first):
            _stop(number)
        if is_first and distributed.is_main():
            with suppress(OSError):  # Ctrl-C also ends a `tee` that stderr goes to
                os.write(2, b"stopping after this step\n")  # print is not safe in signal handlers

    def need_not_wait(self) -> None:
        """Let signals stop the work from now on, and stop here if one has arrived since the last check."""
        self.must_wait = False
        if self.number is not None:
            _stop(self.number)


def _stop(number: int) -> NoReturn:
    if distributed.size() > 1:  # the other processes get the same signal, so there is nothing to clean up
        os._exit(128 + number)
    raise Stopped(number)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Turn SIGINT (Ctrl-C), SIGTERM and SIGHUP into Stopped or a request to stop, within this context.

    Signals that are ignored (by nohup) stay ignored. Outside the main thread nothing changes, since Python
    handles signals only there.
    """
    requests = StopRequests()
    before = {}
    if threading.current_thread() is threading.main_thread():
        handled = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, requests.handle) for number in handled}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
