"""The group of processes that torchrun starts, on one machine or on several, to share the work.

    torchrun --nproc-per-node 2 evaluate_custom.py

Each process runs the same script; only the main one, rank 0, prints results and writes them. Without torchrun
there is one process: then the functions here have nothing to exchange, and do not need torch.

When a process ends, the others do not wait for it: they notice that its connections close, and torchrun
ends them. (Only a machine that disappears without closing its connections is waited for, up to WAITING.)
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

from antispoofing.errors import DataError, ProcessError, UserError, describe

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

JOINING = timedelta(minutes=10)  # how long to wait for all processes to join the group
WAITING = timedelta(days=7)  # how long to wait for slower processes, or for the main one's analysis
GRACE = 10  # how many seconds torchrun gets to end this process when another one has ended

_ENVIRONMENT = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}  # torchrun sets these


def _number(name: str, alone: int) -> int:
    return int(os.environ[name]) if os.environ.keys() >= _ENVIRONMENT else alone


def rank() -> int:
    """Return this process's number in the group, from 0."""
    return _number("RANK", 0)


def size() -> int:
    """Return the number of processes, on all machines together."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """Return this process's number on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def is_main() -> bool:
    """Return whether this is the process that prints results and writes them."""
    return rank() == 0


def cores() -> int:
    """Return this process's share of the processor cores that it may use on its machine, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS and Windows do not have it
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, available // _number("LOCAL_WORLD_SIZE", 1))


@contextmanager
def group() -> Iterator[None]:
    """Join the group that torchrun's environment variables describe, and leave it when the block ends.

    Within the block, the standard output of all processes but the main one is discarded, and torch uses a
    process's share of the processor cores, unless the user has set OMP_NUM_THREADS. (torchrun sets it to 1 if
    the user has not, so a value of 1 does not count.) A process that is alone joins nothing.

    Raises:
        ProcessError: If the other processes cannot be reached.
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
        world = dist.group.WORLD
        assert world is not None  # since init_process_group has returned
        world.set_timeout(WAITING)
        if is_main():
            yield
        else:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        dist.destroy_process_group()


def finish(code: int) -> None:
    """End this process if it is one of a group; otherwise do nothing.

    In an ordinary exit, Gloo's threads may outlive the objects that they use, which aborts the process.
    """
    if size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks; all of them must call this.

    Raises:
        ProcessError: If another process has ended or cannot be reached.
        RuntimeError: If another process calls another of these functions, which is a fault in the program.
    """
    return [value] if size() == 1 else _gather("all_gather", value)


def on_all_ranks(
    work: Callable[[], T], must_agree: Callable[[T], dict[str, object]] = lambda result: {}
) -> T:
    """Do work that may fail, on every process; if it fails on any of them, it fails on all.

    On each machine, one process does it first, then the others: so an archive is unpacked only once.

    Args:
        work: What to do; its result is returned.
        must_agree: Returns the parts of the result, by name, that must be the same on all processes.

    Raises:
        UserError: On all processes, with `process` set, if any of them raises it (or an OSError, which
            becomes one). A process that is alone raises its error as it is.
        SystemExit: On all processes, if any of them raises it, as a wrong command line does.
        DataError: On all processes, with `process` set, if the results do not agree.
        ProcessError: As in `all_gather`.
    """
    if size() == 1:
        return work()
    failure: UserError | SystemExit | None = None
    agreement: dict[str, object] = {}
    for has_turn in (local_rank() == 0, local_rank() != 0):
        if has_turn:
            try:
                result = work()
                agreement = must_agree(result)
            except (UserError, SystemExit) as error:
                failure = error
            except OSError as error:
                failure = UserError(describe(error))
        outcomes = _gather("on_all_ranks", (failure, agreement))
        for process, (raised, _) in enumerate(outcomes):
            if isinstance(raised, UserError):
                raised.process = process
            if raised is not None:
                raise raised
    expected = outcomes[0][1]
    for process, (_, found) in enumerate(outcomes):
        for name, value in expected.items():
            if found[name] != value:
                differ = DataError(
                    f"{name} is {found[name]} here, but {value} in process 0: make them the same"
                )
                differ.process = process
                raise differ
    return result


def shard(n: int, batch_size: int, streams: Sequence[int]) -> list[range]:
    """Return this process's share of n items, as batches of consecutive ones.

    So that no stream waits long for the last one, all streams get the same number of batches or one fewer,
    and all batches have the same number of items or one fewer. The batches depend on how many streams there
    are in all, but not on which process has them.

    Args:
        n: How many items there are.
        batch_size: The size of the largest batch.
        streams: How many batches each process works on at once, by rank.
    """
    total = sum(streams)
    rounds = -(-n // (batch_size * total))
    count = min(n, rounds * total)
    batches = [range(number * n // count, (number + 1) * n // count) for number in range(count)]
    first = sum(streams[: rank()])
    return [batch for i, batch in enumerate(batches) if first <= i % total < first + streams[rank()]]


def all_merge(values: np.ndarray, mine: np.ndarray) -> None:
    """Fill in the rows that the other processes have, in place and bit for bit.

    Args:
        values: Numbers or records [n] or [n, k], of which each process has filled in its own rows.
        mine: The indices [m] of this process's rows.

    Raises:
        ProcessError: As in `all_gather`.
        RuntimeError: If a row belongs to no process, or to several.
    """
    if size() == 1 or len(values) == 0:
        return
    import torch
    import torch.distributed as dist

    _gather(f"all_merge {values.shape}", None)
    owners = torch.zeros(len(values), 1, dtype=torch.int64)
    owners[mine] = 1
    own = values.view(np.uint8).reshape(len(values), -1)  # shares the memory of `values`
    rows = torch.zeros(own.shape, dtype=torch.uint8)
    rows[mine] = torch.from_numpy(own[mine])
    with as_process_errors():
        dist.all_reduce(owners)
        dist.all_reduce(rows)
    if not (owners == 1).all():
        raise RuntimeError("the work was shared wrongly: a row belongs to no process, or to several")
    own[:] = rows.numpy()


def all_sum(*values: float) -> list[float]:
    """Return the sum of each value over all processes.

    Raises:
        ProcessError: As in `all_gather`.
    """
    if size() == 1:
        return [float(value) for value in values]
    import torch
    import torch.distributed as dist

    sums = torch.tensor(values, dtype=torch.float64)
    with as_process_errors():
        dist.all_reduce(sums)
    return sums.tolist()


def all_mean(tensors: Sequence[torch.Tensor]) -> None:
    """Replace float tensors by their means over all processes, in place.

    Raises:
        ProcessError: As in `all_gather`.
    """
    if size() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with as_process_errors():
        dist.all_reduce(flat)
    for tensor, values in zip(tensors, (flat / size()).split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def _gather(what: str, value: T) -> list[T]:
    """Gather the values of all processes; raise a RuntimeError if another one gathers something else."""
    import torch.distributed as dist

    gathered: list = [None] * size()
    with as_process_errors():
        dist.all_gather_object(gathered, (what, value))
    if any(other != what for other, _ in gathered):
        raise RuntimeError(f"the processes are out of step: {[other for other, _ in gathered]}")
    return [other for _, other in gathered]


@contextmanager
def as_process_errors(marks: Sequence[str] = ("",)) -> Iterator[None]:
    """Raise a RuntimeError whose message contains any of these marks as a ProcessError.

    The block is something that processes do together, which fails when one of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(mark in str(error) for mark in marks):
            raise
        time.sleep(GRACE)  # the other process has said why; on one machine, torchrun now ends this one, too
        raise ProcessError("another process has ended, or cannot be reached") from error
