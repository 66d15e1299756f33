"""Serve a web page and an HTTP interface that judge recordings and show why.

    python app.py                                           # the detectors in this folder, else the stand-in
    python app.py --checkpoint LA_model.pth results/for/final_model.safetensors

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from antispoofing.commands import options, tasks
from antispoofing.commands.run import run_script
from antispoofing.detectors.devices import resolve_device
from antispoofing.project import CUSTOM_SAMPLES, Invocation
from antispoofing.sandbox import Sandbox
from antispoofing.web import html, server
from antispoofing.web.limits import Limits
from antispoofing.web.service import Service

if TYPE_CHECKING:
    from model import Detector

READERS = ("data_utils", "av")  # the modules that reading a recording needs


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="Serve a web page that judges recordings.")
    options.add_checkpoints_option(
        parser,
        f"the published detectors in this folder and {tasks.FINE_TUNED}; the stand-in if there are none",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on, 0.0.0.0 to serve other machines (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=options.whole(1, 65535),
        metavar="N",
        help="port to listen on (default: the first free one from 7860)",
    )
    for name, kind, default, words in (
        (
            "--max-megabytes",
            options.positive,
            limits.megabytes,
            "size of the largest file that is accepted, in MB",
        ),
        (
            "--max-minutes",
            options.positive,
            limits.minutes,
            "length of the longest recording that is judged in full, in minutes",
        ),
        ("--max-files", options.whole(1), limits.files, "largest number of files at once, or in an archive"),
        ("--max-queue", options.whole(1), 50, "largest number of requests that may wait"),
    ):
        parser.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{words} (default: %(default)g)"
        )
    options.add_device_options(parser)
    options.add_version(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the server; return 0 after Ctrl-C, or 2 after one line on stderr that says what is wrong."""
    return run_script("app.py", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Load the detectors and serve the page until Ctrl-C; return the exit code.

    Raises:
        UserError: If a detector or the device cannot be used, or the server cannot listen.
    """
    limits = Limits(megabytes=args.max_megabytes, minutes=args.max_minutes, files=args.max_files)
    signal.signal(signal.SIGTERM, _stop)
    with Sandbox(READERS) as sandbox:  # its processes start while the detectors are loaded
        service = Service(_detectors(args), sandbox, limits)
        # A first recording imports what is imported lazily, so that no user has to wait for that.
        html.results_html(service, [next(CUSTOM_SAMPLES.rglob("*.flac"))], list(service.detectors))
        server.serve(service, args.host, args.port, args.max_queue)
    return 0


def _stop(number: int, frame: object) -> None:
    """Exit in an orderly way on SIGTERM, so that processes end and temporary files are removed."""
    sys.exit(128 + number)


def _detectors(args: argparse.Namespace) -> dict[str, Detector]:
    """Load the detectors to offer, each distinct file once; return them by name."""
    fine_tuned = [tasks.FINE_TUNED] if tasks.FINE_TUNED.is_file() else []
    paths = args.checkpoint or [*tasks.known_checkpoints(), *fine_tuned] or [tasks.STAND_IN]
    resolve_device(args.device)
    scoring = options.ScoringOptions(device=args.device, precision=args.precision)
    detectors: dict[str, Detector] = {}
    for path in paths:
        detector = tasks.load(tasks.fetched(path), scoring)
        if detector.sha256 in (known.sha256 for known in detectors.values()):
            continue
        name = {tasks.STAND_IN: "stand-in", tasks.FINE_TUNED: "fine-tuned"}.get(path)
        detectors[tasks.distinct_name(detector, detectors, name)] = detector
        print(f"{path} on {detector.device.type}, {detector.precision}")
    return detectors


if __name__ == "__main__":
    sys.exit(main())
