"""Measure how long the web page takes to start, and to answer in a browser and by HTTP.

    python benchmarks/page.py                               # the stand-in detector and a bundled sample
    python benchmarks/page.py --checkpoint LA_model.pth --clip suspicious.mp3

In the browser, the time runs from the click on Judge until the verdict is shown. This needs playwright and
chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]
sys.path.insert(0, str(HERE.parent / "tests"))

from serving import Served, served

from antispoofing.commands.tasks import STAND_IN
from antispoofing.project import SAMPLES


def in_browser(server: Served, clip: Path, rounds: int) -> list[float]:
    """Return the seconds of each round from the click on Judge until the verdict is shown.

    Each round uploads the clip under another name, by which its verdict is recognised.
    """
    seconds = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(server.address)
        for number in range(rounds):
            name = f"{number}{clip.suffix}"
            page.locator("input[type=file]").first.set_input_files(shutil.copy(clip, Path(folder) / name))
            page.get_by_label(name).wait_for()
            page.wait_for_timeout(500)  # let the upload finish
            started = time.perf_counter()
            page.get_by_role("button", name="Judge").click()
            page.get_by_role("heading", name=name).wait_for()
            seconds.append(time.perf_counter() - started)
            page.get_by_label("Clear").first.click()
        browser.close()
    return seconds


def by_http(server: Served, clip: Path, rounds: int) -> list[float]:
    """Return the seconds of each call of /timeline for a file that has been uploaded."""
    seconds = []
    call = f"{server.address}gradio_api/call/timeline"
    with httpx2.Client(timeout=600) as client, open(clip, "rb") as file:
        (path,) = client.post(f"{server.address}gradio_api/upload", files={"files": file}).json()
        interface = json.loads(client.get(f"{server.address}gradio_api/info").text)
        detectors = interface["named_endpoints"]["/timeline"]["parameters"][1]["parameter_default"]
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, detectors]
        for _ in range(rounds):
            started = time.perf_counter()
            event = client.post(call, json={"data": data}).json()["event_id"]
            answer = client.get(f"{call}/{event}").text
            seconds.append(time.perf_counter() - started)
            assert "event: complete" in answer, answer
    return seconds


def main() -> None:
    """Start the server several times, time its answers, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=STAND_IN,
        metavar="PATH",
        help="detector file (default: the stand-in)",
    )
    parser.add_argument(
        "--clip",
        type=Path,
        default=SAMPLES / "custom/Fake/piper-joe-09.flac",
        metavar="PATH",
        help="recording to judge (default: a bundled sample)",
    )
    parser.add_argument("--starts", type=int, default=5, help="server starts to time (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=10, help="answers to time after each start (default: %(default)s)"
    )
    args = parser.parse_args()
    timings: dict[str, list[float]] = {"start-up": [], "answer in the browser": [], "answer by HTTP": []}
    first = []
    for _ in range(args.starts):
        with (
            tempfile.TemporaryDirectory() as folder,
            served(Path(folder), "--checkpoint", str(args.checkpoint.resolve())) as server,
        ):
            timings["start-up"].append(server.seconds)
            seconds = in_browser(server, args.clip, args.rounds)
            first.append(seconds[0])
            timings["answer in the browser"] += seconds
            timings["answer by HTTP"] += by_http(server, args.clip, args.rounds)
    for name, seconds in timings.items():
        spread = f"({min(seconds):.2f} to {max(seconds):.2f}, n = {len(seconds)})"
        print(f"{name}: median {statistics.median(seconds):.2f} s {spread}")
    print(f"first answer in the browser: median {statistics.median(first):.2f} s")


if __name__ == "__main__":
    main()
