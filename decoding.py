"""One recording's samples as they are stored: its own sample rate, all channels.

libsndfile reads what it knows (wav, flac, mp3, ogg, opus, aiff, ...). PyAV, with ffmpeg inside, reads the
rest (m4a, mp4, webm, wma, amr, 3gp, ...), of a video its first audio track.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import soundfile

if TYPE_CHECKING:
    import av

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
