"""The short way to the calls that have to be quick: from the path to their function, past routing and its layers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import problems

Endpoint = Callable[[Request], Awaitable[Response]]
"""The very function that FastAPI has under this path, where it stands for /openapi.json."""


class Direct:
    """ASGI middleware, innermost. posts: endpoints of POST by path; everything else goes on to the app."""

    def __init__(self, app: ASGIApp, posts: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._posts = posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._posts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except Exception as error:
            known = problems.answer(error)
            if known is None:
                raise  # an error of ours: a layer further out logs it and answers 500
            response = known
        await response(scope, receive, send)
