"""The calls that decide: /v1/decide, /v1/route, /v1/rank, and the record of a decision."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import orjson
from fastapi import FastAPI, Request, Response

from serving import contract
from serving.account import account, replayed_account
from serving.caps import NotReserved
from serving.decision import Decision, Reason
from serving.desk import Office, json_body
from serving.metrics import Meters
from serving.opening import Serving
from serving.problems import Problem, documented
from serving.route import decision_for

TRIES = 4
"""How often one request is decided: once, and three times more where a cap was reached or consent changed meanwhile."""
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


def add_decisions(app: FastAPI, office: Office) -> None:
    """POST /v1/decide and /v1/route: one way through, two kinds of question."""

    @app.post(
        "/v1/decide",
        summary="The next best action for one customer now, or no contact",
        response_model=None,
        responses={200: {"model": contract.DecideAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra={**contract.body_schema(contract.DecideRequest), "parameters": [_KEY_PARAMETER]},
    )
    async def decide(request: Request) -> Response:
        return await _answered(office, request, "decide", contract.DecideRequest)

    @app.post(
        "/v1/route",
        summary="The channel, fallbacks and text for a given message: service, mandatory, or a chosen product",
        response_model=None,
        responses={200: {"model": contract.DecideAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra={**contract.body_schema(contract.RouteRequest), "parameters": [_KEY_PARAMETER]},
    )
    async def route(request: Request) -> Response:
        return await _answered(office, request, "route", contract.RouteRequest)


def add_ranking(app: FastAPI, office: Office) -> None:
    """POST /v1/rank."""

    @app.post(
        "/v1/rank",
        summary="Products by probability of take-up, to show where the customer came by themselves; no contact is made",
        response_model=None,
        responses={200: {"model": contract.RankAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra=contract.body_schema(contract.RankRequest),
    )
    async def rank(request: Request) -> Response:
        wanted = contract.parse(contract.RankRequest, await json_body(request))
        serving = office.opening.serving
        ranking = await office.desk.work(lambda: serving.decider.rank(wanted.ask(office.clock()), wanted.limit))
        office.meters.ranked(ranking)
        return Response(orjson.dumps(ranking.answer()), media_type="application/json")


def add_records(app: FastAPI, office: Office) -> None:
    """GET /v1/decisions/{id}."""

    @app.get(
        "/v1/decisions/{decision_id}",
        summary="A decision: features with ages, every candidate, what removed others, what would have changed it",
        response_model=None,
        responses={200: {"model": contract.DecisionDocument}, **documented(404, 422, 503)},
        openapi_extra={"parameters": [_REPLAY_PARAMETER]},
    )
    async def decision(request: Request, decision_id: str) -> Response:
        replayed = _wants_replay(request)
        serving = office.opening.serving

        def job() -> bytes | None:
            record = serving.ledger.get(decision_id)
            if record is None:
                return None
            return orjson.dumps((replayed_account if replayed else account)(record, serving.decider))

        document = await office.desk.work(job) if _DECISION_ID.fullmatch(decision_id) else None
        if document is None:
            raise Problem(404, "not-found", "there is no decision with this id")
        return Response(document, media_type="application/json")


async def _answered(
    office: Office, request: Request, call: str, kind: type[contract.DecideRequest] | type[contract.RouteRequest]
) -> Response:
    wanted = contract.parse(kind, await json_body(request))
    key = _idempotency_key(request)
    request_hash = contract.fingerprint(call, wanted)
    serving = office.opening.serving

    def job() -> bytes:
        known = serving.ledger.recall(key, request_hash) if key else None
        if known is not None:
            return known
        now = office.clock()
        ask = wanted.ask(now)
        return _settle(
            lambda: decision_for(serving.decider, ask, office.new_id()),
            office.new_id,
            lambda decision: _record(serving, decision, now, key, request_hash, office.meters),
        )

    return Response(await office.desk.work(job), media_type="application/json")


def _settle(
    decide: Callable[[], Decision], new_decision_id: Callable[[], str], record: Callable[[Decision], bytes]
) -> bytes:
    """Decide and record; where a cap was reached or consent changed meanwhile, decide again knowing of it.

    After `TRIES` the customer is not contacted: whoever is this much in demand has been written to enough.
    """
    for _ in range(TRIES):
        decision = decide()
        try:
            return record(decision)
        except NotReserved as error:
            reason = Reason(error.rule, error.why)
    return record(decision.without_contact(new_decision_id(), reason))


def _record(
    serving: Serving, decision: Decision, now: datetime, key: str | None, request_hash: str, meters: Meters
) -> bytes:
    """The answer to send, durable; with a key that another call used meanwhile, that call's answer.

    Raises NotReserved where the contact may not be made any more; nothing is recorded then.
    """
    answer = orjson.dumps(decision.answer())
    stored = serving.ledger.record(
        decision,
        now,
        answer,
        key,
        request_hash,
        contact=decision.contact,
        caps=decision.caps,
        consent_version=decision.consent_version,
    )
    if stored == answer:
        meters.decided(decision)
    return stored


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
