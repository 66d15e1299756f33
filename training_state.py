"""How far a training is, on disk: from there it goes on as if it had never been interrupted.

What is random in a training is a function of the seed and of where it is, so that no generator's state
belongs to its own.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

import checkpoints
from data_sets import Utterance
from detector import Detector
from errors import TrainingError
from optimization import Optimization
from recipe import TrainingConfig

STATE = "training_state.safetensors"
_KIND = "training"  # what its header is called


@dataclass(frozen=True)
class EpochResult:
    """One epoch: losses are mean cross entropies in nats; AUC and EER are of the validation set.

    validation_auc_low and _high are the AUC's 95 % bootstrap interval, validation_threshold is the
    one at the EER, learning_rate that of the last step.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auc: float
    validation_auc_low: float
    validation_auc_high: float
    validation_eer: float
    validation_threshold: float
    learning_rate: float
    seconds: float


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
        return not self.tensors


def identify(
    detector: Detector,
    training: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainingConfig,
) -> dict:
    """What must be the same for a training to go on, as JSON types."""
    settings = asdict(config) | {
        "augmentation": asdict(config.augmentation) | {"kinds": list(config.augmentation.kinds)},
        "class_weights": config.class_weights and list(config.class_weights),
        "detector": detector.sha256,
        "precision": detector.precision,
        "frontend": detector.frontend,
    }
    for name, utterances in (("training set", training), ("validation set", validation)):
        digest = hashlib.sha256("\0".join(f"{u.name}\0{u.label}" for u in utterances).encode())
        settings[name] = f"{len(utterances)} recordings, {digest.hexdigest()[:12]}"
    return settings


def find_state(folder: Path, identity: dict) -> TrainingState | None:
    """The state of the unfinished training in a folder; None where there is none.

    Raises:
        CheckpointError: it cannot be read.
        TrainingError: it is of another training; naming what differs.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with checkpoints.errors_of(path):
        header = checkpoints.header_of(checkpoints.read_metadata(path), _KIND, "identity", "state")
    before = header["identity"]
    differences = [
        f"{name} {before.get(name)}, not {value}"
        for name, value in identity.items()
        if before.get(name) != value
    ]
    if differences:
        raise TrainingError(f"{folder} holds an unfinished training with {', '.join(differences)}")
    with checkpoints.errors_of(path):
        tensors, _ = checkpoints.read_safetensors(path)
    state = TrainingState(**header["state"], tensors=tensors)
    state.unreadable = {int(i): reason for i, reason in state.unreadable.items()}
    state.history = [EpochResult(**result) for result in state.history]
    return state


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
    """Put a state's tensors into what is trained; they are no longer in the state then."""
    network, of_optimizer = {}, {}
    for name, value in state.tensors.items():
        part, name = name.split(".", 1)
        if part == "network":
            network[name] = value
        else:
            i, name = name.split(".")
            of_optimizer.setdefault(int(i), {})[name] = value
    checkpoints.check_keys(network, _changing(detector), ())
    detector.load_state_dict(network, strict=False)  # what is frozen is not in it
    optimizer = optimization.optimizer
    optimizer.load_state_dict(optimizer.state_dict() | {"state": of_optimizer})
    optimization.scaler.load_state_dict(state.scaler)
    state.tensors = {}


def _changing(detector: Detector) -> dict[str, Tensor]:
    """What the training changes of the network."""
    frozen = {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in detector.state_dict().items() if name not in frozen}
