"""What each step of a training hears, and each process of it: random by the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from antispoofing import distributed
from antispoofing.training.augment import Augmentation
from data_utils import AudioError, AudioInfo, Clips, audio_info, load_with_info

_ORDER, _VARIATION = 1, 2  # streams of random numbers; step.py has the third


class VariedClips(Clips):
    """Training clips: with `random_crop` any part of a longer recording, else its beginning; augmented.

    What is random follows from the seed, the epoch and a clip's index alone.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sample_rate: int,
        clip_samples: int,
        *,
        seed: int,
        epoch: int,
        random_crop: bool,
        augmentation: Augmentation,
    ):
        super().__init__(paths, sample_rate, clip_samples)
        self.seed, self.epoch = seed, epoch
        self.random_crop, self.augmentation = random_crop, augmentation

    def read(self, path: str, i: int) -> tuple[np.ndarray, AudioInfo]:
        rng = np.random.default_rng((_VARIATION, self.seed, self.epoch, i))
        samples = self.augmentation.samples_needed(self.clip_samples)
        offset = 0.0
        if self.random_crop:
            spare = audio_info(path).seconds - samples / self.sample_rate
            offset = max(0.0, spare) * rng.random()
        try:
            wave, info = load_with_info(path, self.sample_rate, samples, offset)
        except AudioError:  # a header may promise more than there is: then what scoring would hear
            wave, info = load_with_info(path, self.sample_rate, self.clip_samples, 0.0)
        return self.augmentation(wave, self.sample_rate, rng), info


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
    rng = np.random.default_rng((_ORDER, seed, epoch))
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


def shard_steps(order: np.ndarray, batch_size: int, parts: int) -> list[list[list[int]]]:
    """This process's clips of each step of an epoch, in parts, some of which may be empty.

    Args:
        order: from `epoch_order`.
        batch_size: clips of a step, of all processes together.
        parts: how many of each process.
    """
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine = [np.array_split(step, distributed.size())[distributed.rank()] for step in steps]
    return [[part.tolist() for part in np.array_split(clips, parts)] for clips in mine]
