"""XLS-R on a CPU, for scoring only: the same function as `model.XLSR`, but faster.

The weights are laid out once in the order that oneDNN multiplies fastest, and weight normalisation is
computed once. Frames are stored as [time, channels], so that layer norm and linear layers work on the last
axis, and so that a convolution with kernel k and stride s is a matrix product, whose rows are k * channels
neighbouring values and start s * channels values apart.

A clip's frames are bit for bit the same in any batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoofing.errors import DeviceError
from model import LAST, LAYERS, STATES, XLSR

if TYPE_CHECKING:
    from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2

ROWS = 1616  # how many rows a convolution computes at once; their results stay in the cache


class PackedXLSR(nn.Module):
    """XLS-R with packed weights: waves [B, T] -> frames float32 [B, F, width], without gradients.

    Args:
        xlsr: The front end to pack, on the CPU. It is emptied, so that memory holds the weights only once.
        precision: "fp32"; "bf16" for everything but the transformer's layer norms and residual sums; or
            "int8", which is bf16 with the transformer's linear layers in int8 (see `Int8Linear`).

    Raises:
        DeviceError: If the precision is int8 and this build of PyTorch does not support it here.
    """

    def __init__(self, xlsr: XLSR, precision: str):
        super().__init__()
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        model = xlsr.model
        with torch.no_grad():
            # ModuleList's stub does not say what it holds.
            conv_layers = cast(
                "Iterable[wav2vec2.Wav2Vec2LayerNormConvLayer]", model.feature_extractor.conv_layers
            )
            layers = cast("Iterable[wav2vec2.Wav2Vec2EncoderLayerStableLayerNorm]", model.encoder.layers)
            self.convolutions = [_Convolution(layer, self.dtype) for layer in conv_layers]
            self.norm = _LayerNorm(model.feature_projection.layer_norm)
            self.projection = _linear(model.feature_projection.projection, self.dtype)
            self.positions = _PositionalConvolution(model.encoder.pos_conv_embed, self.dtype)
            self.layers = []
            for layer in layers:
                self.layers.append(_Layer(layer, self.dtype, precision == "int8"))
                layer.to("meta")
            self.last_norm = _LayerNorm(model.encoder.layer_norm)
        xlsr.to("meta")

    @torch.inference_mode()
    def forward(self, waves: Tensor, outputs: str = LAST) -> Tensor:
        """Return the frames float32 of 16 kHz waves [B, T], as `model.XLSR` does."""
        with torch.autocast("cpu", enabled=False):
            return self._frames(waves, outputs)

    def _frames(self, waves: Tensor, outputs: str) -> Tensor:
        x = torch.stack([self._convolved(wave) for wave in waves])  # [B, F, channels]
        x = self.projection(self.norm(x.float()))
        x = x.float() + torch.stack([self.positions(frames) for frames in x])
        kept = []
        for layer in self.layers:
            if outputs == STATES:
                kept.append(x.clone())  # layers compute in place
            x = layer(x)
            if outputs == LAYERS:
                kept.append(x.clone())
        if outputs != LAYERS:
            kept.append(self.last_norm(x))
        return kept[0] if outputs == LAST else torch.stack(kept, dim=1)

    def _convolved(self, wave: Tensor) -> Tensor:
        """Turn a wave [T] into features [F, channels]."""
        x = wave.to(self.dtype)[:, None]
        for convolution in self.convolutions:
            x = convolution(x)
        return x


class _Convolution:
    """A layer of the feature extractor: convolution, layer norm and GELU; [T, in] -> [T', out]."""

    def __init__(self, layer: wav2vec2.Wav2Vec2LayerNormConvLayer, dtype: torch.dtype):
        (self.kernel,), (self.stride,) = layer.conv.kernel_size, layer.conv.stride
        assert layer.conv.bias is not None  # as `model.XLSR` configures it
        self.linear = Linear(layer.conv.weight.transpose(1, 2).flatten(1), layer.conv.bias, dtype)
        self.norm = _LayerNorm(layer.layer_norm, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        parts = windows(x, self.kernel, self.stride).split(ROWS)
        return torch.cat([F.gelu(self.norm(self.linear(rows))) for rows in parts])


class _PositionalConvolution:
    """The transformer's positional embedding: grouped convolution and GELU; [F, width] -> [F, width]."""

    def __init__(self, embedding: wav2vec2.Wav2Vec2PositionalConvEmbedding, dtype: torch.dtype):
        convolution = embedding.conv
        (self.kernel,), self.groups, self.dtype = convolution.kernel_size, convolution.groups, dtype
        assert convolution.bias is not None  # as transformers builds it
        weights = convolution.weight.transpose(1, 2).flatten(1).chunk(self.groups)
        biases = convolution.bias.chunk(self.groups)
        self.linears = [Linear(*pair, dtype) for pair in zip(weights, biases, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        # [groups, F, width / groups]
        by_group = x.to(self.dtype).unflatten(1, (self.groups, -1)).transpose(0, 1)
        padded = F.pad(by_group, (0, 0, self.kernel // 2, (self.kernel - 1) // 2))
        rows_of = (windows(group, self.kernel, 1) for group in padded)
        products = [linear(rows) for linear, rows in zip(self.linears, rows_of, strict=True)]
        return F.gelu(torch.cat(products, dim=1))


class _Layer:
    """A layer of the transformer, which updates its input float32 [B, F, width] in place and returns it."""

    def __init__(self, layer: wav2vec2.Wav2Vec2EncoderLayerStableLayerNorm, dtype: torch.dtype, int8: bool):
        attention, feed_forward = layer.attention, layer.feed_forward
        self.dtype, self.heads = dtype, attention.num_heads
        self.norm = _LayerNorm(layer.layer_norm)
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        weight[: len(weight) // 3] *= attention.scaling
        bias[: len(bias) // 3] *= attention.scaling
        self.qkv = Int8Linear(weight, bias) if int8 else Linear(weight, bias, dtype)
        self.out = _linear(attention.out_proj, dtype, int8)
        self.feed_forward_norm = _LayerNorm(layer.final_layer_norm)
        self.up = _linear(feed_forward.intermediate_dense, dtype, int8)
        self.down = _linear(feed_forward.output_dense, dtype, int8)

    def __call__(self, x: Tensor) -> Tensor:
        x += self.out(self._attended(self.qkv(self.norm(x))))
        x += self.down(F.gelu(self.up(self.feed_forward_norm(x))))
        return x

    def _attended(self, qkv: Tensor) -> Tensor:
        """Apply multi-head attention to queries, keys and values: [B, F, 3 * width] -> [B, F, width]."""
        qkv = qkv.to(self.dtype).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)  # each [B * heads, F, width / heads]
        # With so few frames PyTorch's fused attention would be slower.
        result = torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v
        return result.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)


def windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return a view [T', kernel * channels] of x [T, channels], whose rows overlap."""
    x = x.contiguous()
    channels = x.shape[1]
    size = ((len(x) - kernel) // stride + 1, kernel * channels)
    return x.as_strided(size, (stride * channels, 1), x.storage_offset())


class _LayerNorm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype = torch.float32):
        self.weight, self.bias = (value.detach().to(dtype, copy=True) for value in (norm.weight, norm.bias))
        self.eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Linear:
    """A linear layer in one data type, [..., in] -> [..., out], with weights packed for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype):
        self.dtype = dtype
        self.weight, self.bias = (
            value.detach().to(dtype, copy=True).contiguous() for value in (weight, bias)
        )
        self.packed = torch.backends.mkldnn.is_available()  # not on every platform
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """Return [..., out] for x [..., in]."""
        x = x.to(self.dtype)
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return F.linear(x, self.weight, self.bias)


class Int8Linear(nn.Module):
    """A linear layer by PyTorch's dynamic quantisation on a CPU: [B, F, in] -> float32 [B, F, out].

    Weights have a scale for each output. Activations have a scale and an offset for each clip, from its
    smallest and its largest value; one for the batch would make a clip's score depend on its neighbours.

    Raises:
        DeviceError: If this build of PyTorch does not support int8 on this processor.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        if torch.backends.quantized.engine == "none":
            raise DeviceError(
                "this build of PyTorch does not support int8 on this processor: choose another precision"
            )
        weight, bias = weight.detach().float(), bias.detach().float()
        scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        with warnings.catch_warnings():  # it is deprecated, but PyTorch's version is pinned
            warnings.filterwarnings("ignore", message=".*quantize", category=UserWarning)
            quantised = torch.quantize_per_channel(weight, scale.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, bias)
        # Older x86 processors add two products in 16 bits, which 8-bit activations would overflow.
        capabilities = torch.cpu.get_capabilities()
        vnni = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
        self.reduce_range = capabilities["architecture"] == "x86_64" and not vnni

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [B, F, out] for x [B, F, in]."""
        dynamic = torch.ops.quantized.linear_dynamic
        return torch.stack([dynamic(clip, self.packed, self.reduce_range) for clip in x.float()])


def _linear(layer: nn.Linear, dtype: torch.dtype, int8: bool = False) -> Linear | Int8Linear:
    return Int8Linear(layer.weight, layer.bias) if int8 else Linear(layer.weight, layer.bias, dtype)
