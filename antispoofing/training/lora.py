"""LoRA on the front end's attention, by peft: a few added weights are trained instead of all.

Each attention projection W of the front end becomes W + (alpha / rank) B A, in which only A and B are trained
(Hu et al., "LoRA", ICLR 2022, arXiv:2106.09685); alpha is twice the rank. For scoring and saving, the sum is
merged into one matrix, so that the detector is like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from model import XLSR, Detector

if TYPE_CHECKING:
    from peft.tuners.lora import Linear as LoraLinear

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add_lora(detector: Detector, rank: int) -> None:
    """Freeze an XLS-R front end, and add adapters to its attention, which have no effect yet."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import: only when used

    front_end = detector.front_end
    assert isinstance(front_end, XLSR)  # step.check refuses any other
    front_end.requires_grad_(False)
    front_end.model.freeze_feature_encoder()  # otherwise transformers computes a gradient of the waves
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=PROJECTIONS)
    inject_adapter_in_model(config, front_end.model)


def merge(detector: Detector) -> dict[str, LoraLinear]:
    """Merge all adapters into the weights of the detector, which becomes a plain one.

    Returns:
        The layers with adapters that were replaced, by name.
    """
    layers = {
        name: cast("LoraLinear", module)  # isinstance would need peft, which takes seconds to import
        for name, module in detector.named_modules()
        if hasattr(module, "lora_A")
    }
    for name, layer in layers.items():
        detector.set_submodule(name, _merged(layer))
    return layers


@contextmanager
def merged(detector: Detector) -> Iterator[None]:
    """Make the detector a plain one within this context, for scoring and saving."""
    layers = merge(detector)
    try:
        yield
    finally:
        for name, layer in layers.items():
            detector.set_submodule(name, layer)


@torch.no_grad()
def _merged(layer: LoraLinear) -> nn.Linear:
    base = layer.get_base_layer()
    assert isinstance(base, nn.Linear)
    plain = nn.Linear(base.in_features, base.out_features, device="meta")
    plain.weight = nn.Parameter(base.weight + layer.get_delta_weight(layer.active_adapters[0]))
    plain.bias = base.bias
    return plain.train(base.training)
