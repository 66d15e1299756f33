"""The back end of Spectra-0: ECAPA-TDNN, behind the same small network as Spectra-AASIST.

Sources: Desplanques et al., "ECAPA-TDNN", Interspeech 2020, arXiv:2005.07143; and the code published with the
files, https://huggingface.co/lab260/spectra_0.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.detectors.heads.spectra_aasist import SPECTRA, Bridge
from antispoofing.detectors.layers import SqueezeExcitation

CHANNELS = 128
PARTS = 8  # that a block splits its channels into
_DILATIONS = (2, 3, 4, 5)
_LEAST = 1e-4  # of a variance


class Spectra0(nn.Module):
    """The back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real)."""

    def __init__(self, width: int):
        super().__init__()
        self.bridge = Bridge(width)
        self.ecapa_tdnn = ECAPA()

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        return self.ecapa_tdnn(self.bridge(frames).transpose(1, 2))


class ECAPA(nn.Module):
    """ECAPA-TDNN: [B, 128, F] -> [B, 2]. Each convolution is followed by a ReLU, and then by BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(CHANNELS, CHANNELS, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(CHANNELS)
        for k, dilation in enumerate(_DILATIONS, 1):
            self.add_module(f"layer{k}", _Block(dilation))
        self.layer5 = nn.Conv1d(len(_DILATIONS) * CHANNELS, 1536, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(3 * 1536, 256, 1),
            nn.ReLU(),
            nn.BatchNorm1d(256),
            nn.Tanh(),
            nn.Conv1d(256, 1536, 1),
            nn.Softmax(dim=2),
        )
        self.bn5 = nn.BatchNorm1d(2 * 1536)
        self.fc6 = nn.Linear(2 * 1536, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.bn1(F.relu(self.conv1(x)))
        outputs: list[Tensor] = []
        for k in range(1, len(_DILATIONS) + 1):
            outputs.append(getattr(self, f"layer{k}")(x))
            x = x + outputs[-1]
        x = F.relu(self.layer5(torch.cat(outputs, dim=1)))
        weight = self.attention(self._with_statistics(x))
        mean = (weight * x).sum(2)
        deviation = ((weight * x**2).sum(2) - mean**2).clamp_min(_LEAST).sqrt()
        return self.fc6(self.bn5(torch.cat([mean, deviation], dim=1)))

    @staticmethod
    def _with_statistics(x: Tensor) -> Tensor:
        """Return x [B, C, F] with its mean and its (unbiased) deviation over time: [B, 3 * C, F]."""
        mean, variance = x.mean(2, keepdim=True), x.var(2, keepdim=True)
        statistics = (mean, variance.clamp_min(_LEAST).sqrt())
        return torch.cat([x, *(value.expand_as(x) for value in statistics)], dim=1)


class _Block(nn.Module):
    """A residual block with a Res2Net inside: [B, 128, F] -> [B, 128, F]."""

    def __init__(self, dilation: int):
        super().__init__()
        size = CHANNELS // PARTS
        self.conv1 = nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.bn1 = nn.BatchNorm1d(CHANNELS)
        self.convs = nn.ModuleList(
            nn.Conv1d(size, size, 3, dilation=dilation, padding=dilation) for _ in range(PARTS - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(PARTS - 1))
        self.conv3 = nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.bn3 = nn.BatchNorm1d(CHANNELS)
        self.se = SqueezeExcitation(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.bn1(F.relu(self.conv1(x))).chunk(PARTS, dim=1)
        results: list[Tensor] = []
        for part, conv, bn in zip(parts[:-1], self.convs, self.bns, strict=True):
            results.append(bn(F.relu(conv(part + results[-1] if results else part))))
        y = self.bn3(F.relu(self.conv3(torch.cat([*results, parts[-1]], dim=1))))
        return self.se(y) + x


FAMILIES = (
    replace(
        SPECTRA,
        head="spectra-0",
        trainable=False,
        name="Spectra-0",
        marks=("bridge.mlp.0.weight", "ecapa_tdnn.fc6.weight"),
        build=Spectra0,
        figures="0.18 % on ASVspoof 2019 LA, 6.48 % on 2021 LA, 5.41 % on 2021 DF, 14.43 % on ASVspoof 5, "
        "14.72 % on ADD 2022 and 1.03 % on In-the-Wild",
    ),
)
