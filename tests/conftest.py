"""Fixtures shared by the tests: reference networks, detector files, recordings, and the log."""

import logging
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may fetch a model from the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the threads of several processes would wait for each other

import numpy as np
import pytest
import torch
import transformers
from helpers import PRESETS, SMALL_SIZES, filled, write_noise, write_splits
from matplotlib.figure import Figure

from antispoofing.data.recordings import find_recordings
from antispoofing.detectors.checkpoints import official_name
from antispoofing.detectors.loading import save_detector
from model import Detector, DetectorConfig, XLSRConfig


@pytest.fixture(scope="session")
def small_config():
    """The configuration of the small reference network: an XLS-R of toy size."""
    return DetectorConfig(front_end=XLSRConfig(**SMALL_SIZES))


@pytest.fixture(scope="session")
def small_official(small_config) -> dict[str, torch.Tensor]:
    """The small reference network's tensors under official names, including those of pre-training."""
    state = Detector(small_config).state_dict()
    shapes = {official_name(name): tuple(value.shape) for name, value in state.items()}
    front = "ssl_model.model."
    shapes |= {
        front + "quantizer.vars": (1, 16, 16),
        front + "quantizer.weight_proj.weight": (16, 32),
        front + "quantizer.weight_proj.bias": (16,),
        front + "project_q.weight": (32, 32),
        front + "project_q.bias": (32,),
        front + "final_proj.weight": (32, 64),
        front + "final_proj.bias": (32,),
    }
    return filled(shapes)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """16 clips of noise, half of them fake, with a tone in them."""
    folder = tmp_path_factory.mktemp("clips")
    write_noise(folder, 16, np.random.default_rng(0))
    return find_recordings([folder]).utterances


@pytest.fixture
def small_pth(small_official, tmp_path) -> Path:
    path = tmp_path / "small.pth"
    torch.save(small_official, path)
    return path


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a detector to start from and for-2seconds/: 12 clips for training, 4 for each other."""
    monkeypatch.chdir(tmp_path)
    write_splits(Path("for-2seconds"), training=12, others=4)
    torch.manual_seed(0)
    save_detector(Detector(PRESETS["small"]), "start.safetensors")
    return tmp_path


@pytest.fixture
def hugging_face(tmp_path) -> Path:
    """A folder as transformers itself writes it: config.json and model.safetensors."""
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(
        hidden_size=SMALL_SIZES["width"],
        num_hidden_layers=SMALL_SIZES["layers"],
        num_attention_heads=SMALL_SIZES["heads"],
        intermediate_size=SMALL_SIZES["ffn"],
        conv_dim=[SMALL_SIZES["conv_channels"]] * 7,
        num_conv_pos_embeddings=SMALL_SIZES["pos_kernel"],
        num_conv_pos_embedding_groups=SMALL_SIZES["pos_groups"],
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_codevectors_per_group=8,
        codevector_dim=32,
        proj_codevector_dim=32,
    )
    model = transformers.Wav2Vec2ForPreTraining(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # so that biases and norms are not 0 and 1
    model.save_pretrained(tmp_path / "wav2vec2-xls-r-300m")
    return tmp_path / "wav2vec2-xls-r-300m"


class Logged(logging.Handler):
    """A handler that keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @property
    def text(self) -> str:
        return "\n".join(self.messages)


@pytest.fixture
def logged():
    """What the library logs, which the commands show."""
    logger, handler = logging.getLogger("antispoofing"), Logged()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def no_pictures(monkeypatch):
    """Write empty files instead of pictures, which takes no time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).touch())


@pytest.fixture
def not_logged_in(monkeypatch, tmp_path):
    """Make wandb behave as on a machine where nobody has used it."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # else it remembers an earlier test's settings


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=3, help="how often to kill the training run at a random moment"
    )
    parser.addoption("--write-docs", action="store_true", help="update the lists of options in docs/")
