"""The back end of XLS-R + SLS: a gated sum of all layers of XLS-R, then a small classifier.

Source: Zhang, Wen and Hu, "Audio deepfake detection with self-supervised XLS-R and SLS classifier", ACM
Multimedia 2024, and its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.detectors.family import Family
from model import LAYERS

FRAMES = 201  # of 64600 samples; the classifier takes no other number


class SLS(nn.Module):
    """The back end: the layers' outputs [B, layers, 201, width] -> log-probabilities [B, 2], spoof first."""

    takes = LAYERS

    def __init__(self, width: int):
        super().__init__()
        self.first_bn = nn.BatchNorm2d(1)
        self.fc0 = nn.Linear(width, 1)
        self.fc1 = nn.Linear((FRAMES // 3) * (width // 3), 1024)
        self.fc3 = nn.Linear(1024, 2)

    def forward(self, layers: Tensor) -> Tensor:
        """Return the log-probabilities, of a SELU of the last layer's output.

        Raises:
            ValueError: If there are not 201 frames.
        """
        if layers.shape[2] != FRAMES:
            raise ValueError(f"this detector takes {FRAMES} frames, of 64600 samples, not {layers.shape[2]}")
        gates = torch.sigmoid(self.fc0(layers.mean(2)))  # [B, layers, 1]
        x = (gates[..., None] * layers).sum(1)[:, None]  # [B, 1, F, width]
        x = F.max_pool2d(F.selu(self.first_bn(x)), 3).flatten(1)
        return F.log_softmax(F.selu(self.fc3(F.selu(self.fc1(x)))), dim=1)


FAMILIES = (
    Family(
        head="sls",
        name="XLS-R + SLS",
        marks=("fc0.weight", "fc1.weight", "fc3.weight"),
        build=SLS,
        trained_on="ASVspoof 2019 LA, by Zhang et al. (ACM Multimedia 2024)",
        figures="1.92 % on ASVspoof 2021 DF, 2.87 % on 2021 LA, 7.46 % on In-the-Wild",
        licence="not stated in its repository (MIT where it is mirrored)",
    ),
)
