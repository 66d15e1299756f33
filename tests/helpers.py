"""Shared by several tests: recordings, lists, detectors, and reading results."""

import csv
import dataclasses
import io
import json
import os
import shutil
import struct
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from weights import fill, reference

from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.files import file_sha256
from antispoofing.project import SAMPLES
from model import Detector, DetectorConfig, SpectrogramConfig

ROOT = Path(__file__).parents[1]
PRESETS = {"xlsr-300m": DetectorConfig(), "small": DetectorConfig(front_end=SpectrogramConfig())}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return tensors of these shapes, filled by their names."""
    return {key: torch.from_numpy(fill(key, shape, seed)) for key, shape in shapes.items()}


def assert_as_published(detector, name: str) -> None:
    """Compare features and logits of the reference waves with those of the published implementation."""
    expected = reference(name)
    with torch.inference_mode():
        features = detector.features(torch.from_numpy(expected["waves"]))
        logits = detector.back_end(features)
    np.testing.assert_allclose(features[:, ::20, ::8], expected["features"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(features.mean((1, 2)), expected["feature_mean"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(features.flatten(1).std(1), expected["feature_std"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


def features(detector) -> torch.Tensor:
    """Return the front end's frames [2, F, width] of two waves of noise."""
    waves = 0.1 * torch.randn(2, 20000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return detector.features(waves)


SMALL_SIZES = {
    "conv_channels": 32,
    "width": 64,
    "layers": 2,
    "heads": 4,
    "ffn": 128,
    "pos_kernel": 16,
    "pos_groups": 4,
}


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Return a chirp in noise [n, channels], louder in each next channel."""
    rng = np.random.default_rng(rate)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.2 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.02 * rng.standard_normal(len(t))
    return np.stack([wave * (1 + channel) / channels for channel in range(channels)], axis=1)


def write_bad_files(folder) -> dict[str, str]:
    """Write files that cannot be read; return a word of the reason for each, by name."""
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


def speech_like(seconds: float, rate: int) -> np.ndarray:
    """Return low noise that comes and goes, which every codec preserves: [n, 2], two equal channels."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate)) / rate
    noise = np.convolve(rng.standard_normal(len(t)), np.hanning(rate // 1000), "same")
    wave = 0.2 * noise / np.abs(noise).max() * (1.5 + np.sin(9 * t))
    return np.stack([wave, wave], axis=1).astype(np.float32)


# By file name: codec, sample rate, channels. PyAV writes these with ffmpeg's own encoders.
FFMPEG_FORMATS = {
    "a.m4a": ("aac", 44100, 2),
    "lossless.m4a": ("alac", 48000, 2),
    "a.aac": ("aac", 22050, 1),
    "video.mp4": ("aac", 48000, 2),
    "a.webm": ("libopus", 48000, 2),
    "a.mka": ("aac", 44100, 2),
    "a.wma": ("wmav2", 44100, 2),
    "a.amr": ("libopencore_amrnb", 8000, 1),
    "a.3gp": ("libopencore_amrnb", 8000, 1),
    "a.ac3": ("ac3", 48000, 2),
}


def black() -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))


def write_by_ffmpeg(path: Path, seconds: float) -> np.ndarray:
    """Write a recording with the codec of its name; return the wave [n, 2] that was encoded."""
    codec, rate, channels = FFMPEG_FORMATS[path.name]
    wave = speech_like(seconds, rate)
    with av.open(
        path, "w", format={".wma": "asf", ".aac": "adts", ".mka": "matroska"}.get(path.suffix)
    ) as file:
        layout = "stereo" if channels == 2 else "mono"
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if path.suffix == ".wma":
            stream.bit_rate = 128000
        if path.stem == "video":
            video = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
            for _ in range(5):
                file.mux(video.encode(black()))
            file.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(wave[:, :channels].T.copy(), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return wave


def recording() -> bytes:
    wave = 0.1 * np.random.default_rng(0).standard_normal(1600)
    soundfile.write(file := io.BytesIO(), wave, 16000, format="WAV")
    return file.getvalue()


# A data set as an archive may contain it.
CLIPS = {"Set/Set/Real/a.wav": recording(), "Set/Set/Fake/b.wav": recording(), "Set/Set/notes.pdf": b"%PDF"}


def write_zip(path: Path, files: dict[str, bytes] = CLIPS, **options) -> Path:
    """Write a zip archive of these files, which are given by name."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def touch(root: Path, *names: str) -> None:
    """Create empty files, and their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write_lists(root, lists, *recordings):
    """Write lists of labels, whose texts are given by path, and empty recordings."""
    for name, text in lists.items():
        touch(root, name)
        (root / name).write_text(text, encoding="utf-8")
    touch(root, *recordings)


def read_records(path: Path) -> list:
    """Return the protocol buffers in a .wandb file: 7 bytes of header, then a LevelDB log."""
    from wandb.proto import wandb_internal_pb2  # takes a second: imported only when used

    data, records, parts, at = path.read_bytes(), [], b"", 7
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the end of a block is too short for a header
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def read_history(folder: Path) -> tuple[list[dict], dict, dict]:
    """Return the rows, the configuration and the last summary of the only offline run in a folder."""
    import wandb

    wandb.teardown()  # wandb's service writes the end of the file when it closes
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows, config, summary = [], {}, {}
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append(_values(record.history.item))
        elif kind == "run":
            config |= _values(record.run.config.update)
        elif kind == "summary":
            summary |= _values(record.summary.update)
    return rows, config, summary


def _values(items) -> dict:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


SHORT_CLIPS = dataclasses.replace(PRESETS["small"], clip_samples=8000)


def fresh_detector(seed: int = 0) -> Detector:
    """Return a detector with random weights, for clips of half a second."""
    torch.manual_seed(seed)
    return Detector(SHORT_CLIPS).eval()


def read_scores(folder) -> dict[str, dict]:
    with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def read_metrics(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


EPOCH = {
    "epoch": 1,
    "validation_loss": 0.3,
    "validation_auc": 0.9,
    "validation_auc_low": 0.8,
    "validation_auc_high": 0.95,
    "validation_eer": 0.1,
    "validation_threshold": 0.0,
}


def fine_tuned_from(start: Path, path: Path, seed=1, **origin) -> None:
    """Write another detector, whose file says that it was fine-tuned from `start`."""
    torch.manual_seed(seed)
    detector = Detector(PRESETS["small"])
    before = load_detector(start, device="cpu")
    detector.provenance = {
        "started_from": {"file": str(start), "sha256": before.sha256, "provenance": before.provenance}
        | origin,
        "epoch": EPOCH,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_detector(detector, path)


EPOCHS, STEPS = 2, 4
# Options of fine_tune_for.py, for a folder beside the data of `write_training_data` and beside a detector.
SETTINGS = (
    *("--data", "../data", "--checkpoint", "../start.safetensors", "--epochs", EPOCHS, "--batch-size", 4),
    *("--learning-rate", 1e-3, "--crop", "random", "--rawboost", 5, "--augment", "codec", "speed"),
    *("--save-every", 1, "--workers", 1, "--no-audit"),
)


def write_noise(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Write n clips of noise, 0.75 s each: fake/0.wav, in which there is a tone, real/1.wav, and so on."""
    for i in range(n):
        wave = 0.05 * rng.standard_normal(12000)
        label = ("fake", "real")[i % 2]
        if label == "fake":
            wave += 0.05 * np.sin(0.3 * np.arange(len(wave)))
        (folder / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / label / f"{i}.wav", wave, 16000)


def write_splits(folder: Path, training: int, others: int) -> None:
    """Write clips of noise in Fake-or-Real's layout: `training` of them, and `others` in each other split."""
    rng = np.random.default_rng(0)  # one for all splits, or these would have clips in common
    for split, n in (("training", training), ("validation", others), ("testing", others)):
        write_noise(folder / split, n, rng)


def write_training_data(folder: Path) -> None:
    """Write the splits for runs with SETTINGS: STEPS steps an epoch, and one clip that cannot be read."""
    write_splits(folder, training=STEPS * 4, others=6)
    (folder / "training" / "real" / "1.wav").write_bytes(b"no recording")


def training_results(folder: Path) -> dict:
    """Return the results that must not depend on interruptions: everything except the time taken."""
    results = folder / "results" / "for"
    with open(results / "history.csv", encoding="utf-8", newline="") as file:
        rows = [
            {name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]
    found = json.loads((results / "testing" / "metrics.json").read_text(encoding="utf-8"))
    files = ("final_model.safetensors", "last_model.safetensors", "testing/scores.csv")
    return {name: file_sha256(results / name) for name in files} | {
        "history": rows,
        "metrics": {name: value for name, value in found.items() if name not in ("command", "started")},
        "files": sorted(
            path.name for path in results.rglob("*") if path.is_file() and "wandb" not in path.parts
        ),
    }


def copy_samples(folder: Path, n: int) -> None:
    """Copy the first n samples of each class."""
    for label in ("Real", "Fake"):
        (folder / label).mkdir(parents=True)
        for path in sorted((SAMPLES / "custom" / label).iterdir())[:n]:
            shutil.copy(path, folder / label)
