"""Work that hangs, crashes or needs too much memory does not affect anybody else."""

import contextlib
import os
import signal
import sys
import time

import numpy as np
import pytest

from antispoofing.sandbox import Sandbox, SandboxError
from data_utils import AudioError, load_with_info


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(["numpy"]) as sandbox:
        yield sandbox


def test_a_result_comes_back(sandbox):
    assert sandbox.call(30, max, 3, 4) == 4
    assert sandbox.call(30, sorted, [1, 2], reverse=True) == [2, 1]
    assert sandbox.call(30, os.getpid) != os.getpid()


def test_exceptions_are_raised_in_the_caller(sandbox, tmp_path):
    with pytest.raises(AudioError, match="No such file"):
        sandbox.call(30, load_with_info, str(tmp_path / "none.wav"), 16000, None, 0.0)


def test_what_takes_too_long_is_killed(sandbox):
    started = time.monotonic()
    with pytest.raises(SandboxError, match=r"takes more than 0\.5 s"):
        sandbox.call(0.5, time.sleep, 60)
    assert time.monotonic() - started < 30
    assert sandbox.call(30, max, 3, 4) == 4


def test_a_crash_is_reported(sandbox):
    for _ in range(3):
        with pytest.raises(SandboxError, match="crashed"):
            sandbox.call(30, signal.raise_signal, signal.SIGKILL)
        assert sandbox.call(30, max, 3, 4) == 4


def test_idle_processes_that_die_are_replaced(sandbox):
    """As when a machine runs out of memory, one or all of them; no call is lost."""
    for number in (1, 2) * 3:
        for pid in list({sandbox.call(30, os.getpid) for _ in range(4)})[:number]:
            with contextlib.suppress(ProcessLookupError):  # one whose pool has been replaced
                os.kill(pid, signal.SIGKILL)
        for _ in range(4):  # the death may be noticed late
            assert sandbox.call(30, max, 3, 4) == 4
            time.sleep(0.1)


class Strange(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(one)


def raise_strange():
    raise Strange(1, 2)


def test_an_exception_that_cannot_be_unpickled_is_reported(sandbox):
    with pytest.raises(SandboxError, match="crashed"):
        sandbox.call(30, raise_strange)
    assert sandbox.call(30, max, 3, 4) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_memory_is_limited():
    with Sandbox(["numpy"], memory_bytes=2**30) as sandbox:
        assert len(sandbox.call(30, np.zeros, 10)) == 10
        with pytest.raises(MemoryError):
            sandbox.call(30, np.ones, 2**28)


def test_closing_ends_the_work():
    with Sandbox() as sandbox:
        sandbox.call(30, max, 3, 4)
        future = sandbox._pool.schedule(time.sleep, args=(600,))
        while not future.running():
            time.sleep(0.01)
        started = time.monotonic()
    assert time.monotonic() - started < 60
