"""A training's curves to Weights & Biases: online where the user is logged in, else kept in a folder.

Nothing that goes wrong with it stops a training: it is said once, and tracking ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training import EpochResult

PROJECT = "xlsr-aasist-fake-or-real"  # where WANDB_PROJECT does not say another
INIT_TIMEOUT = 30  # s to reach the server


class Tracker:
    """One wandb run, or nothing: where tracking is off, or has failed, every method does nothing.

    wandb's own variables count: WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY and the others.

    Args:
        folder: an existing one; the run is written to its `wandb/`.
        settings: of the training, JSON types.
        enabled: False for --no-wandb.
    """

    def __init__(self, folder: Path, settings: dict, enabled: bool = True):
        self._run = None
        if not enabled:
            return
        with self._unharmed():
            import wandb  # a second to import: only when used

            mode = os.environ.get("WANDB_MODE")
            if mode is None:
                mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
            options = {
                "dir": folder,
                "project": os.environ.get("WANDB_PROJECT", PROJECT),
                "config": settings,
                "settings": wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
            }
            try:
                self._run = wandb.init(mode=mode, **options)
            except wandb.errors.CommError as error:
                print(f"wandb cannot be reached, so the run is kept offline: {_first_line(error)}")
                self._run = wandb.init(mode="offline", **options)
            if mode == "online" and not self._run.offline:
                print(f"wandb: {self._run.url}")

    def log_step(self, step: int, loss: float, learning_rate: float) -> None:
        """The loss in nats of the batch of a step, counted from 1."""
        if self._run is not None:
            with self._unharmed():
                self._run.log({"train/loss": loss, "train/learning_rate": learning_rate}, step=step)

    def log_epoch(self, result: EpochResult, step: int, roc: Figure) -> None:
        """An epoch's figures, after its last step, with the validation split's ROC curve."""
        values = {
            "epoch": result.epoch,
            "train/epoch_loss": result.train_loss,
            "validation/loss": result.validation_loss,
            "validation/auc": result.validation_auc,
            "validation/eer": result.validation_eer,
        }
        if self._run is not None:
            with self._unharmed():
                self._run.log(values | {"validation/roc": _image(roc)}, step=step)

    def finish(self, testing: dict) -> None:
        """Close the run with the test split's `summarise`, and say how to upload what is offline."""
        if self._run is None:
            return
        with self._unharmed():
            for name in ("auc", "eer"):
                self._run.summary[f"testing/{name}"] = testing["metrics"][name]
                self._run.summary[f"testing/{name}_95"] = testing["intervals_95"][name]
            run, self._run = self._run, None
            run.finish()
            if run.offline:
                print(f"wandb kept this run offline; to upload it: wandb sync {run.settings.sync_dir}")

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, a training is worth more than its curves
            self._run = None
            print(f"wandb failed, and the run goes on without it: {_first_line(error)}", file=sys.stderr)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _image(figure: Figure):
    """For wandb, which would otherwise want matplotlib's pyplot."""
    import wandb

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return wandb.Image(np.asarray(canvas.buffer_rgba()))
