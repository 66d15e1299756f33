"""XLS-R on a GPU, for scoring only: the same function as `model.XLSR`, as few large matrix products.

Frames are stored as [clips * time, channels], so that each layer is one matrix product over the whole batch.
Weight normalisation is computed once, and queries, keys and values come from one product. Everything here
also runs on a CPU, where the tests compare it with `model.XLSR`; there `packed.PackedXLSR` is faster.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import XLSR

if TYPE_CHECKING:
    from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2

logger = logging.getLogger(__name__)

MOST_SHAPES = 4  # of which a graph is kept, since each holds the memory of its intermediate results
FRAMES = 8  # how many neighbouring frames one row of the positional convolution's product computes


Recorded = tuple[torch.cuda.CUDAGraph, Tensor, Tensor]  # kernels, where their input is and where the result


class Replayed(nn.Module):
    """A module whose kernels CUDA starts all at once, which for small batches takes a tenth of the time.

    The kernels are recorded as a CUDA graph when a shape comes for the second time, and the graphs of the
    MOST_SHAPES shapes used last are kept. Where recording fails, the module is called as it is.

    Args:
        module: A module on CUDA in evaluation mode, from one tensor to one tensor.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.seen: set[torch.Size] = set()
        self.recorded: dict[torch.Size, Recorded | None] = {}  # None where memory ran out
        self.works = True
        self.lock = threading.Lock()  # for the input and the result, which all replays share

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return what the module returns."""
        with self.lock:
            recorded = self._recorded(x) if self.works else None
            if recorded is None:
                return self.module(x)
            graph, given, result = recorded
            given.copy_(x)
            graph.replay()
            return result.clone()

    def _recorded(self, x: Tensor) -> Recorded | None:
        shape = x.shape
        if shape in self.recorded:
            self.recorded[shape] = self.recorded.pop(shape)  # so that the first is the one unused for longest
        elif shape not in self.seen:
            self.seen.add(shape)  # the first call loads what CUDA needs, which cannot be recorded
            return None
        else:
            if len(self.recorded) == MOST_SHAPES:
                del self.recorded[next(iter(self.recorded))]
            self.recorded[shape] = self._record(x)
        return self.recorded[shape]

    @torch.inference_mode(False)
    def _record(self, x: Tensor) -> Recorded | None:
        graph = torch.cuda.CUDAGraph()
        # If recording fails, its own stream would stay the current one. While it lasts, other threads may
        # allocate pinned memory.
        stream = torch.cuda.stream(torch.cuda.current_stream(x.device) if x.is_cuda else None)
        try:
            given = torch.empty_like(x)
            with torch.no_grad(), stream, torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.module(given)
        except torch.cuda.OutOfMemoryError:
            return None
        except RuntimeError as error:
            self.works = False
            reason = (str(error) or type(error).__name__).splitlines()[0]
            logger.warning("CUDA graphs do not work here, so small batches take longer: %s", reason)
            return None
        return graph, given, result


class BatchedXLSR(nn.Module):
    """XLS-R in large matrix products: waves [B, T] -> frames float32 [B, F, width], without gradients.

    Args:
        xlsr: The front end whose weights are taken. It is emptied, so that memory holds them only once.
        dtype: The type of everything but the transformer's layer norms and residual sums, which are float32.
    """

    def __init__(self, xlsr: XLSR, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        model = xlsr.model
        with torch.no_grad():
            # ModuleList's stub does not say what it holds.
            conv_layers = cast(
                "Iterable[wav2vec2.Wav2Vec2LayerNormConvLayer]", model.feature_extractor.conv_layers
            )
            layers = cast("Iterable[wav2vec2.Wav2Vec2EncoderLayerStableLayerNorm]", model.encoder.layers)
            self.convolutions = nn.ModuleList(_Convolution(layer, dtype) for layer in conv_layers)
            self.steps = [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in conv_layers]
            self.norm = _LayerNorm(model.feature_projection.layer_norm)
            self.projection = _Linear.of(model.feature_projection.projection, dtype)
            self.positions = _PositionalConvolution(model.encoder.pos_conv_embed, dtype)
            self.layers = nn.ModuleList()
            for layer in layers:
                self.layers.append(_Layer(layer, dtype))
                layer.to("meta")
            self.last_norm = _LayerNorm(model.encoder.layer_norm)
        xlsr.to("meta")

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        """Return the frames float32 [B, F, width] of 16 kHz waves [B, T]."""
        with torch.autocast(waves.device.type, enabled=False):
            x = self.projection(self.norm(self._convolved(waves).float())).float()
            x = x + self.positions(x)
            for layer in self.layers:
                x = layer(x)
            return self.last_norm(x)

    def _convolved(self, waves: Tensor) -> Tensor:
        """Turn waves [B, T] into features [B, F, channels]."""
        x = joined(waves.to(self.dtype), self.steps)
        for convolution in self.convolutions:
            x = convolution(x)
        return separated(x, waves, self.steps)


def joined(waves: Tensor, steps: Sequence[tuple[int, int]]) -> Tensor:
    """Put waves [B, T] end to end, as one long wave [B * T', 1] for all layers of convolutions.

    Zeros fill up each to a multiple T' of the hop between frames, so that every layer finds every wave at a
    multiple of its stride. A few values at the end of each then mix two waves; `separated` leaves them out.

    Args:
        waves: The waves.
        steps: The kernel and the stride of each layer.
    """
    hop = math.prod(stride for _, stride in steps)
    return F.pad(waves, (0, -waves.shape[1] % hop)).reshape(-1, 1)


def separated(x: Tensor, waves: Tensor, steps: Sequence[tuple[int, int]]) -> Tensor:
    """Return the frames [B, F, channels] of each wave [B, T], from the long one's x [B * F', channels].

    The rows at the end of x that mix the last wave with nothing may be missing.
    """
    count, frames = waves.shape
    room = -(-frames // math.prod(stride for _, stride in steps))
    for kernel, stride in steps:
        frames = (frames - kernel) // stride + 1
    return F.pad(x, (0, 0, 0, count * room - len(x))).view(count, room, -1)[:, :frames]


def taps(weight: Tensor, stride: int) -> list[Tensor]:
    """Divide a convolution's weight [out, in, kernel] into matrices [taps * in, out] for `convolve`.

    Each has up to `stride` taps, so that the rows it is multiplied with do not overlap, since cuBLAS would
    first copy them. With one input channel they may, and there is one matrix.
    """
    by_tap = weight.permute(2, 1, 0)
    step = stride if by_tap.shape[1] > 1 else len(by_tap)
    return [part.flatten(0, 1) for part in by_tap.split(step)]


def convolve(x: Tensor, parts: Sequence[Tensor], bias: Tensor, stride: int) -> Tensor:
    """Apply a convolution as matrix products: x [T, in] -> [T', out].

    Args:
        x: The input.
        parts: The weight, from `taps`.
        bias: The bias [out].
        stride: The stride.
    """
    channels = x.shape[1]
    if channels == 1:
        missing = -len(parts[0]) % 8  # rows must be a multiple of 16 bytes apart for the fast kernels
        rows = F.pad(x[:, 0].unfold(0, len(parts[0]), stride), (0, missing))
        return torch.addmm(bias, rows, F.pad(parts[0], (0, 0, 0, missing)))
    blocks = x[: len(x) // stride * stride].view(-1, stride * channels)
    count = len(blocks) - len(parts) + 1
    result = torch.addmm(bias, blocks[:count], parts[0])
    for i, part in enumerate(parts[1:], start=1):
        result.addmm_(blocks[i : i + count, : len(part)], part)
    return result


class _Convolution(nn.Module):
    """A layer of the feature extractor: convolution, layer norm and GELU; [T, in] -> [T', out]."""

    def __init__(self, layer: wav2vec2.Wav2Vec2LayerNormConvLayer, dtype: torch.dtype):
        super().__init__()
        (self.stride,) = layer.conv.stride
        assert layer.conv.bias is not None  # as `model.XLSR` configures it
        self.parts = nn.ParameterList(
            nn.Parameter(part.contiguous(), requires_grad=False)
            for part in taps(layer.conv.weight.detach().to(dtype), self.stride)
        )
        self.bias = nn.Parameter(layer.conv.bias.detach().to(dtype), requires_grad=False)
        self.norm = _LayerNorm(layer.layer_norm, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows [T', out] for x [T, in]."""
        return F.gelu(self.norm(convolve(x, list(self.parts), self.bias, self.stride)))


class _PositionalConvolution(nn.Module):
    """The transformer's positional embedding: grouped convolution and GELU; [B, F, width] -> the same.

    One product with each group computes FRAMES frames in a row from all the frames that they depend on. Its
    weights repeat the convolution's, one frame further on for each.
    """

    def __init__(self, embedding: wav2vec2.Wav2Vec2PositionalConvEmbedding, dtype: torch.dtype):
        super().__init__()
        convolution = embedding.conv
        (self.kernel,), self.groups, self.dtype = convolution.kernel_size, convolution.groups, dtype
        assert convolution.bias is not None  # as transformers builds it
        # [groups, kernel, in, out], where in and out are a group's channels
        taps = convolution.weight.detach().to(dtype).unflatten(0, (self.groups, -1)).permute(0, 3, 2, 1)
        weight = taps.new_zeros(self.groups, FRAMES + self.kernel - 1, taps.shape[2], FRAMES, taps.shape[3])
        for i in range(FRAMES):
            weight[:, i : i + self.kernel, :, i] = taps
        self.weight = nn.Parameter(weight.flatten(3).flatten(1, 2), requires_grad=False)
        self.bias = nn.Parameter(convolution.bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of frames x."""
        count, frames, width = x.shape
        before, channels = self.kernel // 2, width // self.groups
        after = -frames % FRAMES + self.kernel - 1 - before
        x = x.to(self.dtype).view(count, frames, self.groups, channels).permute(2, 0, 1, 3)
        x = F.pad(x, (0, 0, before, after)).flatten(2)  # [groups, B, (F' + kernel - 1) * channels]
        x = x.unfold(2, (FRAMES + self.kernel - 1) * channels, FRAMES * channels)
        x = x.flatten(1, 2) @ self.weight  # [groups, B * F' / FRAMES, FRAMES * channels]
        x = x.view(self.groups, count, -1, channels)[:, :, :frames].permute(1, 2, 0, 3).flatten(2)
        return F.gelu(x + self.bias)


class _Layer(nn.Module):
    """A layer of the transformer: float32 [B, F, width] -> the same."""

    def __init__(self, layer: wav2vec2.Wav2Vec2EncoderLayerStableLayerNorm, dtype: torch.dtype):
        super().__init__()
        attention, feed_forward = layer.attention, layer.feed_forward
        self.heads = attention.num_heads
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        self.norm = _LayerNorm(layer.layer_norm)
        self.qkv = _Linear(weight, bias, dtype)
        self.out = _Linear.of(attention.out_proj, dtype)
        self.feed_forward_norm = _LayerNorm(layer.final_layer_norm)
        self.up = _Linear.of(feed_forward.intermediate_dense, dtype)
        self.down = _Linear.of(feed_forward.output_dense, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        x = x + self.out(self._attended(self.qkv(self.norm(x))))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))

    def _attended(self, qkv: Tensor) -> Tensor:
        """Apply multi-head attention to queries, keys and values: [B, F, 3 * width] -> [B, F, width]."""
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, F, size]
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class _LayerNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(value.detach().to(dtype, copy=True), requires_grad=False)
            for value in (norm.weight, norm.bias)
        )
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class _Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(value.detach().to(dtype, copy=True), requires_grad=False) for value in (weight, bias)
        )

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> _Linear:
        return cls(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)
