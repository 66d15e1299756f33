"""The families of detectors that can be loaded, and what is known of others.

Each module of `heads/` has one or several, in FAMILIES. So another family takes a file there, and a test:
docs/detectors.md shows how.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from torch import Tensor

from antispoofing.detectors import heads
from antispoofing.detectors.family import Family
from antispoofing.errors import CheckpointError


def find_families() -> tuple[Family, ...]:
    """Return the families of all modules of `heads/`, in the order of the modules' names."""
    return tuple(
        family
        for module in sorted(module.name for module in pkgutil.iter_modules(heads.__path__))
        for family in importlib.import_module(f"{heads.__name__}.{module}").FAMILIES
    )


FAMILIES = find_families()

# Detectors that cannot be loaded, by a key that gives them away.
_UNSUPPORTED = {
    "conformer.encoder_blocks.0.attn.fn.rel_pos_emb.weight": "XLS-R + Conformer",
    "conformer.encoder_blocks.0.attn.fn.ht_proj.weight": "XLS-R + Conformer with TCM",
    "backbone.attn_scores.weight": "DF Arena",
}


def recognise(tensors: Mapping[str, Tensor]) -> Family:
    """Return the family whose file has these tensors.

    Raises:
        CheckpointError: If it is no family's; the message names what the file looks like, if that is known.
    """
    for family in FAMILIES:
        if family.owns(tensors):
            return family
    if "classifier.weight" in tensors:
        raise CheckpointError(
            "the weights of a classifier of transformers: name its folder, with config.json and "
            "preprocessor_config.json (of a hub: name, leave out the file)"
        )
    looks_like = next((name for mark, name in _UNSUPPORTED.items() if mark in tensors), None)
    known = ", ".join(family.name for family in FAMILIES)
    if looks_like:
        raise CheckpointError(f"looks like {looks_like}, which is not supported (only {known})")
    raise CheckpointError(
        f"not a detector of a kind that can be loaded ({known}); of a classifier of transformers, name its "
        "folder"
    )


def without_prefix(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return what stands before all keys ("model.", mostly ""), and the tensors by the keys of a family.

    A training script's network is often a part of a larger one.
    """
    inner, prefix = tensors, ""
    while not any(family.owns(inner) for family in FAMILIES):
        first = {key.partition(".")[0] for key in inner}
        if len(first) != 1 or any("." not in key for key in inner):
            return "", tensors
        prefix += f"{first.pop()}."
        inner = {key.partition(".")[2]: value for key, value in inner.items()}
    return prefix, inner


def by_head(head: str) -> Family:
    """Return the family with this kind of back end (`DetectorConfig.head`).

    Raises:
        CheckpointError: If there is none.
    """
    for family in FAMILIES:
        if family.head == head:
            return family
    raise CheckpointError(f"its back end is of the kind {head!r}, which this version does not know")
