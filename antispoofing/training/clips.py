"""The clips of each training step, and each process's share of them.

All randomness here follows from the seed, the epoch and the clip's index alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from antispoofing import distributed
from antispoofing.training.augment import Augmentation
from data_utils import AudioError, AudioInfo, Clips, audio_info, load_with_info

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

_ORDER, _VARIATION = 1, 2  # numbers of the random streams; the third is in step.py


class VariedClips(Clips):
    """Augmented training clips.

    Of a recording longer than a clip, `random_crop` takes a random part; otherwise the beginning is taken.
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
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        super().__init__(paths, sample_rate, clip_samples, prepare=prepare)
        self.seed, self.epoch = seed, epoch
        self.random_crop, self.augmentation = random_crop, augmentation

    def read(self, path: str, i: int) -> tuple[np.ndarray, AudioInfo]:
        """Return recording i, cropped and augmented: float32 [n], and the properties of its file."""
        rng = np.random.default_rng((_VARIATION, self.seed, self.epoch, i))
        samples = self.augmentation.samples_needed(self.clip_samples)
        offset = 0.0
        if self.random_crop:
            spare = audio_info(path).seconds - samples / self.sample_rate
            offset = max(0.0, spare) * rng.random()
        try:
            wave, info = load_with_info(path, self.sample_rate, samples, offset)
        except AudioError:
            # A header may promise more than the file holds. Then the clip is the one that scoring would use.
            wave, info = load_with_info(path, self.sample_rate, self.clip_samples, 0.0)
        return self.augmentation(wave, self.sample_rate, rng), info


def epoch_order(n: int, groups: Sequence[SupportsRichComparison] | None, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch takes its n clips.

    Args:
        n: Number of clips.
        groups: The group of each clip, any hashable that can be sorted; None to take every clip once.
        seed: Seed of the training run.
        epoch: Number of the epoch.

    Returns:
        int64 [n]. Without groups, a permutation of 0 to n - 1. With groups, each group fills the same share
        of the epoch, to within one clip: a large one by a random part of its clips, a small one by repeating
        its clips. The value i + k * n stands for the k-th repetition of clip i.
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
    """Divide an epoch into steps, and return this process's share of each.

    Args:
        order: The epoch's clips, from `epoch_order`.
        batch_size: Clips in a step, over all processes.
        parts: Micro-batches into which each process divides its share of a step.

    Returns:
        The clips of each micro-batch of each step. Some micro-batches may be empty.
    """
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine = [np.array_split(step, distributed.size())[distributed.rank()] for step in steps]
    return [[part.tolist() for part in np.array_split(clips, parts)] for clips in mine]
