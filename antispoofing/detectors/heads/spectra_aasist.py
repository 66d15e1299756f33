"""The back end of Spectra-AASIST and Spectra-AASIST3: AASIST with four branches, behind a small network.

It differs from `model.AASIST` also in the order of its first steps, in residual blocks whose first
normalisation counts, and in heterogeneous layers without an activation. The published files of Spectra-AASIST
have one more level in the names of the residual blocks than the code that came with them elsewhere.

Spectra-AASIST3 is the same with KAN layers (`layers.py`) in place of AASIST's linear ones.

Source: the code published with the files, https://huggingface.co/lab260/Spectra-AASIST.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.detectors.family import OLDER_WEIGHT_NORM, Family
from antispoofing.detectors.layers import KANLinear
from model import GraphAttention, GraphPool, HeterogeneousGraphAttention, Linear, ResidualBlock, readout

MOST_FRAMES = 400  # there is a temporal position for no more: 8 s at 16 kHz
_BRANCHES = (1, 2, 3, 4)


class SpectraAASIST(nn.Module):
    """The back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real).

    Args:
        width: The width of the frames.
        linear: What makes the linear layers of AASIST.
    """

    def __init__(self, width: int, linear: Linear = nn.Linear):
        super().__init__()
        self.bridge = Bridge(width)
        self.aasist = _FourBranches(linear)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits.

        Raises:
            ValueError: If there are more than MOST_FRAMES frames.
        """
        if frames.shape[1] > MOST_FRAMES:
            raise ValueError(f"at most {MOST_FRAMES} frames have a position, not {frames.shape[1]}")
        return self.aasist(self.bridge(frames))


class Bridge(nn.Module):
    """The network between front end and back end: [B, F, width] -> [B, F, 128]."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 128), nn.SELU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.Dropout(0.1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Return the narrower frames."""
        return self.mlp(frames)


class _Block(ResidualBlock):
    """A residual block whose convolutions read its normalised input, but for the first block's."""

    def __init__(self, in_channels: int, out_channels: int, first: bool):
        super().__init__(in_channels, out_channels, first)
        if not first:
            self.bn1.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.conv_downsample(x) if hasattr(self, "conv_downsample") else x
        if hasattr(self, "bn1"):
            x = F.selu(self.bn1(x))
        return self.conv2(F.selu(self.bn2(self.conv1(x)))) + identity


class _Encoder(nn.Module):
    """The residual encoder: [B, 1, 128 spectral, F time] -> [B, 64, 42, F // 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first_bn = nn.BatchNorm2d(1)
        channels = [1, 32, 32, 64, 64, 64, 64]
        self.enc = nn.Sequential(
            *(nn.Sequential(_Block(i, o, first=k == 0)) for k, (i, o) in enumerate(pairwise(channels)))
        )
        self.first_bn1 = nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        x = F.selu(self.first_bn(F.max_pool2d(x.abs(), 3)))
        return F.selu(self.first_bn1(self.enc(x)))


class _Branch(nn.Module):
    """One of the branches: temporal and spectral nodes -> both, fewer and narrower, and a master node."""

    def __init__(self, linear: Linear):
        super().__init__()
        self.master = nn.Parameter(torch.randn(1, 1, 64))
        self.HtrgGAT_layer_ST1 = HeterogeneousGraphAttention(64, 32, 100.0, linear, selu=False)
        self.HtrgGAT_layer_ST2 = HeterogeneousGraphAttention(32, 32, 100.0, linear, selu=False)
        self.pool_hS = GraphPool(32, linear)
        self.pool_hT = GraphPool(32, linear)
        self.dropout = nn.Dropout(0.2)

    def forward(self, temporal: Tensor, spectral: Tensor) -> tuple[Tensor, ...]:
        temporal, spectral, master = self.HtrgGAT_layer_ST1(temporal, spectral, self.master)
        before = self.pool_hT(temporal), self.pool_hS(spectral), master
        added = self.HtrgGAT_layer_ST2(*before)
        return tuple(self.dropout(a + b) for a, b in zip(before, added, strict=True))


class _FourBranches(nn.Module):
    """AASIST from the bridge's frames on: [B, F, 128] -> [B, 2]."""

    def __init__(self, linear: Linear):
        super().__init__()
        self.pos_T = nn.Parameter(torch.randn(1, MOST_FRAMES, 128))
        self.enc = _Encoder()
        self.attention = nn.Sequential(
            nn.Conv2d(64, 128, 1), nn.SELU(), nn.BatchNorm2d(128), nn.Conv2d(128, 64, 1)
        )
        self.pos_S = nn.Parameter(torch.randn(1, 128 // 3, 64))
        self.GAT_layer_S = GraphAttention(64, 64, 2.0, linear)
        self.GAT_layer_T = GraphAttention(64, 64, 2.0, linear)
        self.pool_S = GraphPool(64, linear)
        self.pool_T = GraphPool(64, linear)
        for k in _BRANCHES:
            self.add_module(f"branch{k}", _Branch(linear))
        self.dropout_out = nn.Dropout(0.5)
        self.out_layer = linear(5 * 32, 2)

    def forward(self, frames: Tensor) -> Tensor:
        frames = frames + self.pos_T[:, : frames.shape[1]]
        x = self.enc(frames.transpose(1, 2)[:, None])
        weight = self.attention(x)
        spectral = (x * torch.softmax(weight, dim=3)).sum(3).transpose(1, 2) + self.pos_S
        temporal = (x * torch.softmax(weight, dim=2)).sum(2).transpose(1, 2)
        temporal, spectral = self.pool_T(self.GAT_layer_T(temporal)), self.pool_S(self.GAT_layer_S(spectral))
        branches = [getattr(self, f"branch{k}")(temporal, spectral) for k in _BRANCHES]
        temporal, spectral, master = (torch.stack(nodes).amax(0) for nodes in zip(*branches, strict=True))
        return self.out_layer(self.dropout_out(readout(temporal, spectral, master)))


# Published error rates are EERs of ASVspoof 2019 LA, 2021 LA, 2021 DF, ASVspoof 5, ADD 2022 and In-the-Wild.
SPECTRA = Family(
    head="spectra-aasist",
    name="Spectra-AASIST",
    marks=("bridge.mlp.0.weight", "aasist.branch4.master", "aasist.out_layer.weight"),
    build=SpectraAASIST,
    front_end="ssl_encoder.model.",
    by_transformers=True,
    other_names=(*OLDER_WEIGHT_NORM, (r"^(aasist\.enc\.enc\.\d+)\.0\.", r"\1.")),
    settings={"pre_emphasis": 0.97},
    threshold=-1.0625009,
    trainable=True,
    trained_on="not disclosed by its authors (lab260)",
    figures="0.16 % on ASVspoof 2019 LA, 5.16 % on 2021 LA, 2.57 % on 2021 DF, 14.06 % on ASVspoof 5, "
    "15.21 % on ADD 2022 and 1.46 % on In-the-Wild",
    licence="Apache-2.0 (MIT in the text of its card)",
)

FAMILIES = (
    SPECTRA,
    replace(
        SPECTRA,
        head="spectra-aasist3",
        name="Spectra-AASIST3",
        marks=("bridge.mlp.0.weight", "aasist.branch4.master", "aasist.out_layer.base_weight"),
        build=lambda width: SpectraAASIST(width, KANLinear),
        trainable=False,
        figures="0.72 % on ASVspoof 2019 LA, 4.51 % on 2021 LA, 2.00 % on 2021 DF, 13.82 % on ASVspoof 5, "
        "15.19 % on ADD 2022 and 0.96 % on In-the-Wild",
    ),
)
