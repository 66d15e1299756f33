"""XLS-R's convolutions for training: the same function as in transformers, in less time.

Frames are stored as [time, channels], so that a convolution and its gradients are a few matrix products, and
the normalisation after it works on the last axis. A CPU computes clips one by one, CUDA all at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from antispoofing.detectors import batched
from antispoofing.detectors.packed import windows

if TYPE_CHECKING:
    from transformers.models.wav2vec2.modeling_wav2vec2 import (
        Wav2Vec2FeatureEncoder,
        Wav2Vec2LayerNormConvLayer,
    )


CLIPS_RECOMPUTED = 8  # at once on CUDA: enough for large products, with little memory


class ConvolutionStack(nn.Module):
    """A replacement on a CPU for transformers' feature encoder, with the same parameters and names.

    Args:
        extractor: The feature encoder to replace.
        recompute: Recompute each clip in the backward pass instead of keeping its activations.
    """

    def __init__(self, extractor: Wav2Vec2FeatureEncoder, recompute: bool):
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.recompute = recompute

    def forward(self, waves: Tensor) -> Tensor:
        """Compute frames: [B, T] -> [B, channels, F], in autocast's data type if autocast is enabled."""
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
        """Compute one clip: [T, 1] -> [F, channels]."""
        for layer in self.conv_layers:
            conv, norm = layer.conv, layer.layer_norm
            assert isinstance(conv, nn.Conv1d)
            assert isinstance(norm, nn.LayerNorm)  # XLS-R's kind of layer
            x = _Convolution.apply(x, conv.weight, conv.bias, conv.stride[0])
            x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        return x


class BatchedConvolutionStack(nn.Module):
    """A replacement on CUDA for transformers' feature encoder, with the same parameters and names.

    Args:
        extractor: The feature encoder to replace.
        recompute: Recompute the activations in the backward pass instead of keeping them.
    """

    def __init__(self, extractor: Wav2Vec2FeatureEncoder, recompute: bool):
        super().__init__()
        self.conv_layers = extractor.conv_layers
        self.recompute = recompute

    def forward(self, waves: Tensor) -> Tensor:
        """Compute frames: [B, T] -> [B, channels, F], in autocast's data type if autocast is enabled."""
        device = waves.device.type
        is_lower = torch.is_autocast_enabled(device)
        waves = waves.to(torch.get_autocast_dtype(device) if is_lower else torch.float32)
        with torch.autocast(device, enabled=False):
            if self.recompute and torch.is_grad_enabled():
                parts = waves.split(CLIPS_RECOMPUTED)
                return torch.cat([checkpoint(self._convolved, part, use_reentrant=False) for part in parts])
            return self._convolved(waves)

    def _convolved(self, waves: Tensor) -> Tensor:
        # ModuleList's stub does not say what it holds.
        layers = cast("Iterable[Wav2Vec2LayerNormConvLayer]", self.conv_layers)
        steps = [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in layers]
        x = batched.joined(waves, steps)
        for layer, (_, stride) in zip(layers, steps, strict=True):
            norm = layer.layer_norm
            assert layer.conv.bias is not None  # as `model.XLSR` configures it
            weight, bias = (p.to(x.dtype) for p in (layer.conv.weight, layer.conv.bias))
            x = batched.convolve(x, batched.taps(weight, stride), bias, stride)
            # In fp16 the gradients of the norm, sums over all frames, could overflow.
            dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
            scale, shift = (p.to(dtype) for p in (norm.weight, norm.bias))
            x = F.layer_norm(x.to(dtype), norm.normalized_shape, scale, shift, norm.eps).to(x.dtype)
            x = F.gelu(x)
        return batched.separated(x, waves, steps).transpose(1, 2)


class _Convolution(torch.autograd.Function):
    """One convolution: x [T, in], weight [out, in, kernel], bias [out] -> [T', out], in the type of x."""

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
        grad_weight = torch.empty_like(weight).copy_(grad_weight)  # DDP expects the weight's memory layout
        return grad_x, grad_weight, gradient.sum(0).to(weight.dtype), None


def _by_window(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Reorder a weight to match a window of frames: [out, in, kernel] -> [out, kernel * in]."""
    return weight.transpose(1, 2).flatten(1).to(dtype)
