"""The processes that torchrun starts, on one machine or on several: one group, which shares the work.

    torchrun --nproc-per-node 2 evaluate_custom.py

Each of them runs the same script. The main one, number 0, alone prints and writes. Without torchrun there is
one process, and nothing here does anything, nor needs torch.

The failure of a process does not leave the others waiting: its connections close, and torchrun ends the rest.
(A machine that vanishes without closing them is given up after WAITING only.)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from antispoofing.errors import DataError, ProcessError, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

JOINING = timedelta(minutes=10)  # until who has not come is given up
WAITING = timedelta(days=7)  # for others that are slower, or for the main one's analysis
GRACE = 10  # seconds that torchrun has to end the others of a group when one has ended

_ENVIRONMENT = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}  # which torchrun sets


def _number(name: str, alone: int) -> int:
    return int(os.environ[name]) if os.environ.keys() >= _ENVIRONMENT else alone


def rank() -> int:
    """This process's number in the group, from 0."""
    return _number("RANK", 0)


def size() -> int:
    """How many processes there are, on all machines."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def is_main() -> bool:
    """Whether it is the process that prints and writes."""
    return rank() == 0


def cores() -> int:
    """The processor cores for this process: its share of those that its machine has for us, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, available // _number("LOCAL_WORLD_SIZE", 1))


@contextmanager
def group() -> Iterator[None]:
    """Join the group that torchrun's environment tells of (once); leave it at the end, also after an error.

    In it, what another than the main process prints goes nowhere, and each has its share of the processor's
    cores. (torchrun sets OMP_NUM_THREADS=1 where the user does not set it; so only another number counts.)

    Raises:
        ProcessError: the other processes cannot be reached.
    """
    if size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(cores())
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=JOINING)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"the other processes cannot be reached: {error}".splitlines()[0]) from error
    try:
        dist.group.WORLD.set_timeout(WAITING)
        if is_main():
            yield
        else:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        dist.destroy_process_group()


def finish(code: int) -> None:
    """End a process of a group that has done all its work; alone, nothing.

    At an ordinary end Gloo's threads may outlive what they belong to, and the process is aborted.
    """
    if size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def all_gather(value: T) -> list[T]:
    """The values of all processes, by their numbers, on each of them. All must come here.

    Raises:
        ProcessError: another process has ended, or is out of reach.
    """
    return [value] if size() == 1 else _gather("all_gather", value)


def on_all_ranks(
    work: Callable[[], T], must_agree: Callable[[T], dict[str, object]] = lambda result: {}
) -> T:
    """Do what may fail on every process; then all of them have it, or none goes on.

    One process of each machine does it first, then the others: an archive is unpacked once.

    Args:
        must_agree: what of the result must be the same on all processes, by name.

    Raises:
        UserError: on all processes, what it raised on any (an OSError as a UserError), with `process`.
        SystemExit: likewise, of a wrong command line.
        DataError: on all processes, if the results do not agree.
        ProcessError: as `all_gather`.
    """
    if size() == 1:
        return work()
    outcome = None
    for has_turn in (local_rank() == 0, local_rank() != 0):
        if has_turn:
            try:
                result = work()
                outcome = must_agree(result)
            except (UserError, SystemExit) as error:
                outcome = error
            except OSError as error:
                outcome = UserError(str(error))
        outcomes = _gather("on_all_ranks", outcome)
        for process, of_one in enumerate(outcomes):
            if isinstance(of_one, BaseException):
                raise _from(process, of_one)
    for process, of_one in enumerate(outcomes):
        for what, expected in outcomes[0].items():
            if of_one[what] != expected:
                differ = DataError(f"its {what} is not that of process 0: {of_one[what]}, not {expected}")
                raise _from(process, differ)
    return result


def _from(process: int, error: BaseException) -> BaseException:
    error.process = process
    return error


def shard(n: int, batch_size: int, streams: Sequence[int]) -> list[range]:
    """This process's batches of n items.

    There are as many for each lane, or one less, and all of one size, or one less: no lane waits long for
    the last. What they are depends on the number of all streams, but not on whose they are.

    Args:
        batch_size: the largest.
        streams: how many batches each process works on at once.
    """
    total = sum(streams)
    rounds = -(-n // (batch_size * total))
    count = min(n, rounds * total)
    batches = [range(number * n // count, (number + 1) * n // count) for number in range(count)]
    first = sum(streams[: rank()])
    return [batch for i, batch in enumerate(batches) if first <= i % total < first + streams[rank()]]


def all_merge(values: np.ndarray, mine: np.ndarray) -> None:
    """Fill in the other processes' rows, byte by byte.

    Args:
        values: [n] or [n, k] of numbers or records, of which each process has its own rows.
        mine: [m] the indices of these.

    Raises:
        ProcessError: as `all_gather`.
        RuntimeError: not every row is one process's.
    """
    if size() == 1 or len(values) == 0:
        return
    import torch
    import torch.distributed as dist

    _gather(f"all_merge {values.shape}", None)
    times = torch.zeros(len(values), 1, dtype=torch.int64)
    times[mine] = 1
    own = values.view(np.uint8).reshape(len(values), -1)  # shares its memory
    rows = torch.zeros(own.shape, dtype=torch.uint8)
    rows[mine] = torch.from_numpy(own[mine])
    with as_process_errors():
        dist.all_reduce(times)
        dist.all_reduce(rows)
    if not (times == 1).all():
        raise RuntimeError("the work was shared wrongly: a row is of no process, or of two")
    own[:] = rows.numpy()


def all_sum(*values: float) -> list[float]:
    """Each value's sum over all processes, on each of them. Raises ProcessError as `all_gather`."""
    if size() == 1:
        return [float(value) for value in values]
    import torch
    import torch.distributed as dist

    sums = torch.tensor(values, dtype=torch.float64)
    with as_process_errors():
        dist.all_reduce(sums)
    return sums.tolist()


def all_mean(tensors: Sequence[torch.Tensor]) -> None:
    """Put the mean of all processes' into float tensors. Raises ProcessError as `all_gather`."""
    if size() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with as_process_errors():
        dist.all_reduce(flat)
    for tensor, values in zip(tensors, (flat / size()).split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def _gather(what: str, value: object) -> list:
    """As `all_gather`; a RuntimeError where another process has come to something else, and never a wait."""
    import torch.distributed as dist

    values: list = [None] * size()
    with as_process_errors():
        dist.all_gather_object(values, (what, value))
    if any(other != what for other, _ in values):
        raise RuntimeError(f"the processes are out of step: {[other for other, _ in values]}")
    return [value for _, value in values]


@contextmanager
def as_process_errors(marks: Sequence[str] = ("",)) -> Iterator[None]:
    """Around what processes do together: a RuntimeError with one of these words becomes a ProcessError."""
    try:
        yield
    except RuntimeError as error:
        if not any(mark in str(error) for mark in marks):
            raise
        time.sleep(GRACE)  # the other has said why; on one machine, torchrun now ends this process as well
        raise ProcessError("another process has ended, or cannot be reached") from error
