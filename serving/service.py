"""The BentoML service. BentoML runs the process; every request, whatever its path, is answered by the mounted app.

Importing builds objects only. Features, models and ledger are opened by the app's lifespan, in the worker process.
"""

from __future__ import annotations

import gc
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api import create_app
from serving.launch import TIED, WORKERS
from serving.opening import Opening, Serving, open_serving
from serving.orphans import stop_with_parent
from serving.settings import Settings


def _open() -> Serving:
    """What is open stays: to look through its 370,000 objects for garbage stops every decision for 0.2 to 0.3 s."""
    serving = open_serving(Settings.from_environment(os.environ, Path.cwd()))
    gc.collect()
    gc.freeze()
    return serving


def new_decision_id() -> str:
    """32 hex digits: milliseconds since 1970, then 80 random bits.

    Decisions of one time then lie together in the ledger's indexes, so that fewer pages of them reach the disk.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


app = create_app(Opening(_open), clock=lambda: datetime.now(UTC), new_decision_id=new_decision_id)


class OnlyTheApp:
    """ASGI middleware inside BentoML: its own routes (an index page with a tag manager, /schema.json) do not answer."""

    def __init__(self, bento: ASGIApp, app: ASGIApp) -> None:
        self._bento = bento
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._bento if scope["type"] == "lifespan" else self._app)(scope, receive, send)


# BentoML's own HTTP layer does as little as possible. Here and not in a file, so that no way of starting forgets it.
@bentoml.service(
    name="NextBestService",
    workers=int(os.environ.get(WORKERS, "1")),  # they share one ledger; see serving.ledger
    http={"host": "127.0.0.1", "cors": {"enabled": False}},
    traffic={"timeout": 60},
    metrics={"enabled": False},  # /metrics is the app's
    logging={"access": {"enabled": False}},  # it writes paths that callers choose into the log
    monitoring={"enabled": False},
    tracing={"sample_rate": 0.0, "excluded_urls": ".*"},  # not even the middleware's own work per request
)
@bentoml.asgi_app(app, path="/")
class NextBestService:
    """The next best action for a bank's customer."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # BentoML ships without types
    @staticmethod
    def tie_supervisor() -> None:
        """Runs once, in BentoML's supervising process."""
        if TIED in os.environ:
            stop_with_parent()

    def __init__(self) -> None:
        stop_with_parent()


NextBestService.add_asgi_middleware(OnlyTheApp, app=app)  # type: ignore[attr-defined]  # the decorator made a Service
