"""The families of detectors that can be loaded, and what is known of others.

Each module of `heads/` has one or several, in FAMILIES. So another family takes a file there, and a test:
docs/detectors.md shows how.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

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


def owned(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a family's file has these tensors, perhaps under a prefix and beside others."""
    return any(family.owns(inner) for _, inner in _inner(tensors) for family in FAMILIES)


def without_prefix(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return the prefix of a family's keys ("model.", mostly ""), and its tensors by the keys without that.

    A training script's network is often a part of a larger one, beside a loss with weights, for example.

    Raises:
        CheckpointError: If there are several such networks.
    """
    found = [(p, inner) for p, inner in _inner(tensors) if any(family.owns(inner) for family in FAMILIES)]
    if len(found) > 1:
        names = ", ".join(prefix for prefix, _ in found)
        raise CheckpointError(
            f"holds several networks (the keys begin with {names}): save the one that you want"
        )
    return found[0] if found else ("", tensors)


def _inner(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield tensors, or parts of them by their common prefix, of the first depth where a family's are."""
    parts = {"": dict(tensors)}
    for _ in range(4):
        if any(family.owns(part) for part in parts.values() for family in FAMILIES):
            break
        deeper: dict[str, dict[str, Tensor]] = {}
        for prefix, part in parts.items():
            for key, value in part.items():
                first, dot, rest = key.partition(".")
                if dot:
                    deeper.setdefault(f"{prefix}{first}.", {})[rest] = value
        parts = deeper
    yield from parts.items()


def by_head(head: str) -> Family:
    """Return the family with this kind of back end (`DetectorConfig.head`).

    Raises:
        CheckpointError: If there is none.
    """
    for family in FAMILIES:
        if family.head == head:
            return family
    raise CheckpointError(f"its back end is of the kind {head!r}, which this version does not know")
