"""Fine-tuning Spectra-AASIST by the loop that trains XLS-R + AASIST; other families are refused."""

import copy
import dataclasses
import functools
import re
import signal

import numpy as np
import pytest
import soundfile
import torch
from family_files import CASES, loaded, write_toy
from helpers import SETTINGS, training_results, write_training_data
from processes import run
from test_training_resuming import killed_writing
from torch.nn import functional as F

import fine_tune_for
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.families import by_head
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.errors import TrainingError
from antispoofing.training.loop import fine_tune
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.step import MicroBatch, Optimization
from data_utils import BONAFIDE, LABELS, SPOOF
from model import Detector

NAME = "spectra_aasist_toy"
CONFIG = TrainingConfig(learning_rate=1e-5, batch_size=4)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> Detector:
    """A Spectra-AASIST of toy size, for clips of half a second, without dropout."""
    detector = loaded(write_toy(NAME, tmp_path_factory.mktemp("spectra") / "model.safetensors"))
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    detector.config = dataclasses.replace(detector.config, clip_samples=8000)
    return detector


@pytest.fixture(scope="module")
def batch(spectra) -> MicroBatch:
    noise = 0.1 * np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)
    waves = torch.from_numpy(np.stack([spectra.config.prepare(wave) for wave in noise]))
    return MicroBatch(waves, torch.arange(4) % 2, [f"{i}.wav" for i in range(4)])


def plain_gradients(detector: Detector, batch: MicroBatch) -> dict[str, torch.Tensor]:
    """Return the gradients of a plain copy's parameters, by PyTorch alone."""
    plain = copy.deepcopy(detector).train()
    F.cross_entropy(plain(batch.waves), batch.targets).backward()
    return {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}


def trained(detector: Detector, batch: MicroBatch, **changes) -> Detector:
    """Return a copy after one step."""
    detector = copy.deepcopy(detector)
    optimization = Optimization(detector, dataclasses.replace(CONFIG, **changes))
    optimization.train_mode()
    optimization.step([batch], 1, 0, CONFIG.learning_rate)
    return detector


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_plain_model(checkpointing, spectra, batch):
    expected = plain_gradients(spectra, batch)
    assert expected.keys() == {name for name, _ in spectra.named_parameters()}  # bn1 too, which counts here
    found = trained(spectra, batch, gradient_checkpointing=checkpointing)
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for (name, _), p in zip(spectra.named_parameters(), found.parameters(), strict=True):
        norm = expected[name].norm()
        assert norm > 0 or name.endswith(".bias")  # of which some have no effect, as before a BatchNorm
        assert (p.grad - expected[name]).norm() < 1e-4 * norm + 3e-7 * whole, name


def test_gradients_of_adapters_follow_from_those_of_the_plain_model(spectra, batch):
    """With W + 2 B A and B = 0, the gradient of B is 2 G A', where G is that of W; that of A is 0."""
    expected = plain_gradients(spectra, batch)
    torch.manual_seed(0)
    found = trained(spectra, batch, lora=4)
    adapted = {name: p for name, p in found.front_end.named_parameters() if p.requires_grad}
    projections = [name for name in expected if name.endswith("_proj.weight") and ".attention." in name]
    assert len(adapted) == 2 * len(projections) == 2 * 2 * 4  # A and B, layers, projections
    for name in projections:
        of_a, of_b = (
            found.get_parameter(name.replace(".weight", f".lora_{part}.default.weight")) for part in "AB"
        )
        assert not of_a.grad.any()
        a = of_a.detach()  # as before the step, since Adam leaves what has no gradient where it is
        torch.testing.assert_close(of_b.grad, 2 * expected[name] @ a.T, atol=1e-6, rtol=1e-3)


def test_clips_are_prepared_before_they_are_repeated(spectra, tmp_path, monkeypatch):
    waves = (0.1 * np.random.default_rng(1).standard_normal((2, 3000))).astype(np.float32)
    found = []
    for i, (wave, label) in enumerate(zip(waves, (SPOOF, BONAFIDE), strict=True)):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000, subtype="FLOAT")
        found.append(Utterance(str(tmp_path / f"{i}.wav"), str(i), LABELS[label]))
    heard = {}
    step = Optimization.step

    def listening(self, parts, *args):
        heard.update(
            (name, wave) for part in parts for name, wave in zip(part.names, part.waves, strict=True)
        )
        return step(self, parts, *args)

    monkeypatch.setattr(Optimization, "step", listening)
    fine_tune(copy.deepcopy(spectra), found, found, dataclasses.replace(CONFIG, epochs=1), tmp_path)
    for i, wave in enumerate(waves):
        emphasised = wave - 0.97 * np.append(np.float32(0), wave[:-1])
        np.testing.assert_allclose(heard[str(i)], np.tile(emphasised, 3)[:8000], atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), marks=pytest.mark.slow, id="all weights"),
        pytest.param(("--lora", 4, "--gradient-checkpointing"), marks=pytest.mark.slow, id="adapters"),
    ],
)
def test_it_is_killed_and_resumes_bit_for_bit(options, spectra, tmp_path):
    """By SIGKILL, while the state after a step is written."""
    write_training_data(tmp_path / "data")
    save_detector(spectra, tmp_path / "start.safetensors")
    argv = (*SETTINGS, "--no-wandb", *options)
    code, _, said = run(fine_tune_for.main, *argv, folder=tmp_path / "whole")
    assert code == 0, said
    code, _, said = run(functools.partial(killed_writing, left=4), *argv, folder=tmp_path / "killed")
    assert code == -signal.SIGKILL, said
    code, shown, said = run(fine_tune_for.main, *argv, folder=tmp_path / "killed")
    assert code == 0, said
    assert "Resuming after step" in shown
    assert training_results(tmp_path / "killed") == training_results(tmp_path / "whole")
    after = load_detector(tmp_path / "whole" / "results/for/final_model.safetensors", device="cpu")
    assert after.config == spectra.config
    assert after.state_dict().keys() == spectra.state_dict().keys()
    assert after.published_threshold is None  # which was that of other weights


@pytest.mark.parametrize("name", [name for name in CASES if name != NAME])
def test_other_families_are_refused_in_words(name, tmp_path):
    detector = loaded(write_toy(name, tmp_path / "model.safetensors"))
    words = (
        rf"^{re.escape(by_head(CASES[name].head).name)} can score, but not be fine-tuned here: choose XLS-R"
    )
    with pytest.raises(TrainingError, match=words):
        Optimization(detector, CONFIG)
