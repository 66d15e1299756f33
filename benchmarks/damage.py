"""Measure how much is heard of damaged recordings, compared with what ffmpeg decodes of them.

    python benchmarks/damage.py                   # 1,000 damaged recordings of 2 to 60 s
    python benchmarks/damage.py --files 50 --longest 6 --json damage.json

Recordings are written in every container and codec below, to files and to pipes, which know no length. Each
damaged one has been cut short, or has lost or gained bytes in the middle, or has other lengths in its header.
It is read whole, and so it is by ffmpeg alone, which goes on after what it cannot decode. A recording is
"short" if more than 0.1 s of what ffmpeg decodes are missing without a word: there should be none. It "fails"
if it cannot be read; that counts against the reader if ffmpeg decodes more than half of the recording. What
is not damaged must be heard whole, without a word.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import text
from data_utils import AudioError, load_with_info

UNSAID = 0.1  # seconds that may be missing without a word
VORBIS = "vorbis, by libsndfile"  # since the ffmpeg of PyAV cannot encode it
# By suffix: container, codec and sample rate.
KINDS = {
    "wav": ("wav", "pcm_s16le", 16000),
    "mulaw.wav": ("wav", "pcm_mulaw", 8000),
    "adpcm.wav": ("wav", "adpcm_ms", 16000),
    "w64": ("w64", "pcm_s16le", 16000),
    "aiff": ("aiff", "pcm_s16be", 16000),
    "au": ("au", "pcm_s16be", 16000),
    "caf": ("caf", "pcm_s16le", 16000),
    "flac": ("flac", "flac", 16000),
    "mp3": ("mp3", "libmp3lame", 16000),
    "44.mp3": ("mp3", "libmp3lame", 44100),
    "opus": ("ogg", "libopus", 48000),
    "ogg": ("ogg", VORBIS, 16000),
    "webm": ("webm", "libopus", 48000),
    "mka": ("matroska", "aac", 16000),
    "m4a": ("ipod", "aac", 16000),
    "lossless.m4a": ("ipod", "alac", 16000),
    "mov": ("mov", "aac", 16000),
    "aac": ("adts", "aac", 16000),
    "wma": ("asf", "wmav2", 16000),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "3gp": ("3gp", "libopencore_amrnb", 8000),
    "ac3": ("ac3", "ac3", 48000),
    "wv": ("wv", "wavpack", 16000),
    "avi": ("avi", "libmp3lame", 16000),
    "flv": ("flv", "libmp3lame", 44100),
    "ts": ("mpegts", "aac", 16000),
}
# The containers that ffmpeg can write to a pipe.
STREAMED = {
    "wav",
    "au",
    "flac",
    "mp3",
    "webm",
    "matroska",
    "adts",
    "asf",
    "ac3",
    "wv",
    "flv",
    "mpegts",
}


class Pipe(io.RawIOBase):
    """A file in which nobody can go back."""

    def __init__(self):
        self.content = bytearray()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, part) -> int:
        """Append bytes, and return how many."""
        self.content += part
        return len(part)


class Heard(NamedTuple):
    """How a recording was heard.

    Attributes:
        kind: Its kind, one of KINDS.
        damage: What was done to it; "" for nothing.
        made: Its duration before that, in seconds.
        by_ffmpeg: What ffmpeg decodes of it, in seconds.
        here: What is heard here; None if it cannot be read.
        said: What is said of it.
    """

    kind: str
    damage: str
    made: float
    by_ffmpeg: float
    here: float | None
    said: str

    @property
    def outcome(self) -> str:
        """Whether it was heard "whole" (as ffmpeg hears it), in "part" and said so, "short", or "failed"."""
        if self.here is None:
            return "failed"
        if self.here >= self.by_ffmpeg - UNSAID and not (self.said and not self.damage):
            return "whole"
        return "part" if self.said else "short"


def encode(
    wave: np.ndarray, container: str, codec: str, rate: int, piped: bool, bit_rate: int = 0, **options: str
) -> bytes:
    """Return a recording, float32 [n], as ffmpeg writes it to a file or to a pipe.

    Args:
        wave: The samples, at `rate` in Hz.
        container: ffmpeg's name of the container.
        codec: ffmpeg's name of the encoder, or VORBIS.
        rate: The sample rate, in Hz.
        piped: Whether to write to a pipe, so that no length can be written into the header afterwards.
        bit_rate: In bits per second; 0 for the encoder's own.
        **options: The container's options.
    """
    target = Pipe() if piped else io.BytesIO()
    if codec == VORBIS:
        soundfile.write(target, wave, rate, format="OGG", subtype="VORBIS")
        return target.getvalue()
    with av.open(target, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        context = stream.codec_context
        if bit_rate:
            context.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(context.format.name, "mono", rate, context.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode())
    return bytes(target.content) if isinstance(target, Pipe) else target.getvalue()


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning of a recording."""
    return content[: int(rng.uniform(0.1, 0.95) * len(content))]


def lose(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a recording without some of the bytes in its middle."""
    at, n = (int(share * len(content)) for share in (rng.uniform(0.2, 0.7), rng.uniform(0.001, 0.2)))
    return content[:at] + content[at + n :]


def gain(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a recording with nonsense in its middle."""
    at, n = (int(share * len(content)) for share in (rng.uniform(0.2, 0.8), rng.uniform(0.001, 0.05)))
    return content[:at] + rng.bytes(n) + content[at:]


def lengths(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a recording in whose header some of the 32-bit numbers that could be lengths are others."""
    result, size = bytearray(content), len(content)
    order = rng.choice(["little", "big"])
    for at in rng.permutation(np.arange(4, min(400, size - 4))):
        value = int.from_bytes(result[at : at + 4], order)
        if 0 < size - value < size and value > size // 4:
            other = int(value * rng.choice([0, 0.3, 0.7, 1.5, 4]))
            result[at : at + 4] = min(other, 2**32 - 1).to_bytes(4, order)
            return bytes(result)
    return bytes(result)


DAMAGES = {"cut short": cut, "bytes lost": lose, "bytes gained": gain, "other lengths": lengths}


def decoded(path: Path) -> float:
    """Return how many seconds ffmpeg decodes, which goes on after what it cannot decode."""
    samples, rate = 0, 1
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            if not file.streams.audio:
                return 0.0
            for packet in file.demux(file.streams.audio[0]):
                try:
                    for frame in packet.decode():
                        samples, rate = samples + frame.samples, frame.sample_rate
                except av.InvalidDataError:
                    continue
    except (av.FFmpegError, IndexError):
        pass  # it ends here; IndexError is PyAV's for a packet of a track that turns up late
    return samples / rate


def hear(path: Path, kind: str, damage: str, made: float) -> Heard:
    """Read a recording whole, and by ffmpeg."""
    try:
        wave, info = load_with_info(path, 16000, None, 0.0)
    except AudioError as error:
        return Heard(kind, damage, made, decoded(path), None, str(error))
    return Heard(kind, damage, made, decoded(path), len(wave) / 16000, info.note)


def measure(files: int, longest: float, seed: int, folder: Path) -> list[Heard]:
    """Write and read whole recordings of every kind, and so many damaged ones."""
    rng = np.random.default_rng(seed)
    kinds = [(name, False) for name in KINDS] + [
        (name, True) for name, (container, *_) in KINDS.items() if container in STREAMED
    ]
    heard: list[Heard] = []
    for number in range(-len(kinds), files):
        name, piped = kinds[number % len(kinds)]
        container, codec, rate = KINDS[name]
        seconds = rng.uniform(2, longest)
        wave = 0.1 * rng.standard_normal(int(seconds * rate), np.float32)
        content = encode(wave, container, codec, rate, piped, 64000 if codec == "wmav2" else 0)
        damage = "" if number < 0 else list(DAMAGES)[int(rng.integers(len(DAMAGES)))]
        path = folder / f"{number}.{name}"
        path.write_bytes(DAMAGES[damage](content, rng) if damage else content)
        heard.append(hear(path, f"{name}{' from a pipe' if piped else ''}", damage, seconds))
        path.unlink()
    return heard


def table(heard: list[Heard]) -> str:
    """Return a line for each damage, and one for each recording that is short or failed needlessly."""
    rows = [
        ("damage", "recordings", "whole", "part, said", "short", "failed", "of these, ffmpeg decodes half")
    ]
    for damage in ("", *DAMAGES):
        chosen = [one for one in heard if one.damage == damage]
        counts = collections.Counter(one.outcome for one in chosen)
        failed = sum(one.outcome == "failed" and one.by_ffmpeg > one.made / 2 for one in chosen)
        numbers = [counts[outcome] for outcome in ("whole", "part", "short", "failed")]
        rows.append((damage or "none", *map(str, (len(chosen), *numbers, failed))))
    lines = [
        f"{one.outcome}: {one.kind}, {one.damage or 'not damaged'}: {one.here} of {one.by_ffmpeg:.2f} s; "
        f"{one.said}"
        for one in heard
        if one.outcome == "short"
        or (one.outcome == "failed" and one.by_ffmpeg > one.made / 2)
        or (not one.damage and one.outcome != "whole")
    ]
    return "\n".join([text.aligned(rows), *lines])


def main() -> None:
    """Measure, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=1000, help="damaged recordings (default: %(default)s)")
    parser.add_argument(
        "--longest", type=float, default=60.0, help="longest recording, in seconds (default: %(default)g)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all recordings to this file")
    args = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    with tempfile.TemporaryDirectory() as folder:
        heard = measure(args.files, args.longest, args.seed, Path(folder))
    if args.json:
        found = [one._asdict() | {"outcome": one.outcome} for one in heard]
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(heard))


if __name__ == "__main__":
    main()
