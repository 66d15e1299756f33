"""Told to stop, by Ctrl-C or a signal: a training ends where it can go on later."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from antispoofing import distributed

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """A training was told to stop. (No Exception: what catches all of these is not to catch it.)

    Attributes:
        exit_code: as a shell has it: 128 and the signal's number.
        saved: the epoch and its step that the training's state was written after; None where it was not.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
        self.saved: tuple[int, int] | None = None


class StopRequests:
    """Signals that have come in `stop_requests`.

    Attributes:
        number: of the first; None where there is none.
        must_wait: whether something is under way that is to end by itself, which looks at `number` then.
    """

    def __init__(self):
        self.number: int | None = None
        self.must_wait = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A first signal waits where it must, a second one does not. (torchrun sends what it gets twice.)"""
        is_first, self.number = self.number is None, self.number or number
        if not self.must_wait or (distributed.size() == 1 and not is_first):
            _stop(number)
        if is_first and distributed.is_main():
            os.write(2, b"stopping after this step\n")  # print is not for signal handlers

    def need_not_wait(self) -> None:
        """From now on; what has come since it was last looked at stops here."""
        self.must_wait = False
        if self.number is not None:
            _stop(self.number)


def _stop(number: int) -> NoReturn:
    if distributed.size() > 1:  # the others have the same signal: there is nothing to wait for
        os._exit(128 + number)
    raise Stopped(number)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """In it SIGINT (Ctrl-C), SIGTERM and SIGHUP raise Stopped, or wait for what must not be broken off.

    What is ignored (by nohup) stays so. In another thread than the main one, signals are not for us.
    """
    requests = StopRequests()
    before = {}
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = {number: signal.signal(number, requests.handle) for number in wanted}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
