"""Logging of training curves to Weights & Biases: online if the user is logged in, otherwise to a folder.

No failure of logging stops a training run: it is reported once, and logging ends.
"""

from __future__ import annotations

import logging
import os
import shlex
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from antispoofing.training.history import EpochResult

if TYPE_CHECKING:
    import wandb
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PROJECT = "xlsr-aasist-fake-or-real"  # the default of WANDB_PROJECT
INIT_TIMEOUT = 30  # seconds to reach the server

Mode = Literal["online", "offline", "disabled", "shared"]  # of WANDB_MODE


class Tracker:
    """One run at Weights & Biases; if logging is off or has failed, every method does nothing.

    As a context manager it closes the run, however training ends. The environment variables WANDB_MODE,
    WANDB_PROJECT, WANDB_API_KEY and WANDB_BASE_URL have their usual meanings.

    Args:
        folder: Existing folder; the run is written to `wandb/` in it.
        settings: Settings of the training run, as JSON types.
        run: Id of the run; a resumed training run is logged under the same id.
        enabled: False for --no-wandb.
    """

    def __init__(self, folder: Path, settings: dict, run: str, enabled: bool = True):
        self._run: wandb.Run | None = None
        if enabled:
            with self._failing_quietly():
                self._run = _start_run(folder, settings, run)

    @property
    def is_on(self) -> bool:
        """Whether anything is logged: logging is not off and has not failed."""
        return self._run is not None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Close the run, and log how to upload it if it is offline."""
        if self._run is None:
            return
        with self._failing_quietly():
            run, self._run = self._run, None
            run.finish(exit_code=0 if kind is None else 1)
            if run.offline:
                # After interruptions, the run is in several parts.
                parts = sorted(Path(run.settings.sync_dir).parent.glob(f"offline-run-*-{run.id}"))
                folders = shlex.join(map(str, parts))
                logger.info("wandb kept this run offline; to upload it: wandb sync %s", folders)

    def log_step(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """Log a step, counted from 1: loss in nats, learning rate, and gradient norm before clipping."""
        values = {"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        if self._run is not None:
            with self._failing_quietly():
                self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def log_epoch(self, result: EpochResult, step: int, roc: Figure) -> None:
        """Log the figures of an epoch, and the validation set's ROC curve, at the epoch's last step."""
        values = {
            "epoch": result.epoch,
            "train/epoch_loss": result.train_loss,
            "validation/loss": result.validation_loss,
            "validation/auc": result.validation_auc,
            "validation/eer": result.validation_eer,
        }
        if self._run is not None:
            with self._failing_quietly():
                self._run.log(values | {"validation/roc": _image(roc)}, step=step)

    def log_testing(self, summaries: dict[str, dict]) -> None:
        """Log the figures of each test split, from `summarise`; the name is logged if there are several."""
        if self._run is not None:
            with self._failing_quietly():
                for split, summary in summaries.items():
                    prefix = f"testing/{split}/" if len(summaries) > 1 else "testing/"
                    for name in ("auc", "eer"):
                        self._run.summary[prefix + name] = summary["metrics"][name]
                        self._run.summary[f"{prefix}{name}_95"] = summary["intervals_95"][name]

    @contextmanager
    def _failing_quietly(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, a training run is worth more than its curves
            self._run = None
            logger.warning("wandb failed; training continues without it: %s", _in_a_line(error))


def _start_run(folder: Path, settings: dict, run: str) -> wandb.Run:
    import wandb  # takes a second to import: only when used

    def start(mode: Mode) -> wandb.Run:
        return wandb.init(
            mode=mode,
            dir=folder,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            config=settings,
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
            reinit="finish_previous",
            id=run,
            resume="allow",
        )

    mode = cast("Mode", os.environ.get("WANDB_MODE", "online"))  # wandb checks the value
    try:
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        started = start(mode)
    except wandb.errors.Error as error:
        logger.info("wandb cannot log online, so the run is kept offline: %s", _in_a_line(error))
        wandb.teardown()  # otherwise wandb's service considers the run's id to be in use
        started = start("offline")
    if mode == "online" and not started.offline:
        logger.info("wandb: %s", started.url)
    return started


def _in_a_line(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200)


def _image(figure: Figure) -> wandb.Image:
    """Draw a figure for wandb, which by itself would use matplotlib's pyplot."""
    import wandb
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return wandb.Image(np.asarray(canvas.buffer_rgba()))
