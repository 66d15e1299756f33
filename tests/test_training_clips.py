"""Which clips an epoch takes, and how the processes share them."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from antispoofing.training.clips import epoch_order, shard_steps


def test_without_groups_every_clip_comes_once_in_a_new_order():
    first, second = (epoch_order(100, None, seed=3, epoch=epoch) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(100, None, seed=3, epoch=1))
    assert not np.array_equal(first, epoch_order(100, None, seed=4, epoch=1))


@pytest.mark.parametrize("sizes", [(90, 5, 5), (1, 99), (33, 33, 33), (2, 3, 94, 2)])
def test_groups_fill_equal_shares(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(groups)
    order = epoch_order(n, groups.tolist(), seed=0, epoch=1)
    assert len(order) == n
    assert len(set(order.tolist())) == n  # a repeated clip has another number
    clips = order % n
    counts = Counter(groups[clips].tolist())
    assert counts.keys() == set(range(len(sizes)))
    assert max(counts.values()) - min(counts.values()) <= 1
    for group in range(len(sizes)):  # no clip comes twice more often than another of its group
        times = Counter(clips[groups[clips] == group].tolist())
        all_times = [times[clip] for clip in np.flatnonzero(groups == group).tolist()]
        assert max(all_times) - min(all_times) <= 1
    halves = [Counter(groups[part].tolist())[0] for part in np.array_split(clips, 2)]
    assert abs(halves[0] - halves[1]) < n / 4  # mixed
    again = epoch_order(n, groups.tolist(), seed=0, epoch=2)
    assert not np.array_equal(order, again)


def test_larger_groups_are_drawn_from_anew():
    groups = [0] * 90 + [1] * 10
    taken = [
        set(epoch_order(100, groups, seed=0, epoch=epoch).tolist()) & set(range(90)) for epoch in range(9)
    ]
    assert all(len(clips) == 50 for clips in taken)
    assert len(set().union(*taken)) == 90


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_processes_share_each_step(size, parts, monkeypatch):
    order = np.random.default_rng(0).permutation(23)
    shared = []
    for rank in range(size):
        for name, value in (
            ("RANK", rank),
            ("WORLD_SIZE", size),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", size),
        ):
            monkeypatch.setenv(name, str(value))
        shared.append(shard_steps(order, 8, parts))
    for number in range(3):
        mine = [list(chain(*steps[number])) for steps in shared]
        assert list(chain(*mine)) == order[8 * number : 8 * number + 8].tolist()
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        for steps in shared:
            sizes = list(map(len, steps[number]))
            assert len(sizes) == parts
            assert max(sizes) - min(sizes) <= 1
