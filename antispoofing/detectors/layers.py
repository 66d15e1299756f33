"""Layers that the back ends of several families consist of, or that are not PyTorch's.

Sources: Liu et al., "KAN: Kolmogorov-Arnold networks", ICLR 2025, arXiv:2404.19756, in the variant of the
code published with Spectra-AASIST3, whose base function is a PReLU; Hu et al., "Squeeze-and-excitation
networks", CVPR 2018, arXiv:1709.01507.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEGREE = 4
KNOTS = 25  # from -1.5 to 1.5, an eighth apart
ROWS = 64  # of the input, whose bases stay in a CPU's cache


class KANLinear(nn.Module):
    """A sum over inputs of one learnt function for each output: [..., in] -> [..., out].

    The function is a PReLU with a weight, plus a B-spline of degree 4, which is 0 beyond the knots.
    """

    grid: Tensor

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        bases = KNOTS - 1 - DEGREE
        self.base_activation = nn.PReLU()
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, bases))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self.register_buffer("grid", torch.linspace(-1.5, 1.5, KNOTS).repeat(in_features, 1))
        if not self.base_weight.is_meta:
            nn.init.kaiming_uniform_(self.base_weight, 5**0.5)
            nn.init.kaiming_uniform_(self.spline_scaler, 5**0.5)
            nn.init.normal_(self.spline_weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums."""
        splines = (self.spline_weight * self.spline_scaler[..., None]).flatten(1)
        rows = x.flatten(0, -2)
        parts = rows.split(ROWS) if x.device.type == "cpu" else (rows,)
        sums = torch.cat([F.linear(self._bases(part), splines) for part in parts])
        return F.linear(self.base_activation(x), self.base_weight) + sums.unflatten(0, x.shape[:-1])

    def _bases(self, x: Tensor) -> Tensor:
        """Return the values of the B-splines [..., in * 20] at x [..., in] (Cox and de Boor)."""
        x, knots = x[..., None], self.grid
        above = (x >= knots).to(x.dtype)
        bases = above[..., :-1] - above[..., 1:]
        for degree in range(1, DEGREE + 1):
            # A basis rises in one base of the degree below, and falls, by 1 minus the rise, in the next one.
            scale = 1 / (knots[:, degree:] - knots[:, :-degree])
            rising = (x - knots[:, :-degree]) * scale * bases
            bases = rising[..., :-1] - rising[..., 1:] + bases[..., 1:]
        return bases.flatten(-2)


class SqueezeExcitation(nn.Module):
    """Channels [B, C, F] times a gate each, which their means over time decide."""

    def __init__(self, channels: int, bottleneck: int):
        super().__init__()
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool1d(1),
            nn.Conv1d(channels, bottleneck, 1),
            nn.ReLU(),
            nn.Conv1d(bottleneck, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated channels."""
        return x * self.se(x)
