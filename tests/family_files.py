"""Files of each family of detectors, with its published names, and the outputs of its published code."""

import ast
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from weights import REFERENCE, fill, reference

from antispoofing.detectors.families import by_head
from antispoofing.detectors.loading import load_detector
from model import XLSR, Detector, DetectorConfig, RawConfig, XLSRConfig

TOY = DetectorConfig(
    XLSRConfig(conv_channels=32, width=64, layers=2, heads=4, ffn=128, pos_kernel=16, pos_groups=4)
)
SHORT = 20000  # samples of the short clip


class Case(NamedTuple):
    """A kind of file, and its references.

    Attributes:
        head: The family's `DetectorConfig.head`.
        keys: The table of its keys, of full size.
        toy: The outputs at toy size; of raw waveforms, there is one size only.
        threshold: The published threshold.
    """

    head: str
    keys: str
    toy: str
    threshold: float | None = None


CASES = {
    case.toy: case
    for case in (
        Case("spectra-aasist", "spectra_aasist", "spectra_aasist_toy", -1.0625009),
        Case("spectra-0", "spectra_0", "spectra_0_toy", -1.0625009),
        Case("spectra-aasist3", "spectra_aasist3", "spectra_aasist3_toy", -1.0625009),
        Case("sls", "sls", "sls_toy"),
        Case("nes2net-x", "nes2net_x", "nes2net_x_toy"),
        Case("antideepfake", "antideepfake", "antideepfake_toy"),
        Case("raw-aasist", "raw_aasist", "raw_aasist_full"),
        Case("raw-aasist", "raw_aasist_l", "raw_aasist_l_full"),
    )
}
SPECTRA = [name for name in CASES if name.startswith("spectra")]


def outputs(name: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "families" / f"{name}_seed0.npz") as arrays:
        return dict(arrays)


def published(case: Case) -> dict[str, torch.Tensor]:
    """Return the tensors of a full-size file, without their values."""
    with open(REFERENCE / "families" / f"keys_{case.keys}.tsv", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    return {key: torch.empty(ast.literal_eval(shape), device="meta") for key, shape, _ in rows}


def own_tensors(case: Case, config: DetectorConfig | None) -> dict[str, torch.Tensor]:
    """Return the tensors of a detector of this kind, by the names of published files."""
    family, names = by_head(case.head), published(case)
    config = family.config(names, None if family.front_end_config is RawConfig else config)
    with torch.device("meta"):
        detector = Detector(config, back_end=family.build(config.front_end.width, **config.head_sizes))
    name_of, mask = family.name_of(names), "front_end.model.masked_spec_embed"
    if isinstance(detector.front_end, XLSR) and name_of(mask) not in names:
        detector.front_end.model.masked_spec_embed = None
    return {name_of(key): value for key, value in detector.state_dict().items()}


def file_of(case: Case) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of toy size, filled as in the references."""
    grid = torch.linspace(-1.5, 1.5, 25)
    return {
        name: grid.repeat(value.shape[0], 1)
        if name.endswith(".grid")
        else torch.from_numpy(np.asarray(fill(name, tuple(value.shape))))
        for name, value in own_tensors(case, TOY).items()
    }


def write_toy(name: str, path: Path) -> Path:
    """Write a file of toy size, of the kind CASES[name], and return its path."""
    safetensors.torch.save_file(file_of(CASES[name]), path)
    return path


def loaded(path: Path) -> Detector:
    """Load a detector of toy size."""
    return load_detector(path, device="cpu", config=TOY)


def clips(detector: Detector) -> list[np.ndarray]:
    """Return the clips that the references' logits are of."""
    waves = reference("xlsr300m")["waves"]
    return [*waves[:2], waves[2] if detector.config.hears_whole else waves[2][:SHORT]]


def prepared(detector: Detector, waves: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack([detector.config.prepare(wave) for wave in waves]))


def expected_logits(detector: Detector, logits: np.ndarray) -> np.ndarray:
    """Return reference logits as the detector gives them: logit 0 is 0 where only the difference counts."""
    return logits - logits[:, :1] if detector.config.score_is_difference else logits
