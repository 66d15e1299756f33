"""The web page's layout: what is where, and what calls what; with an HTTP interface for programs.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path

import gradio as gr
from gradio_client.utils import is_http_url_like

from antispoofing import text
from antispoofing.errors import UserError
from antispoofing.web import api, html
from antispoofing.web.limits import UPLOAD_SECONDS, Limits
from antispoofing.web.service import Service

TITLE = "Is this recording a person or a machine?"
INTRODUCTION = (
    "Upload a recording, or record one, and a speech deepfake detector tells how real or synthetic it "
    "sounds, and where. **A score is evidence, not proof**: detectors err, most of all on voices, languages, "
    "channels and synthesis systems unlike those they were trained on."
)
LANE = {"concurrency_id": "detector", "concurrency_limit": 1}  # one request at a time has all cores
LOOK = """() => {
    const result = document.querySelector(".result");
    if (result && result.getBoundingClientRect().top > innerHeight / 2) result.scrollIntoView();
}"""  # on a phone the result is below what is seen
FOR_PROGRAMS = """
**For programs**: `/score` (the beginning of each file) and `/timeline` (one recording in full) answer in
JSON. How: "Use via API" below, and docs/page.md.
"""


def _uploads_only(component: gr.components.Component) -> gr.components.Component:
    """The same one, but what is an address it refuses: gradio would fetch it, however slow or large it is.

    (Of a class of our own gradio would write a stub file beside this one.)
    """
    fetch = component.async_move_resource_to_block_cache

    async def taken(path: str | Path | None) -> str | None:
        if is_http_url_like(str(path)):
            raise gr.Error("upload the file itself, not its address", print_exception=False)
        return await fetch(path)

    component.async_move_resource_to_block_cache = taken
    return component


def build(service: Service, examples: dict[str, Path]) -> gr.Blocks:
    """The page, and the interface for programs.

    Args:
        examples: recordings to try, by what they are called.
    """

    @_with_user_errors_shown
    def judge(files: list[str] | None, voice: str | None, detectors: list[str]) -> str:
        return html.results_html(service, [*(files or []), *([voice] if voice else [])], detectors)

    names = list(service.detectors)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = _uploads_only(gr.File(file_count="multiple", label="Recordings, or a zip"))
                voice = _uploads_only(
                    gr.Audio(sources=["microphone"], type="filepath", label="Or record one")
                )
                chosen = gr.CheckboxGroup(
                    names, value=names[:1], label="Detectors, side by side", visible=len(names) > 1
                )
                button = gr.Button("Judge", variant="primary")
                gr.Markdown("A zip with folders `Real` and `Fake` also gets AUC and EER. To try it:")
                tries = {gr.Button(name, size="sm"): path for name, path in examples.items()}
                gr.Markdown(_limits(service.limits))
            with gr.Column(scale=3, min_width=300):
                results = gr.HTML()
        gr.Markdown(FOR_PROGRAMS)
        judging = {"fn": judge, "inputs": [files, voice, chosen], "outputs": results}
        looking = {"fn": None, "js": LOOK, "api_visibility": "private"}
        button.click(**judging, **LANE, api_visibility="private").then(**looking)
        for example, path in tries.items():
            filled = example.click(
                partial(_one_recording, str(path)),
                outputs=[files, voice],
                concurrency_limit=None,
                api_visibility="private",
            )
            filled.then(**judging, **LANE, api_visibility="private").then(**looking)
        _add_interface(service, chosen)
    return page


def _add_interface(service: Service, chosen: gr.CheckboxGroup) -> None:
    """What programs call: /score and /timeline."""

    @_with_user_errors_shown
    def score(files: list[str] | None, detectors: list[str]) -> list[dict]:
        return api.score(service, files or [], detectors)

    @_with_user_errors_shown
    def timeline(file: str | None, detectors: list[str]) -> dict:
        return api.timeline(service, file, detectors)

    with gr.Row(visible=False):  # what they send and get
        files, file = (
            _uploads_only(gr.File(file_count="multiple", label="files")),
            _uploads_only(gr.File(label="file")),
        )
        answer = gr.JSON()
        for_score, for_timeline = gr.Button(), gr.Button()
    for_score.click(score, [files, chosen], answer, api_name="score", **LANE)
    for_timeline.click(timeline, [file, chosen], answer, api_name="timeline", **LANE)


def theme() -> gr.Theme:
    """Fonts of the system, for none is to be fetched; and blue, for orange is for what sounds synthetic."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    return gr.themes.Default(primary_hue="blue", **fonts).set(
        button_primary_background_fill="*primary_600",  # on which white can be read
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
    )


def _limits(limits: Limits) -> str:
    return (
        f"At most {limits.files} files of {limits.megabytes:g} MB; one alone is heard in full, up to "
        f"{limits.minutes:g} minutes. Files are deleted after {UPLOAD_SECONDS // 60} minutes."
    )


def _with_user_errors_shown(function: Callable) -> Callable:
    """The same, but what a user can mend is shown as one line."""

    @wraps(function)
    def told(*args: object) -> object:
        try:
            return function(*args)
        except UserError as error:
            raise gr.Error(text.printable(str(error)), duration=None, print_exception=False) from error

    return told


def _one_recording(path: str) -> tuple[list[str], None]:
    """One file, and no recording."""
    return [path], None
