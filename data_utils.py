"""Audio in: a file, of any kind and length, becomes a padded clip, and clips become batches.

    wave = load_audio("clip.mp3")  # float32 [n], 16 kHz
    clip = pad(wave)               # float32 [64600], as the published detectors hear it

Every wave that leaves this module is float32, mono, 16 kHz (unless asked otherwise), in [-1, 1], not
normalised. libsndfile reads what it knows (wav, flac, mp3, ogg, opus, aiff, ...); PyAV, with ffmpeg inside,
reads the rest (m4a, mp4, webm, wma, amr, 3gp, ...), of a video its first audio track.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    import av
    import torch
    from torch.utils.data import DataLoader

SAMPLE_RATE = 16000  # Hz
CLIP_SAMPLES = 64600  # 4.0375 s at 16 kHz

SPOOF, BONAFIDE = 0, 1  # the class numbers: the order of a detector's two logits, and training's targets
LABELS = ("spoof", "bonafide")  # what lists and results call the two classes, by class number

# What counts as a recording when a folder is searched: libsndfile's, then ffmpeg's.
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .snd .caf .w64 .rf64 .sph"
    " .wv .m4a .m4b .mp4 .m4v .mov .aac .wma .wmv .webm .mkv .mka .amr .awb .3gp .ac3"
    " .eac3 .avi .flv .mpg".split()
)

# The containers that ffmpeg may open. Playlists are not among them: they would make it read other files.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,mov,matroska,mp3,mpeg,mpegts,ogg,w64,wav,wv"
)

# Input on either side of the samples wanted: far more than the length of soxr's longest filter, or than a
# lossy decoder needs to recover from a jump, so that a part is the same whether or not the rest was decoded.
# librosa.load resamples a part by itself: of 44.1 kHz noise with a peak of 0.25, 4 s from 12.3 s on are up to
# 0.099 from the same samples of the whole, here 7e-8.
_RESAMPLER_REACH = 0.5  # s


class AudioError(Exception):
    """A recording that cannot be read; the message is the reason, in one line. It costs no other."""


class AudioInfo(NamedTuple):
    """Of a whole file: its format (WAV, MP3, ...), sample rate in Hz, duration in seconds.

    The duration is what the header says; of a few formats (AAC, AMR without a container) an estimate.
    """

    format: str
    sample_rate: int
    seconds: float


# The AudioInfo of many files as one array: zeros where there is none. The longest format is MATROSKA.
AUDIO_INFO = np.dtype([("format", "S8"), ("sample_rate", np.int32), ("seconds", np.float64)])


# ----------------------------------------------------------------- reading one file


def load_audio(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    max_samples: int | None = None,
    offset: float = 0.0,
) -> np.ndarray:
    """Decode, average the channels, resample (soxr, high quality), cut.

    Gives the samples of `librosa.load(path, sr=sample_rate)`, without the second that it takes to import
    librosa; with `offset` and `max_samples`, that part of them, but only what is needed for it is decoded and
    resampled.

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


# ---------------------------------------------------------------- as it is stored


class OpenAudio(Protocol):
    """A recording opened by `open_audio`."""

    info: AudioInfo

    def read(self, start: int, count: int | None) -> np.ndarray:
        """float32 [n, channels]: `count` samples from sample `start` on, or to the end; fewer at the end.

        To be called once. After a jump the first tenths of a second of a lossy format may be a little off.
        """


@contextmanager
def open_audio(path: str | Path) -> Iterator[OpenAudio]:
    """The file, open; whatever goes wrong with it in the block is an AudioError."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for without end
            raise AudioError("not a regular file")
        if Path(path).stat().st_size == 0:
            raise AudioError("the file is empty")
        with open(path, "rb") as file, ExitStack() as stack:
            try:
                # as bytes, since a name may be no text; Windows knows text only
                name = os.fsencode(path) if os.name == "posix" else path
                known = stack.enter_context(soundfile.SoundFile(name))
                reason = "" if known.seekable() else "cannot seek in it."  # nor tell its length
            except soundfile.LibsndfileError as error:
                reason = error.error_string
            yield stack.enter_context(_opened_by_ffmpeg(file, reason)) if reason else _Sndfile(known)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"libsndfile cannot read it: {error.error_string}") from error
    except OSError as error:
        raise AudioError(error.strerror or str(error)) from error
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise AudioError(f"cannot be decoded: {error}") from error


def mono(block: np.ndarray) -> np.ndarray:
    """[n, channels] -> [n], the mean of the channels."""
    return block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]


class _Sndfile:
    def __init__(self, file: soundfile.SoundFile):
        self.file = file
        self.info = AudioInfo(file.format, file.samplerate, file.frames / file.samplerate)

    def read(self, start: int, count: int | None) -> np.ndarray:
        if start:
            self.file.seek(min(start, self.file.frames))
        return self.file.read(-1 if count is None else count, dtype="float32", always_2d=True)


@contextmanager
def _opened_by_ffmpeg(file, libsndfile_says: str) -> Iterator[OpenAudio]:
    import av  # a tenth of a second: only when it is needed

    try:
        with av.open(file, options={"format_whitelist": _CONTAINERS}) as container:
            yield _Ffmpeg(container)
    except av.FFmpegError as error:
        raise AudioError(f"libsndfile: {libsndfile_says} ffmpeg: {error.strerror}") from error


class _Ffmpeg:
    def __init__(self, container: av.container.InputContainer):
        if not container.streams.audio:
            raise AudioError("no audio track in it")
        stream = container.streams.audio[0]
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise AudioError("no samples in it")
        self.rate = first.sample_rate  # the header's may be half of it (HE-AAC)
        self.frames = itertools.chain([first], frames)
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / 1e6  # which PyAV gives in microseconds
        self.info = AudioInfo(container.format.name.split(",")[0].upper(), self.rate, seconds)

    def read(self, start: int, count: int | None) -> np.ndarray:
        # Always from the beginning, without a jump: time stamps may be rounded to milliseconds, and AAC and
        # AMR fill in random noise that depends on all that came before.
        blocks, wanted, position = [], count, 0
        for frame in self.frames:
            block = self._samples(frame)[max(0, start - position) :][:wanted]
            position += frame.samples
            if len(block):
                blocks.append(block)
                if wanted is not None and (wanted := wanted - len(block)) == 0:
                    break
        return np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 [n, channels], integers scaled as libsndfile scales them."""
        if frame.sample_rate != self.rate:
            raise AudioError("its sample rate changes on the way")
        samples = frame.to_ndarray()  # planar [channels, n], packed [1, n * channels]
        if not frame.format.is_planar:
            samples = samples.reshape(frame.samples, -1).T
        if samples.dtype == np.uint8:
            samples = samples.astype(np.float32) / 128 - 1
        elif samples.dtype.kind == "i":
            samples = samples / np.float32(-np.iinfo(samples.dtype).min)
        return samples.T.astype(np.float32)


# ------------------------------------------------------------------------ batches

# Of a clip: its index, the padded wave or None, the reason it could not be read or "", what its header says.
Item = tuple[int, np.ndarray | None, str, AudioInfo | None]


class Clips:
    """Recordings as a data set for torch's DataLoader: item i is the i-th recording's clip, an `Item`.

    With n recordings item i is recording i modulo n: one that an epoch takes several times has an index of
    its own each time.

    Args:
        paths: the recordings' files.
        sample_rate: in Hz.
        clip_samples: how many samples of each are heard; shorter ones are repeated (`pad`).
        offset: where in each recording its clip begins, in seconds.
        load: reads a file, as `load_with_info` does.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sample_rate: int = SAMPLE_RATE,
        clip_samples: int = CLIP_SAMPLES,
        offset: float = 0.0,
        load: Load = load_with_info,
    ):
        # In one block: to look at a string counts as a use, and would copy its page of memory to each worker.
        names = [os.fsencode(path) for path in paths]
        self._names, self._ends = b"".join(names), np.cumsum([0, *map(len, names)])
        self.sample_rate = sample_rate
        self.clip_samples = clip_samples
        self.offset = offset
        self.load = load

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> Item:
        place = i % len(self)
        path = os.fsdecode(self._names[self._ends[place] : self._ends[place + 1]])
        try:
            wave, info = self.read(path, i)
        except AudioError as error:
            return i, None, str(error), None
        return i, pad(wave, self.clip_samples), "", info

    def read(self, path: str, i: int) -> tuple[np.ndarray, AudioInfo]:
        """Read what is heard of item i. Raises AudioError."""
        return self.load(path, self.sample_rate, self.clip_samples, self.offset)


def collate(items: list[Item]) -> tuple[list[int], torch.Tensor, dict[int, str], np.ndarray]:
    """Put items together.

    Returns:
        Indices and waves [B, T] of what could be read, the reasons for the rest by index, AUDIO_INFO [B].
    """
    import torch

    read = [(i, wave, info) for i, wave, _, info in items if wave is not None]
    waves = torch.from_numpy(np.stack([wave for _, wave, _ in read])) if read else torch.empty(0, 0)
    failures = {i: reason for i, wave, reason, _ in items if wave is None}
    return [i for i, *_ in read], waves, failures, np.array([info for *_, info in read], AUDIO_INFO)


def make_loader(
    clips: Clips, batches: Collection[Sequence[int]], workers: int = 0, start_method: str | None = None
) -> DataLoader:
    """Give batches as `collate` does, while worker processes decode ahead.

    Args:
        batches: the indices of each, anew for every pass.
        workers: how many processes decode; 0 decodes in this one.
        start_method: how they start ("fork", "spawn", "forkserver"); None is the system's own.
    """
    import torch
    from torch.utils.data import DataLoader

    workers = min(workers, len(batches)) if len(batches) > 1 else 0
    return DataLoader(
        clips,
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
