"""The web page of `app.py`, served to tests as a user starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from antispoofing.detectors.loading import save_detector
from model import Detector, DetectorConfig, SpectrogramConfig

SCRIPT = Path(__file__).parents[1] / "app.py"


@dataclass
class Served:
    """Where the page is, the seconds until it was there, and the file that gets what the server prints."""

    address: str
    seconds: float
    log: Path


def write_calibrated(folder: Path) -> str:
    """A small detector of random weights, whose file stores a calibration; the file's name."""
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(front_end=SpectrogramConfig()))
    detector.provenance = {
        "calibration": {"slope": 2.0, "intercept": -1.0, "bound": 5.0, "fitted_on": "some clips"}
    }
    save_detector(detector, folder / "calibrated.safetensors")
    return "calibrated.safetensors"


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """`python app.py` in a folder, until the end of the block, where it is told to stop as by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, started = folder / "server.log", time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder / "temporary")}
    (folder / "temporary").mkdir()
    with open(log, "wb") as file:
        command = [sys.executable, str(SCRIPT), "--port", str(port), *options]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=environment)
    try:
        while not (found := re.search(r"The page is at (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - started < 120, log.read_text()
            time.sleep(0.05)
        yield Served(found[1], time.monotonic() - started, log)
        assert process.poll() is None, log.read_text()  # whatever was done to it
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not [path for path in (folder / "temporary").rglob("*") if path.is_file()]  # nothing is left
