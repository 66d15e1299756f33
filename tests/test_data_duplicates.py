"""Duplicates are found by what they decode to, whatever their names and formats."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers import PRESETS, tone, write_bad_files, write_by_ffmpeg

import evaluate_custom
import fine_tune_for
from antispoofing.commands import audit
from antispoofing.data import duplicates
from antispoofing.data.duplicates import find_duplicates, fingerprint
from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.loading import save_detector
from model import Detector


def groups_of(*folders) -> list[list[str]]:
    splits = {
        folder.name if len(folders) > 1 else "": find_recordings([folder]).utterances for folder in folders
    }
    return [[member.name for member in group] for group in find_duplicates(splits).groups]


def test_formats_that_keep_every_sample_are_the_same(tmp_path):
    wave = (tone(1, 22050) * 32767).astype(np.int16)
    for name, kind, subtype in (
        ("a.wav", "WAV", "PCM_16"),
        ("b.wav", "WAV", "FLOAT"),
        ("c.flac", "FLAC", "PCM_16"),
        ("d.aiff", "AIFF", "PCM_24"),
    ):
        samples = wave / np.float32(32768) if subtype == "FLOAT" else wave
        soundfile.write(tmp_path / name, samples, 22050, format=kind, subtype=subtype)
    soundfile.write(tmp_path / "e.wav", np.repeat(wave, 2, axis=1), 22050)  # two equal channels
    with av.open(tmp_path / "f.m4a", "w") as file:
        stream = file.add_stream("alac", rate=22050, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave.T.copy(), format="s16p", layout="mono")
        frame.sample_rate = 22050
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert groups_of(tmp_path) == [["a.wav", "b.wav", "c.flac", "d.aiff", "e.wav", "f.m4a"]]


def test_any_difference_makes_another_recording(tmp_path):
    wave = (tone(1, 16000) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    other = wave.copy()
    other[-1] += 1
    soundfile.write(tmp_path / "one_step.wav", other, 16000)
    soundfile.write(tmp_path / "shorter.wav", wave[:-1], 16000)
    soundfile.write(tmp_path / "faster.wav", wave, 16001)
    soundfile.write(tmp_path / "lossy.mp3", wave, 16000)
    assert groups_of(tmp_path) == []


def test_long_recordings_are_compared_by_their_beginning_and_length(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "DECODED_SECONDS", 2)
    wave = (tone(10, 8000) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    soundfile.write(tmp_path / "b.flac", wave, 8000)
    soundfile.write(tmp_path / "cut.wav", wave[: 8000 * 7], 8000)
    soundfile.write(tmp_path / "end.wav", wave[: 8000 * 2], 8000)
    assert groups_of(tmp_path) == [["a.wav", "b.flac"]]


def test_classes_and_splits(tmp_path):
    waves = [tone(0.5, 8000 + i) for i in range(5)]
    for name, i in {
        "training/real/a.wav": 0,
        "training/real/b.wav": 1,
        "training/fake/c.wav": 1,
        "training/fake/d.wav": 2,
        "training/fake/e.wav": 2,
        "testing/fake/f.wav": 3,
        "testing/fake/g.wav": 4,
        "training/fake/h.wav": 4,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, waves[i], 8000)
    splits = {s: find_recordings([tmp_path / s]).utterances for s in ("training", "testing")}
    found = find_duplicates(splits, threads=2)
    assert [[member.name for member in group] for group in found.groups] == [
        ["training/fake/c.wav", "training/real/b.wav"],
        ["training/fake/h.wav", "testing/fake/g.wav"],
        ["training/fake/d.wav", "training/fake/e.wav"],
    ]
    first, *rest = found.describe().splitlines()
    assert first.startswith("AUDIT: 6 of 8 recordings share their audio with another one, in 3 groups (")
    assert first.endswith("(1 in both classes, 1 in two splits):")
    assert rest == [
        "the same audio in both classes: training/fake/c.wav = training/real/b.wav",
        "the same audio in two splits: training/fake/h.wav = testing/fake/g.wav",
        "the same audio: training/fake/d.wav = training/fake/e.wav",
    ]
    found.write(tmp_path / "duplicates.csv")
    with open(tmp_path / "duplicates.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[2] == {"group": "2", "split": "training", "path": "fake/h.wav", "label": "spoof"}


def test_channels_are_averaged_as_for_scoring(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.integers(-5000, 5000, (2, 8000)) * 2
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1).astype(np.int16), 8000)
    soundfile.write(tmp_path / "mean.wav", ((left + right) // 2).astype(np.int16), 8000)
    soundfile.write(tmp_path / "left.wav", left.astype(np.int16), 8000)
    assert groups_of(tmp_path) == [["mean.wav", "stereo.wav"]]


def test_an_output_that_cannot_be_written_is_reported_before_the_work(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    for output in (tmp_path, tmp_path / "gone" / "x.csv"):
        assert audit.main(["--data", str(tmp_path), "--output", str(output)]) == 2
        assert "name a file in an existing folder" in capsys.readouterr().err


def test_the_command_says_something_about_a_single_recording_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/bad.wav").write_bytes(b"bad")
    for expected in ("0 recordings; 1 could not be read", "1 recording; 1 could not be read"):
        assert audit.main(["--data", "data"]) == 0
        assert capsys.readouterr().out == f"Audit: no duplicates among {expected}.\n"
        soundfile.write("data/a.wav", tone(1, 8000), 8000)


@pytest.mark.parametrize("option", ["--root", "--phase"])
def test_options_that_do_nothing_for_splits_are_refused(option, workplace, capsys):
    value = {"--root": "for-2seconds", "--phase": "dev"}[option]
    assert audit.main(["--data", "for-2seconds", option, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: leave out {option}: ")
    assert error.count("\n") == 1


def test_unreadable_recordings_are_counted_and_not_duplicates(tmp_path):
    reasons = write_bad_files(tmp_path)
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    found = find_duplicates({"": find_recordings([tmp_path]).utterances})
    assert found.groups == []
    readable = ("huge.wav", "not_numbers.wav")  # they have samples, though strange ones
    assert found.n_failed == len(reasons) - len(readable)
    assert found.describe() == (
        f"Audit: no duplicates among {len(readable) + 1} recordings; {found.n_failed} could not be read."
    )


@pytest.mark.parametrize("name", ["a.m4a", "a.amr", "a.wma"])
def test_ffmpegs_formats_are_compared_too(name, tmp_path):
    write_by_ffmpeg(tmp_path / name, 3)
    (tmp_path / f"copy.{name}").write_bytes((tmp_path / name).read_bytes())
    assert fingerprint(tmp_path / name) == fingerprint(tmp_path / f"copy.{name}")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A small Fake-or-Real with one test recording also in training, and a detector."""
    monkeypatch.chdir(tmp_path)
    for s, split in enumerate(("training", "validation", "testing")):
        for c, label in enumerate(("fake", "real")):
            for i in range(2):
                path = Path("for-2seconds", split, label, f"{i}.wav")
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, tone(0.5, 8000 + 100 * s + 10 * c + i), 16000)
    Path("for-2seconds/testing/real/leak.wav").write_bytes(
        Path("for-2seconds/training/fake/0.wav").read_bytes()
    )
    save_detector(Detector(PRESETS["small"]), "detector.safetensors")
    return tmp_path


def test_it_comes_before_training_and_before_scoring(workplace, capsys):
    leak = "the same audio in both classes, in two splits: training/fake/0.wav = testing/real/leak.wav"
    assert audit.main(["--data", "for-2seconds"]) == 0
    assert leak in capsys.readouterr().out
    assert Path("duplicates.csv").is_file()

    args = ["--checkpoint", "detector.safetensors", "--epochs", "1", "--no-wandb", "--workers", "0"]
    assert fine_tune_for.main(args) == 0
    shown = capsys.readouterr().out
    assert shown.index(leak) < shown.index("Fine-tuning")
    assert Path("results/for/duplicates.csv").is_file()

    args = ["--data", "for-2seconds", "--checkpoint", "detector.safetensors", "--workers", "0"]
    assert evaluate_custom.main(args) == 0
    shown = capsys.readouterr().out
    line = "the same audio in both classes: testing/real/leak.wav = training/fake/0.wav"
    assert shown.index(line) < shown.index("Scoring")
    assert Path("results/custom/duplicates.csv").is_file()
    Path("for-2seconds/testing/real/leak.wav").unlink()
    assert evaluate_custom.main(args) == 0
    assert "no duplicates among 12 recordings." in capsys.readouterr().out
    assert Path("results/custom/duplicates.csv").read_text(encoding="utf-8") == "group,split,path,label\n"
    assert evaluate_custom.main([*args, "--no-audit"]) == 0
    assert "udit:" not in capsys.readouterr().out
    assert not Path("results/custom/duplicates.csv").exists()
