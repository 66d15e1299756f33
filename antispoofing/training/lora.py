"""LoRA on the front end's attention, by peft: a few weights are trained in place of all of them.

To each attention projection W of the front end is added (alpha / rank) B A, of which only A and B are
trained (Hu et al., "LoRA", ICLR 2022, arXiv:2106.09685); alpha is twice the rank. What is saved and scored
is their sum, a detector like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from model import Detector

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def add_lora(detector: Detector, rank: int) -> None:
    """Freeze the front end, XLS-R by transformers, and put adapters, without effect yet, on its attention."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import: only when used

    detector.front_end.requires_grad_(False)
    detector.front_end.model.freeze_feature_encoder()  # else transformers wants a gradient of the waves
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=PROJECTIONS)
    inject_adapter_in_model(config, detector.front_end.model)


def merge(detector: Detector) -> dict[str, nn.Module]:
    """Make the detector a plain one. Returns the layers with adapters that were in it, by name, if any."""
    layers = {name: module for name, module in detector.named_modules() if hasattr(module, "lora_A")}
    for name, layer in layers.items():
        detector.set_submodule(name, _merged(layer))
    return layers


@contextmanager
def merged(detector: Detector) -> Iterator[None]:
    """In it the detector is a plain one, to be scored with and saved."""
    layers = merge(detector)
    try:
        yield
    finally:
        for name, layer in layers.items():
            detector.set_submodule(name, layer)


@torch.no_grad()
def _merged(layer: nn.Module) -> nn.Linear:
    base = layer.get_base_layer()
    plain = nn.Linear(base.in_features, base.out_features, device="meta")
    plain.weight = nn.Parameter(base.weight + layer.get_delta_weight(layer.active_adapters[0]))
    plain.bias = base.bias
    return plain.train(base.training)
