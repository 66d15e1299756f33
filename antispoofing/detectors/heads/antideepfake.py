"""The back end of AntiDeepfake: the mean of the frames, and one linear layer.

Source: Ge et al., "Post-training for deepfake speech detection", 2025, arXiv:2506.21090, and its published
code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from antispoofing.detectors.family import Family
from antispoofing.errors import CheckpointError

# The published files of other sizes, by the width of their frames.
_OTHERS = {768: "w2v_small", 1280: "mms_1b, xlsr_1b or hubert_xlarge", 1920: "xlsr_2b"}


class MeanClassifier(nn.Module):
    """The back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real)."""

    def __init__(self, width: int):
        super().__init__()
        self.proj_fc = nn.Linear(width, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        return self.proj_fc(frames.mean(1))


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return no sizes, since the width is the front end's; refuse the front ends of other sizes."""
    shape = tensors["proj_fc.weight"].shape if tensors else ()
    for width, names in _OTHERS.items():
        if shape == (2, width):
            raise CheckpointError(
                f"looks like AntiDeepfake {names}, which is not supported (only the files of 300M, "
                "mms_300m and w2v_large)"
            )
    return {}


FAMILIES = (
    Family(
        head="antideepfake",
        name="AntiDeepfake",
        marks=("proj_fc.weight", "proj_fc.bias"),
        build=MeanClassifier,
        sizes=_sizes,
        front_end="m_ssl.model.",
        settings={"normalise_eps": 1e-5, "hears_whole": True, "score_is_difference": True},
        trained_on="the data sets listed in arXiv:2506.21090, by NII",
        licence="CC BY-NC-SA 4.0: not for commercial use",
    ),
)
