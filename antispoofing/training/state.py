"""The state of an unfinished training run on disk, from which it resumes as if never interrupted.

Everything random in a run follows from the seed, the epoch and the step, so that the state of no random
generator has to be saved.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from antispoofing.data.recordings import Utterance, list_sha256
from antispoofing.detectors import checkpoints, provenance
from antispoofing.errors import TrainingError
from antispoofing.training.history import FINAL, STATE, EpochResult, best_epoch
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.step import Optimization
from model import Detector

LOCK = "training.lock"
_KIND = "training"  # name of the file's header


@dataclass
class TrainingState:
    """The progress of a training run.

    Attributes:
        run: Id of the run for Weights & Biases.
        epoch: Number of the current epoch, from 1; one more than the number of epochs when the run is done.
        step: Number of steps done in this epoch.
        loss: Sum of the weighted losses of this epoch's clips so far.
        weight: Sum of the weights of these clips.
        seconds: Time spent on this epoch.
        unreadable: Why training recordings cannot be read, by their index.
        history: Figures of the epochs before this one.
        tensors: Tensors of the network and the optimizer, in a state read from a file until `restore`.
        scaler: State of the loss scaler for fp16, in a state read from a file.
    """

    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict = field(default_factory=dict)

    @property
    def is_new(self) -> bool:
        """Whether no step is done yet."""
        return (self.epoch, self.step) == (1, 0)


def identify(
    detector: Detector,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainingConfig,
) -> dict:
    """Return what must be the same for a run to resume, as JSON types; the data may have moved."""
    settings = {name: value for name, value in asdict(config).items() if name != "data"} | {
        "augmentation": asdict(config.augmentation) | {"kinds": list(config.augmentation.kinds)},
        "class_weights": config.class_weights and list(config.class_weights),
        "detector": detector.sha256,
        "precision": detector.precision,
        "frontend": detector.engine,
    }
    for name, utterances in (("training set", training), ("validation set", validation)):
        settings[name] = f"{len(utterances)} recordings, {list_sha256(utterances)[:12]}"
    return settings


def find_state(folder: Path, identity: dict) -> TrainingState | None:
    """Return the state of the unfinished training run in a folder, or None if there is none.

    Raises:
        CheckpointError: If the state cannot be read.
        TrainingError: If the state belongs to a run with other settings, which the message names; or if the
            best weights so far are missing.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with checkpoints.errors_naming(path):
        header = checkpoints.parse_header(checkpoints.read_metadata(path), _KIND, "identity", "state")
        before = dict(header["identity"])
        differences = [
            f"{name} {before.get(name)}, not {identity.get(name)}"
            for name in identity | before
            if before.get(name) != identity.get(name)
        ]
        if not differences:
            tensors, _ = checkpoints.read_safetensors(path)
            state = _from_json(header["state"], tensors)
    if differences:
        raise TrainingError(f"{folder} holds an unfinished training run with {', '.join(differences)}")
    if state.history and not _has_best_weights(folder, state.history):
        raise TrainingError(
            f"{folder} holds an unfinished training run, but its {FINAL} is missing or another run's"
        )
    return state


def _from_json(plain: dict, tensors: dict[str, Tensor]) -> TrainingState:
    plain = dict(plain)
    history = [EpochResult(**result) for result in plain.pop("history", [])]
    unreadable = {int(i): reason for i, reason in plain.pop("unreadable", {}).items()}
    return TrainingState(**plain, history=history, unreadable=unreadable, tensors=tensors)


def _has_best_weights(folder: Path, history: Sequence[EpochResult]) -> bool:
    """Check whether FINAL holds the weights of the best epoch, or of the next, still missing in the state."""
    if not (folder / FINAL).exists():
        return False
    with checkpoints.errors_naming(folder / FINAL):
        metadata = checkpoints.read_metadata(folder / FINAL)
        header = checkpoints.parse_header(metadata, checkpoints.DETECTOR, "config", "provenance")
    kept = provenance.kept_epoch(header["provenance"])
    return kept == best_epoch(history).figures() or kept.get("epoch") == len(history) + 1


def write_state(
    folder: Path, state: TrainingState, identity: dict, detector: Detector, optimization: Optimization
) -> None:
    """Write a state to a folder, in place of an earlier one.

    Raises:
        OSError: If it cannot be written; an earlier state is still there then.
    """
    tensors = {f"network.{name}": value for name, value in _changing(detector).items()}
    for i, values in optimization.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
    plain = {name: value for name, value in vars(state).items() if name != "tensors"}
    plain |= {"history": [asdict(result) for result in state.history]}
    plain |= {"scaler": optimization.scaler.state_dict()}
    header = {"identity": identity, "state": plain}
    checkpoints.write_safetensors(folder / STATE, tensors, header, _KIND)


def restore(state: TrainingState, detector: Detector, optimization: Optimization) -> None:
    """Move the tensors of a state into the detector and the optimizer.

    Raises:
        CheckpointError: If the tensors do not fit.
    """
    expected = {f"network.{name}": value for name, value in _changing(detector).items()}
    for i, parameter in enumerate(optimization.trained):
        if f"optimizer.{i}.step" in state.tensors:  # missing for a parameter that never had a gradient
            moments = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            expected |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    checkpoints.check_keys(state.tensors, expected, ())
    network: dict[str, Tensor] = {}
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    for key, value in state.tensors.items():
        part, name = key.split(".", 1)
        if part == "network":
            network[name] = value
        else:
            number, name = name.split(".")
            optimizer_state.setdefault(int(number), {})[name] = value
    detector.load_state_dict(network, strict=False)  # frozen parameters are not in the state
    optimizer = optimization.optimizer
    optimizer.load_state_dict(optimizer.state_dict() | {"state": optimizer_state})
    optimization.scaler.load_state_dict(state.scaler)
    state.tensors = {}


def _changing(detector: Detector) -> dict[str, Tensor]:
    """Return the tensors of the network that training changes."""
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in detector.state_dict().items() if name not in frozen}


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other training runs from writing to a folder within this context; no check on Windows.

    Raises:
        TrainingError: If another run is already writing there.
    """
    if os.name != "posix":
        yield
        return
    import fcntl  # not on Windows

    path = folder / LOCK
    with open(path, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released however this process ends
        except BlockingIOError:
            raise TrainingError(
                f"another training run is writing to {folder}: name a different --output"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
