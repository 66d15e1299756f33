"""AASIST and AASIST-L on raw waveforms, through fixed sinc filters.

Source: Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks",
ICASSP 2022, arXiv:2110.01200, and its published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.detectors.family import Family
from data_utils import SAMPLE_RATE
from model import GraphAttention, GraphPool, HeterogeneousGraphAttention, RawConfig, ResidualBlock, readout

FILTERS, KERNEL = 70, 129
FEWEST = KERNEL - 1 + 3**7  # samples that leave a column after seven poolings
PIECE = 1536  # columns that go through a residual block at once, a multiple of three
_RATIOS = {64: (0.5, 0.7, 0.5), 24: (0.4, 0.5, 0.7)}  # of the pools S, T, and hS and hT; by width


class RawAASIST(nn.Module):
    """The network: waves [B, T] at 16 kHz -> logits [B, 2]; logit 1 = bona fide (real).

    Args:
        width: Not used, since there is no front end.
        nodes: The width of the nodes: 64 for AASIST, 24 for AASIST-L.
    """

    filters: Tensor

    def __init__(self, width: int, nodes: int = 64):
        super().__init__()
        channels = [1, 32, 32, *[nodes] * 4]
        of_s, of_t, of_h = _RATIOS[nodes]
        self.register_buffer("filters", _sinc_filters(), persistent=False)
        self.first_bn = nn.BatchNorm2d(1)
        self.encoder = nn.Sequential(
            *(nn.Sequential(ResidualBlock(i, o, first=k == 0)) for k, (i, o) in enumerate(pairwise(channels)))
        )
        self.pos_S = nn.Parameter(torch.randn(1, FILTERS // 3, nodes))
        self.GAT_layer_S = GraphAttention(nodes, nodes, 2.0)
        self.GAT_layer_T = GraphAttention(nodes, nodes, 2.0)
        self.pool_S = GraphPool(nodes, ratio=of_s)
        self.pool_T = GraphPool(nodes, ratio=of_t)
        for k in (1, 2):
            self.register_parameter(f"master{k}", nn.Parameter(torch.randn(1, 1, nodes)))
            self.add_module(f"HtrgGAT_layer_ST{k}1", HeterogeneousGraphAttention(nodes, 32, 100.0))
            self.add_module(f"HtrgGAT_layer_ST{k}2", HeterogeneousGraphAttention(32, 32, 100.0))
            self.add_module(f"pool_hS{k}", GraphPool(32, ratio=of_h))
            self.add_module(f"pool_hT{k}", GraphPool(32, ratio=of_h))
        self.out_layer = nn.Linear(5 * 32, 2)

    def forward(self, waves: Tensor) -> Tensor:
        """Return the logits."""
        return self.out_layer(self.embedding(waves))

    def embedding(self, waves: Tensor) -> Tensor:
        """Return what the last layer takes: [B, T] -> [B, 160].

        Raises:
            ValueError: If there are fewer than FEWEST samples.
        """
        if waves.shape[1] < FEWEST:
            raise ValueError(f"this detector takes at least {FEWEST} samples, not {waves.shape[1]}")
        x = F.conv1d(waves[:, None], self.filters[:, None])[:, None]  # [B, 1, 70, T - 128]
        x = F.selu(self.first_bn(F.max_pool2d(x.abs(), 3)))
        for block in self.encoder:
            x = _pooled(block, x)
        spectral = x.abs().amax(3).transpose(1, 2) + self.pos_S
        temporal = x.abs().amax(2).transpose(1, 2)
        temporal, spectral = self.pool_T(self.GAT_layer_T(temporal)), self.pool_S(self.GAT_layer_S(spectral))
        branches = [self._branch(k, temporal, spectral) for k in (1, 2)]
        temporal, spectral, master = (torch.maximum(a, b) for a, b in zip(*branches, strict=True))
        return readout(temporal, spectral, master)

    def _branch(self, k: int, temporal: Tensor, spectral: Tensor) -> list[Tensor]:
        first, second = (getattr(self, f"HtrgGAT_layer_ST{k}{i}") for i in (1, 2))
        temporal, spectral, master = first(temporal, spectral, getattr(self, f"master{k}"))
        before = getattr(self, f"pool_hT{k}")(temporal), getattr(self, f"pool_hS{k}")(spectral), master
        return [a + b for a, b in zip(before, second(*before), strict=True)]


def _pooled(block: nn.Module, x: Tensor) -> Tensor:
    """Return a residual block's output, pooled over time: [B, in, S, T] -> [B, out, S, T // 3].

    On a CPU, this is computed in pieces that stay in its cache, which is several times as fast. A column of
    the output depends on two columns of the input to either side.
    """
    columns = x.shape[3] // 3 * 3
    step = PIECE if x.device.type == "cpu" else columns
    pieces = []
    for start in range(0, columns, step):
        margin = min(start, 2)
        piece = block(x[..., start - margin : start + step + 2])
        pieces.append(F.max_pool2d(piece[..., margin : margin + step], (1, 3)))
    return torch.cat(pieces, dim=3)


def _sinc_filters() -> Tensor:
    """Return band-pass filters [70, 129] from 0 to 8 kHz, equally spaced on the mel scale."""
    most = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, most, FILTERS + 1) / 2595) - 1)
    n = np.arange(KERNEL) - KERNEL // 2
    low_pass = 2 * edges[:, None] / SAMPLE_RATE * np.sinc(2 * edges[:, None] * n / SAMPLE_RATE)
    return torch.from_numpy((np.hamming(KERNEL) * np.diff(low_pass, axis=0)).astype(np.float32))


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    nodes = int(tensors["pos_S"].shape[-1]) if tensors["pos_S"].ndim else 0
    return {"nodes": nodes if nodes in _RATIOS else 64}  # the shapes of others will not fit


FAMILIES = (
    Family(
        head="raw-aasist",
        name="AASIST on raw waveforms",
        marks=("pos_S", "first_bn.weight", "GAT_layer_S.att_weight", "encoder.0.0.conv1.weight"),
        lacks=("LL.weight",),
        build=RawAASIST,
        sizes=_sizes,
        front_end_config=RawConfig,
        trained_on="ASVspoof 2019 LA, by Jung et al. (ICASSP 2022)",
        figures="0.83 % (AASIST) and 0.99 % (AASIST-L) on ASVspoof 2019 LA",
        licence="MIT",
    ),
)
