"""What strangers may ask of gradio's server, and how long it keeps what they upload.

Gradio also serves recordings' conversion by ffmpeg, the history of runs, other Spaces' files and more, each
without the limits of this project: the page needs none of it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antispoofing.web.limits import REQUEST_BYTES

UPLOAD = "/gradio_api/upload"
ALLOWED = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/pwa_icon.*"
    r"|/(assets|static|svelte)/.*"
    rf"|{UPLOAD}"
    r"|/gradio_api/(info|openapi\.json|upload_progress|startup-events|cancel|reset|queue/(join|data|status))"
    r"|/gradio_api/(call|heartbeat|file=).*"
)


class HttpGuard:
    """An ASGI application around another: 404 for what is not ALLOWED, 413 for too large a body."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http" or not ALLOWED.fullmatch(scope["path"].rstrip("/") or "/"):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif scope["path"].rstrip("/") == UPLOAD:
            await self.app(scope, receive, send)
        else:
            body = await _body(receive)
            if body is None:
                answer = PlainTextResponse(
                    f"a request has more than {REQUEST_BYTES} bytes, the limit here", 413
                )
                await answer(scope, receive, send)
            else:
                await self.app(scope, _replayed(body, receive), send)


async def _body(receive: Receive) -> list[Message] | None:
    """The messages up to the body's end; None where it is too large."""
    messages, size = [], 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > REQUEST_BYTES:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """These messages first, then what is received."""
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return again


def sweep(folder: Path, seconds: float, most_bytes: float) -> None:
    """Remove the files below a folder that are older; of the others the oldest, until what is left fits."""
    files = []
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except FileNotFoundError:  # moved meanwhile
            continue
        if not path.is_dir():
            files.append((stat.st_mtime, stat.st_size, path))
    kept, oldest = 0, time.time() - seconds
    for modified, size, path in sorted(files, reverse=True):
        kept += size
        if modified < oldest or kept > most_bytes:
            path.unlink(missing_ok=True)
    for path in sorted(folder.rglob("*/"), reverse=True):
        with suppress(OSError):  # not empty, or gone
            if path.lstat().st_mtime < oldest:
                path.rmdir()


@contextmanager
def regular_sweeps(folder: Path, seconds: float, most_bytes: float, every: float = 10) -> Iterator[None]:
    """Sweep every so many seconds, until the end of the block."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(every):
            sweep(folder, seconds, most_bytes)

    thread = threading.Thread(target=work, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
