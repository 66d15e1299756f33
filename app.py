"""A web page, and an HTTP interface, to try the detectors: hear it, see it, know why.

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
from antispoofing.project import CUSTOM_SAMPLES, Invocation
from antispoofing.sandbox import Sandbox
from antispoofing.web import html, server
from antispoofing.web.limits import Limits
from antispoofing.web.service import Service

if TYPE_CHECKING:
    from model import Detector

READERS = ("data_utils", "av")  # what it takes to read a recording


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
    parser.add_argument(
        "--port", type=options.whole(1), metavar="N", help="default: the first free one from 7860"
    )
    for name, kind, default, words in (
        ("--max-megabytes", options.positive, limits.megabytes, "of a file"),
        ("--max-minutes", options.positive, limits.minutes, "of a recording that is heard in full"),
        ("--max-files", options.whole(1), limits.files, "at once, or in an archive"),
        ("--max-queue", options.whole(1), 50, "requests that may wait"),
    ):
        parser.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{words} (default: %(default)g)"
        )
    options.add_device_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr for what is missing or cannot be used."""
    return run_script("app.py", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Load the detectors and serve until Ctrl-C. Raises UserError for what stands in the way."""
    limits = Limits(megabytes=args.max_megabytes, minutes=args.max_minutes, files=args.max_files)
    signal.signal(signal.SIGTERM, _stop)
    with Sandbox(READERS) as sandbox:  # its processes start while the detectors are read
        service = Service(_detectors(args), sandbox, limits)
        # What is imported when it is first used is imported now, and not while somebody waits.
        html.results_html(service, [next(CUSTOM_SAMPLES.rglob("*.flac"))], list(service.detectors))
        server.serve(service, args.host, args.port, args.max_queue)
    return 0


def _stop(number: int, frame: object) -> None:
    """End as after Ctrl-C: with nothing left behind."""
    sys.exit(128 + number)


def _detectors(args: argparse.Namespace) -> dict[str, Detector]:
    """The detectors to offer, each distinct file once, by name."""
    paths = args.checkpoint or tasks.known_checkpoints() or [tasks.STAND_IN]
    if not args.checkpoint and tasks.FINE_TUNED.is_file():
        paths = [*paths, tasks.FINE_TUNED]
    scoring = options.ScoringOptions(device=args.device, precision=args.precision)
    detectors: dict[str, Detector] = {}
    for path in paths:
        detector = tasks.load(tasks.fetched(path), scoring)
        if detector.sha256 in (known.sha256 for known in detectors.values()):
            continue
        name = {tasks.STAND_IN: "stand-in", tasks.FINE_TUNED: "fine-tuned"}.get(path, detector.path.stem)
        detectors[f"{name}-{detector.sha256[:8]}" if name in detectors else name] = detector
        print(f"{path} on {detector.device.type}, {detector.precision}")
    return detectors


if __name__ == "__main__":
    sys.exit(main())
