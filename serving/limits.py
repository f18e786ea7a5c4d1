"""The outermost layer of the HTTP edge: bodies are bounded in size and time before anything parses them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems

MAX_BODY = 64 * 1024
"""Bytes; a decide request with a thousand eligible products has 30,000."""
BODY_SECONDS = 10.0
LARGER = {"/v1/events": 1024 * 1024}
"""Bytes, by path: 500 events with long ids have 300,000."""


class BodyLimit:
    """ASGI middleware: reads the whole body, with or without content-length, and refuses a large or slow one.

    The request below it finds the body complete, in one message. larger: other limits than max_body, by path.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body: int = MAX_BODY,
        seconds: float = BODY_SECONDS,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._larger = larger or {}
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._max_body)
        if _declared(scope) > most:
            await self._refuse(scope, receive, send, most)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > most:
                        await self._refuse(scope, receive, send, most)
                        return
                    more = message.get("more_body", False)
        except TimeoutError:
            late = problems.response(
                408, "body-late", "the body did not arrive in time", headers={"connection": "close"}
            )
            await late(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        detail = f"a body has at most {most} bytes"
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
