"""A web page, and an HTTP interface, to try the detectors: hear it, see it, know why.

    python app.py                                           # the detectors in this folder, else the stand-in
    python app.py --checkpoint LA_model.pth results/for/final_model.safetensors

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from antispoofing.commands import options, tasks
from antispoofing.detectors.checkpoints import known_checkpoints
from antispoofing.detectors.loading import PRECISIONS, Detector, resolve_device
from antispoofing.errors import UserError
from antispoofing.sandbox import Sandbox
from antispoofing.web import html
from antispoofing.web.service import Limits, Service
from antispoofing.web.uploads import swept
from data_utils import SAMPLE_RATE, load_audio

SAMPLE_CLIPS = tasks.SAMPLES / "custom"
READERS = ("data_utils", "av")  # what it takes to read a recording
MOST_UPLOADS = 5e9  # bytes of them; then the oldest go


def parse_args(argv: list[str]) -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(description="A web page to try the detectors on recordings.")
    options.add_checkpoints_option(
        parser, "every published name and the fine-tuned one present, else the stand-in"
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="where it listens: 0.0.0.0 for everybody (default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--port", type=options.whole(1), help="default: the first free one from 7860")
    parser.add_argument(
        "--max-megabytes",
        type=options.positive,
        default=limits.megabytes,
        help="of a file (default: %(default)g)",
    )
    parser.add_argument(
        "--max-minutes",
        type=options.positive,
        default=limits.minutes,
        help="of a recording that is heard in full (default: %(default)g)",
    )
    parser.add_argument(
        "--max-files", type=options.whole(1), default=limits.files, help="at once (default: %(default)d)"
    )
    parser.add_argument(
        "--max-queue", type=options.whole(1), default=50, help="requests that may wait (default: %(default)d)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument("--precision", choices=(*PRECISIONS, "auto"), default="fp32", help="of the front end")
    parser.set_defaults(frontend="transformers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used."""
    return options.run_script("app.py", run, parse_args, argv)


def run(args: argparse.Namespace, command: str) -> int:
    """Load the detectors and serve until Ctrl-C. Raises UserError for what stands in the way."""
    limits = Limits(megabytes=args.max_megabytes, minutes=args.max_minutes, files=args.max_files)
    signal.signal(signal.SIGTERM, _stop)
    with Sandbox(READERS) as sandbox:  # its processes start while the detectors are read
        service = Service(_detectors(args), sandbox, limits)
        # What is imported when it is first used is imported now, and not while somebody waits.
        html.judged(service, [next(SAMPLE_CLIPS.rglob("*.flac"))], list(service.judges))
        serve(service, args.host, args.port, args.max_queue)
    return 0


def _stop(number: int, frame: object) -> None:
    """End as after Ctrl-C: with nothing left behind."""
    sys.exit(128 + number)


def _detectors(args: argparse.Namespace) -> dict[str, Detector]:
    """The detectors to offer, each distinct file once, by name."""
    paths = args.checkpoint or known_checkpoints() or [tasks.STAND_IN]
    if not args.checkpoint and tasks.FINE_TUNED.is_file():
        paths = [*paths, tasks.FINE_TUNED]
    device = resolve_device(args.device)
    detectors: dict[str, Detector] = {}
    for path in paths:
        detector = tasks.load(tasks.fetched(path), device, args)
        if detector.sha256 in (known.sha256 for known in detectors.values()):
            continue
        name = {tasks.STAND_IN: "stand-in", tasks.FINE_TUNED: "fine-tuned"}.get(path, detector.path.stem)
        detectors[f"{name}-{detector.sha256[:8]}" if name in detectors else name] = detector
        print(f"{path} on {detector.device.type}, {detector.precision}")
    return detectors


def serve(service: Service, host: str, port: int | None, max_queue: int) -> None:
    """Show the page until Ctrl-C. Raises UserError where it cannot listen."""
    # With gradio three seconds, which the sandbox's processes need not wait for.
    from starlette.middleware import Middleware

    from antispoofing.web.guard import HttpGuard
    from antispoofing.web.page import KEPT, build, theme

    with tempfile.TemporaryDirectory() as folder:
        uploads, shown = Path(folder, "uploads"), Path(folder, "examples")
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # gone with the folder
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
            raise UserError(f"cannot listen on {host}, {where}: name another with --port") from error
        print(f"The page is at {address} until Ctrl-C")
        with swept(uploads, KEPT, MOST_UPLOADS):
            page.block_thread()


def examples(folder: Path) -> dict[str, Path]:
    """Sample recordings in a new folder, by what they are; one is put together."""
    folder.mkdir()
    person = [SAMPLE_CLIPS / f"Real/austen-reader-{i}.flac" for i in range(1, 8)]
    machine = [SAMPLE_CLIPS / f"Fake/festival-hts-slt-{i}.flac" for i in range(1, 4)]
    mixed = folder / "a-machine-in-between.flac"
    clips = [load_audio(clip) for clip in (*person[:3], *machine[:2], *person[3:6])]
    soundfile.write(mixed, np.concatenate(clips), SAMPLE_RATE)
    return {
        "A person": Path(shutil.copy(person[6], folder)),
        "A machine": Path(shutil.copy(machine[2], folder)),
        "A person, with a machine in between": mixed,
    }


if __name__ == "__main__":
    sys.exit(main())
