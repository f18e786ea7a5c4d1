"""The HTTP edge: requests in, answers or problem documents out. The only part of serving that is given a clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import FastAPI

from serving import problems
from serving.calls import add_decisions, add_ranking, add_records
from serving.calls_events import add_events, add_timeline
from serving.console.pages import add_console
from serving.desk import Desk, Office
from serving.direct import Direct
from serving.health import add_health
from serving.limits import LARGER, BodyLimit
from serving.metrics import Meters, Timed
from serving.opening import Opening


def create_app(
    opening: Opening,
    clock: Callable[[], datetime],
    new_decision_id: Callable[[], str],
    in_flight: int = 4,
    waiting: int = 64,
) -> FastAPI:
    """The app around injected parts; nothing is opened before its lifespan starts.

    clock: the present time with its zone. new_decision_id: 32 hex digits, never twice the same.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening.start()
        try:
            yield
        finally:
            await asyncio.to_thread(opening.close)
            office.desk.close()

    # The built-in documentation pages load scripts from outside; /openapi.json is all there is.
    app = FastAPI(
        title="nextbest", version="1", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    office = Office(opening, clock, new_decision_id, Desk(in_flight, waiting), Meters())
    office.meters.follow(opening)
    problems.install(app)
    posts = add_decisions(app, office) | add_ranking(app, office) | add_events(app, office)
    for add in (add_records, add_timeline, add_health, add_console):
        add(app, office)
    app.add_middleware(Direct, posts=posts)
    app.add_middleware(BodyLimit, larger=LARGER)
    timed = {path: path.removeprefix("/v1/") for path in posts}
    app.add_middleware(Timed, meters=office.meters, calls=timed)
    return app
