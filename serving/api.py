"""The HTTP edge: requests in, answers or problem documents out. The only module of serving that is given a clock."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

import anyio
import orjson
from fastapi import FastAPI, Request, Response

from serving import contract, problems
from serving.account import account, replayed_account
from serving.caps import CapReached
from serving.decision import Decision, Reason
from serving.limits import BodyLimit
from serving.metrics import CONTENT_TYPE, Meters, Timed
from serving.opening import Opening, Serving
from serving.problems import Problem, documented
from serving.route import decision_for

Result = TypeVar("Result")
TRIES = 4
"""How often one request is decided: once, and three times more where a cap was reached meanwhile."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_DECISION_ID = re.compile(r"[0-9a-f]{32}")
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gives the same answer, byte for byte; with another one, 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_REPLAY_PARAMETER = {
    "name": "replay",
    "in": "query",
    "required": False,
    "description": "Decide again from the recorded features with the recorded versions, and compare bit for bit.",
    "schema": {"type": "boolean", "default": False},
}


class Desk:
    """Bounds what is worked on at once. More would only make everyone wait longer; beyond the queue, 503."""

    def __init__(self, in_flight: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(in_flight)
        self._most = in_flight + waiting
        self._present = 0

    async def work(self, job: Callable[[], Result]) -> Result:
        """Run blocking `job` in a thread; Problem 503 where too many wait already."""
        if self._present >= self._most:
            raise Problem(503, "overloaded", "too many requests wait; try again")
        self._present += 1
        try:
            return await anyio.to_thread.run_sync(job, limiter=self._limiter)
        finally:
            self._present -= 1


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
            await anyio.to_thread.run_sync(opening.close)

    # The built-in documentation pages load scripts from outside; /openapi.json is all there is.
    app = FastAPI(
        title="nextbest", version="1", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    desk = Desk(in_flight, waiting)
    meters = Meters()
    problems.install(app)
    _add_calls(app, opening, clock, new_decision_id, desk, meters)
    _add_health(app, opening, meters)
    app.add_middleware(BodyLimit)
    app.add_middleware(Timed, meters=meters, calls={f"/v1/{call}": call for call in ("decide", "route", "rank")})
    return app


def _add_calls(
    app: FastAPI,
    opening: Opening,
    clock: Callable[[], datetime],
    new_decision_id: Callable[[], str],
    desk: Desk,
    meters: Meters,
) -> None:
    @app.post(
        "/v1/decide",
        summary="The next best action for one customer now, or no contact",
        response_model=None,
        responses={200: {"model": contract.DecideAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra={**contract.body_schema(contract.DecideRequest), "parameters": [_KEY_PARAMETER]},
    )
    async def decide(request: Request) -> Response:
        return await answered(request, "decide", contract.DecideRequest)

    @app.post(
        "/v1/route",
        summary="The channel, fallbacks and text for a given message: service, mandatory, or a chosen product",
        response_model=None,
        responses={200: {"model": contract.DecideAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra={**contract.body_schema(contract.RouteRequest), "parameters": [_KEY_PARAMETER]},
    )
    async def route(request: Request) -> Response:
        return await answered(request, "route", contract.RouteRequest)

    async def answered(
        request: Request, call: str, kind: type[contract.DecideRequest] | type[contract.RouteRequest]
    ) -> Response:
        wanted = contract.parse(kind, await _json_body(request))
        key = _idempotency_key(request)
        request_hash = contract.fingerprint(call, wanted)
        serving = opening.serving

        def job() -> bytes:
            known = serving.ledger.recall(key, request_hash) if key else None
            if known is not None:
                return known
            now = clock()
            ask = wanted.ask(now)
            return _settle(
                lambda: decision_for(serving.decider, ask, new_decision_id()),
                new_decision_id,
                lambda decision: _record(serving, decision, now, key, request_hash, meters),
            )

        return Response(await desk.work(job), media_type="application/json")

    @app.post(
        "/v1/rank",
        summary="Products by probability of take-up, to show where the customer came by themselves; no contact is made",
        response_model=None,
        responses={200: {"model": contract.RankAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra=contract.body_schema(contract.RankRequest),
    )
    async def rank(request: Request) -> Response:
        wanted = contract.parse(contract.RankRequest, await _json_body(request))
        serving = opening.serving
        ranking = await desk.work(lambda: serving.decider.rank(wanted.ask(clock()), wanted.limit))
        meters.ranked(ranking)
        return Response(orjson.dumps(ranking.answer()), media_type="application/json")

    @app.get(
        "/v1/decisions/{decision_id}",
        summary="A decision: features with ages, every candidate, what removed others, what would have changed it",
        response_model=None,
        responses={200: {"model": contract.DecisionDocument}, **documented(404, 422, 503)},
        openapi_extra={"parameters": [_REPLAY_PARAMETER]},
    )
    async def decision(request: Request, decision_id: str) -> Response:
        replayed = _wants_replay(request)
        serving = opening.serving

        def job() -> bytes | None:
            record = serving.ledger.get(decision_id)
            if record is None:
                return None
            return orjson.dumps((replayed_account if replayed else account)(record, serving.decider))

        document = await desk.work(job) if _DECISION_ID.fullmatch(decision_id) else None
        if document is None:
            raise Problem(404, "not-found", "there is no decision with this id")
        return Response(document, media_type="application/json")


def _add_health(app: FastAPI, opening: Opening, meters: Meters) -> None:
    @app.get("/livez", summary="The process answers", response_model=None)
    async def livez() -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    @app.get(
        "/readyz",
        summary="Decisions can be made; which models are loaded, and what is degraded",
        response_model=None,
        responses=documented(503),
    )
    async def readyz() -> Response:
        reasons = opening.reasons
        if reasons:
            return problems.response(503, "not-ready", "; ".join(reasons), [("", reason) for reason in reasons])
        return Response(orjson.dumps(_state(opening.serving)), media_type="application/json")

    @app.get("/metrics", summary="Counters for Prometheus", response_model=None)
    async def metrics() -> Response:
        return Response(meters.exposition(), media_type=CONTENT_TYPE)


def _settle(
    decide: Callable[[], Decision], new_decision_id: Callable[[], str], record: Callable[[Decision], bytes]
) -> bytes:
    """Decide and record; where another decision took the last place under a cap meanwhile, decide again knowing of it.

    After `TRIES` the customer is not contacted: whoever is this much in demand has been written to enough.
    """
    for _ in range(TRIES):
        decision = decide()
        try:
            return record(decision)
        except CapReached as error:
            reached = error.cap
    reason = Reason(reached.rule_id, "other decisions kept taking the last contact that this limit allows")
    return record(decision.without_contact(new_decision_id(), reason))


def _record(
    serving: Serving, decision: Decision, now: datetime, key: str | None, request_hash: str, meters: Meters
) -> bytes:
    """The answer to send, durable; with a key that another call used meanwhile, that call's answer.

    Raises CapReached where the contact has no room; nothing is recorded then.
    """
    answer = orjson.dumps(decision.answer())
    stored = serving.ledger.record(
        decision, now, answer, key, request_hash, contact=decision.contact, caps=decision.caps
    )
    if stored == answer:
        meters.decided(decision)
    return stored


def _state(serving: Serving) -> dict[str, object]:
    decider = serving.decider
    return {
        "ready": True,
        "models": {
            panel.question: [{"name": source.name, "version": source.version} for source in panel.sources]
            for panel in (decider.products, decider.channels)
        },
        "degraded": serving.degraded,
        "features": decider.features_version,
        "catalog": decider.catalog_version,
        "policy": decider.policy.version,
    }


async def _json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json" or request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "not-json-media-type", "send the body as application/json, not encoded further")
    return await request.body()


def _wants_replay(request: Request) -> bool:
    given = request.query_params.getlist("replay") or ["false"]
    if given not in (["true"], ["false"]):
        raise Problem(422, "invalid-replay", "replay is true or false")
    return given == ["true"]


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Problem(
            422, "invalid-idempotency-key", "Idempotency-Key is one header of 1 to 255 visible ASCII characters"
        )
    return keys[0]
