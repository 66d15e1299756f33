"""Recordings as files: what decodes of them, and how long that is.

A header is not believed as to length. Streams, chunks put together and unfinished files have none, or a wrong
one, and a reader that trusts it leaves out the rest without a word. So the length is that of what the file
holds: of uncompressed samples by the number of bytes, of everything else by ffmpeg's packets, which takes a
seventh to a third of the time of decoding. What a header promises and the file does not hold is said in
`AudioInfo.note`.

libsndfile reads WAV, AIFF and other files of uncompressed samples, FLAC and Ogg; ffmpeg (in PyAV) reads the
rest, and those of which libsndfile would not hear everything.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

import numpy as np
import soundfile

from antispoofing.files import in_its_place
from antispoofing.text import per_cent

if TYPE_CHECKING:
    import av

# The containers that ffmpeg may open. Playlists are not among them, since they make it read other files.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,mov,matroska,mp3,mpeg,mpegts,ogg,w64,wav,wv"
)

# The containers whose header promises a duration; that of the others is an estimate.
_PROMISING = {"aiff", "au", "avi", "caf", "flac", "flv", "matroska", "mov", "w64", "wav", "wv"}

# Bytes in a sample of one channel, by libsndfile's subtype; what is not here is compressed.
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_SAMPLE_BYTES |= {"ULAW": 1, "ALAW": 1}

# How many zeros may follow the samples of a WAV file.
_PADDING_BYTES = 4096

# What may be missing without a word, in seconds: what a lossy codec adds at both ends; and what is damaged.
_SLACK, _LOST = 0.25, 0.1

SHORT = 1.0  # seconds; a shorter recording is too short to judge
SILENT = 2e-3  # a recording is silent if its samples span less: -60 dB of full scale
CLIPPED = 2e-3  # the share of samples cut off at one value from which a recording counts as clipped,
CLIPPED_FROM = 0.1  # if that value is at least this, of full scale
LOUDEST = 1.5  # of full scale, which resampling and lossy codecs exceed a little

# Codecs in which a part of a recording is decoded to the same samples as in the whole, from _PREROLL seconds
# before it on. AAC and AMR fill in random noise that depends on everything before.
_SKIPPABLE = {"mp3", "mp3float", "vorbis", "opus", "flac"}
_PREROLL = 0.5


class AudioError(Exception):
    """A recording cannot be read; the message is the reason, in one line. It does not affect others."""


class AudioInfo(NamedTuple):
    """The properties of a whole file.

    Attributes:
        format: The container or format, in capitals: WAV, MP3, ...
        sample_rate: The sample rate in Hz.
        seconds: The duration of what it holds.
        note: What cannot be heard of it, or is wrong with it, in words; "" if nothing is known to be.
    """

    format: str
    sample_rate: int
    seconds: float
    note: str = ""


class OpenAudio(Protocol):
    """A recording opened by `open_audio`."""

    info: AudioInfo

    def read(self, start: int, count: int | None) -> np.ndarray:
        """Return `count` samples from sample `start` on, fewer at the end of the file; None reads to the end.

        This can be called once only. It may add to `info.note`.

        Returns:
            float32 [n, channels], at the file's own sample rate.
        """


@contextmanager
def open_audio(path: str | Path) -> Iterator[OpenAudio]:
    """Open a recording; whatever goes wrong with it in the `with` block becomes an AudioError.

    Raises:
        AudioError: If the file cannot be opened or decoded, or is empty or not a regular file.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe could wait for ever
            raise AudioError("it is not a regular file")
        if Path(path).stat().st_size == 0:
            raise AudioError("the file is empty")
        with open(path, "rb") as file, ExitStack() as stack:
            yield _opened(path, file, stack)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"libsndfile cannot read it: {error.error_string}") from error
    except OSError as error:
        raise AudioError(error.strerror or str(error)) from error
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise AudioError(f"it cannot be decoded: {error}") from error


def cautions(wave: np.ndarray, sample_rate: int, note: str = "") -> list[str]:
    """Describe what makes any verdict on a recording doubtful; empty if nothing does.

    Args:
        wave: What was read of it, float32 [n], n >= 1.
        sample_rate: In Hz.
        note: What is known of its file (`AudioInfo.note`).
    """
    found = [note] if note else []
    if len(wave) < SHORT * sample_rate:
        found.append(f"it lasts less than {SHORT:g} s, which is too short to judge")
    if np.ptp(wave) < SILENT:
        what = "silent" if np.abs(wave).max() < SILENT else "constant"
        found.append(f"it is {what}, or all but {what}")
    if np.abs(wave).max() > LOUDEST:
        found.append("its samples reach far beyond [-1, 1], so it is louder than what detectors are made for")
    return found


def clipping(samples: np.ndarray) -> str:
    """Say how many of a channel's samples are cut off at one value; "" if that is not so, or is rare.

    Counted are runs of three or more samples that all have the highest or the lowest value. A louder sample
    elsewhere hides them; resampling and lossy codecs blur them, so that of such files this shows only what
    they cut off themselves. Tones of low frequency or few bits have such runs without being cut off.

    Args:
        samples: As decoded, [n, channels].
    """
    most = 0.0
    for channel in samples.T:
        loudness = np.abs(channel)
        # Where this is not so, the highest values are not a plateau, but rare, or steps of few bits.
        peak = loudness.max(initial=0)
        if peak < CLIPPED_FROM or np.mean(loudness >= 0.9 * peak) < 5 * CLIPPED or np.ptp(channel) < SILENT:
            continue
        count = 0
        for extreme in (channel.max(), channel.min()):
            if abs(extreme) >= 0.9 * peak:
                edges = np.flatnonzero(np.diff(channel == extreme, prepend=False, append=False))
                lengths = edges[1::2] - edges[::2]
                count += lengths[lengths >= 3].sum()
        most = max(most, count / len(channel))
    return f"{per_cent(most)} % of its samples are cut off at one value (clipped)" if most >= CLIPPED else ""


def _opened(path: str | Path, file: BinaryIO, stack: ExitStack) -> OpenAudio:
    """Open a recording by libsndfile if that hears all of it, otherwise by ffmpeg."""
    riff, sndfile, reason = _read_riff(file), None, ""
    # libsndfile would say on stderr what it thinks of the headers of MP3, and of what is called so.
    if not _is_mpeg(file) and Path(path).suffix.lower() != ".mp3":
        try:
            # The name goes in as bytes, since it may not be valid text; Windows takes text only.
            name = os.fsencode(path) if os.name == "posix" else path
            sndfile = stack.enter_context(soundfile.SoundFile(name))
        except soundfile.LibsndfileError as error:
            reason = f"libsndfile: {error.error_string} "
    if sndfile is not None and _hears_all(sndfile, riff, file):
        return _Sndfile(sndfile, riff, lambda: stack.enter_context(_Ffmpeg(file, riff)))
    try:
        return stack.enter_context(_Ffmpeg(file, riff))
    except AudioError as error:
        if sndfile is None or not sndfile.frames:
            raise AudioError(in_its_place(path) or f"{reason}{error}") from error
        return _Sndfile(sndfile, riff, None)  # of a kind that ffmpeg does not read


def _hears_all(sndfile: soundfile.SoundFile, riff: _Riff | None, file: BinaryIO) -> bool:
    """Check whether the number of samples in libsndfile's reading of a header is that of the file."""
    if not sndfile.seekable() or not sndfile.frames:
        return False
    if sndfile.subtype in _SAMPLE_BYTES and sndfile.format != "FLAC":
        if riff is not None:
            return not riff.goes_on
        width = sndfile.channels * _SAMPLE_BYTES[sndfile.subtype]
        others = os.fstat(file.fileno()).st_size / width - sndfile.frames  # as samples, if they were some
        return others < _LOST / 2 * sndfile.samplerate
    if sndfile.format not in ("FLAC", "OGG"):
        return False
    with _container(file) as container:
        if len(container.streams.audio) > 1:  # which libsndfile does not tell
            return False
        apart = _packets(container).seconds - sndfile.frames / sndfile.samplerate
    return abs(apart) < (_SLACK if sndfile.format == "OGG" else 0.5 / sndfile.samplerate)


class _Riff(NamedTuple):
    """What a WAV file says of its samples.

    Attributes:
        promised: How many bytes of samples the header promises; None if it leaves that open.
        present: How many bytes follow, up to the next chunk if the header says truly where that is.
        goes_on: Whether there are samples after those that the header promises.
    """

    promised: int | None
    present: int
    goes_on: bool


def _read_riff(file: BinaryIO) -> _Riff | None:
    """Read how many bytes of samples a RIFF or RF64 file has; None for files of another kind.

    Source: IBM and Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return None
    at, large = 12, None
    while at + 8 <= size:
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data":
            if length == 0xFFFFFFFF and large is not None:
                length = large
            present = size - at - 8
            if length in (0, 0x7FFFFFFF, 0xFFFFFFFF) or (length > present and length >= 0x7FFFFF00):
                return _Riff(None, present, goes_on=length == 0)
            after = at + 8 + length + length % 2
            return _Riff(length, min(length, present), after < size and not _are_chunks(file, after, size))
        at += 8 + length + length % 2
    return None


def _are_chunks(file: BinaryIO, at: int, size: int) -> bool:
    """Check whether the rest of a RIFF file consists of chunks with names, or of a few bytes of padding."""
    while at + 8 <= size:
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if not all(0x20 <= byte < 0x7F for byte in name) and any(name):
            return False
        if not any(name):  # zeros
            return size - at <= _PADDING_BYTES
        at += 8 + length + length % 2
    return at <= size + 1


class _Sndfile:
    """A recording that libsndfile reads; where it stops early, ffmpeg does, which goes on after damage."""

    def __init__(
        self, file: soundfile.SoundFile, riff: _Riff | None, by_ffmpeg: Callable[[], OpenAudio] | None
    ):
        self.file, self.by_ffmpeg = file, by_ffmpeg
        seconds = file.frames / file.samplerate
        note = ""
        if riff is not None and riff.promised is not None and riff.promised > riff.present:
            note = _missing(riff.promised / riff.present * seconds, seconds)
        self.info = AudioInfo(file.format, file.samplerate, seconds, note)

    def read(self, start: int, count: int | None) -> np.ndarray:
        frames = self.file.frames
        wanted = max(0, frames - start) if count is None else min(count, max(0, frames - start))
        if start:
            self.file.seek(min(start, frames))
        try:
            samples = self.file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            if self.by_ffmpeg is None:
                raise
        else:
            if len(samples) == wanted or self.by_ffmpeg is None:
                return samples
        other = self.by_ffmpeg()
        samples = other.read(start, count)
        self.info = other.info
        return samples


class _ForFfmpeg:
    """A file in which a senseless seek has an error code, as ffmpeg expects, rather than an exception."""

    def __init__(self, file: BinaryIO):
        self.file, self.read, self.tell, self.seekable = file, file.read, file.tell, file.seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


@contextmanager
def _container(file: BinaryIO, **options: str) -> Iterator[av.container.InputContainer]:
    """Open a file by ffmpeg, from its beginning."""
    import av  # takes a tenth of a second: imported only when needed

    file.seek(0)
    try:
        settings = {"format_whitelist": _CONTAINERS} | options
        with av.open(_ForFfmpeg(file), "r", options=settings, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError("it has no audio track")
            for stream in container.streams:
                if stream != container.streams.audio[0]:
                    stream.discard = av.stream.Discard.all
            yield container
    except av.FFmpegError as error:
        raise AudioError(f"ffmpeg: {error.strerror}") from error


class _Packets(NamedTuple):
    """What is known of a container's audio without decoding it.

    Attributes:
        seconds: The duration of its packets.
        is_one: Whether their time stamps are those of one piece, without gaps.
    """

    seconds: float
    is_one: bool


def _demuxed(container: av.container.InputContainer) -> Iterator[av.Packet[av.AudioStream] | None]:
    """Yield the packets of a container's audio; None as the last one if it is damaged from there on."""
    import av

    packets = container.demux(container.streams.audio[0])
    while True:
        try:
            yield next(packets)
        except StopIteration:
            return
        except (
            IndexError
        ):  # a packet of a track that turns up only now, which PyAV does not know: go on after it
            packets = container.demux(container.streams.audio[0])
        except av.FFmpegError:
            yield None
            return


def _packets(container: av.container.InputContainer) -> _Packets:
    """Read all packets of a container's audio."""
    stream = container.streams.audio[0]
    ticks, longest, begin, end, count = 0, 0, None, 0, 0
    for packet in _demuxed(container):
        if packet is not None and packet.size:
            duration = packet.duration or 0
            ticks, longest, count = ticks + duration, max(longest, duration), count + 1
            if packet.pts is not None:
                begin, end = packet.pts if begin is None else begin, packet.pts + duration
    apart = None if begin is None else end - begin - ticks
    if apart is not None and abs(apart) <= longest + count:  # each duration may be rounded to a tick
        ticks += apart
    return _Packets(float(ticks * (stream.time_base or 0)), apart is not None and abs(apart) <= longest)


def _promised(container: av.container.InputContainer, first_frame: bytes) -> float | None:
    """Return the duration that a container's header promises; None if it promises none."""
    kind, stream = container.format.name.split(",")[0], container.streams.audio[0]
    if kind == "mp3":
        found = re.search(rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", first_frame, re.S)
        samples = 1152 if stream.rate >= 32000 else 576  # in a frame of MPEG-1, and of MPEG-2 and 2.5
        return int.from_bytes(found[1], "big") * samples / stream.rate if found else None
    if kind not in _PROMISING:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None  # PyAV gives it in microseconds


def _mpeg_frame(file: BinaryIO) -> bytes:
    """Return the beginning of the first frame of an MPEG audio file, which may say how many follow it."""
    file.seek(0)
    head, at = file.read(10), 0
    if head[:3] == b"ID3" and len(head) == 10:
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(at)
    return file.read(256)


def _is_mpeg(file: BinaryIO) -> bool:
    file.seek(0)
    if file.read(3) == b"ID3":
        return True
    first = _mpeg_frame(file)
    return len(first) > 1 and first[0] == 0xFF and first[1] & 0xE0 == 0xE0


def _missing(promised: float, seconds: float) -> str:
    return f"its header promises {promised:.2f} s, but there are only {seconds:.2f} s"


class _Ffmpeg:
    """A recording that ffmpeg reads.

    Seeking is inexact, since time stamps may be rounded to milliseconds: so it is read from its beginning,
    and where that changes nothing, what comes long before the wanted part is not decoded.
    """

    def __init__(self, file: BinaryIO, riff: _Riff | None):
        # With this, the samples go on to the end of the file, whatever the header says.
        options = {"ignore_length": "1"} if riff is not None and riff.goes_on else {}
        first_frame = _mpeg_frame(file)
        with _container(file, **options) as container:
            promised = _promised(container, first_frame) if riff is None else None
            seconds, is_one = _packets(container)
        self._stack = ExitStack()
        container = self._stack.enter_context(_container(file, **options))
        self.lost = 0.0  # seconds of packets that could not be decoded
        self.breaks_off = False  # whether the packets end in damage
        self.skip_to: int | None = None  # packets before this time stamp are not decoded
        self.wanted_from = 0  # then, what is wanted begins at this time stamp
        self.frames = self._decode(container)
        first = next(self.frames, None)
        if first is None:
            raise AudioError("it has no samples")
        self.begin, self.tick = first.pts or 0, first.time_base or Fraction(1, first.sample_rate)
        self.frames = itertools.chain([first], self.frames)
        name = container.streams.audio[0].codec_context.name
        self.can_skip = is_one and name in _SKIPPABLE and self.tick * first.sample_rate <= 1
        notes = []
        if riff is not None and riff.promised is not None and riff.goes_on:
            notes.append(f"its header promises less than the {seconds:.2f} s that it holds")
        elif promised is not None and promised - seconds > _SLACK:
            notes.append(_missing(promised, seconds))
        if (tracks := len(container.streams.audio)) > 1:
            notes.append(f"only the first of its {tracks} audio tracks is heard")
        note = "; ".join(notes)
        # The header may give half of the rate (HE-AAC).
        self.info = AudioInfo(_format(container, file), first.sample_rate, seconds, note)

    def __enter__(self) -> _Ffmpeg:
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def read(self, start: int, count: int | None) -> np.ndarray:
        rate, tick = self.info.sample_rate, self.tick
        if self.can_skip and start > 2 * _PREROLL * rate:
            self.wanted_from = self.begin + int(start / rate / tick)
            self.skip_to = self.wanted_from - int(_PREROLL / tick)
        blocks, wanted, position = [], count, 0
        for frame in self.frames:
            if self.skip_to is not None and frame.pts is not None:
                position = round((frame.pts * (frame.time_base or tick) - self.begin * tick) * rate)
            samples = _samples(frame)
            block = samples[max(0, start - position) :][:wanted]
            position += len(samples)
            if len(block):
                blocks.append(block)
                if wanted is not None and (wanted := wanted - len(block)) == 0:
                    break
        else:  # to the end of the file, so it is known how much there is
            seconds = position / rate
            self.lost = max(self.lost, self.info.seconds - seconds - _SLACK)
            self.info = self.info._replace(seconds=seconds)
        notes = [self.info.note] if self.info.note else []
        if self.lost > _LOST:
            notes.append(f"{self.lost:.2f} s of it are damaged and were left out")
        if self.breaks_off:
            notes.append(f"it is damaged from {self.info.seconds:.2f} s on")
        self.info = self.info._replace(note="; ".join(notes))
        return np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)

    def _decode(self, container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
        """Yield what can be decoded, in the format and at the rate of the first frame."""
        import av

        stream = container.streams.audio[0]
        like, resampler = None, None
        for packet in _demuxed(container):
            if packet is None:
                self.breaks_off = True
                return
            if self.skip_to is not None and packet.pts is not None and packet.pts < self.skip_to:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                if self.skip_to is None or packet.pts is None or packet.pts >= self.wanted_from:
                    self.lost += float((packet.duration or 0) * (stream.time_base or 0))
                continue
            for frame in decoded:
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                like = like or kind
                if kind == like:
                    yield frame
                    continue
                if resampler is None or resampler[0] != kind:
                    resampler = kind, av.AudioResampler(*like)
                yield from resampler[1].resample(frame)


def _format(container: av.container.InputContainer, file: BinaryIO) -> str:
    """Return a container's name; where one reader is for several (mov, mp4, m4a, ...), by the suffix."""
    names = container.format.name.split(",")
    suffix = Path(os.fsdecode(file.name)).suffix[1:].lower()
    return (suffix if suffix in names else names[0]).upper()


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Return a frame as float32 [n, channels], integers scaled as libsndfile scales them."""
    samples: np.ndarray = frame.to_ndarray()  # planar [channels, n], or packed [1, n * channels]
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype == np.uint8:
        samples = samples.astype(np.float32) / 128 - 1
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(-np.iinfo(samples.dtype).min)
    return samples.T.astype(np.float32)
