"""A training step against PyTorch's own pieces put together by hand, and the effect of each setting."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers import SHORT_CLIPS
from torch.nn import functional as F

from antispoofing.commands.tasks import STAND_IN
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.errors import TrainingError
from antispoofing.training.recipe import TrainingConfig, learning_rate
from antispoofing.training.step import MicroBatch, Optimization
from model import Detector

RATE = 1e-5  # so small that rounding does not change the order of AASIST's nodes, or which is the largest
CONFIG = TrainingConfig(learning_rate=RATE, batch_size=6)


def without_dropout(detector: Detector) -> Detector:
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return detector


@pytest.fixture
def detector():
    standing_in = load_detector(STAND_IN, device="cpu")
    standing_in.config = SHORT_CLIPS
    return without_dropout(standing_in)


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return without_dropout(Detector(SHORT_CLIPS))


@pytest.fixture
def xlsr(small_config):
    torch.manual_seed(0)
    return without_dropout(Detector(dataclasses.replace(small_config, clip_samples=8000)))


def batch(n=6, seed=0) -> MicroBatch:
    waves = 0.1 * torch.randn(n, 8000, generator=torch.Generator().manual_seed(seed))
    return MicroBatch(waves, torch.arange(n) % 2, [f"{i}.wav" for i in range(n)])


def steps(detector, config, n=3, parts=None) -> list:
    """Take n steps, and return their results."""
    optimization = Optimization(detector, config)
    optimization.train_mode()
    return [
        optimization.step(parts or [batch(seed=k)], 1, k, learning_rate(config, k + 1, n)) for k in range(n)
    ]


def by_hand(detector, make, n=3, weight=None, clip=None):
    """Train the detector by the same steps, and return their losses."""
    optimizer = make([p for p in detector.parameters() if p.requires_grad])
    detector.train()
    losses = []
    for k in range(n):
        part = batch(seed=k)
        loss = F.cross_entropy(detector(part.waves), part.targets, weight=weight)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(detector.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("changes", "make", "weight", "clip"),
    [
        ({}, lambda p: torch.optim.Adam(p, lr=RATE), None, None),
        ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=RATE, weight_decay=0.1), None, None),
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.1),
            None,
            None,
        ),
        ({"class_weights": (0.1, 0.9)}, lambda p: torch.optim.Adam(p, lr=RATE), (0.1, 0.9), None),
        ({"clip_norm": 0.01}, lambda p: torch.optim.Adam(p, lr=RATE), None, 0.01),
    ],
)
def test_steps_are_those_of_pytorch(changes, make, weight, clip, detector):
    plain = copy.deepcopy(detector)
    results = steps(detector, dataclasses.replace(CONFIG, **changes))
    losses = by_hand(plain, make, weight=weight and torch.tensor(weight), clip=clip)
    assert [result.loss for result in results] == pytest.approx(losses, rel=1e-5)
    assert results[0].weight == pytest.approx(3 * sum(weight or (1, 1)))
    pairs = zip(detector.parameters(), plain.parameters(), strict=True)
    apart = torch.cat([(value - expected).abs().flatten() for value, expected in pairs])
    # Where a gradient is close to 0, rounding decides the direction of Adam's step.
    assert (apart > 1e-5).float().mean() < 0.01


def test_the_gradient_norm_is_that_before_clipping(detector):
    (plain,) = steps(copy.deepcopy(detector), CONFIG, n=1)
    (clipped,) = steps(detector, dataclasses.replace(CONFIG, clip_norm=0.01), n=1)
    assert clipped.gradient_norm == pytest.approx(plain.gradient_norm)
    assert plain.gradient_norm > 0.1
    after = torch.stack([p.grad.norm() for p in detector.parameters() if p.grad is not None]).norm()
    assert after == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("weights", [None, (0.1, 0.9)])
def test_parts_give_the_gradient_of_the_whole(weights, detector):
    config = dataclasses.replace(CONFIG, freeze_batch_norm=True, class_weights=weights)
    whole = copy.deepcopy(detector)
    (expected,) = steps(whole, config, n=1)
    one, empty = batch(), MicroBatch(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), [])
    parts = [
        MicroBatch(one.waves[a:b], one.targets[a:b], one.names[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))
    ]
    (result,) = steps(detector, config, n=1, parts=[*parts, empty])
    assert (result.loss, result.weight, result.gradient_norm) == pytest.approx(
        (expected.loss, expected.weight, expected.gradient_norm), rel=1e-5
    )
    for a, b in zip(detector.parameters(), whole.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_without_a_clip_there_is_no_step(detector):
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    empty = MicroBatch(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), [])
    assert steps(detector, CONFIG, n=1, parts=[empty]) == [None]
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name])


def test_randomness_follows_from_seed_epoch_and_step():
    torch.manual_seed(0)
    start = Detector(SHORT_CLIPS)

    def loss(seed=0, epoch=1, number=0):
        optimization = Optimization(copy.deepcopy(start), dataclasses.replace(CONFIG, seed=seed))
        optimization.train_mode()
        return optimization.step([batch()], epoch, number, 1e-3).loss

    first = loss()
    torch.manual_seed(5)
    torch.rand(3)
    assert loss() == first
    assert len({first, loss(seed=1), loss(epoch=2), loss(number=1)}) == 4


def test_frozen_weights_stay_the_same(detector):
    before = {name: value.clone() for name, value in detector.state_dict().items()}

    def changed(config) -> set[str]:
        trained = copy.deepcopy(detector)
        steps(trained, config)
        state = trained.state_dict()
        return {name for name, value in state.items() if not torch.equal(value, before[name])}

    everything = changed(CONFIG)
    statistics = {name for name in before if name.rpartition(".")[2].startswith(("running", "num_batches"))}
    unused = {name for name in before if ".bn1." in name}  # as published
    assert everything == before.keys() - unused
    frozen = changed(dataclasses.replace(CONFIG, freeze_batch_norm=True))
    assert frozen == everything - statistics
    back_end = changed(dataclasses.replace(CONFIG, freeze_front_end=True))
    assert back_end == {name for name in everything if name.startswith("back_end.")}


@pytest.mark.parametrize("rank", [2, 4])
def test_adapters_count_twice_whatever_their_rank(rank, xlsr):
    Optimization(xlsr, dataclasses.replace(CONFIG, lora=rank))
    scalings = {s for m in xlsr.modules() if hasattr(m, "lora_A") for s in m.scaling.values()}
    assert scalings == {2.0}


def test_a_process_without_clips_goes_on_in_training_mode(fresh):
    optimization = Optimization(fresh, CONFIG)
    optimization.train_mode()
    before = copy.deepcopy(fresh.state_dict())
    assert optimization._gradient([], []) == []
    assert all(module.training for module in fresh.modules())
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_lora_trains_little_and_is_saved_as_a_plain_detector(xlsr, tmp_path):
    from antispoofing.training.lora import merge, merged

    before = {name: value.clone() for name, value in xlsr.state_dict().items()}
    start = copy.deepcopy(xlsr)
    optimization = Optimization(xlsr, dataclasses.replace(CONFIG, lora=4))
    adapted = {name for name, p in xlsr.front_end.named_parameters() if p.requires_grad}
    assert len(adapted) == 2 * 4 * 2  # layers, projections, A and B
    before_back_end = len(list(xlsr.back_end.parameters())) - 2 * 5  # of which bn1 is not trained
    assert len(optimization.trained) == len(adapted) + before_back_end
    waves = batch().waves
    torch.testing.assert_close(xlsr.eval()(waves), start.eval()(waves), atol=1e-6, rtol=0)  # no effect yet
    optimization.train_mode()
    for k in range(3):
        optimization.step([batch(seed=k)], 1, k, 1e-2)
    logits = xlsr.eval()(waves)
    assert (logits - start(waves)).abs().max() > 1e-3
    with merged(xlsr):
        assert xlsr.state_dict().keys() == before.keys()
        torch.testing.assert_close(xlsr(waves), logits, atol=1e-5, rtol=0)
        save_detector(xlsr, tmp_path / "merged.safetensors")
    assert torch.equal(xlsr(waves), logits)  # as it was
    loaded = load_detector(tmp_path / "merged.safetensors", device="cpu")
    torch.testing.assert_close(loaded(waves), logits, atol=1e-5, rtol=0)
    changed = {name for name, value in loaded.state_dict().items() if not torch.equal(value, before[name])}
    in_front_end = {name for name in changed if name.startswith("front_end.")}
    projections = [f"{kind}_proj.weight" for kind in ("q", "k", "v", "out")]
    assert in_front_end == {
        f"front_end.model.encoder.layers.{i}.attention.{name}" for i in range(2) for name in projections
    }
    difference = loaded.state_dict()[min(in_front_end)] - before[min(in_front_end)]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) == 4
    merge(xlsr)
    torch.testing.assert_close(xlsr(waves), logits, atol=1e-5, rtol=0)
    assert xlsr.state_dict().keys() == before.keys()


def test_gradient_checkpointing_changes_nothing_but_memory(xlsr):
    plain = copy.deepcopy(xlsr)
    results = [
        steps(d, c)
        for d, c in ((plain, CONFIG), (xlsr, dataclasses.replace(CONFIG, gradient_checkpointing=True)))
    ]
    assert results[0] == results[1]
    for (name, a), b in zip(xlsr.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_alike(precision, fresh):
    lower = copy.deepcopy(fresh)
    lower.precision = precision
    expected, found = steps(fresh, CONFIG), steps(lower, CONFIG)
    for a, b in zip(expected, found, strict=True):
        assert b.loss == pytest.approx(a.loss, abs=0.05)
        assert a.loss != b.loss
    assert found[0].loss == pytest.approx(expected[0].loss, abs=0.01)
    assert found[0].gradient_norm == pytest.approx(expected[0].gradient_norm, rel=0.1)
    assert {value.dtype for value in lower.parameters()} == {torch.float32}


def test_fp16_leaves_out_a_step_whose_gradient_overflows(fresh):
    detector = fresh
    detector.precision = "fp16"
    optimization = Optimization(detector, CONFIG)
    optimization.train_mode()
    before = detector.back_end.out_layer.weight.clone()
    hook = detector.back_end.out_layer.weight.register_hook(lambda gradient: gradient * float("inf"))
    scale = optimization.scaler.get_scale()
    assert not np.isfinite(optimization.step([batch()], 1, 0, 1e-3).gradient_norm)
    assert torch.equal(detector.back_end.out_layer.weight, before)
    assert optimization.scaler.get_scale() == scale / 2
    hook.remove()
    assert np.isfinite(optimization.step([batch()], 1, 1, 1e-3).gradient_norm)
    assert not torch.equal(detector.back_end.out_layer.weight, before)
    detector.back_end.out_layer.weight.register_hook(lambda gradient: gradient * float("inf"))
    optimization.scaler.update(0.5)  # after so many such steps that the scale is not to blame
    with pytest.raises(TrainingError, match=r"gradient of step 3 of epoch 1 is (nan|inf)"):
        optimization.step([batch()], 1, 2, 1e-3)


def test_a_loss_that_is_not_a_number_names_its_clips_and_changes_nothing(detector):
    good, bad = batch(), batch()
    bad.waves[2] = float("nan")
    config = dataclasses.replace(CONFIG, freeze_batch_norm=True)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(TrainingError, match=r"loss of step 1 of epoch 1 is nan.*these clips: 2\.wav$"):
        steps(detector, config, n=1, parts=[good, bad])
    detector.back_end.out_layer.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        TrainingError, match=r"gradient of step 1 of epoch 1 is nan.*these clips: 0\.wav, 1\.wav"
    ):
        steps(detector, config, n=1)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_recipe_that_does_not_fit_the_detector_is_refused(detector):
    for changes, words in (
        ({"lora": 8}, "--lora needs"),
        ({"gradient_checkpointing": True}, "--gradient-checkpointing needs"),
    ):
        with pytest.raises(TrainingError, match=words):
            Optimization(detector, dataclasses.replace(CONFIG, **changes))
    for changes in ({"lora": 8}, {"gradient_checkpointing": True}):
        with pytest.raises(TrainingError, match=r"--freeze-frontend.*: leave out one of the two"):
            TrainingConfig(freeze_front_end=True, **changes)


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_is_that_of_pytorchs_schedulers(warmup, schedule):
    config = TrainingConfig(learning_rate=0.5, warmup=warmup, schedule=schedule)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    rising = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: (k + 1) / max(1, warmup))
    if schedule == "cosine":
        after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20 - warmup)
    else:
        after = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, after], [warmup])
    expected = []
    for _ in range(20):
        expected.append(both.get_last_lr()[0])
        optimizer.step()
        both.step()
    assert [learning_rate(config, step, 20) for step in range(1, 21)] == pytest.approx(expected)
