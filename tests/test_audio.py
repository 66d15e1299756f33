"""Recordings are read to their real end, whatever their headers say, and what is missing is said."""

import io
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from helpers import speech_like

from antispoofing.audio import AudioError, AudioInfo, _demuxed, cautions
from benchmarks.damage import KINDS, encode, measure
from data_utils import audio_info, load_with_info


def encoded(seconds: float, kind: str, codec: str, rate: int = 16000, pipe: bool = False, **how) -> bytes:
    """Return a recording as ffmpeg writes it to a file or to a pipe; see `encode`."""
    return encode(speech_like(seconds, rate)[:, 0], kind, codec, rate, pipe, **how)


def wav(seconds: float, subtype: str = "PCM_16") -> bytearray:
    """Return a WAV file at 16 kHz, mono; its data chunk has its size at 40 and its samples from 44 on."""
    target = io.BytesIO()
    soundfile.write(target, speech_like(seconds, 16000)[:, 0], 16000, format="WAV", subtype=subtype)
    return bytearray(target.getvalue())


def wav_that_promises(seconds: float, n_bytes: int) -> bytes:
    content = wav(seconds)
    content[40:44] = n_bytes.to_bytes(4, "little")
    return bytes(content)


def flac_that_promises(seconds: float, samples: int) -> bytes:
    """Return a FLAC file with another number of samples in its header: 36 bits from the middle of byte 21."""
    target = io.BytesIO()
    soundfile.write(target, speech_like(seconds, 16000)[:, 0], 16000, format="FLAC")
    content = bytearray(target.getvalue())
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def mp3(seconds: float, **options) -> bytes:
    return encoded(seconds, "mp3", "libmp3lame", **options)


NO_XING = {"write_xing": "0"}  # the frame in which an MP3 file says how many follow
LIST = b"LIST" + (4).to_bytes(4, "little") + b"INFO"

# By name: how many seconds it holds, and its content.
WHOLE = {
    "no-frame-count.mp3": (
        9,
        lambda: mp3(3, write_xing="0", bit_rate=128000) + mp3(6, write_xing="0", bit_rate=24000),
    ),
    "concatenated.mp3": (9, lambda: mp3(3) + mp3(6)),
    "other-rate.mp3": (9, lambda: mp3(3) + mp3(6, rate=24000)),
    "chained.ogg": (9, lambda: encoded(3, "ogg", "libopus", 48000) + encoded(6, "ogg", "libopus", 48000)),
    "unknown.flac": (4, lambda: flac_that_promises(4, 0)),
    "short.flac": (4, lambda: flac_that_promises(4, 16000)),
    "pipe.flac": (4, lambda: encoded(4, "flac", "flac", pipe=True)),
    "zero.wav": (4, lambda: wav_that_promises(4, 0)),
    "unknown.wav": (4, lambda: wav_that_promises(4, 0xFFFFFFFF)),
    "pipe.wav": (4, lambda: encoded(4, "wav", "pcm_s16le", pipe=True)),
    "chunk.wav": (4, lambda: bytes(wav(4)) + LIST),
    "pipe.webm": (4, lambda: encoded(4, "webm", "libopus", 48000, pipe=True)),
    "pipe.wv": (4, lambda: encoded(4, "wv", "wavpack", pipe=True)),
    "whole.m4a": (4, lambda: encoded(4, "ipod", "aac")),
    "whole.wma": (4, lambda: encoded(4, "asf", "wmav2", 44100, bit_rate=128000)),
}
# By name also what is said of it.
PARTIAL = {
    "promises-less.wav": (
        4,
        lambda: wav_that_promises(4, 32000),
        "promises less than the 4.00 s that it holds",
    ),
    "truncated.wav": (
        3,
        lambda: bytes(wav(4)[: 44 + 3 * 32000]),
        "promises 4.00 s, but there are only 3.00 s",
    ),
    "truncated.flac": (2, lambda: flac_that_promises(4, 64000)[:35000], "promises 4.00 s, but there"),
    "truncated.mp3": (2, lambda: mp3(4)[: len(mp3(4)) // 2], "promises 4."),
    "damaged.mp3": (4, lambda: damaged(mp3(4)), "promises 4.10 s, but there are only"),
}


def damaged(content: bytes) -> bytes:
    """Return a recording with nonsense in the middle: a tenth of its bytes."""
    middle, tenth = len(content) // 2, len(content) // 10
    noise = np.random.default_rng(0).bytes(tenth)
    return content[:middle] + noise + content[middle + tenth :]


@pytest.mark.parametrize("name", WHOLE)
def test_a_recording_is_read_to_its_real_end_without_a_word(name, tmp_path, capfd):
    seconds, content = WHOLE[name]
    (tmp_path / name).write_bytes(content())
    wave, info = load_with_info(tmp_path / name, 16000, None, 0.0)
    added = 0.15 if name.endswith(".mp3") else 0.0  # by the encoder, between two recordings
    assert len(wave) / 16000 == pytest.approx(seconds + added, abs=0.1)
    assert info.seconds == pytest.approx(len(wave) / 16000, abs=1e-3)
    assert audio_info(tmp_path / name).seconds == pytest.approx(seconds + added, abs=0.2)
    assert info.note == ""
    last = load_with_info(tmp_path / name, 16000, None, seconds - 0.5)[0]
    np.testing.assert_allclose(last, wave[-len(last) :], atol=1e-4)
    assert capfd.readouterr() == ("", "")  # libmpg123 and ffmpeg say nothing to the user


@pytest.mark.parametrize("name", PARTIAL)
def test_what_is_missing_is_said(name, tmp_path):
    seconds, content, words = PARTIAL[name]
    (tmp_path / name).write_bytes(content())
    wave, info = load_with_info(tmp_path / name, 16000, None, 0.0)
    assert words in info.note
    assert len(wave) / 16000 == pytest.approx(seconds, abs=0.6 if name == "damaged.mp3" else 0.3)
    assert info.seconds == pytest.approx(len(wave) / 16000, abs=0.1)


def test_cautions():
    loud = 3 * speech_like(2, 16000)[:, 0]
    assert cautions(loud / 10, 16000) == []
    for wave, words in (
        (loud / 10 * 0, "it is silent"),
        (loud / 10 * 0 + 0.3, "it is constant"),
        (loud[:8000] / 10, "it lasts less than 1 s"),
        (loud / np.abs(loud).max() * 30000, "its samples reach far beyond"),
    ):
        (found,) = cautions(wave, 16000)
        assert words in found
    assert cautions(loud / 10, 16000, "half of it is gone") == ["half of it is gone"]
    assert AudioInfo("WAV", 16000, 1.0).note == ""


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_clipped_recording_is_said_to_be(subtype, channels, tmp_path):
    speech = speech_like(2, 16000)[:, :1]
    speech = speech / np.abs(speech).max() * np.ones(channels)
    notes = {}
    for name, wave in {"whole": speech, "cut": np.clip(speech, -0.5, 0.5), "quiet": speech / 300}.items():
        wave[:, 1:] *= 0.1  # the other channel is another voice
        soundfile.write(tmp_path / f"{name}.wav", wave, 16000, subtype=subtype)
        for rate in (16000, 24000):
            notes[name] = load_with_info(tmp_path / f"{name}.wav", rate, None, 0.0)[1].note
            assert notes[name].endswith(" % of its samples are cut off at one value (clipped)") == (
                name == "cut"
            )
    share = 100 * np.mean(np.abs(speech[:, 0]) >= 0.5)
    assert float(notes["cut"].split()[0]) == pytest.approx(share, abs=1.5)


def test_what_is_constant_or_one_sided_is_not_called_clipped(tmp_path):
    wave = 0.5 * np.abs(speech_like(2, 16000)[:, 0])
    wave[:8000] = 0  # its lowest value in many samples
    for name, samples in {"half": wave, "constant": np.full(32000, 0.5)}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
        assert load_with_info(tmp_path / f"{name}.wav", 16000, None, 0.0)[1].note == ""


@pytest.mark.parametrize(("name", "kind"), [("a.mkv", "MATROSKA"), ("a.ogg", "OGG")])
def test_a_second_audio_track_is_said_to_be_unheard(name, kind, tmp_path):
    """As of a video whose first track is silent."""
    with av.open(str(tmp_path / name), "w") as container:
        packets: list[av.Packet] = []
        streams = [container.add_stream("flac", rate=16000, layout="mono") for _ in range(2)]
        for stream, loudness in zip(streams, (0, 1), strict=True):
            samples = (loudness * 20000 * speech_like(2, 16000)[:, 0]).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.rate = 16000
            packets += [*stream.encode(frame), *stream.encode(None)]
        container.mux([packet for packet in packets if packet.size])
    wave, info = load_with_info(tmp_path / name, 16000, None, 0.0)
    assert info.format == kind
    assert cautions(wave, 16000, info.note) == [
        "only the first of its 2 audio tracks is heard",
        "it is silent, or all but silent",
    ]


def test_packets_of_a_track_that_turns_up_late_are_passed_over():
    """Damage may make a packet belong to a track that the container has not announced."""
    left = iter([1, IndexError(), 2, IndexError(), 3])

    def demux(stream):
        for packet in left:
            if isinstance(packet, IndexError):
                raise packet
            yield packet

    container = SimpleNamespace(streams=SimpleNamespace(audio=["first"]), demux=demux)
    assert list(_demuxed(container)) == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_what_is_in_place_of_a_recording_is_named(name, tmp_path):
    contents = {"a web page": b"<html>Sign in</html>", "Git LFS": b"version https://git-lfs.example/spec/v1"}
    for words, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=words):
            load_with_info(tmp_path / name, 16000, None, 0.0)


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    for name, content in (("a.mp3", b"\xff\xfb" + bytes(50)), ("b.wav", b"RIFF"), ("c.flac", b"fLaC")):
        Path(tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError) as caught:
            load_with_info(tmp_path / name, 16000, None, 0.0)
        assert "\n" not in str(caught.value)


def test_nothing_of_damaged_recordings_is_left_out_without_a_word(tmp_path):
    """The short form of `python benchmarks/damage.py`."""
    heard = measure(files=120, longest=3.0, seed=3, folder=tmp_path)
    assert len(heard) > 150
    assert {one.kind.removesuffix(" from a pipe") for one in heard} == set(KINDS)
    assert [one for one in heard if one.outcome == "short"] == []
    assert [one for one in heard if not one.damage and one.outcome != "whole"] == []
    assert [one for one in heard if one.outcome == "failed" and one.by_ffmpeg > one.made / 2] == []
    assert sum(one.outcome != "failed" for one in heard) > 100
