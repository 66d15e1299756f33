"""How far a training is, on disk: from there it goes on as if it had never been interrupted.

What is random in a training is a function of the seed and of where it is, so that no generator's state
belongs to its own.
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
_KIND = "training"  # what its header is called


@dataclass
class TrainingState:
    """Where a training is.

    Attributes:
        run: names it, for Weights & Biases.
        epoch: the one under way, from 1; one more than all when it is done.
        step: how many of its steps are done.
        loss, weight: the sum of its clips' weighted losses, and of the weights.
        seconds: spent on it.
        unreadable: training recordings that cannot be read, and why, by index.
        history: the epochs before it.
        tensors: of the network and the optimizer, where it comes from a file.
        scaler: of fp16's loss, likewise.
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
        """Whether nothing is done yet."""
        return (self.epoch, self.step) == (1, 0)


def identify(
    detector: Detector,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainingConfig,
) -> dict:
    """What must be the same for a training to go on, as JSON types: where the data lie need not."""
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
    """The state of the unfinished training in a folder; None where there is none.

    Raises:
        CheckpointError: it cannot be read.
        TrainingError: it is of another training, naming what differs; or the best weights so far are gone.
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
            state = TrainingState(**header["state"], tensors=tensors)
            state.unreadable = {int(i): reason for i, reason in state.unreadable.items()}
            state.history = [EpochResult(**result) for result in state.history]
    if differences:
        raise TrainingError(f"{folder} holds an unfinished training with {', '.join(differences)}")
    if state.history and not _has_best_weights(folder, state.history):
        raise TrainingError(f"{folder} holds an unfinished training, but its {FINAL} is gone or another's")
    return state


def _has_best_weights(folder: Path, history: Sequence[EpochResult]) -> bool:
    """Whether the best epoch's are there, or those of an epoch that the state does not know yet."""
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
    """Put a state in the place of the one before. Raises OSError; then the one before is still there."""
    tensors = {f"network.{name}": value for name, value in _changing(detector).items()}
    for i, values in optimization.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
    plain = {name: value for name, value in vars(state).items() if name != "tensors"}
    plain |= {"history": [asdict(result) for result in state.history]}
    plain |= {"scaler": optimization.scaler.state_dict()}
    header = {"identity": identity, "state": plain}
    checkpoints.write_safetensors(folder / STATE, tensors, header, _KIND)


def restore(state: TrainingState, detector: Detector, optimization: Optimization) -> None:
    """Put a state's tensors into what is trained; they are no longer in the state then.

    Raises:
        CheckpointError: they are not what is trained and its optimizer's.
    """
    expected = {f"network.{name}": value for name, value in _changing(detector).items()}
    for i, parameter in enumerate(optimization.trained):
        if f"optimizer.{i}.step" in state.tensors:  # not of one that has never had a gradient
            moments = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            expected |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    checkpoints.check_keys(state.tensors, expected, ())
    network, optimizer_state = {}, {}
    for name, value in state.tensors.items():
        part, name = name.split(".", 1)
        if part == "network":
            network[name] = value
        else:
            i, name = name.split(".")
            optimizer_state.setdefault(int(i), {})[name] = value
    detector.load_state_dict(network, strict=False)  # what is frozen is not in it
    optimizer = optimization.optimizer
    optimizer.load_state_dict(optimizer.state_dict() | {"state": optimizer_state})
    optimization.scaler.load_state_dict(state.scaler)
    state.tensors = {}


def _changing(detector: Detector) -> dict[str, Tensor]:
    """What the training changes of the network."""
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in detector.state_dict().items() if name not in frozen}


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """In it no other training writes to this folder. On Windows, that is for the user to see to.

    Raises:
        TrainingError: another one does already.
    """
    if os.name != "posix":
        yield
        return
    import fcntl  # which Windows has not

    path = folder / LOCK
    with open(path, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process, however that ends
        except BlockingIOError:
            raise TrainingError(f"another training is writing to {folder}: name another --output") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
