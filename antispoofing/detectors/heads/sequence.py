"""The back end of transformers' models for sequence classification: Wav2Vec2, HuBERT and WavLM.

What their folders hold is read by `detectors/hugging_face.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antispoofing.detectors.family import OLDER_WEIGHT_NORM, Family
from model import LAST, STATES


class SequenceClassifier(nn.Module):
    """The back end: frames [B, F, width], or states [B, layers + 1, F, width], -> logits [B, 2].

    Args:
        width: The width of the frames.
        projection: What they are projected to.
        real: Which output of the classifier is for real speech, 0 or 1; it becomes logit 1.
        states: How many states of the front end a weighted sum is taken of; 0 takes the last alone.
    """

    def __init__(self, width: int, projection: int = 256, real: int = 1, states: int = 0):
        super().__init__()
        if real not in (0, 1):
            raise ValueError(f"output {real} of two cannot be that for real speech")
        self.order = [1 - real, real]
        self.takes = STATES if states else LAST
        if states:
            self.layer_weights = nn.Parameter(torch.ones(states) / states)
        self.projector = nn.Linear(width, projection)
        self.classifier = nn.Linear(projection, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        if self.takes == STATES:
            x = torch.einsum("l,blfw->bfw", self.layer_weights.softmax(0), x)
        return self.classifier(self.projector(x).mean(1))[:, self.order]


FAMILIES = (
    Family(
        head="hugging-face",
        name="classifier of transformers",
        marks=(),  # a file alone does not say what its outputs mean
        build=SequenceClassifier,
        by_transformers=True,
        other_names=OLDER_WEIGHT_NORM,
        trained_on="see its model card",
        licence="see its model card",
    ),
)
