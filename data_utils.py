"""Audio in: decoding, resampling, padding, batching.

Every wave that leaves this module is float32, mono, 16 kHz (unless asked otherwise), in [-1, 1],
not normalised.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from torch.utils.data import DataLoader, Dataset

from antispoofing import distributed
from antispoofing.data.recordings import Utterance
from decoding import AUDIO_INFO, AudioError, AudioInfo, mono, open_audio

if TYPE_CHECKING:
    from antispoofing.training.augment import Augmentation

SAMPLE_RATE = 16000  # Hz
CLIP_SAMPLES = 64600  # 4.0375 s at 16 kHz

_STREAM = 2  # of random numbers: not that of sampling.py (1), nor of optimization.py (3)

# Input on either side of the samples wanted: far more than the length of soxr's longest filter, or than a
# lossy decoder needs to recover from a jump, so that a part is the same whether or not the rest was decoded.
_RESAMPLER_REACH = 0.5  # s


# ------------------------------------------------------------- reading one file


def load_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    max_samples: int | None = None,
    offset: float = 0.0,
) -> np.ndarray:
    """Decode, average the channels, resample (soxr, high quality), cut.

    Gives the samples of `librosa.load(path, sr=sample_rate)`, without librosa's seconds of import; with
    `offset` and `max_samples`, that part of them, but only what is needed for it is decoded and resampled.

    Args:
        path: an audio file, or a video with an audio track, in any format that libsndfile or ffmpeg reads.
        sample_rate: of the result, in Hz.
        max_samples: of the result; None for all there are.
        offset: seconds of the recording to pass over, to the nearest sample of the result.

    Returns:
        float32 [n], n >= 1.

    Raises:
        AudioError: the file cannot be opened or decoded, or has no samples (after the offset), or not only
            numbers.
    """
    return load_with_info(path, sample_rate, max_samples, offset)[0]


# What `load_with_info` is: of a path, sample rate, most samples and offset the wave and what its header says.
Load = Callable[[str, int, int | None, float], tuple[np.ndarray, AudioInfo]]


def load_with_info(
    path: str | Path, sample_rate: int, max_samples: int | None, offset: float
) -> tuple[np.ndarray, AudioInfo]:
    """What `load_audio` gives, and what the file's header says."""
    with open_audio(path) as file:
        rate = file.info.sample_rate
        common = math.gcd(rate, sample_rate)
        # Decoding begins where a sample of the result coincides with one of the file.
        first = round(offset * sample_rate)
        steps = max(0, math.floor((first / sample_rate - _RESAMPLER_REACH) * common))
        skip = first - steps * (sample_rate // common)
        count = None
        if max_samples is not None:
            count = math.ceil(((skip + max_samples) / sample_rate + _RESAMPLER_REACH) * rate)
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            wave = mono(file.read(steps * (rate // common), count))
        if len(wave) and rate != sample_rate:
            n_samples = math.ceil(len(wave) * sample_rate / rate)
            wave = fit_length(soxr.resample(wave, rate, sample_rate, quality="HQ"), n_samples)
    if not np.isfinite(wave).all():
        raise AudioError("has samples that are not numbers (NaN or infinity)")
    wave = wave[skip:] if max_samples is None else wave[skip : skip + max_samples]
    if len(wave) == 0:
        raise AudioError(f"it ends before {offset:g} s" if offset else "no samples in it")
    return wave, file.info


def audio_info(path: str | Path) -> AudioInfo:
    """Reads the header only. Raises AudioError as `load_audio` does."""
    with open_audio(path) as file:
        return file.info


def fit_length(wave: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut, or add zeros at the end: a resampler may round a length down."""
    return np.pad(wave[:n_samples], (0, max(0, n_samples - len(wave))))


def pad(x: np.ndarray, max_len: int = CLIP_SAMPLES) -> np.ndarray:
    """The first `max_len` samples; a shorter clip is repeated end to end, as the published code does.

    Args:
        x: [n] samples, n >= 1.

    Returns:
        [max_len], of x's type.

    Raises:
        ValueError: x is empty.
    """
    if len(x) == 0:
        raise ValueError("cannot pad a clip without samples")
    return np.tile(x, math.ceil(max_len / len(x)))[:max_len]


# -------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Variation:
    """What training hears of a recording, in this epoch: random, by the seed, the epoch and its index alone.

    Attributes:
        random_crop: of one that is longer than a clip any part, else its beginning.
        augmentation: what is done to it.
    """

    seed: int
    epoch: int
    random_crop: bool
    augmentation: Augmentation


class UtteranceDataset(Dataset):
    """Item i: (i, wave [clip_samples] or None, reason it could not be read or "", AudioInfo or None).

    With n recordings i is number i modulo n, taken i // n times before in the epoch (`sampling.epoch_order`).
    The clip begins at `offset` seconds, or as `variation` has it. `load` does what `load_with_info` does.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        sample_rate: int,
        clip_samples: int,
        offset: float = 0.0,
        variation: Variation | None = None,
        load: Load = load_with_info,
    ):
        # In one block: to look at a string counts as a use, and would copy its page of memory to each worker.
        paths = [os.fsencode(u.path) for u in utterances]
        self._paths, self._ends = b"".join(paths), np.cumsum([0, *map(len, paths)])
        self.sample_rate = sample_rate
        self.clip_samples = clip_samples
        self.offset = offset
        self.variation = variation
        self.load = load

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> tuple[int, np.ndarray | None, str, AudioInfo | None]:
        place = i % len(self)
        path = os.fsdecode(self._paths[self._ends[place] : self._ends[place + 1]])
        try:
            if self.variation is None:
                wave, info = self.load(path, self.sample_rate, self.clip_samples, self.offset)
            else:
                wave, info = self._varied(path, i, self.variation)
        except AudioError as error:
            return i, None, str(error), None
        return i, pad(wave, self.clip_samples), "", info

    def _varied(self, path: str, i: int, how: Variation) -> tuple[np.ndarray, AudioInfo]:
        rng = np.random.default_rng((_STREAM, how.seed, how.epoch, i))
        samples = how.augmentation.samples_needed(self.clip_samples)
        offset = 0.0
        if how.random_crop:
            spare = audio_info(path).seconds - samples / self.sample_rate
            offset = max(0.0, spare) * rng.random()
        try:
            wave, info = load_with_info(path, self.sample_rate, samples, offset)
        except AudioError:  # a header may promise more than there is: then what scoring would hear
            wave, info = load_with_info(path, self.sample_rate, self.clip_samples, 0.0)
        return how.augmentation(wave, self.sample_rate, rng), info


def collate(
    items: list[tuple[int, np.ndarray | None, str, AudioInfo | None]],
) -> tuple[list[int], torch.Tensor, dict[int, str], np.ndarray]:
    """Indices and waves [B, T] of what could be read, reasons for the rest by index, AUDIO_INFO [B]."""
    read = [(i, wave, info) for i, wave, _, info in items if wave is not None]
    waves = torch.from_numpy(np.stack([wave for _, wave, _ in read])) if read else torch.empty(0, 0)
    failures = {i: reason for i, wave, reason, _ in items if wave is None}
    return [i for i, *_ in read], waves, failures, np.array([info for *_, info in read], AUDIO_INFO)


def default_workers(device: torch.device) -> int:
    """How many processes decode for it. A CPU that computes is slower than one that decodes, many times."""
    return max(1, distributed.cores() // 16) if device.type == "cpu" else min(8, distributed.cores())


def make_loader(
    utterances: Sequence[Utterance],
    batches: Collection[Sequence[int]],
    sample_rate: int = SAMPLE_RATE,
    clip_samples: int = CLIP_SAMPLES,
    workers: int = 0,
    start_method: str | None = None,
    offset: float = 0.0,
    variation: Variation | None = None,
    load: Load = load_with_info,
) -> DataLoader:
    """Batches as `collate` gives them; `workers` processes decode ahead.

    Args:
        batches: the indices of each, anew for every pass.
        start_method: how workers start ("fork", "spawn", "forkserver"); None is the system's own.
        offset, variation, load: see `UtteranceDataset`.
    """
    workers = min(workers, len(batches)) if len(batches) > 1 else 0
    return DataLoader(
        UtteranceDataset(utterances, sample_rate, clip_samples, offset, variation, load),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=start_method if workers else None,
        worker_init_fn=_leave_stopping_to_the_main_process,
    )


def _leave_stopping_to_the_main_process(worker: int) -> None:
    """Ctrl-C and batch systems signal all processes; the main one may still need this one to end in order.

    How long that takes nobody knows: a step may take minutes. Without the main process this one ends too.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has not all
            signal.signal(getattr(signal, name), signal.SIG_IGN)
