"""The full XLS-R 300M detector against the published implementation, from file to score.

Writes two files of 1.27 GB, as large as the published ones, and removes them.
"""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import assert_as_published, filled
from weights import official_shapes, reference

import evaluate_custom
from antispoofing.detectors.batched import BatchedXLSR
from antispoofing.detectors.loading import for_scoring, load_detector

pytestmark = pytest.mark.slow

PREFIXES = {"LA_model.pth": "", "Best_LA_model_for_DF.pth": "module."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full_size")
    tensors = filled(official_shapes())
    for name, prefix in PREFIXES.items():
        torch.save({prefix + key: value for key, value in tensors.items()}, folder / name)
    del tensors
    yield folder
    for name in PREFIXES:
        (folder / name).unlink()


def test_features_and_logits(folder):
    assert_as_published(load_detector(folder / "Best_LA_model_for_DF.pth", device="cpu"), "xlsr300m")


def test_features_and_logits_for_scoring(folder):
    assert_as_published(for_scoring(load_detector(folder / "LA_model.pth", device="cpu")), "xlsr300m")


def test_features_and_logits_in_batches(folder):
    waves = torch.from_numpy(reference("xlsr300m")["waves"])
    detector = load_detector(folder / "LA_model.pth", device="cpu")
    with torch.inference_mode():
        features, logits = detector.features(waves), detector(waves)
        detector.front_end = BatchedXLSR(detector.front_end, torch.float32)
        torch.testing.assert_close(detector.features(waves), features, atol=1e-5, rtol=0)
        torch.testing.assert_close(detector(waves), logits, atol=5e-5, rtol=0)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.025), ("int8", 0.06)])
def test_lower_precision_moves_the_features_little(precision, bound, folder):
    expected = reference("xlsr300m")
    detector = for_scoring(load_detector(folder / "LA_model.pth", device="cpu", precision=precision))
    features = detector.features(torch.from_numpy(expected["waves"]))[:, ::20, ::8].numpy()
    assert 0 < np.abs(features - expected["features"]).mean() <= bound * np.abs(expected["features"]).mean()


def test_command_line_on_wav_files(folder):
    expected = reference("xlsr300m")
    noise, chirp, repeated = expected["waves"]
    data = folder / "Dataset_Speech_Assignment" / "Dataset_Speech_Assignment"
    clips = {"Real/noise.wav": noise, "Fake/chirp.wav": chirp, "Fake/short.wav": repeated[:20000]}
    for name, wave in clips.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(data / name, wave, 16000, subtype="FLOAT")
    script = Path(evaluate_custom.__file__)
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for checkpoint in PREFIXES:
        with open(
            folder / "results" / "custom" / Path(checkpoint).stem / "scores.csv", encoding="utf-8"
        ) as file:
            scores = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
        for (name, _), logits in zip(clips.items(), expected["logits"], strict=True):
            assert scores[f"Dataset_Speech_Assignment/{name}"] == pytest.approx(logits[1], abs=1e-4)
