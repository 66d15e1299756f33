"""Guards of gradio's server: which requests it answers, and how long it keeps uploads.

Gradio also offers conversion by ffmpeg, a history of runs, files of other Spaces and more, all without the
limits of this project. The page needs none of it.
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
    """ASGI middleware that answers 404 to paths other than ALLOWED, and 413 to requests that are too large.

    Args:
        app: The application to guard.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http" or not ALLOWED.fullmatch(scope["path"].rstrip("/") or "/"):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif scope["path"].rstrip("/") == UPLOAD:
            await self.app(scope, receive, send)
        else:
            body = await _body(receive)
            if body is None:
                words = f"the request is larger than {REQUEST_BYTES} bytes, the limit here"
                await PlainTextResponse(words, 413)(scope, receive, send)
            else:
                await self.app(scope, _replayed(body, receive), send)


async def _body(receive: Receive) -> list[Message] | None:
    """Receive the messages up to the end of the body; return None if it is too large."""
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > REQUEST_BYTES:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """Return a `receive` that gives these messages again, and then those that follow."""
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return again


def sweep(folder: Path, seconds: float, most_bytes: float) -> None:
    """Remove old files and empty folders below a folder, then the oldest files until the others fit.

    Args:
        folder: The folder; it need not exist.
        seconds: The age from which files and empty folders are removed.
        most_bytes: How much the files that stay may take together.
    """
    files = []
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except FileNotFoundError:  # it has just been moved
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
    """Call `sweep` every so many seconds, in a thread, until the block ends.

    Args:
        folder: As for `sweep`.
        seconds: As for `sweep`.
        most_bytes: As for `sweep`.
        every: Seconds from one sweep to the next.
    """
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
