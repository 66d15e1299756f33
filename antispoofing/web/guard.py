"""What of gradio's server strangers may ask for: what the page needs, in requests of a limited size.

Gradio also serves recordings' conversion by ffmpeg, the history of runs, other Spaces' files and more, each
without the limits of this project.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 2**20  # of a request, but for uploads, which gradio limits

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
                answer = PlainTextResponse(f"a request has more than {MOST_BYTES} bytes, the limit here", 413)
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
        if size > MOST_BYTES:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """These messages first, then what is received."""
    left = iter(messages)

    async def again() -> Message:
        return next(left, None) or await receive()

    return again
