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
import tempfile
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

import answers
import cli
import report
import tasks
import web_page
from checkpoints import known_checkpoints
from data_utils import SAMPLE_RATE, load_audio
from detector import PRECISIONS, Detector, resolve_device
from errors import UserError
from sandbox import Sandbox
from service import Limits, Service
from uploads import swept

if TYPE_CHECKING:
    import gradio as gr

TITLE = "Is this recording a person or a machine?"
INTRODUCTION = (
    "Upload a recording, or record one, and a speech deepfake detector tells how real or synthetic it "
    "sounds, and where. **A score is evidence, not proof**: detectors err, most of all on voices, languages, "
    "channels and synthesis systems unlike those they were trained on."
)
PERSON, MACHINE = "Real/austen-reader-{}.flac", "Fake/festival-hts-slt-{}.flac"  # below samples/custom
READERS = ("data_utils", "av")  # what it takes to read a recording
LANE = "detector"  # one request computes at a time: on a CPU it has all cores
LOOK = """() => {
    const result = document.querySelector(".result");
    if (result && result.getBoundingClientRect().top > innerHeight / 2) result.scrollIntoView();
}"""  # on a phone the result is below what is seen
KEPT = 600  # seconds that an uploaded file is kept
MOST_UPLOADS = 5e9  # bytes of them; then the oldest go


def parse_args(argv: list[str]) -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(description="A web page to try the detectors on recordings.")
    cli.add_checkpoints_option(
        parser, "every published name and the fine-tuned one present, else the stand-in"
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="where it listens: 0.0.0.0 for everybody (default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--port", type=cli.whole(1), help="default: the first free one from 7860")
    parser.add_argument(
        "--max-megabytes",
        type=cli.positive,
        default=limits.megabytes,
        help="of a file (default: %(default)g)",
    )
    parser.add_argument(
        "--max-minutes",
        type=cli.positive,
        default=limits.minutes,
        help="of a recording that is heard in full (default: %(default)g)",
    )
    parser.add_argument(
        "--max-files", type=cli.whole(1), default=limits.files, help="at once (default: %(default)d)"
    )
    parser.add_argument(
        "--max-queue", type=cli.whole(1), default=50, help="requests that may wait (default: %(default)d)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument("--precision", choices=(*PRECISIONS, "auto"), default="fp32", help="of the front end")
    parser.set_defaults(frontend="transformers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is missing or cannot be used."""
    return cli.run_script("app.py", run, parse_args, argv)


def run(args: argparse.Namespace, command: str) -> int:
    """Load the detectors and serve until Ctrl-C. Raises UserError for what stands in the way."""
    limits = Limits(megabytes=args.max_megabytes, minutes=args.max_minutes, files=args.max_files)
    signal.signal(signal.SIGTERM, _stop)
    with Sandbox(READERS) as sandbox:  # its processes start while the detectors are read
        service = Service(_detectors(args), sandbox, limits)
        # What is imported when it is first used is imported now, and not while somebody waits.
        web_page.judged(service, [str(tasks.SAMPLES / "custom" / PERSON.format(1))], list(service.judges))
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
    """Show the page until Ctrl-C."""
    import gradio as gr

    limits = service.limits
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # of which none is fetched
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(
        button_primary_background_fill="*primary_600",  # on which white can be read
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
    )
    with tempfile.TemporaryDirectory() as folder:
        uploads, shown = Path(folder, "uploads"), Path(folder, "examples")
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # gone with the folder
        shown.mkdir()
        page = build(service, examples(shown))
        page.queue(max_size=max_queue, default_concurrency_limit=1)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=round(limits.megabytes * 1e6),
                allowed_paths=[str(shown), str(tasks.SAMPLES / "custom")],
                theme=theme,
                css=web_page.CSS,
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
    """Sample recordings, by what they are; one is put together in a folder."""
    custom = tasks.SAMPLES / "custom"
    parts = [PERSON.format(i) for i in (1, 2, 3)] + [MACHINE.format(i) for i in (1, 2)]
    parts += [PERSON.format(i) for i in (4, 5, 6)]
    mixed = folder / "a-machine-in-between.flac"
    soundfile.write(mixed, np.concatenate([load_audio(custom / part) for part in parts]), SAMPLE_RATE)
    return {
        "A person": custom / PERSON.format(7),
        "A machine": custom / MACHINE.format(3),
        "A person, with a machine in between": mixed,
    }


def build(service: Service, tried: dict[str, Path]) -> gr.Blocks:
    """The page, and the interface for programs.

    Args:
        tried: examples to try, by what they are called.
    """
    import gradio as gr  # three seconds, which the sandbox's processes need not wait for

    names, limits = list(service.judges), service.limits
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = gr.File(
                    file_count="multiple",
                    label="Recordings, or a zip",
                )
                voice = gr.Audio(sources=["microphone"], type="filepath", label="Or record one")
                chosen = gr.CheckboxGroup(
                    names, value=names[:1], label="Detectors, side by side", visible=len(names) > 1
                )
                button = gr.Button("Judge", variant="primary")
                gr.Markdown("A zip with folders `Real` and `Fake` also gets AUC and EER. To try it:")
                buttons = {name: gr.Button(name, size="sm") for name in tried}
                gr.Markdown(_limits(limits))
            with gr.Column(scale=3, min_width=300):
                results, analysis = gr.HTML(), gr.Markdown()
        gr.Markdown(FOR_PROGRAMS)

        @_told
        def judge(files: list[str] | None, voice: str | None, detectors: list[str]) -> tuple[str, str]:
            return web_page.judged(service, [*(files or []), *([voice] if voice else [])], detectors)

        @_told
        def score(files: list[str] | None, detectors: list[str]) -> list[dict]:
            return answers.score(service, files or [], detectors)

        @_told
        def timeline(file: str | None, detectors: list[str]) -> dict:
            return answers.timeline(service, file, detectors)

        lane = {"concurrency_id": LANE, "concurrency_limit": 1}
        judging = {"fn": judge, "inputs": [files, voice, chosen], "outputs": [results, analysis]} | lane
        judging |= {"api_visibility": "private"}
        looking = {"fn": None, "js": LOOK, "api_visibility": "private"}
        button.click(**judging).then(**looking)
        for name, path in tried.items():
            filled = buttons[name].click(
                partial(_only, str(path)), outputs=[files, voice], api_visibility="private", queue=False
            )
            filled.then(**judging).then(**looking)
        with gr.Row(visible=False):  # what programs send and get
            sent, one, answer = (
                gr.File(file_count="multiple", label="files"),
                gr.File(label="file"),
                gr.JSON(),
            )
            for_score, for_timeline = gr.Button(), gr.Button()
        for_score.click(score, [sent, chosen], answer, api_name="score", **lane)
        for_timeline.click(timeline, [one, chosen], answer, api_name="timeline", **lane)
    return page


FOR_PROGRAMS = """
**For programs**: `/score` (the beginning of each file) and `/timeline` (one recording in full) answer in
JSON. How: "Use via API" below, and the README.
"""


def _limits(limits: Limits) -> str:
    return (
        f"At most {limits.files} files of {limits.megabytes:g} MB; one alone is heard in full, up to "
        f"{limits.minutes:g} minutes. Files are deleted after {KEPT // 60} minutes."
    )


def _told(function: Callable) -> Callable:
    """The same, but what a user can mend is shown as one line."""
    import gradio as gr

    @wraps(function)
    def told(*args: object) -> object:
        try:
            return function(*args)
        except UserError as error:
            raise gr.Error(report.printable(str(error)), duration=None, print_exception=False) from error

    return told


def _only(path: str) -> tuple[list[str], None]:
    """One file, and no recording."""
    return [path], None


if __name__ == "__main__":
    sys.exit(main())
