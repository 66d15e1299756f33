"""The network: a front end that turns waveforms into frames, and the AASIST back end that classifies them.

    waves [B, T] at 16 kHz -> front end -> frames [B, F, width] -> AASIST -> logits [B, 2]

Logit 0 = spoof (fake), logit 1 = bona fide (real); the score of a clip is logit 1: **higher = more likely
real**. `Detector` is the whole network; antispoofing/detectors/ reads and writes its weights.

References:
  Tak et al., "Automatic speaker verification spoofing and deepfake detection using wav2vec 2.0
    and data augmentation", Odyssey 2022, arXiv:2202.12233 (the combination)
  Babu et al., "XLS-R", arXiv:2111.09296; Baevski et al., "wav2vec 2.0", arXiv:2006.11477
  Jung et al., "AASIST", ICASSP 2022, arXiv:2110.01200
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_utils import BONAFIDE, CLIP_SAMPLES, LABELS, SAMPLE_RATE, SPOOF, normalise, pad, pre_emphasise

AASIST_HEAD = "aasist"  # what a configuration calls `AASIST`
WHOLE_SAMPLES = 30 * SAMPLE_RATE  # of a recording, heard at once by detectors that hear it whole
LAST, LAYERS, STATES = "last", "layers", "states"  # what a back end may take of a front end
MIN_SAMPLES = 1040  # three frames: fewer leave AASIST's 3x3 pooling without a temporal node


@dataclass(frozen=True)
class XLSRConfig:
    """Sizes of a wav2vec 2.0 front end of the XLS-R family; the defaults are those of XLS-R 300M."""

    conv_channels: int = 512
    width: int = 1024
    layers: int = 24
    heads: int = 16
    ffn: int = 4096
    pos_kernel: int = 128
    pos_groups: int = 16
    dropout: float = 0.0  # hidden, attention, activation and projection, in training only


@dataclass(frozen=True)
class SpectrogramConfig:
    """Sizes of a light spectrogram front end, which gives as many frames as XLS-R (201 for 64600 samples)."""

    width: int = 128
    channels: int = 16  # of the first convolution; each of the next two doubles them


@dataclass(frozen=True)
class TransformersConfig:
    """Another front end of transformers, by its own configuration."""

    settings: str  # what its config.json holds

    @property
    def width(self) -> int:
        """The width of the frames."""
        return json.loads(self.settings)["hidden_size"]


@dataclass(frozen=True)
class RawConfig:
    """No front end: the back end takes the waves."""

    width: int = 1


FrontEndConfig = XLSRConfig | SpectrogramConfig | TransformersConfig | RawConfig


@dataclass(frozen=True)
class DetectorConfig:
    """Everything needed to rebuild a detector; the defaults are the published XLS-R 300M + AASIST."""

    front_end: FrontEndConfig = field(default_factory=XLSRConfig)
    sample_rate: int = SAMPLE_RATE  # Hz
    clip_samples: int = CLIP_SAMPLES  # shorter clips are repeated, longer ones cut
    labels: tuple[str, str] = LABELS  # the order of the logits
    # What follows differs for other families of detectors only (antispoofing/detectors/families.py).
    head: str = AASIST_HEAD  # the kind of back end
    head_sizes: dict[str, int] = field(default_factory=dict)  # what its file decides
    pre_emphasis: float = 0.0  # of each clip, before it is repeated
    normalise_eps: float = (
        0.0  # above 0: give each clip mean 0 and variance 1, with this added to the variance
    )
    hears_whole: bool = False  # up to WHOLE_SAMPLES of a recording at once; windows are of clip_samples still
    score_is_difference: bool = False  # logit 1 - logit 0, as where a softmax follows; then logit 0 becomes 0

    @property
    def heard_samples(self) -> int:
        """How many samples of a recording are heard at most."""
        return WHOLE_SAMPLES if self.hears_whole else self.clip_samples

    def prepare(self, wave: np.ndarray) -> np.ndarray:
        """Return what the network hears of a clip.

        Args:
            wave: Samples [n], n >= 1.

        Returns:
            Samples [clip_samples]; if the detector hears it whole, [n], from MIN_SAMPLES to WHOLE_SAMPLES.
        """
        wave = wave[: self.heard_samples]
        if self.pre_emphasis:
            wave = pre_emphasise(wave, self.pre_emphasis)
        if self.normalise_eps:
            wave = normalise(wave, self.normalise_eps)
        return pad(wave, max(len(wave), MIN_SAMPLES) if self.hears_whole else self.clip_samples)

    def to_dict(self) -> dict:
        """Return the configuration as plain JSON types; `from_dict` is the inverse.

        What is as in the published detectors of XLS-R + AASIST is left out where earlier versions lack it.
        """
        kind = next(name for name, cls in _FRONT_END_CONFIGS.items() if type(self.front_end) is cls)
        plain = asdict(self) | {"front_end": {"kind": kind} | asdict(self.front_end)}
        usual = DetectorConfig()
        since = ("head", "head_sizes", "pre_emphasis", "normalise_eps", "hears_whole", "score_is_difference")
        plain = {k: v for k, v in plain.items() if k not in since or v != getattr(usual, k)}
        return plain | {"labels": list(self.labels)}

    @classmethod
    def from_dict(cls, plain: dict) -> DetectorConfig:
        """Return the configuration that `to_dict` wrote.

        Raises:
            ValueError: If this code cannot build such a detector; the message is one line.
        """
        try:
            front_end = dict(plain["front_end"])
            front_end = _FRONT_END_CONFIGS[front_end.pop("kind")](**front_end)
            config = cls(**(plain | {"front_end": front_end, "labels": tuple(plain["labels"])}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a detector configuration that this version knows: {error}") from error
        sizes = asdict(front_end) | {"sample_rate": config.sample_rate, "clip_samples": config.clip_samples}
        sizes.pop("dropout", None)
        sizes.pop("settings", None)
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ValueError(f"not a detector configuration: {name} is {size!r}, not a positive integer")
        for name in ("pre_emphasis", "normalise_eps"):
            value = getattr(config, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"not a detector configuration: {name} is {value!r}")
        for name in ("hears_whole", "score_is_difference"):
            if not isinstance(getattr(config, name), bool):
                raise ValueError(f"not a detector configuration: {name} is neither true nor false")
        sizes_of_head = config.head_sizes if isinstance(config.head_sizes, dict) else {"head_sizes": None}
        for name, size in sizes_of_head.items():
            if type(size) is not int or size < 0:
                raise ValueError(f"not a detector configuration: {name} is {size!r}")
        if config.labels != cls.labels:
            raise ValueError(f"the label order is {config.labels}, but must be {cls.labels}")
        return config


_FRONT_END_CONFIGS = {
    "xlsr": XLSRConfig,
    "spectrogram": SpectrogramConfig,
    "transformers": TransformersConfig,
    "none": RawConfig,
}


class XLSR(nn.Module):
    """The XLS-R front end: waves [B, T] -> frames [B, F, width]; 64600 samples give 201 frames.

    The waves must not be normalised: the published detectors were trained on plain samples in
    [-1, 1], although Hugging Face's feature extractor for XLS-R normalises by default.
    """

    def __init__(self, config: XLSRConfig):
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model  # takes seconds: imported only when used

        # By default transformers masks time steps, drops layers and drops units in training; the published
        # fine-tuning does none of this. (mask_time_prob keeps its default: at 0, `masked_spec_embed` would
        # not be built, and official files would no longer load strictly.)
        self.model = Wav2Vec2Model(
            Wav2Vec2Config(  # type: ignore[call-arg]  # the base class takes attn_implementation
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.ffn,
                conv_dim=(config.conv_channels,) * 7,
                conv_kernel=(10, 3, 3, 3, 3, 2, 2),
                conv_stride=(5, 2, 2, 2, 2, 2, 2),
                conv_bias=True,
                feat_extract_norm="layer",
                do_stable_layer_norm=True,
                num_conv_pos_embeddings=config.pos_kernel,
                num_conv_pos_embedding_groups=config.pos_groups,
                apply_spec_augment=False,
                layerdrop=0.0,
                hidden_dropout=config.dropout,
                attention_dropout=config.dropout,
                activation_dropout=config.dropout,
                feat_proj_dropout=config.dropout,
                attn_implementation="sdpa",
            )
        )
        self.model.masked_spec_embed.requires_grad_(False)  # used in pre-training only, but part of the files

    def forward(self, waves: Tensor, outputs: str = LAST) -> Tensor:
        """Return the frames of waves [B, T]: [B, F, width], or, of several layers, [B, layers, F, width].

        Args:
            waves: 16 kHz samples.
            outputs: LAST, the transformer's output; LAYERS, what leaves each of its layers, before the final
                normalisation; or STATES, what enters each of its layers, and its output.
        """
        if outputs == LAYERS:
            states = self.model(waves, output_hidden_states=True).hidden_states[:-1]
            # Whether the next would be normalised depends on the version of transformers.
            last = self.model.encoder.layers[-1](states[-1])
            return torch.stack([*states[1:], last[0] if isinstance(last, tuple) else last], dim=1)
        return _last_or_states(self.model, waves, outputs)


class TransformersFrontEnd(nn.Module):
    """Another front end of transformers: waves [B, T] -> frames [B, F, width]."""

    def __init__(self, config: TransformersConfig):
        super().__init__()
        from transformers import AutoConfig, AutoModel

        self.model = AutoModel.from_config(AutoConfig.for_model(**json.loads(config.settings)))

    def forward(self, waves: Tensor, outputs: str = LAST) -> Tensor:
        """Return the frames, as `XLSR` does; not of LAYERS."""
        return _last_or_states(self.model, waves, outputs)


def _last_or_states(model: nn.Module, waves: Tensor, outputs: str) -> Tensor:
    found = model(waves, output_hidden_states=outputs == STATES, return_dict=True)
    if outputs == LAST:
        return found.last_hidden_state
    # Versions of transformers differ in whether the last of the hidden states is normalised; this one is.
    return torch.stack([*found.hidden_states[:-1], found.last_hidden_state], dim=1)


class SpectrogramFrontEnd(nn.Module):
    """The spectrogram front end: waves [B, T] at 16 kHz -> frames [B, F, width], on XLS-R's time grid.

    Two log-power spectrograms go through three convolutions each. One resolves the harmonics of a voice
    (25 ms windows), the other its individual pitch periods (8 ms windows): vocoded speech differs from
    human speech in both.
    """

    def __init__(self, config: SpectrogramConfig):
        super().__init__()
        branches = [
            _SpectrogramBranch(400, 160, 512, config.channels, strides=((2, 1), (2, 2), (2, 1))),
            _SpectrogramBranch(128, 80, 128, config.channels, strides=((1, 2), (2, 2), (2, 1))),
        ]
        self.branches = nn.ModuleList(branches)
        self.proj = nn.Linear(sum(branch.size for branch in branches), config.width)

    def forward(self, waves: Tensor) -> Tensor:
        """Return both branches' features side by side, projected to the width."""
        count = (waves.shape[-1] - 400) // 320 + 1  # the number of XLS-R's frames
        return self.proj(torch.cat([branch(waves)[:, :count] for branch in self.branches], dim=-1))


class _SpectrogramBranch(nn.Module):
    """One spectrogram and its convolutions: waves [B, T] -> [B, frames, size].

    The window, the hop and n_fft are in samples; the strides are (spectral, temporal).
    """

    def __init__(
        self, window: int, hop: int, n_fft: int, channels: int, strides: tuple[tuple[int, int], ...]
    ):
        super().__init__()
        self.window, self.hop, self.n_fft = window, hop, n_fft
        self.norm = nn.BatchNorm2d(1)
        layers: list[nn.Module] = []
        before, bins = 1, n_fft // 2
        for kernel, stride in zip((5, 3, 3), strides, strict=True):
            layers += [
                nn.Conv2d(before, channels, kernel, stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(channels),
                nn.SiLU(),
            ]
            before, bins, channels = channels, (bins - 1) // stride[0] + 1, 2 * channels
        self.conv = nn.Sequential(*layers)
        self.size = before * bins

    def forward(self, waves: Tensor) -> Tensor:
        window = torch.hann_window(self.window, dtype=waves.dtype, device=waves.device)
        frames = waves.unfold(-1, self.window, self.hop) * window
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square()[..., 1:]  # [B, frames, bins]
        # The power is taken relative to the clip's mean, with a floor at -60 dB, and each bin's own mean is
        # subtracted: the level, noise far below the speech and a fixed filter then change almost nothing.
        power = power / power.mean((1, 2), keepdim=True).clamp_min(1e-10)
        log_power = torch.log(power + 1e-6)
        log_power = log_power - log_power.mean(1, keepdim=True)
        x = self.conv(self.norm(log_power.transpose(1, 2)[:, None]))  # [B, channels, bins', frames']
        return x.flatten(1, 2).transpose(1, 2)


def build_front_end(config: FrontEndConfig) -> nn.Module:
    """Build the front end of a configuration: waves [B, T] -> frames [B, F, config.width]."""
    if isinstance(config, RawConfig):
        return nn.Identity()
    if isinstance(config, TransformersConfig):
        return TransformersFrontEnd(config)
    return XLSR(config) if isinstance(config, XLSRConfig) else SpectrogramFrontEnd(config)


# In the back end, attribute names are the official ones (`LL`, `GAT_layer_S`, `pool_hT1`, ...), so that
# published files load key by key.


class ResidualBlock(nn.Module):
    """Two 2x3 convolutions over (spectral, time), plus the identity: [B, in, S, T] -> [B, out, S, T]."""

    def __init__(self, in_channels: int, out_channels: int, first: bool):
        super().__init__()
        if not first:
            # The published forward pass computes this normalisation, but then convolves the block's input
            # instead of the result, so it affects no score. It is here because published files contain it.
            self.bn1 = nn.BatchNorm2d(in_channels).requires_grad_(False)
        self.conv1 = nn.Conv2d(in_channels, out_channels, (2, 3), padding=(1, 1))
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, (2, 3), padding=(0, 1))
        if in_channels != out_channels:
            self.conv_downsample = nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the same spectral and temporal size."""
        identity = self.conv_downsample(x) if hasattr(self, "conv_downsample") else x
        return self.conv2(F.selu(self.bn2(self.conv1(x)))) + identity


# What makes a linear layer of so many inputs and outputs; some detectors have another kind of layer there.
Linear = Callable[[int, int], nn.Module]


def _norm_nodes(bn: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    """Apply batch normalisation to the features of nodes [B, N, features]."""
    return bn(nodes.flatten(0, 1)).view_as(nodes)


def _attention_vector(size: int) -> nn.Parameter:
    vector = torch.empty(size, 1)
    if not vector.is_meta:  # on the meta device normal_ would import torch._dynamo, which takes over a second
        nn.init.xavier_normal_(vector)
    return nn.Parameter(vector)


class GraphAttention(nn.Module):
    """Attention among nodes of one kind: [B, N, in] -> [B, N, out]."""

    def __init__(self, in_dim: int, out_dim: int, temperature: float, linear: Linear = nn.Linear):
        super().__init__()
        self.temperature = temperature
        self.att_proj = linear(in_dim, out_dim)
        self.att_weight = _attention_vector(out_dim)
        self.proj_with_att = linear(in_dim, out_dim)
        self.proj_without_att = linear(in_dim, out_dim)
        self.bn = nn.BatchNorm1d(out_dim)
        self.dropout = nn.Dropout(0.2)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the nodes after attention."""
        nodes = self.dropout(nodes)
        pairs = nodes[:, :, None] * nodes[:, None]  # [B, N, N, in]
        logits = (torch.tanh(self.att_proj(pairs)) @ self.att_weight).squeeze(-1)
        attention = torch.softmax(logits / self.temperature, dim=-1)  # each row sums to 1
        out = self.proj_with_att(attention @ nodes) + self.proj_without_att(nodes)
        return F.selu(_norm_nodes(self.bn, out))


class HeterogeneousGraphAttention(nn.Module):
    """Attention among temporal nodes (type 1), spectral nodes (type 2) and a master node.

    [B, T, in], [B, S, in], [B or 1, 1, in] -> [B, T, out], [B, S, out], [B, 1, out]
    """

    def __init__(
        self, in_dim: int, out_dim: int, temperature: float, linear: Linear = nn.Linear, selu: bool = True
    ):
        super().__init__()
        self.temperature = temperature
        self.activation = F.selu if selu else nn.Identity()
        self.proj_type1 = linear(in_dim, in_dim)
        self.proj_type2 = linear(in_dim, in_dim)
        self.att_proj = linear(in_dim, out_dim)
        self.att_projM = linear(in_dim, out_dim)
        self.att_weight11 = _attention_vector(out_dim)
        self.att_weight22 = _attention_vector(out_dim)
        self.att_weight12 = _attention_vector(out_dim)
        self.att_weightM = _attention_vector(out_dim)
        self.proj_with_att = linear(in_dim, out_dim)
        self.proj_without_att = linear(in_dim, out_dim)
        self.proj_with_attM = linear(in_dim, out_dim)
        self.proj_without_attM = linear(in_dim, out_dim)
        self.bn = nn.BatchNorm1d(out_dim)
        self.dropout = nn.Dropout(0.2)

    def forward(self, temporal: Tensor, spectral: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the temporal, spectral and master nodes after attention."""
        n_temporal = temporal.shape[1]
        nodes = self.dropout(torch.cat([self.proj_type1(temporal), self.proj_type2(spectral)], dim=1))
        attention = self._pair_attention(nodes, n_temporal)

        logits_m = torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM  # [B, N, 1]
        attention_m = torch.softmax(logits_m / self.temperature, dim=1)
        gathered = attention_m.transpose(1, 2) @ nodes  # [B, 1, in]
        master = self.proj_with_attM(gathered) + self.proj_without_attM(master)

        out = self.proj_with_att(attention @ nodes) + self.proj_without_att(nodes)
        out = self.activation(_norm_nodes(self.bn, out))
        return out[:, :n_temporal], out[:, n_temporal:], master

    def _pair_attention(self, nodes: Tensor, n1: int) -> Tensor:
        """Return the attention [B, N, N]; the first n1 nodes are of type 1.

        The weight vector of a pair depends on the types of its two nodes.
        """
        projected = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))
        by_type = projected @ torch.cat([self.att_weight11, self.att_weight22, self.att_weight12], dim=1)
        kind = (torch.arange(nodes.shape[1], device=nodes.device) >= n1).long()
        pair_type = torch.where(kind[:, None] == kind, kind, 2)  # 0: 1-1, 1: 2-2, 2: mixed
        logits = by_type.gather(-1, pair_type[None, :, :, None].expand(len(nodes), -1, -1, 1)).squeeze(-1)
        return torch.softmax(logits / self.temperature, dim=-1)


class GraphPool(nn.Module):
    """Pooling that keeps the nodes with the highest gates, by default half, in descending order of gate.

    The order matters: the two branches of AASIST are compared node by node, that is, rank by rank.
    """

    def __init__(self, dim: int, linear: Linear = nn.Linear, ratio: float = 0.5):
        super().__init__()
        self.ratio = ratio
        self.proj = linear(dim, 1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the kept nodes, times their gates: [B, N, dim] -> [B, max(int(N * ratio), 1), dim]."""
        gate = torch.sigmoid(self.proj(self.dropout(nodes)))  # [B, N, 1]
        keep = torch.topk(gate, max(int(nodes.shape[1] * self.ratio), 1), dim=1).indices
        return torch.gather(nodes * gate, 1, keep.expand(-1, -1, nodes.shape[2]))


def readout(temporal: Tensor, spectral: Tensor, master: Tensor) -> Tensor:
    """Return what AASIST's last layer takes of its nodes, [B, T, n], [B, S, n], [B, 1, n] -> [B, 5 * n]."""
    nodes = [temporal.abs().amax(1), temporal.mean(1), spectral.abs().amax(1), spectral.mean(1)]
    return torch.cat([*nodes, master.squeeze(1)], dim=1)


class AASIST(nn.Module):
    """The AASIST back end: frames [B, F, width] -> logits [B, 2]; logit 1 = bona fide (real)."""

    def __init__(self, width: int):
        super().__init__()
        self.LL = nn.Linear(width, 128)
        self.first_bn = nn.BatchNorm2d(1)
        channels = [1, 32, 32, 64, 64, 64, 64]  # the inner Sequential makes the official names `encoder.0.0.`
        self.encoder = nn.Sequential(
            *(nn.Sequential(ResidualBlock(i, o, first=k == 0)) for k, (i, o) in enumerate(pairwise(channels)))
        )
        self.first_bn1 = nn.BatchNorm2d(64)
        self.attention = nn.Sequential(
            nn.Conv2d(64, 128, 1), nn.SELU(), nn.BatchNorm2d(128), nn.Conv2d(128, 64, 1)
        )
        self.pos_S = nn.Parameter(torch.randn(1, 128 // 3, 64))
        self.GAT_layer_S = GraphAttention(64, 64, temperature=2.0)
        self.GAT_layer_T = GraphAttention(64, 64, temperature=2.0)
        self.pool_S = GraphPool(64)
        self.pool_T = GraphPool(64)
        for k in (1, 2):  # the two branches differ in their weights only
            self.register_parameter(f"master{k}", nn.Parameter(torch.randn(1, 1, 64)))
            self.add_module(f"HtrgGAT_layer_ST{k}1", HeterogeneousGraphAttention(64, 32, temperature=100.0))
            self.add_module(f"HtrgGAT_layer_ST{k}2", HeterogeneousGraphAttention(32, 32, temperature=100.0))
            self.add_module(f"pool_hS{k}", GraphPool(32))
            self.add_module(f"pool_hT{k}", GraphPool(32))
        self.dropout = nn.Dropout(0.2)
        self.dropout_out = nn.Dropout(0.5)
        self.out_layer = nn.Linear(5 * 32, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits."""
        temporal, spectral = self._nodes(frames)
        branches = [self._branch(k, temporal, spectral) for k in (1, 2)]
        temporal, spectral, master = (torch.maximum(a, b) for a, b in zip(*branches, strict=True))
        return self.out_layer(self.dropout_out(readout(temporal, spectral, master)))

    def _nodes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled temporal nodes [B, T, 64] and spectral nodes [B, 21, 64] of frames."""
        x = self.LL(frames).transpose(1, 2)[:, None]  # [B, 1, 128 spectral, F time]
        x = F.selu(self.first_bn(F.max_pool2d(x, 3)))  # [B, 1, 42, F // 3]
        x = F.selu(self.first_bn1(self.encoder(x)))  # [B, 64, 42, F // 3]
        weight = self.attention(x)
        spectral = (x * torch.softmax(weight, dim=3)).sum(3).transpose(1, 2) + self.pos_S
        temporal = (x * torch.softmax(weight, dim=2)).sum(2).transpose(1, 2)
        return self.pool_T(self.GAT_layer_T(temporal)), self.pool_S(self.GAT_layer_S(spectral))

    def _branch(self, k: int, temporal: Tensor, spectral: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return branch k's (1 or 2) nodes: temporal [B, T', 32], spectral [B, S', 32], master [B, 1, 32]."""
        first, second = (getattr(self, f"HtrgGAT_layer_ST{k}{i}") for i in (1, 2))
        temporal, spectral, master = first(temporal, spectral, getattr(self, f"master{k}"))
        temporal = getattr(self, f"pool_hT{k}")(temporal)
        spectral = getattr(self, f"pool_hS{k}")(spectral)
        added = second(temporal, spectral, master)
        before = (temporal, spectral, master)
        temporal, spectral, master = (self.dropout(a + b) for a, b in zip(before, added, strict=True))
        return temporal, spectral, master


# The type that the front end computes in, for each precision; int8 keeps all but linear layers in bf16.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}


class Detector(nn.Module):
    """Front end and back end together: `detector(waves)` gives logits, `detector.score(waves)` scores.

    Args:
        config: The architecture; None for the published one.
        precision: The front end's precision: "fp32"; "bf16" or (on CUDA only) "fp16" by autocast; "int8" (on
            a CPU, for scoring only) for int8 in the linear layers of XLS-R's transformer and bf16 elsewhere.
            The back end is 1 % of the work and stays in float32: at lower precision, node gates that are
            close to each other change order.
        front_end: A module that computes the same function as `build_front_end(config.front_end)`, to be
            used instead; None to build that one.
        engine: The library that computes the front end, "transformers" or "fairseq"; only recorded.
        back_end: The back end, if `config.head` is another kind than `AASIST`.

    Attributes:
        scores_only: Whether the detector can only score: its weights can no longer be trained or saved.
        provenance: Where the weights come from, as JSON types; saved with them.
        path: The file that the weights were read from, if any.
        sha256: That file's SHA-256 in hexadecimal; for a folder with settings, see `loading.sha256_of`.
        published_threshold: The threshold of scores that the detector's authors published, if any.
        pretraining_tensors: fairseq's tensors that only pre-training uses, by official name: no score depends
            on them, but a strict load in the original repository requires them.

    Raises:
        ValueError: If the precision is unknown.
    """

    def __init__(
        self,
        config: DetectorConfig | None = None,
        precision: str = "fp32",
        front_end: nn.Module | None = None,
        engine: str = "transformers",
        back_end: nn.Module | None = None,
    ):
        super().__init__()
        if precision not in DTYPES:
            raise ValueError(f"precision must be one of {', '.join(DTYPES)}, not {precision!r}")
        self.config = config or DetectorConfig()
        self.precision = precision
        self.engine = engine
        self.front_end = build_front_end(self.config.front_end) if front_end is None else front_end
        if back_end is None and self.config.head != AASIST_HEAD:
            raise ValueError(f"a {self.config.head} back end must be given")
        self.back_end: nn.Module = AASIST(self.config.front_end.width) if back_end is None else back_end
        self.scores_only = False
        self.provenance: dict = {}
        self.path: Path | None = None
        self.sha256: str | None = None
        self.published_threshold: float | None = None
        self.pretraining_tensors: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.back_end.parameters()).device

    @property
    def is_xlsr(self) -> bool:
        """Whether the front end is XLS-R."""
        return isinstance(self.config.front_end, XLSRConfig)

    @property
    def has_official_names(self) -> bool:
        """Whether the tensors have names in the published files of XLS-R + AASIST."""
        return self.is_xlsr and self.config.head == AASIST_HEAD

    def describe(self) -> dict:
        """Return what identifies the detector, as JSON types, to be written beside its results."""
        return {
            "sha256": self.sha256,
            "provenance": self.provenance,
            "config": self.config.to_dict(),
            "frontend": self.engine if self.is_xlsr else None,
            "precision": self.precision,
            "device": str(self.device),
        }

    def features(self, waves: Tensor) -> Tensor:
        """Return the front end's float32 frames [B, F, width] of waves [B, T] (F = 201 for T = 64600).

        Raises:
            ValueError: If the waves have another shape or are too short, or if the precision is int8 and the
                detector has not been prepared for scoring.
        """
        if waves.ndim != 2 or waves.shape[1] < MIN_SAMPLES:
            raise ValueError(
                f"waves must be [batch, samples >= {MIN_SAMPLES}], not {tuple(waves.shape)}; "
                "data_utils.pad repeats short clips"
            )
        if self.precision == "int8" and not self.scores_only:
            raise ValueError("int8 is for scoring only: call for_scoring(detector) first")
        waves = waves.to(self.device, torch.float32, non_blocking=True)
        dtype = DTYPES[self.precision]
        is_lower = dtype != torch.float32
        with torch.autocast(self.device.type, dtype if is_lower else torch.bfloat16, enabled=is_lower):
            outputs = getattr(self.back_end, "takes", LAST)  # of the front end
            frames = self.front_end(waves) if outputs == LAST else self.front_end(waves, outputs=outputs)
            return frames.float()

    def forward(self, waves: Tensor) -> Tensor:
        """Return the raw logits of waves.

        Args:
            waves: 16 kHz mono samples [B, T] in [-1, 1]. The published detectors take T =
                config.clip_samples; XLS-R + AASIST computes any length from MIN_SAMPLES, but some others do
                not.

        Returns:
            float32 [B, 2]: index 0 = spoof (fake), index 1 = bona fide (real).
        """
        frames = self.features(waves)
        if self.training or self.device.type != "cpu":
            logits = self.back_end(frames)
        else:  # one clip at a time, since the last digits would depend on the batch size
            logits = torch.cat([self.back_end(clip) for clip in frames.split(1)])
        return logits - logits[:, SPOOF, None] if self.config.score_is_difference else logits

    @torch.inference_mode()
    def score(self, waves: Tensor) -> Tensor:
        """Return the scores [B] of waves [B, T]: logit 1 (bona fide), higher = more likely real."""
        return self(waves)[:, BONAFIDE]
