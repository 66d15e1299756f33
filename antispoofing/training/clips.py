"""Which clips each step of a training takes, and each process of them: by the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from antispoofing import distributed

_STREAM = 1  # of random numbers: not that of data_utils.py (2), nor of optimization.py (3)


def epoch_order(n: int, groups: Sequence[Hashable] | None, seed: int, epoch: int) -> np.ndarray:
    """The clips of an epoch, as many as there are, in their order.

    Args:
        n: how many clips there are.
        groups: the group of each clip; None to take every clip once.

    Returns:
        int64 [n]. Without groups a permutation of 0 to n - 1. With them as many clips of each, but for one:
        of a larger group some of its clips, of a smaller one all, again and again. i + k n stands for clip i
        taken for the k-th time more.
    """
    rng = np.random.default_rng((_STREAM, seed, epoch))
    if groups is None:
        return rng.permutation(n)
    number_of = {group: number for number, group in enumerate(sorted(set(groups)))}
    numbers = np.array([number_of[group] for group in groups])
    members = [np.flatnonzero(numbers == number) for number in number_of.values()]
    wanted = np.diff(np.arange(len(members) + 1) * n // len(members))
    drawn = []
    for clips, count in zip(members, wanted.tolist(), strict=True):
        times = -(-count // len(clips))
        drawn.append(np.concatenate([rng.permutation(clips) + k * n for k in range(times)])[:count])
    return rng.permutation(np.concatenate(drawn))


def steps_of(order: np.ndarray, batch_size: int, parts: int) -> list[list[list[int]]]:
    """This process's clips of each step of an epoch, in parts, some of which may be empty.

    Args:
        order: from `epoch_order`.
        batch_size: clips of a step, of all processes together.
        parts: how many of each process.
    """
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine = [np.array_split(step, distributed.size())[distributed.rank()] for step in steps]
    return [[part.tolist() for part in np.array_split(clips, parts)] for clips in mine]
