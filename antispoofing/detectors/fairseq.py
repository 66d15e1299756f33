"""fairseq's own wav2vec 2.0 as a detector's front end, for those who must report fairseq's own numbers.

It computes the same function as `model.XLSR`, and reads and writes the same files. fairseq is optional
(requirements-fairseq.txt) and is imported only when a front end is built.
"""

from __future__ import annotations

import logging
import warnings
from types import ModuleType

import torch
from torch import Tensor, nn

from antispoofing.detectors.checkpoints import FRONT, official_name
from antispoofing.errors import FairseqError
from model import XLSR, XLSRConfig


class FairseqXLSR(nn.Module):
    """XLS-R as fairseq computes it: waves [B, T] -> frames [B, F, width].

    Its state dict has the keys of `model.XLSR`.

    Raises:
        FairseqError: If fairseq is not installed or cannot be imported.
    """

    def __init__(self, config: XLSRConfig):
        super().__init__()
        wav2vec = _import_wav2vec()
        with torch.device("meta"):  # only its keys are needed
            ours = XLSR(config).state_dict()
        self.their_name = {key: official_name(f"front_end.{key}").removeprefix(FRONT) for key in ours}
        c = config.conv_channels
        settings = wav2vec.Wav2Vec2Config(
            extractor_mode="layer_norm",
            conv_feature_layers=f"[({c}, 10, 5)] + [({c}, 3, 2)] * 4 + [({c}, 2, 2)] * 2",
            conv_bias=True,
            encoder_embed_dim=config.width,
            encoder_layers=config.layers,
            encoder_attention_heads=config.heads,
            encoder_ffn_embed_dim=config.ffn,
            conv_pos=config.pos_kernel,
            conv_pos_groups=config.pos_groups,
            layer_norm_first=True,
            encoder_layerdrop=0.0,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            activation_dropout=config.dropout,
            dropout_input=config.dropout,
        )
        with torch.device("cpu"), warnings.catch_warnings():  # its weights cannot be drawn on "meta"
            warnings.simplefilter("ignore", FutureWarning)  # torch's, about weight norm
            self.model = wav2vec.Wav2Vec2Model(settings)
        # fairseq leaves this projection out where both sizes are equal; transformers never does.
        self.model.post_extract_proj = nn.Linear(config.conv_channels, config.width)
        self.model.remove_pretraining_modules()  # `Detector.pretraining_tensors` keeps them
        self.model.mask_emb.requires_grad_(False)  # used in pre-training only, but files have it
        self.register_state_dict_post_hook(_to_our_names)
        self.register_load_state_dict_pre_hook(_to_their_names)

    def forward(self, waves: Tensor) -> Tensor:
        """Return the frames float32 [B, F, width] of 16 kHz waves [B, T]."""
        return self.model(waves, mask=False, features_only=True)["x"]


def _to_our_names(front_end: FairseqXLSR, state: dict[str, Tensor], prefix: str, *_) -> None:
    for ours, theirs in front_end.their_name.items():
        state[prefix + ours] = state.pop(f"{prefix}model.{theirs}")


def _to_their_names(front_end: FairseqXLSR, state: dict[str, Tensor], prefix: str, *_) -> None:
    for ours, theirs in front_end.their_name.items():
        if prefix + ours in state:
            state[f"{prefix}model.{theirs}"] = state.pop(prefix + ours)


def _import_wav2vec() -> ModuleType:
    silent = logging.NullHandler()
    logging.root.addHandler(silent)  # or fairseq would set up chatty logging for the whole program
    try:
        import fairseq.models.wav2vec
    except (ImportError, AttributeError, ValueError) as error:  # the last two: too new a Python
        raise FairseqError(
            f"fairseq cannot be imported ({error}); requirements-fairseq.txt says how to install it"
        ) from error
    finally:
        logging.root.removeHandler(silent)
    return fairseq.models.wav2vec
