"""How long the web page takes to start, and to answer: from a click to the verdict in a browser, and by HTTP.

    python benchmarks/page.py                               # the stand-in, a sample
    python benchmarks/page.py --checkpoint LA_model.pth --clip suspicious.mp3

Needs playwright and a chromium.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from serving import Served, served

from antispoofing.commands.tasks import STAND_IN
from antispoofing.project import SAMPLES


def in_browser(server: Served, clip: Path, rounds: int) -> list[float]:
    """Seconds from the click on Judge until the verdict is shown; each time by another name."""
    seconds = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(server.address)
        for number in range(rounds):
            name = f"{number}{clip.suffix}"
            page.locator("input[type=file]").first.set_input_files(shutil.copy(clip, Path(folder) / name))
            page.get_by_label(name).wait_for()
            page.wait_for_timeout(500)  # the upload is done
            started = time.perf_counter()
            page.get_by_role("button", name="Judge").click()
            page.get_by_role("heading", name=name).wait_for()
            seconds.append(time.perf_counter() - started)
            page.get_by_label("Clear").first.click()
        browser.close()
    return seconds


def by_http(server: Served, clip: Path, rounds: int) -> list[float]:
    """Seconds of a call of /timeline for a file that is uploaded."""
    seconds = []
    call = f"{server.address}gradio_api/call/timeline"
    with httpx2.Client(timeout=600) as client, open(clip, "rb") as file:
        (path,) = client.post(f"{server.address}gradio_api/upload", files={"files": file}).json()
        detectors = json.loads(client.get(f"{server.address}gradio_api/info").text)
        default = detectors["named_endpoints"]["/timeline"]["parameters"][1]["parameter_default"]
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, default]
        for _ in range(rounds):
            started = time.perf_counter()
            event = client.post(call, json={"data": data}).json()["event_id"]
            answer = client.get(f"{call}/{event}").text
            seconds.append(time.perf_counter() - started)
            assert "event: complete" in answer, answer
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=STAND_IN, metavar="PATH")
    parser.add_argument("--clip", type=Path, default=SAMPLES / "custom/Fake/piper-joe-09.flac")
    parser.add_argument("--starts", type=int, default=5, help="of the server (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="per start (default: %(default)s)")
    args = parser.parse_args()
    ways: dict[str, list[float]] = {"start-up": [], "answer in the browser": [], "answer by HTTP": []}
    first = []
    for _ in range(args.starts):
        with (
            tempfile.TemporaryDirectory() as folder,
            served(Path(folder), "--checkpoint", str(args.checkpoint.resolve())) as server,
        ):
            ways["start-up"].append(server.seconds)
            seconds = in_browser(server, args.clip, args.rounds)
            first.append(seconds[0])
            ways["answer in the browser"] += seconds
            ways["answer by HTTP"] += by_http(server, args.clip, args.rounds)
    for name, seconds in ways.items():
        spread = f"({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} times)"
        print(f"{name}: median {statistics.median(seconds):.2f} s {spread}")
    print(f"the first answer in the browser: median {statistics.median(first):.2f} s")


if __name__ == "__main__":
    main()
