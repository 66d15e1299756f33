"""Fine-tuning learns, is reproducible, keeps the best epoch, and changes nothing that is frozen."""

import dataclasses
import signal

import numpy as np
import pytest
import soundfile
import torch
from helpers import fresh_detector

from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.errors import DataError, TrainingError
from antispoofing.files import file_sha256
from antispoofing.metrics import compute_metrics
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.score import score_recordings
from antispoofing.training.loop import Hooks, fine_tune
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.state import write_state
from antispoofing.training.stopping import Stopped


@pytest.mark.slow
def test_overfits_sixteen_clips_to_zero_error(clips, tmp_path):
    detector = fresh_detector()
    steps = []
    config = TrainingConfig(epochs=30, learning_rate=1e-3, batch_size=8)
    hooks = Hooks(on_step=lambda step, loss, rate, norm: steps.append((step, loss)))
    history = fine_tune(detector, clips, clips, config, tmp_path, hooks=hooks)
    assert min(result.validation_eer for result in history) == 0
    assert history[-1].train_loss < history[0].train_loss / 2
    assert [step for step, _ in steps] == list(range(1, 61))
    for result in history:
        losses = [loss for step, loss in steps if (step - 1) // 2 == result.epoch - 1]
        assert result.train_loss == pytest.approx(np.mean(losses))


def test_the_best_epoch_is_kept_and_says_so(clips, tmp_path):
    kept = {}
    start = tmp_path / "start.safetensors"
    save_detector(fresh_detector(), start)
    detector = load_detector(start, device="cpu")
    config = TrainingConfig(epochs=12, learning_rate=1e-3, batch_size=8)
    hooks = Hooks(on_epoch=lambda history, scored: kept.update({len(history): scored}))
    history = fine_tune(detector, clips, clips, config, tmp_path, hooks=hooks)
    best = min(history, key=lambda result: (result.validation_eer, result.validation_loss))
    final = load_detector(tmp_path / "final_model.safetensors", device="cpu")
    assert final.provenance["epoch"].items() <= dataclasses.asdict(best).items()
    assert final.provenance["started_from"] == {
        "file": str(start),
        "sha256": file_sha256(start),
        "provenance": {},
    }
    assert final.provenance["training"]["learning_rate"] == 1e-3
    again = score_recordings(final, clips)
    np.testing.assert_allclose(again.logits, kept[best.epoch].logits, atol=1e-5)
    values = compute_metrics(again.scores_with_label("bonafide"), again.scores_with_label("spoof"))
    assert values["eer"] == best.validation_eer
    classes = torch.tensor([u.label == "bonafide" for u in clips]).long()
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(again.logits), classes)
    assert best.validation_loss == pytest.approx(float(loss), abs=1e-5)
    calibration = Calibration.from_provenance(final.provenance)
    assert calibration.fitted_on == (
        "the 8 real and 8 fake recordings of its validation set, on which its epoch was chosen"
    )
    fitted = Calibration.fit(
        again.scores_with_label("bonafide"), again.scores_with_label("spoof"), calibration.fitted_on
    )
    assert calibration.slope == pytest.approx(fitted.slope, rel=1e-2)
    last = load_detector(tmp_path / "last_model.safetensors", device="cpu")
    assert last.provenance["epoch"]["epoch"] == 12
    waves = 0.1 * torch.randn(2, 8000)
    torch.testing.assert_close(last.score(waves), detector.eval().score(waves), atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_file(clips, tmp_path):
    files = {}
    for name, seed, workers in (("a", 1, 0), ("b", 1, 2), ("c", 2, 0)):
        (tmp_path / name).mkdir()
        config = TrainingConfig(epochs=1, learning_rate=1e-3, batch_size=8, seed=seed)
        fine_tune(fresh_detector(), clips, clips, config, tmp_path / name, workers=workers)
        files[name] = (tmp_path / name / "final_model.safetensors").read_bytes()
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_frozen_parameters_do_not_move_and_the_others_do(clips, tmp_path):
    detector = fresh_detector()
    detector.front_end.requires_grad_(False)
    before = {name: value.clone() for name, value in detector.named_parameters()}
    fine_tune(detector, clips, clips, TrainingConfig(epochs=1, weight_decay=0.1), tmp_path)
    for name, value in detector.named_parameters():
        frozen = name.startswith("front_end.") or ".bn1." in name
        assert torch.equal(value, before[name]) == frozen, name


def test_a_last_batch_of_one_clip(clips, tmp_path):
    history = fine_tune(fresh_detector(), clips, clips, TrainingConfig(epochs=1, batch_size=15), tmp_path)
    assert np.isfinite(history[0].train_loss)


def test_unreadable_clips_are_left_out(clips, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"bad")
    bad = Utterance(str(tmp_path / "bad.wav"), "bad.wav", "spoof")
    said = []
    hooks = Hooks(on_unreadable=lambda utterance, reason: said.append((utterance, reason)))
    both = [*clips, bad]
    history = fine_tune(fresh_detector(), both, both, TrainingConfig(epochs=2), tmp_path, hooks=hooks)
    assert np.isfinite(history[0].validation_loss)
    assert [(utterance, "libsndfile" in reason) for utterance, reason in said] == [(bad, True)]
    last = load_detector(tmp_path / "last_model.safetensors", device="cpu")
    assert last.provenance["training"]["clips"] == 16


def test_a_request_to_stop_while_saving(clips, tmp_path, monkeypatch):
    def stop_and_write(*args):
        signal.raise_signal(signal.SIGTERM)
        write_state(*args)

    monkeypatch.setattr("antispoofing.training.loop.write_state", stop_and_write)
    with pytest.raises(Stopped, match="SIGTERM") as stopped:
        fine_tune(fresh_detector(), clips, clips, TrainingConfig(epochs=1, batch_size=8), tmp_path)
    assert stopped.value.saved == (1, 2)


def test_unusable_data_and_losses(clips, tmp_path):
    real = [u for u in clips if u.label == "bonafide"]
    bad = [Utterance(str(tmp_path / "gone.wav"), "gone.wav", label) for label in ("bonafide", "spoof")]
    config = TrainingConfig(epochs=1)
    for training, validation, words in (
        (real, clips, "training set must hold"),
        (clips, real, "validation set must hold"),
        (
            bad,
            clips,
            r"none of the real training recordings can be read; the first error: No such file",
        ),
        ([*real, bad[1]], clips, r"none of the fake training recordings can be read"),
        (clips, bad, "of the validation set can be scored"),
    ):
        with pytest.raises(DataError, match=words):
            fine_tune(fresh_detector(), training, validation, config, tmp_path)
    broken = fresh_detector()
    broken.back_end.out_layer.bias.data[:] = float("nan")
    with pytest.raises(
        TrainingError, match=r"loss of step 1 of epoch 1 is nan.*check these clips: .*fake/0\.wav"
    ):
        fine_tune(broken, clips, clips, config, tmp_path)


def test_random_crops_reach_the_training(tmp_path):
    """Other parts of long recordings are heard, and the same parts for the same seed."""
    rng = np.random.default_rng(0)
    for i in range(8):
        folder = tmp_path / ("real" if i % 2 else "fake")
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{i}.wav", 0.05 * rng.standard_normal(32000), 16000)
    clips = find_recordings([tmp_path]).utterances
    losses = {}
    for name, crop in (("start", "start"), ("random", "random"), ("again", "random")):
        config = TrainingConfig(epochs=2, batch_size=4, crop=crop)
        history = fine_tune(fresh_detector(), clips, clips, config, tmp_path)
        losses[name] = [result.train_loss for result in history]
    assert losses["random"] == losses["again"]
    assert losses["random"][0] != losses["start"][0]
