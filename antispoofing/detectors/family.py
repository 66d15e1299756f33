"""What makes a family of detectors: how its files are recognised, named and built.

The families themselves are in `heads/`, and `families.py` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from antispoofing.detectors import checkpoints
from model import DetectorConfig, FrontEndConfig, RawConfig, XLSRConfig

NameOf = Callable[[str], str]  # the file's key for a key of the detector

# Names that replace others in some files; see `Family.other_names`.
OLDER_WEIGHT_NORM = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)


@dataclass(frozen=True)
class Family:
    """What shares one architecture and one way of preparing a clip.

    Attributes:
        head: What a configuration calls the back end (`DetectorConfig.head`).
        name: What users call the family.
        marks: Keys of which only a file of this family has all; none if a file alone cannot be read.
        lacks: Keys that a file of this family does not have, if others have its marks too.
        build: Makes the back end for a width of frames, and sizes by name. Its keys are the file's own.
        sizes: Reads these sizes from the file's tensors.
        front_end_config: Makes the configuration of the front end.
        front_end: What the front end's keys begin with.
        by_transformers: Whether they go on with transformers' names, rather than fairseq's.
        other_names: Pairs of a pattern and its replacement. A file that has no key with that pattern has the
            other name instead.
        settings: Other settings of the configuration, such as how a clip is prepared, by their names.
        threshold: The threshold of scores that the authors published.
        trainable: Whether `fine_tune_for.py` trains such detectors.
        trained_on: What the authors say of the training data.
        figures: The EERs that they published.
        licence: The licence of the files.
    """

    head: str
    name: str
    marks: tuple[str, ...]
    build: Callable[..., nn.Module]
    lacks: tuple[str, ...] = ()
    sizes: Callable[[Mapping[str, Tensor]], dict[str, int]] = lambda tensors: {}
    front_end_config: Callable[[], FrontEndConfig] = XLSRConfig
    front_end: str = checkpoints.FRONT
    by_transformers: bool = False
    other_names: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, float | bool] = field(default_factory=dict)
    threshold: float | None = None
    trainable: bool = False
    trained_on: str = ""
    figures: str = ""
    licence: str = ""

    def owns(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether a file with these tensors is one of this family."""
        return (
            bool(self.marks)
            and all(key in tensors for key in self.marks)
            and not any(key in tensors for key in self.lacks)
        )

    def config(self, tensors: Mapping[str, Tensor], given: DetectorConfig | None = None) -> DetectorConfig:
        """Return the configuration of a file of this family.

        Args:
            tensors: The file's tensors.
            given: The sizes of its front end, if these are not the usual ones.
        """
        if given is None or self.front_end_config is RawConfig:
            given = DetectorConfig(self.front_end_config())
        return replace(given, head=self.head, head_sizes=self.sizes(tensors), **self.settings)  # type: ignore

    def name_of(self, tensors: Mapping[str, Tensor]) -> NameOf:
        """Return the function that gives the key in a file, with these tensors, for a key of the detector."""
        others = [
            (pattern, replacement)
            for pattern, replacement in self.other_names
            if not any(re.search(pattern, key) for key in tensors)
        ]

        def name_of(key: str) -> str:
            part, name = key.split(".", 1)
            if key in checkpoints.PRETRAINING_ONLY or (part == "front_end" and not self.by_transformers):
                name = self.front_end + checkpoints.official_name(key).removeprefix(checkpoints.FRONT)
            elif part == "front_end":
                name = self.front_end + name.removeprefix("model.")
            for pattern, replacement in others:
                name = re.sub(pattern, replacement, name)
            return name

        return name_of
