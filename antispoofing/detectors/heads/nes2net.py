"""The back end of Nes2Net-X: Res2Nets inside a Res2Net, on frames of XLS-R as they are.

Source: Liu et al., "Nes2Net: a lightweight nested architecture for foundation model driven speech
anti-spoofing", IEEE T-IFS 2025, arXiv:2504.05657, and its published code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.detectors.family import Family
from antispoofing.detectors.layers import SqueezeExcitation

DILATION = 2  # of the published files, in which it leaves no trace


class Nes2NetX(nn.Module):
    """The back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real).

    Args:
        width: The width of the frames.
        outer: How many parts the channels are split into.
        inner: How many parts each of these is split into.
        squeeze: By what squeeze and excitation reduces the channels.
    """

    def __init__(self, width: int, outer: int = 8, inner: int = 8, squeeze: int = 1):
        super().__init__()
        self.Nested_Res2Net_TDNN = _Outer(width, outer, inner, squeeze)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        return self.Nested_Res2Net_TDNN(frames.transpose(1, 2))


class _Outer(nn.Module):
    def __init__(self, width: int, outer: int, inner: int, squeeze: int):
        super().__init__()
        size = width // outer
        self.outer = outer
        self.Build_in_Res2Nets = nn.ModuleList(_Inner(size, inner, squeeze) for _ in range(outer - 1))
        self.bns = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(outer - 1))
        self.bn = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(self.outer, dim=1)
        results: list[Tensor] = []
        for part, block, bn in zip(parts[:-1], self.Build_in_Res2Nets, self.bns, strict=True):
            results.append(bn(F.relu(block(part + results[-1] if results else part))))
        x = F.relu(self.bn(torch.cat([*results, parts[-1]], dim=1)))
        return self.fc(x.mean(2))


class _Inner(nn.Module):
    """A Res2Net whose parts are weighted sums of all earlier ones: [B, C, F] -> [B, C, F]."""

    def __init__(self, channels: int, inner: int, squeeze: int):
        super().__init__()
        size = channels // inner
        self.inner = inner
        self.conv1 = nn.Conv1d(channels, inner * size, 1)
        self.bn1 = nn.BatchNorm1d(inner * size)
        self.convs = nn.ModuleList(
            nn.Conv2d(size, size, (3, 1), dilation=(DILATION, 1), padding=(DILATION, 0))
            for _ in range(inner - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(size) for _ in range(inner - 1))
        self.weighted_sum = nn.ParameterList(
            nn.Parameter(torch.full((1, 1, 1, j + 2), 1 / (j + 2))) for j in range(inner - 1)
        )
        self.conv3 = nn.Conv1d(inner * size, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.se = SqueezeExcitation(channels, channels // squeeze)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.bn1(F.relu(self.conv1(x)))[..., None].chunk(self.inner, dim=1)  # each [B, c, F, 1]
        columns, results = parts[-1], []
        for part, conv, bn, weight in zip(parts[:-1], self.convs, self.bns, self.weighted_sum, strict=True):
            columns = bn(F.relu(conv(torch.cat([columns, part], dim=3))))
            results.append((columns * weight).sum(3))
        y = torch.cat([*results, parts[-1].squeeze(3)], dim=1)
        return self.se(self.bn3(F.relu(self.conv3(y)))) + x


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Read from a file's tensors how the channels are split."""
    first = "Nested_Res2Net_TDNN.Build_in_Res2Nets.0."
    outer = sum(key.endswith(".conv1.weight") for key in tensors if "Build_in_Res2Nets" in key) + 1
    inner = sum(key.startswith(f"{first}convs.") and key.endswith(".weight") for key in tensors) + 1
    bottleneck = tensors.get(f"{first}se.se.1.weight")
    squeeze = 1 if bottleneck is None else max(1, bottleneck.shape[1] // max(1, bottleneck.shape[0]))
    return {"outer": outer, "inner": inner, "squeeze": squeeze}


FAMILIES = (
    Family(
        head="nes2net-x",
        name="XLS-R + Nes2Net-X",
        marks=("Nested_Res2Net_TDNN.bn.weight", "Nested_Res2Net_TDNN.fc.weight"),
        build=Nes2NetX,
        sizes=_sizes,
        settings={"hears_whole": True},
        trained_on="ASVspoof 2019 LA, by Liu et al. (IEEE T-IFS 2025)",
        figures="5.15 to 5.52 % on In-the-Wild, whose recordings were heard whole, as here; 1.49 to 1.65 % "
        "on ASVspoof 2021 DF and 1.73 to 1.88 % on 2021 LA, of the first 64,600 samples; by several files",
        licence="not stated",
    ),
)
