"""The calls about what happened: POST /v1/events, and a customer's timeline."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter, ValidationError

from features.columns import DOWNLINK
from features.times import moment
from serving import contract
from serving.contract_events import EventsAnswer, EventsRequest, TimelineAnswer
from serving.decision import rfc3339
from serving.desk import Office, json_body
from serving.direct import Endpoint
from serving.events import TimelineEvent
from serving.intake import Intake
from serving.opening import Serving
from serving.problems import Problem, documented
from serving.timeline import MOST, Page, WrongCursor

USUAL = 50
"""Events on a page of which no size was asked for."""
_FURTHER = (
    *("channel", "purpose", "product_id", "content_id", "decision_id", "message_id"),
    *("propensity", "value"),
)
Value = TypeVar("Value")
_MOST_CURSOR = 1_000
_PARAMETERS = [
    {
        "name": "as_of",
        "in": "query",
        "description": "The moment up to which events are shown, with its zone; default: now.",
        "schema": {"type": "string", "format": "date-time"},
    },
    {
        "name": "before",
        "in": "query",
        "description": "`next` of the page before; default: the newest events.",
        "schema": {"type": "string"},
    },
    {
        "name": "limit",
        "in": "query",
        "description": "Events on the page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL},
    },
]
_MOMENT: TypeAdapter[datetime] = TypeAdapter(contract.Moment)
_CUSTOMER: TypeAdapter[str] = TypeAdapter(contract.Id)


def add_events(app: FastAPI, office: Office) -> dict[str, Endpoint]:
    """POST /v1/events."""

    @app.post(
        "/v1/events",
        summary="1 to 500 events of customers' timelines; once answered, durable and known to every decision",
        status_code=202,
        response_model=None,
        responses={202: {"model": EventsAnswer}, **documented(400, 413, 415, 422, 503)},
        openapi_extra=contract.body_schema(EventsRequest),
    )
    async def events(request: Request) -> Response:
        items = _items(await json_body(request))
        arrived = time.perf_counter()
        serving = office.opening.serving
        results = await office.desk.work(lambda: _intake(serving).take(items, office.clock()))
        office.meters.received([result.status for result in results], time.perf_counter() - arrived)
        return Response(
            orjson.dumps({"results": [result.document() for result in results]}), 202, media_type="application/json"
        )

    return {"/v1/events": events}


def add_timeline(app: FastAPI, office: Office) -> None:
    """GET /v1/customers/{id}/timeline."""

    @app.get(
        "/v1/customers/{customer_id:path}/timeline",
        summary="What happened between the bank and a customer on all channels, newest first, and their consent",
        response_model=None,
        responses={200: {"model": TimelineAnswer}, **documented(422, 503)},
        openapi_extra={"parameters": _PARAMETERS},
    )
    async def timeline(request: Request, customer_id: str) -> Response:
        as_of = _as_of(request) or office.clock()
        cursor, limit = _given(request, "before"), _limit(request)
        _checked(_CUSTOMER, customer_id, "customer_id")
        serving = office.opening.serving
        try:
            page = await office.desk.work(lambda: serving.timeline.page(customer_id, as_of, cursor, limit))
        except WrongCursor as error:
            raise Problem(422, "invalid-before", str(error)) from None
        return Response(orjson.dumps(_document(customer_id, as_of, page)), media_type="application/json")


def _items(body: bytes) -> list[Any]:
    """The items of a request, not validated yet; raises Problem."""
    try:
        document = orjson.loads(body)  # refuses NaN, which pydantic lets through in values of any kind
    except orjson.JSONDecodeError:
        raise Problem(400, "not-json", "the body is not JSON") from None
    try:
        return EventsRequest.model_validate(document).events
    except ValidationError as error:
        errors = contract.flaws(error) or ()
        raise Problem(422, "invalid-request", "the request breaks the contract; see errors", errors) from None


def _intake(serving: Serving) -> Intake:
    imported = serving.imported
    return Intake(serving.ledger, serving.decider.catalog, imported.has if imported else None)


def _document(customer_id: str, as_of: datetime, page: Page) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "as_of": rfc3339(as_of),
        "events": [_shown(event) for event in page.events],
        "next": page.next_cursor,
        "consent": page.consent,
    }


def _shown(event: TimelineEvent) -> dict[str, Any]:
    """An event in the columns of the bank data directory; what does not apply is left out."""
    return {
        "event_id": event.event_id,
        "customer_id": event.customer_id,
        "event_timestamp": rfc3339(moment(event.at_us)),
        "kind": event.kind,
        "direction": "downlink" if event.kind in DOWNLINK else "uplink",
        **{name: value for name in _FURTHER if (value := getattr(event, name)) is not None},
    }


def _as_of(request: Request) -> datetime | None:
    given = _given(request, "as_of")
    return None if given is None else _checked(_MOMENT, given, "as_of")


def _limit(request: Request) -> int:
    given = _given(request, "limit")
    if given is None:
        return USUAL
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= MOST):
        raise Problem(422, "invalid-limit", f"limit is a whole number from 1 to {MOST}")
    return int(given)


def _given(request: Request, name: str) -> str | None:
    """The one value of a query parameter, None where it is not there."""
    given = request.query_params.getlist(name)
    if len(given) > 1 or any(len(value) > _MOST_CURSOR for value in given):
        raise Problem(422, f"invalid-{name}", f"{name} is given once, and is not that long")
    return given[0] if given else None


def _checked(adapter: TypeAdapter[Value], given: str, name: str) -> Value:
    try:
        return adapter.validate_strings(given)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
        raise Problem(422, f"invalid-{name.replace('_', '-')}", f"{name}: {detail}") from None
