"""The outermost layer of the HTTP edge: bodies are bounded in size and time before anything parses them."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems

MAX_BODY = 64 * 1024
"""Bytes; a decide request with a thousand eligible products has 30,000."""
BODY_SECONDS = 10.0


class BodyLimit:
    """ASGI middleware: reads the whole body, with or without content-length, and refuses a large or slow one.

    The request below it finds the body complete, in one message.
    """

    def __init__(self, app: ASGIApp, max_body: int = MAX_BODY, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._max_body = max_body
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > self._max_body:
            await self._refuse(scope, receive, send)
            return
        body = bytearray()
        try:
            with anyio.fail_after(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > self._max_body:
                        await self._refuse(scope, receive, send)
                        return
                    more = message.get("more_body", False)
        except TimeoutError:
            late = problems.response(
                408, "body-late", "the body did not arrive in time", headers={"connection": "close"}
            )
            await late(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"a body has at most {self._max_body} bytes"
        # The rest of the body is not read, so the connection cannot be used again.
        answer = problems.response(413, "body-too-large", detail, headers={"connection": "close"})
        await answer(scope, receive, send)


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
