"""Reading recordings of every kind, finding them, and surviving the bad ones."""

import os
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from data_utils import AudioError, find_utterances, load_audio, make_loader, pad
from errors import DataError


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """[n, channels]: a chirp in noise, louder in each next channel."""
    rng = np.random.default_rng(rate)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.2 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.02 * rng.standard_normal(len(t))
    return np.stack([wave * (1 + channel) / channels for channel in range(channels)], axis=1)


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
        rate = 24000  # Opus has no such rates
    path = tmp_path / f"clip.{suffix}"
    kind = {"opus": "OGG"}.get(suffix, suffix.upper())
    soundfile.write(path, tone(5, rate, channels=2), rate, format=kind, subtype=subtype)
    expected, _ = librosa.load(path, sr=16000)
    wave = load_audio(path)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, expected, atol=1e-6)
    # decoding only the beginning changes none of its samples
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


def write_bad_files(folder) -> dict[str, str]:
    """Files that cannot be read, and a word of the reason for each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.wav").write_text("this is not sound")
    (folder / "nothing.mp3").write_bytes(b"")
    (folder / "movie.m4a").write_bytes(b"\x00\x00\x00 ftypM4A " + bytes(100))
    soundfile.write(folder / "huge.wav", np.full((100, 2), 3e38), 16000, subtype="FLOAT")
    soundfile.write(folder / "no_samples.wav", np.zeros(0), 16000)
    soundfile.write(folder / "not_numbers.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    reasons = {
        "text.wav": "libsndfile",
        "nothing.mp3": "empty",
        "movie.m4a": "libsndfile",
        "huge.wav": "not numbers",
        "no_samples.wav": "no samples",
        "not_numbers.wav": "not numbers",
    }
    if sys.platform != "win32":
        (folder / "dangling.wav").symlink_to(folder / "gone")
        reasons["dangling.wav"] = "No such file"
        os.mkfifo(folder / "pipe.wav")
        reasons["pipe.wav"] = "not a regular file"
    return reasons


def test_unreadable_files_say_why(tmp_path):
    for name, word in write_bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=word) as caught:
            load_audio(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "headless.raw").write_bytes(bytes(100))  # soundfile asks for its sample rate
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(tmp_path / "headless.raw")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(*paths):
    result = find_utterances(paths)
    return {u.name: u.label for u in result.utterances}, {path.name for path in result.ignored}


def test_labels_come_from_folder_names_in_any_case_and_nesting(tmp_path):
    touch(
        tmp_path,
        "Set/Set/Real/a.wav",
        "Set/Set/FAKE/b.MP3",
        "x/bona-fide/deep/er/c.flac",
        "x/Bona_Fide/d.ogg",
        "x/bonafide/e.opus",
        "genuine/f.wav",
        "spoof/g.wav",
        "other/really/h.wav",
        "i.wav",
    )
    labels, _ = found(tmp_path)
    assert labels == {
        "Set/Set/Real/a.wav": "bonafide",
        "Set/Set/FAKE/b.MP3": "spoof",
        "x/bona-fide/deep/er/c.flac": "bonafide",
        "x/Bona_Fide/d.ogg": "bonafide",
        "x/bonafide/e.opus": "bonafide",
        "genuine/f.wav": "bonafide",
        "spoof/g.wav": "spoof",
        "other/really/h.wav": "",
        "i.wav": "",
    }


def test_what_is_not_a_recording_is_left_out_and_named(tmp_path):
    touch(tmp_path, "a.wav", "notes.txt", ".hidden.wav", "__MACOSX/._a.wav", ".cache/b.wav", "c.m4a")
    assert found(tmp_path) == ({"a.wav": "", "c.m4a": ""}, {"notes.txt"})


def test_files_and_lists_of_files(tmp_path):
    touch(tmp_path, "Real/a.wav", "Real/b.wav", "Fake/c.wav", "odd.bin")
    real, fake = tmp_path / "Real", tmp_path / "Fake"
    assert found(real / "a.wav")[0] == {"a.wav": ""}
    assert found(real)[0] == {"a.wav": "", "b.wav": ""}
    assert found(real / "a.wav", fake / "c.wav")[0] == {"Real/a.wav": "bonafide", "Fake/c.wav": "spoof"}
    assert found(real, fake, real / "a.wav")[0].keys() == {"Real/a.wav", "Real/b.wav", "Fake/c.wav"}
    assert found(tmp_path / "odd.bin")[0] == {"odd.bin": ""}  # asked for by name


def test_the_root_folders_own_name_is_no_label(tmp_path):
    touch(tmp_path, "fake or real/fake/a.wav", "fake/real/b.wav")
    assert found(tmp_path / "fake or real")[0] == {"fake/a.wav": "spoof"}
    assert found(tmp_path / "fake")[0] == {"real/b.wav": "bonafide"}
    with pytest.raises(DataError, match="not clear"):
        find_utterances([tmp_path])


def test_missing_and_empty_data(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such"):
        find_utterances([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no recordings"):
        find_utterances([tmp_path])
    with pytest.raises(DataError, match="empty path"):
        find_utterances([""])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "data/real/a.wav", "elsewhere/b.wav")
    (tmp_path / "data" / "fake").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "real" / "up").symlink_to(tmp_path / "data")
    assert found(tmp_path / "data")[0] == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_file_reached_twice_counts_once_with_its_label(tmp_path):
    touch(tmp_path, "data/real/a.wav", "data/fake/b.wav")
    (tmp_path / "data" / "all").symlink_to(tmp_path / "data" / "real")
    assert found(tmp_path / "data")[0] == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}
    (tmp_path / "data" / "fake" / "also.wav").symlink_to(tmp_path / "data" / "real" / "a.wav")
    with pytest.raises(DataError, match="called real and fake"):
        find_utterances([tmp_path / "data"])


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.wav", "b/y.wav")
    listing = Path.iterdir

    def iterdir(folder):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DataError, match="b cannot be searched: Permission denied"):
        find_utterances([tmp_path])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_names_that_are_no_text_are_escaped(tmp_path):
    touch(tmp_path, os.fsdecode(b"real/\xff\xfe.wav"), "fake/b.wav")
    assert found(tmp_path)[0] == {"real/\\xff\\xfe.wav": "bonafide", "fake/b.wav": "spoof"}


START_METHODS = [None, "spawn"] + (["fork", "forkserver"] if os.name == "posix" else [])


@pytest.mark.parametrize("start_method", START_METHODS)
def test_bad_files_cost_no_other_file(start_method, tmp_path):
    reasons = write_bad_files(tmp_path)
    waves = {f"good{i}.wav": tone(1 + i, 16000)[:, 0].astype(np.float32) for i in range(5)}
    for name, wave in waves.items():
        soundfile.write(tmp_path / name, wave, 16000, subtype="FLOAT")
    utterances = find_utterances([tmp_path]).utterances
    workers = 0 if start_method is None else 2
    read, failed = {}, {}
    for indices, batch, failures in make_loader(
        utterances, batch_size=3, workers=workers, start_method=start_method
    ):
        assert batch.dtype == torch.float32
        read |= {utterances[i].name: wave.numpy() for i, wave in zip(indices, batch, strict=False)}
        failed |= {utterances[i].name: reason for i, reason in failures.items()}
    assert failed.keys() == reasons.keys()
    assert all(reasons[name] in reason for name, reason in failed.items())
    assert read.keys() == waves.keys()
    for name, wave in waves.items():
        np.testing.assert_array_equal(read[name], pad(wave))
