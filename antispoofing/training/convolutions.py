"""XLS-R's convolutions as they are trained on a CPU: the function of transformers' own, in half the time.

Frames lie as [time, channels], so that a convolution is a matrix product, and its gradients are two
(`packed.windows`); what follows it works on the last axis. Clips are computed one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from antispoofing.detectors.packed import windows


class ConvolutionStack(nn.Module):
    """Waves [B, T] -> [B, channels, F], in autocast's type where that is on. Takes an extractor's place.

    Args:
        extractor: transformers' Wav2Vec2FeatureEncoder; its layers stay as they are, under their names.
        recompute: compute a clip again in the backward pass, rather than keep what that needs.
    """

    def __init__(self, extractor: nn.Module, recompute: bool):
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.recompute = recompute

    def forward(self, waves: Tensor) -> Tensor:
        is_lower = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_lower else torch.float32
        with torch.autocast("cpu", enabled=False):
            clips = waves.to(dtype)[..., None].unbind()
            if self.recompute and torch.is_grad_enabled():
                frames = [checkpoint(self._convolved, clip, use_reentrant=False) for clip in clips]
            else:
                frames = [self._convolved(clip) for clip in clips]
        return torch.stack(frames).transpose(1, 2)

    def _convolved(self, x: Tensor) -> Tensor:
        """[T, 1] -> [F, channels]."""
        for layer in self.conv_layers:
            norm = layer.layer_norm
            x = _Convolution.apply(x, layer.conv.weight, layer.conv.bias, layer.conv.stride[0])
            x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        return x


class _Convolution(torch.autograd.Function):
    """[T, in], weight [out, in, kernel], bias [out] -> [T', out], in the first one's type."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.linear(windows(x, weight.shape[2], stride), _by_window(weight, x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, (_, channels, kernel) = None, weight.shape
        if ctx.needs_input_grad[0]:
            per_window = (gradient @ _by_window(weight, x.dtype)).unflatten(1, (kernel, channels))
            grad_x = torch.zeros_like(x)
            last = ctx.stride * (len(gradient) - 1) + 1
            for place in range(kernel):
                grad_x[place : place + last : ctx.stride] += per_window[:, place]
        grad_weight = gradient.T @ windows(x, kernel, ctx.stride)
        grad_weight = grad_weight.unflatten(1, (kernel, channels)).transpose(1, 2)
        grad_weight = torch.empty_like(weight).copy_(grad_weight)  # laid out as DDP wants it
        return grad_x, grad_weight, gradient.sum(0).to(weight.dtype), None


def _by_window(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[out, in, kernel] -> [out, kernel * in], as a window of frames lies."""
    return weight.transpose(1, 2).flatten(1).to(dtype)
