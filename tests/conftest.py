"""Shared by the tests: the reference values, and detector files made of deterministic weights."""

import ast
import csv
import logging
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for a model on the network

REFERENCE = Path(__file__).parent / "reference"


def fill(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The weights of the reference runs: normal deviates seeded by the key's name, scaled by its kind."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    generator = np.random.Generator(np.random.Philox(zlib.crc32(key.encode()) ^ seed))
    values = generator.standard_normal(shape, dtype=np.float32)
    if key.endswith("running_var"):
        values = 1 + 0.2 * np.tanh(values)
    elif key.endswith("running_mean"):
        values = 0.1 * values
    elif key.endswith("weight_g"):
        values = 1 + 0.1 * np.tanh(values)
    elif len(shape) < 2:
        values = 0.1 * values + (1 if key.endswith("weight") else 0)
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32)


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in an official XLS-R 300M detector file."""
    with open(REFERENCE / "keys_xlsr300m.tsv", encoding="utf-8") as file:
        return {name: ast.literal_eval(shape) for name, shape, _ in csv.reader(file, delimiter="\t")}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(fill(key, shape, seed)) for key, shape in shapes.items()}


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / f"{name}_seed0.npz") as arrays:
        return dict(arrays)


def assert_as_published(detector, name: str) -> None:
    """Features and logits of the reference waves, against those of the published implementation."""
    expected = reference(name)
    with torch.inference_mode():
        features = detector.features(torch.from_numpy(expected["waves"]))
        logits = detector.back_end(features)
    np.testing.assert_allclose(features[:, ::20, ::8], expected["features"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(features.mean((1, 2)), expected["feature_mean"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(features.flatten(1).std(1), expected["feature_std"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


SMALL_SIZES = {
    "conv_channels": 32,
    "width": 64,
    "layers": 2,
    "heads": 4,
    "ffn": 128,
    "pos_kernel": 16,
    "pos_groups": 4,
}


@pytest.fixture(scope="session")
def small_config():
    """The configuration of the small reference network: an XLS-R of toy size."""
    from model import DetectorConfig, XLSRConfig

    return DetectorConfig(front_end=XLSRConfig(**SMALL_SIZES))


@pytest.fixture(scope="session")
def small_official(small_config) -> dict[str, torch.Tensor]:
    """The small reference network's tensors under official names, pre-training-only ones included."""
    from antispoofing.detectors.checkpoints import official_name
    from model import Detector

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


@pytest.fixture
def small_pth(small_official, tmp_path) -> Path:
    path = tmp_path / "small.pth"
    torch.save(small_official, path)
    return path


class Logged(logging.Handler):
    """Keeps what is logged."""

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
    """What the library itself logs, which commands show."""
    logger, handler = logging.getLogger("antispoofing"), Logged()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def not_logged_in(monkeypatch, tmp_path):
    """wandb as on a machine where nobody has ever used it."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=3, help="how often the training is killed at random moments"
    )
    parser.addoption("--write-docs", action="store_true", help="write the options that docs/ lists")
