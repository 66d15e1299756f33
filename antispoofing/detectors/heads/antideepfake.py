"""The back end of AntiDeepfake: the mean of the frames, and one linear layer.

Source: Ge et al., "Post-training for deepfake speech detection", 2025, arXiv:2506.21090, and its published
code.
"""

from __future__ import annotations

from torch import Tensor, nn

from antispoofing.detectors.family import Family


class MeanClassifier(nn.Module):
    """The back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real)."""

    def __init__(self, width: int):
        super().__init__()
        self.proj_fc = nn.Linear(width, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        return self.proj_fc(frames.mean(1))


FAMILIES = (
    Family(
        head="antideepfake",
        name="AntiDeepfake",
        marks=("proj_fc.weight", "proj_fc.bias"),
        build=MeanClassifier,
        front_end="m_ssl.model.",
        settings={"normalise_eps": 1e-5, "hears_whole": True, "score_is_difference": True},
        trained_on="what its authors list (NII, arXiv:2506.21090)",
        licence="CC BY-NC-SA 4.0: not for commercial use",
    ),
)
