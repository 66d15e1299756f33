"""Reading recordings of every format, and surviving bad ones."""

import multiprocessing
import os
import signal

import librosa
import numpy as np
import pytest
import soundfile
import torch
from helpers import tone, write_bad_files

from antispoofing.data.recordings import find_recordings
from data_utils import AudioError, Clips, load_audio, make_loader, pad

FORMATS = [
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "FLOAT"),
    ("wav", "ULAW"),
    ("flac", "PCM_16"),
    ("mp3", "MPEG_LAYER_III"),
    ("ogg", "VORBIS"),
    ("opus", "OPUS"),
    ("aiff", "PCM_16"),
]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
def test_every_format_and_rate_reads_as_librosa_reads_it(suffix, subtype, rate, tmp_path):
    if subtype == "OPUS" and rate in (22050, 44100):
        rate = 24000  # Opus does not have these rates
    path = tmp_path / f"clip.{suffix}"
    kind = {"opus": "OGG"}.get(suffix, suffix.upper())
    soundfile.write(path, tone(5, rate, channels=2), rate, format=kind, subtype=subtype)
    expected, _ = librosa.load(path, sr=16000)
    wave = load_audio(path)
    assert wave.dtype == np.float32
    # ffmpeg decodes MP3, and libmpg123 for librosa.
    np.testing.assert_allclose(wave, expected, atol=3e-6 if suffix == "mp3" else 1e-6)
    # Decoding only the beginning changes none of its samples.
    np.testing.assert_array_equal(load_audio(path, max_samples=64600), wave[:64600])


def test_stereo_is_averaged(tmp_path):
    left, right = np.full(1000, 0.5), np.full(1000, -0.25)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "stereo.wav"), np.full(1000, 0.125, np.float32))


def test_pad_cuts_or_repeats_end_to_end():
    x = np.arange(5)
    np.testing.assert_array_equal(pad(x, 3), [0, 1, 2])
    np.testing.assert_array_equal(pad(x, 5), x)
    np.testing.assert_array_equal(pad(x, 12), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1])
    assert len(pad(np.zeros(20000, np.float32))) == 64600
    with pytest.raises(ValueError, match="without samples"):
        pad(np.zeros(0))


def test_unreadable_files_say_why(tmp_path):
    for name, word in write_bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=word) as caught:
            load_audio(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "headless.raw").write_bytes(bytes(100))  # soundfile asks for its sample rate
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(tmp_path / "headless.raw")


START_METHODS = [None, "spawn"] + (["fork", "forkserver"] if os.name == "posix" else [])


@pytest.mark.parametrize("start_method", START_METHODS)
def test_bad_files_do_not_affect_others(start_method, tmp_path):
    reasons = write_bad_files(tmp_path)
    waves = {f"good{i}.wav": tone(1 + i, 16000)[:, 0].astype(np.float32) for i in range(5)}
    for name, wave in waves.items():
        soundfile.write(tmp_path / name, wave, 16000, subtype="FLOAT")
    waves["quiet.wav"] = np.zeros(8000, np.float32)
    soundfile.write(tmp_path / "quiet.wav", waves["quiet.wav"], 16000, subtype="FLOAT")
    utterances = find_recordings([tmp_path]).utterances
    workers = 0 if start_method is None else 2
    read, failed = {}, {}
    clips = Clips([utterance.path for utterance in utterances])
    batches = [range(0, 3), range(3, len(utterances))]
    notes = {}
    for indices, batch, failures, infos, noted in make_loader(clips, batches, workers, start_method):
        assert batch.dtype == torch.float32
        notes |= {utterances[i].name: note for i, note in noted.items()}
        read |= {utterances[i].name: wave.numpy() for i, wave in zip(indices, batch, strict=False)}
        failed |= {utterances[i].name: reason for i, reason in failures.items()}
        lengths = [len(waves[utterances[i].name]) / 16000 for i in indices]
        assert infos.tolist() == [(b"WAV", 16000, length, min(length, 4.0375)) for length in lengths]
    assert failed.keys() == reasons.keys()
    assert all(reasons[name] in reason for name, reason in failed.items())
    assert read.keys() == waves.keys()
    assert notes == {
        "quiet.wav": "it lasts less than 1 s, which is too short to judge; it is silent, or all but silent"
    }
    for name, wave in waves.items():
        np.testing.assert_array_equal(read[name], pad(wave))


def test_workers_ignore_signals_to_the_whole_process_group(tmp_path):
    """The main process may need its clips to finish a step, however long that takes."""
    for i in range(20):
        soundfile.write(tmp_path / f"{i}.wav", np.full(8000, 0.5), 16000)
    batches = [[i] for i in range(20)]
    loader = iter(make_loader(Clips([str(tmp_path / f"{i}.wav") for i in range(20)]), batches, workers=1))
    next(loader)
    (child,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) * 2:
        os.kill(child.pid, number)
    assert len(list(loader)) == 19
    child.join(20)
    assert child.exitcode == 0
