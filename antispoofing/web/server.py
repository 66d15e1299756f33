"""The web page's server: gradio's, behind a guard, with example recordings."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from antispoofing.errors import UserError
from antispoofing.project import CUSTOM_SAMPLES
from antispoofing.web import html
from antispoofing.web.limits import UPLOAD_BYTES, UPLOAD_SECONDS
from antispoofing.web.service import Service
from data_utils import SAMPLE_RATE, load_audio

logger = logging.getLogger(__name__)


def serve(service: Service, host: str, port: int | None, max_queue: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        service: The detectors.
        host: The address to listen on.
        port: The port; None for the first free one from 7860.
        max_queue: How many requests may wait.

    Raises:
        UserError: If the server cannot listen there.
    """
    # Importing gradio takes three seconds, which the sandbox's processes would spend too if it stood above:
    # they import this module as they start.
    from starlette.middleware import Middleware

    from antispoofing.web.guard import HttpGuard, regular_sweeps
    from antispoofing.web.page import build, theme

    with tempfile.TemporaryDirectory() as folder:
        uploads, shown = Path(folder, "uploads"), Path(folder, "examples")
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # removed together with the folder
        page = build(service, examples(shown))
        page.queue(max_size=max_queue, default_concurrency_limit=1)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=round(service.limits.megabytes * 1e6),
                allowed_paths=[str(shown)],
                theme=theme(),
                css=html.CSS,
                app_kwargs={"middleware": [Middleware(HttpGuard)]},
                run_history=False,
                footer_links=["api", "settings"],
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            where = f"port {port}" if port else "a port from 7860 on"
            remedy = "choose another port with --port, or another address with --host"
            raise UserError(f"cannot listen on {host}, {where}: {remedy}") from error
        logger.info("The page is at %s until Ctrl-C", address)
        with regular_sweeps(uploads, UPLOAD_SECONDS, UPLOAD_BYTES):
            page.block_thread()


def examples(folder: Path) -> dict[str, Path]:
    """Write example recordings to a new folder; return them by the labels of their buttons.

    The last one is put together from clips of a person and of a machine.
    """
    folder.mkdir()
    person = [CUSTOM_SAMPLES / f"Real/austen-reader-{i}.flac" for i in range(1, 8)]
    machine = [CUSTOM_SAMPLES / f"Fake/festival-hts-slt-{i}.flac" for i in range(1, 4)]
    mixed = folder / "a-machine-in-between.flac"
    clips = [load_audio(clip) for clip in (*person[:3], *machine[:2], *person[3:6])]
    soundfile.write(mixed, np.concatenate(clips), SAMPLE_RATE)
    return {
        "A person": Path(shutil.copy(person[6], folder)),
        "A machine": Path(shutil.copy(machine[2], folder)),
        "A person, with a machine in between": mixed,
    }
