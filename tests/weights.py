"""The deterministic weights and the expected outputs of the reference runs; needs nothing but NumPy."""

import ast
import csv
import zlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / "reference"


def fill(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a weight of the reference runs: normal deviates seeded by its name, scaled by its kind."""
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
    """Return the name and shape of every tensor in an official XLS-R 300M detector file."""
    with open(REFERENCE / "keys_xlsr300m.tsv", encoding="utf-8") as file:
        return {name: ast.literal_eval(shape) for name, shape, _ in csv.reader(file, delimiter="\t")}


def reference(name: str) -> dict[str, np.ndarray]:
    """Return the outputs of the published implementation, of its size "small" or "xlsr300m"."""
    with np.load(REFERENCE / f"{name}_seed0.npz") as arrays:
        return dict(arrays)
