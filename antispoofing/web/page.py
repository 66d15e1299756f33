"""The layout of the web page, and its HTTP interface for programs.

A score is logit 1 (bona fide): higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypedDict, TypeVar

import gradio as gr
from gradio_client.utils import is_http_url_like

from antispoofing import text
from antispoofing.errors import UserError
from antispoofing.web import api, html
from antispoofing.web.limits import UPLOAD_SECONDS, Limits
from antispoofing.web.service import Service

TITLE = "Is this recording a person or a machine?"
INTRODUCTION = (
    "Upload a recording, or record one, and a speech deepfake detector judges how real or synthetic it "
    "sounds, and where. **A score is evidence, not proof**: detectors err, most of all on voices, languages, "
    "channels and synthesis systems unlike those they were trained on."
)
LOOK = """() => {
    const result = document.querySelector(".result");
    if (result && result.getBoundingClientRect().top > innerHeight / 2) result.scrollIntoView();
}"""  # on a phone the result is below the visible part of the page
FOR_PROGRAMS = """
**For programs**: `/score` (the beginning of each file) and `/timeline` (one recording in full) answer in
JSON. See "Use via API" below, and docs/page.md.
"""


class _Lane(TypedDict):
    concurrency_id: str
    concurrency_limit: int


LANE: _Lane = {"concurrency_id": "detector", "concurrency_limit": 1}  # one request at a time has all cores

C = TypeVar("C", bound=gr.components.Component)
P = ParamSpec("P")
T = TypeVar("T")


def _uploads_only(component: C) -> C:
    """Make a component refuse addresses, which gradio would fetch, however slow or large they are."""
    fetch = component.async_move_resource_to_block_cache

    async def fetch_upload(path: str | Path | None) -> str | None:
        if is_http_url_like(str(path)):
            raise gr.Error("upload the file itself, not its address", print_exception=False)
        return await fetch(path)

    # A subclass would be cleaner, but gradio would write a stub file for it beside this one.
    component.async_move_resource_to_block_cache = fetch_upload  # type: ignore[method-assign,assignment]
    return component


def build(service: Service, examples: Mapping[str, Path]) -> gr.Blocks:
    """Build the page, and the interface for programs.

    Args:
        service: The detectors.
        examples: Recordings to try, by the labels of their buttons.
    """

    @_with_user_errors_shown
    def judge(files: list[str] | None, voice: str | None, detectors: list[str]) -> str:
        return html.results_html(service, [*(files or []), *([voice] if voice else [])], detectors)

    def judge_on(event: Callable[..., gr.events.Dependency]) -> None:
        judged = event(judge, [files, voice, chosen], results, **LANE, api_visibility="private")
        judged.then(None, js=LOOK, api_visibility="private")

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
                gr.Markdown("A zip with folders `Real` and `Fake` also gets AUC and EER. Examples to try:")
                tries = {gr.Button(name, size="sm"): path for name, path in examples.items()}
                gr.Markdown(_limits(service.limits))
            with gr.Column(scale=3, min_width=300):
                results = gr.HTML()
        gr.Markdown(FOR_PROGRAMS)
        judge_on(button.click)
        for example, path in tries.items():
            filled = example.click(
                partial(_one_recording, str(path)),
                outputs=[files, voice],
                concurrency_limit=None,
                api_visibility="private",
            )
            judge_on(filled.then)
        _add_interface(service, chosen)
    return page


def _add_interface(service: Service, chosen: gr.CheckboxGroup) -> None:
    """Add the interface for programs: /score and /timeline."""

    @_with_user_errors_shown
    def score(files: list[str] | None, detectors: list[str]) -> list[dict]:
        return api.score(service, files or [], detectors)

    @_with_user_errors_shown
    def timeline(file: str | None, detectors: list[str]) -> dict:
        return api.timeline(service, file, detectors)

    with gr.Row(visible=False):  # gradio describes requests and answers by components
        files = _uploads_only(gr.File(file_count="multiple", label="files"))
        file = _uploads_only(gr.File(label="file"))
        answer = gr.JSON()
        for_score, for_timeline = gr.Button(), gr.Button()
    for_score.click(score, [files, chosen], answer, api_name="score", **LANE)
    for_timeline.click(timeline, [file, chosen], answer, api_name="timeline", **LANE)


def theme() -> gr.Theme:
    """Return the page's theme: system fonts, as none may be fetched; blue, as orange means synthetic."""
    return gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    ).set(
        button_primary_background_fill="*primary_600",  # dark enough for white text
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
    )


def _limits(limits: Limits) -> str:
    return (
        f"At most {limits.files} files of {limits.megabytes:g} MB each; a file alone is judged in full, up "
        f"to {limits.minutes:g} minutes. Uploads are deleted after {UPLOAD_SECONDS // 60} minutes."
    )


def _with_user_errors_shown(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function show a `UserError` to the user as one line."""

    @wraps(function)
    def shown(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(text.printable(str(error)), duration=None, print_exception=False) from error

    return shown


def _one_recording(path: str) -> tuple[list[str], None]:
    """Return what the page's inputs are set to for an example: one file, and nothing recorded."""
    return [path], None
