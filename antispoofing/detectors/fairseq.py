"""fairseq's own wav2vec 2.0 as a detector's front end, for those who must show fairseq's own numbers.

The same function as `model.XLSR`, from and to the same files. fairseq is optional
(requirements-fairseq.txt) and is imported when a front end is built, not before.
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
    """Waves [B, T] -> frames [B, F, width], as `model.XLSR`; and in a state dict, its names.

    Raises:
        FairseqError: fairseq is not installed, or cannot be imported.
    """

    def __init__(self, config: XLSRConfig):
        super().__init__()
        wav2vec = _import_wav2vec()
        with torch.device("meta"):  # for its names only
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
        with torch.device("cpu"), warnings.catch_warnings():  # it draws its weights: not on "meta"
            warnings.simplefilter("ignore", FutureWarning)  # of torch, on its weight norm
            self.model = wav2vec.Wav2Vec2Model(settings)
        # fairseq leaves it out between equal sizes, transformers never does
        self.model.post_extract_proj = nn.Linear(config.conv_channels, config.width)
        self.model.remove_pretraining_modules()  # `Detector.pretraining_tensors` keeps what a file has
        self.model.mask_emb.requires_grad_(False)  # pre-training only; kept for the files
        self.register_state_dict_post_hook(_to_our_names)
        self.register_load_state_dict_pre_hook(_to_their_names)

    def forward(self, waves: Tensor) -> Tensor:
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
    logging.root.addHandler(silent)  # else fairseq sets up logging, and chattily, for the whole program
    try:
        import fairseq.models.wav2vec
    except (ImportError, AttributeError, ValueError) as error:  # the last two: an old one on a newer Python
        raise FairseqError(
            f"fairseq cannot be imported ({error}); requirements-fairseq.txt says how to install it"
        ) from error
    finally:
        logging.root.removeHandler(silent)
    return fairseq.models.wav2vec
