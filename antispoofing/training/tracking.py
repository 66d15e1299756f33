"""A training's curves to Weights & Biases: online where the user is logged in, else kept in a folder.

Nothing that goes wrong with it stops a training: it is said once, and tracking ends.
"""

from __future__ import annotations

import logging
import os
import shlex
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from antispoofing.training.history import EpochResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PROJECT = "xlsr-aasist-fake-or-real"  # where WANDB_PROJECT does not say another
INIT_TIMEOUT = 30  # s to reach the server


class Tracker:
    """One wandb run, or nothing: where tracking is off, or has failed, every method does nothing.

    A context manager, which closes the run, whatever ended the training. Of wandb's own variables
    WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY and WANDB_BASE_URL count.

    Args:
        folder: an existing one; the run is written to its `wandb/`.
        settings: of the training, JSON types.
        run: names the training; an interrupted one goes on in the same run.
        enabled: False for --no-wandb.
    """

    def __init__(self, folder: Path, settings: dict, run: str, enabled: bool = True):
        self._run = None
        if not enabled:
            return
        with self._unharmed():
            import wandb  # a second to import: only when used

            options = {
                "dir": folder,
                "project": os.environ.get("WANDB_PROJECT", PROJECT),
                "config": settings,
                "settings": wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
                "reinit": "finish_previous",
                "id": run,
                "resume": "allow",
            }
            mode = os.environ.get("WANDB_MODE", "online")
            try:
                if mode == "online" and not wandb.login(prompt=False, verify=False):
                    mode = "offline"
                self._run = wandb.init(mode=mode, **options)
            except wandb.errors.Error as error:
                logger.info("wandb cannot log online, so the run is kept offline: %s", _in_a_line(error))
                wandb.teardown()  # or its service holds the run's name to be in use
                self._run = wandb.init(mode="offline", **options)
            if mode == "online" and not self._run.offline:
                logger.info("wandb: %s", self._run.url)

    @property
    def is_on(self) -> bool:
        """Whether anything is logged: tracking is neither off, nor has it failed."""
        return self._run is not None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Close the run, and say how to upload what is offline."""
        if self._run is None:
            return
        with self._unharmed():
            run, self._run = self._run, None
            run.finish(exit_code=0 if kind is None else 1)
            if run.offline:
                parts = sorted(
                    Path(run.settings.sync_dir).parent.glob(f"offline-run-*-{run.id}")
                )  # of interruptions
                folders = shlex.join(map(str, parts))
                logger.info("wandb kept this run offline; to upload it: wandb sync %s", folders)

    def log_step(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """A step, counted from 1: its loss in nats, and the gradient's norm before it is clipped."""
        values = {"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        if self._run is not None:
            with self._unharmed():
                self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

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

    def log_testing(self, summaries: dict[str, dict]) -> None:
        """The test splits' figures, each from `summarise`; of several with the data set's name."""
        if self._run is not None:
            with self._unharmed():
                for of_set, summary in summaries.items():
                    prefix = f"testing/{of_set}/" if len(summaries) > 1 else "testing/"
                    for name in ("auc", "eer"):
                        self._run.summary[prefix + name] = summary["metrics"][name]
                        self._run.summary[f"{prefix}{name}_95"] = summary["intervals_95"][name]

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, a training is worth more than its curves
            self._run = None
            logger.warning("wandb failed, and the run goes on without it: %s", _in_a_line(error))


def _in_a_line(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200)


def _image(figure: Figure):
    """For wandb, which would otherwise want matplotlib's pyplot."""
    import wandb
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return wandb.Image(np.asarray(canvas.buffer_rgba()))
