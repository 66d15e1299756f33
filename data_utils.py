"""Audio input: a file of any format and length becomes a padded clip, and clips become batches.

    wave = load_audio("clip.mp3")  # float32 [n], 16 kHz
    clip = pad(wave)               # float32 [64600], as the published detectors hear it

Every wave that this module returns is float32, mono, in [-1, 1], not normalised, and sampled at 16 kHz unless
another rate is asked for. antispoofing/audio.py opens files, by libsndfile or ffmpeg, and reads them to their
real end, whatever their headers say. A video is read as its first audio track.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soxr

from antispoofing.audio import AudioError, AudioInfo, cautions, clipping, open_audio

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

SAMPLE_RATE = 16000  # Hz
CLIP_SAMPLES = 64600  # 4.0375 s at 16 kHz

SPOOF, BONAFIDE = 0, 1  # the class numbers: the order of a detector's two logits, and the training targets
LABELS = ("spoof", "bonafide")  # the classes' names in lists and results, by class number

# The suffixes of recordings when a folder is searched: first libsndfile's, then ffmpeg's.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .snd .caf .w64 .rf64 .sph"
    " .wv .m4a .m4b .mp4 .m4v .mov .aac .wma .wmv .webm .mkv .mka .amr .awb .3gp .ac3"
    " .eac3 .avi .flv .mpg".split()
)

# How much input is decoded on either side of the samples wanted: far more than the length of soxr's longest
# filter, and than a lossy decoder needs to recover after seeking, so that a part is the same whether or not
# the rest was decoded. librosa.load resamples a part by itself: 4 s of 44.1 kHz noise (peak 0.25) that begin
# at 12.3 s differ by up to 0.099 from the same samples of the whole; here they differ by 7e-8.
_RESAMPLER_REACH = 0.5  # s


# What is known of a clip's recording: its AudioInfo, and how many seconds of it the clip holds; zeros where
# there is none. The longest format is MATROSKA.
AUDIO_INFO = np.dtype(
    [("format", "S8"), ("sample_rate", np.int32), ("seconds", np.float64), ("heard", np.float64)]
)


def load_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    max_samples: int | None = None,
    offset: float = 0.0,
) -> np.ndarray:
    """Read a recording as mono samples at one sample rate.

    The samples are those of `librosa.load(path, sr=sample_rate)` (channels averaged, soxr's high quality),
    without the second that it takes to import librosa. With `offset` and `max_samples`, only the input that
    this part needs is decoded and resampled.

    Args:
        path: An audio file, or a video with an audio track, in any format that libsndfile or ffmpeg reads.
        sample_rate: The sample rate of the result, in Hz.
        max_samples: The most samples to return; None for all there are.
        offset: Where to begin, in seconds, rounded to a sample of the result.

    Returns:
        float32 [n], n >= 1.

    Raises:
        AudioError: If the file cannot be opened or decoded, has no samples after the offset, or has samples
            that are not finite.
    """
    return load_with_info(path, sample_rate, max_samples, offset)[0]


# The type of `load_with_info`: path, sample_rate, max_samples, offset -> wave, properties.
Load = Callable[[str, int, int | None, float], tuple[np.ndarray, AudioInfo]]


def load_with_info(
    path: str | Path, sample_rate: int, max_samples: int | None, offset: float
) -> tuple[np.ndarray, AudioInfo]:
    """Return what `load_audio` returns, and the properties of the whole file.

    Raises:
        AudioError: As in `load_audio`.
    """
    with open_audio(path) as file:
        rate = file.info.sample_rate
        common = math.gcd(rate, sample_rate)
        # Decoding begins where a sample of the result coincides with a sample of the file.
        first = round(offset * sample_rate)
        steps = max(0, math.floor((first / sample_rate - _RESAMPLER_REACH) * common))
        skip = first - steps * (sample_rate // common)
        count = None
        if max_samples is not None:
            count = math.ceil(((skip + max_samples) / sample_rate + _RESAMPLER_REACH) * rate)
        with np.errstate(over="ignore", invalid="ignore"):  # the result is checked below
            samples = file.read(steps * (rate // common), count)
            note = "; ".join(filter(None, (file.info.note, clipping(samples))))
            wave = mono(samples)
        if len(wave) and rate != sample_rate:
            n_samples = math.ceil(len(wave) * sample_rate / rate)
            wave = fit_length(soxr.resample(wave, rate, sample_rate, quality="HQ"), n_samples)
    if not np.isfinite(wave).all():
        raise AudioError("it has samples that are not numbers (NaN or infinity)")
    wave = wave[skip:] if max_samples is None else wave[skip : skip + max_samples]
    if len(wave) == 0:
        raise AudioError(f"it ends before {offset:g} s" if offset else "it has no samples")
    return wave, file.info._replace(note=note)


def audio_info(path: str | Path) -> AudioInfo:
    """Return the properties of a file, without decoding it.

    Raises:
        AudioError: As in `load_audio`.
    """
    with open_audio(path) as file:
        return file.info


def fit_length(wave: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut a wave to a length, or add zeros at its end, since a resampler may round a length down."""
    return np.pad(wave[:n_samples], (0, max(0, n_samples - len(wave))))


def pre_emphasise(x: np.ndarray, coefficient: float) -> np.ndarray:
    """Return x[n] - coefficient * x[n - 1] for samples [n], where nothing precedes the first."""
    result = np.copy(x)
    result[1:] -= x.dtype.type(coefficient) * x[:-1]
    return result


def normalise(x: np.ndarray, eps: float) -> np.ndarray:
    """Return (x - mean) / sqrt(variance + eps) of samples [n], of x's type."""
    mean, variance = x.mean(dtype=np.float64), x.var(dtype=np.float64)
    return ((x - mean) / math.sqrt(variance + eps)).astype(x.dtype)


def pad(x: np.ndarray, max_len: int = CLIP_SAMPLES) -> np.ndarray:
    """Return the first `max_len` samples; a shorter clip is repeated end to end, as in the published code.

    Args:
        x: Samples [n], n >= 1.
        max_len: The number of samples to return.

    Returns:
        Samples [max_len] of x's type.

    Raises:
        ValueError: If x is empty.
    """
    if len(x) == 0:
        raise ValueError("cannot pad a clip without samples")
    return np.tile(x, math.ceil(max_len / len(x)))[:max_len]


def mono(block: np.ndarray) -> np.ndarray:
    """Average the channels: [n, channels] -> [n]."""
    return block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]


class Item(NamedTuple):
    """A clip.

    Attributes:
        number: Its index.
        wave: The padded wave; None if it could not be read.
        reason: Why it could not be read; "" if it could.
        info: The properties of its file; None if it could not be read.
        heard: How many seconds of the recording it holds.
        note: What is to be said of the recording, in words; "" if nothing.
    """

    number: int
    wave: np.ndarray | None = None
    reason: str = ""
    info: AudioInfo | None = None
    heard: float = 0.0
    note: str = ""


class Batch(NamedTuple):
    """Clips that are computed together.

    Attributes:
        indices: The indices of those that could be read.
        waves: Their waves, float32 [B, T].
        failures: By index, why the others could not be read.
        infos: AUDIO_INFO [B].
        notes: By index, what is to be said of the recordings.
    """

    indices: list[int]
    waves: torch.Tensor
    failures: dict[int, str]
    infos: np.ndarray
    notes: dict[int, str]


class Clips:
    """Recordings as a data set for torch's DataLoader: item i is the i-th recording's clip, an `Item`.

    With n recordings, item i is recording i modulo n: where an epoch uses a recording several times, its
    index differs each time.

    Args:
        paths: The recordings' files.
        sample_rate: The clips' sample rate, in Hz.
        clip_samples: The samples of each clip; shorter recordings are repeated (`pad`).
        offset: Where in each recording its clip begins, in seconds.
        load: The function that reads a file, such as `load_with_info`.
        prepare: What makes samples [n], n >= 1, a clip [clip_samples]; None for `pad`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sample_rate: int = SAMPLE_RATE,
        clip_samples: int = CLIP_SAMPLES,
        offset: float = 0.0,
        load: Load = load_with_info,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        # The names are kept in one block: reading a str object changes its reference count, and so would
        # copy its page of memory to each worker.
        names = [os.fsencode(path) for path in paths]
        self._names, self._ends = b"".join(names), np.cumsum([0, *map(len, names)])
        self.sample_rate = sample_rate
        self.clip_samples = clip_samples
        self.offset = offset
        self.load = load
        self.prepare = prepare or partial(pad, max_len=clip_samples)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> Item:
        place = i % len(self)
        path = os.fsdecode(self._names[self._ends[place] : self._ends[place + 1]])
        try:
            wave, info = self.read(path, i)
        except AudioError as error:
            return Item(i, reason=str(error))
        note = "; ".join(cautions(wave, self.sample_rate, info.note))
        return Item(i, self.prepare(wave), "", info, len(wave) / self.sample_rate, note)

    def read(self, path: str, i: int) -> tuple[np.ndarray, AudioInfo]:
        """Read the part of a recording that becomes item i, before padding.

        Raises:
            AudioError: If it cannot be read.
        """
        return self.load(path, self.sample_rate, self.clip_samples, self.offset)


def collate(items: list[Item]) -> Batch:
    """Put items together as a batch."""
    import torch

    read = [item for item in items if item.wave is not None]
    waves = [torch.from_numpy(item.wave) for item in read if item.wave is not None]
    infos = [(*item.info[:3], item.heard) for item in read if item.info is not None]
    return Batch(
        [item.number for item in read],
        torch.stack(waves) if waves else torch.empty(0, 0),
        {item.number: item.reason for item in items if item.wave is None},
        np.array(infos, AUDIO_INFO),
        {item.number: item.note for item in read if item.note},
    )


def make_loader(
    clips: Clips, batches: Collection[Sequence[int]], workers: int = 0, start_method: str | None = None
) -> DataLoader:
    """Return a loader of `collate`'s batches, which worker processes decode in advance.

    Args:
        clips: The data set.
        batches: The indices of each batch; iterated over once for each pass.
        workers: How many processes decode; with 0, the calling process does.
        start_method: How the workers start ("fork", "spawn", "forkserver"); None for the system's default.
    """
    import torch
    from torch.utils.data import DataLoader

    workers = min(workers, len(batches)) if len(batches) > 1 else 0
    return DataLoader(
        clips,  # type: ignore[arg-type]  # no base class is needed; torch's would have to be imported
        batch_sampler=batches,  # type: ignore[arg-type]  # any sequence of indices is a batch
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=start_method if workers else None,
        worker_init_fn=_ignore_stop_signals,
    )


def _ignore_stop_signals(worker: int) -> None:
    """Leave stopping to the main process: a worker ends when that does.

    Ctrl-C and batch systems signal all processes, but the main one may need its workers to finish a step,
    which may take minutes.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows lacks some
            signal.signal(getattr(signal, name), signal.SIG_IGN)
