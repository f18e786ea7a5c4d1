"""The calls that decide: /v1/decide, /v1/route, /v1/rank, and the record of a decision."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Future
from functools import partial

import orjson
from fastapi import FastAPI, Request, Response

from serving import contract
from serving.account import account, replayed_account
from serving.caps import NotReserved
from serving.decision import Decision, Reason
from serving.desk import Office, json_body
from serving.direct import Endpoint
from serving.entries import Entry
from serving.errors import LedgerUnavailable
from serving.opening import Serving
from serving.problems import Problem, documented
from serving.route import decision_for

TRIES = 4
"""How often one request is decided: once, and three times more where a cap was reached or consent changed meanwhile."""
PATIENCE = 10.0
"""Seconds that one try may take, the queue and the disk included."""
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


def add_decisions(app: FastAPI, office: Office) -> dict[str, Endpoint]:
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

    return {"/v1/decide": decide, "/v1/route": route}


def add_ranking(app: FastAPI, office: Office) -> dict[str, Endpoint]:
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

    return {"/v1/rank": rank}


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
    request_hash = contract.fingerprint(call, wanted) if key else ""  # who repeats a key has to repeat the request
    case = _Case(office, office.opening.serving, wanted, key, request_hash)
    with office.desk.place():
        return Response(await _settled(office, case), media_type="application/json")


async def _settled(office: Office, case: _Case) -> bytes:
    """The answer to send, durable. Where a cap was reached or consent changed meanwhile, decided again knowing of it.

    After `TRIES` the customer is not contacted: whoever is this much in demand has been written to enough.
    """
    job = case.begin
    for tries_left in reversed(range(TRIES + 1)):
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await office.desk.durable(job, case.here)
        except NotReserved as error:
            if not tries_left:
                raise
            reason = Reason(error.rule, error.why)
            job = case.decide if tries_left > 1 else partial(case.give_up, reason)
        except TimeoutError:
            raise LedgerUnavailable(f"no decision was durable within {PATIENCE:g} s") from None
        else:
            if case.decision and answer == case.answer:
                office.meters.decided(case.decision)
            return answer
    raise AssertionError("the last try is answered or raises")


class _Case:
    """One request from its question to its decision; its methods run one after the other.

    here: on the event loop, where everything that a decision asks is on this machine; else in a thread.
    """

    def __init__(
        self,
        office: Office,
        serving: Serving,
        wanted: contract.DecideRequest | contract.RouteRequest,
        key: str | None,
        request_hash: str,
    ) -> None:
        self._office, self._serving, self._wanted = office, serving, wanted
        self._key, self._request_hash = key, request_hash
        self.here = serving.at_hand
        self.decision: Decision | None = None
        self.answer = b""

    def begin(self) -> Future[bytes]:
        """The answer that the key was given before, or a new decision."""
        known = self._serving.ledger.recall(self._key, self._request_hash) if self._key else None
        if known is not None:
            done: Future[bytes] = Future()
            done.set_result(known)
            return done
        self._now = self._office.clock()
        self._ask = self._wanted.ask(self._now)
        return self.decide()

    def decide(self) -> Future[bytes]:
        """A decision on its way to the disk; the future has NotReserved where its contact may not be made."""
        return self._recording(decision_for(self._serving.decider, self._ask, self._office.new_id()))

    def give_up(self, reason: Reason) -> Future[bytes]:
        """The latest decision without its contact."""
        assert self.decision is not None
        return self._recording(self.decision.without_contact(self._office.new_id(), reason))

    def _recording(self, decision: Decision) -> Future[bytes]:
        self.decision, self.answer = decision, orjson.dumps(decision.answer())
        entry = Entry.of(
            decision,
            self._now,
            self.answer,
            self._key,
            self._request_hash,
            contact=decision.contact,
            caps=decision.caps,
            consent_version=decision.consent_version,
        )
        return self._serving.ledger.recording(entry, self._office.desk.soon if self.here else None)


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
