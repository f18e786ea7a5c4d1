"""The console over HTTP: `/console` for people, `/console/live` for its script, and its assets. GET only, no state."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter, ValidationError

from serving.console import site
from serving.console.looking import Briefs, Found, Place, WrongPlace, look_at, resolved, with_decision, zone_of
from serving.console.words import LANGUAGES, Words, choose
from serving.contract import Id
from serving.desk import Office
from serving.errors import FeaturesUnavailable, LedgerUnavailable, NotReady
from serving.opening import Serving
from serving.problems import Problem

log = logging.getLogger(__name__)

_ID = TypeAdapter(Id)
_ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotReady, 503, "error_not_ready"),
    (LedgerUnavailable, 503, "error_unavailable"),
    (FeaturesUnavailable, 503, "error_unavailable"),
    (WrongPlace, 422, "error_wrong"),
)
"""What can go wrong, the status, and the words for it."""


def add_console(app: FastAPI, office: Office) -> None:
    """GET /console?customer=ID&decision=ID&lang=en|zh, the live part of that page, and the assets of both."""
    briefs = Briefs()

    @app.get(site.PATH, include_in_schema=False)
    async def console(request: Request) -> Response:
        return await _answered(office, request, lambda serving, words: _page(office, serving, request, words, briefs))

    @app.get(f"{site.PATH}/live", include_in_schema=False)
    async def live(request: Request) -> Response:
        return await _answered(office, request, lambda serving, words: _live(office, serving, request, words, briefs))

    @app.get(f"{site.PATH}/{{name}}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        found = site.asset(name, request.query_params.get("v"))
        if found is None:
            raise Problem(404, "not-found", "the console has no such file")
        return found


async def _answered(office: Office, request: Request, make: Callable[[Serving, Words], Response]) -> Response:
    """The page that `make` makes, or a page for people that says why there is none."""
    words = Words(choose(request.query_params.get("lang"), request.headers.get("accept-language", "")))
    try:
        serving = office.opening.serving
        return await office.desk.work(lambda: make(serving, words))
    except Problem:
        return _error(words, 503, "error_overloaded")
    except Exception as error:
        for known, status, key in _ERRORS:
            if isinstance(error, known):
                return _error(words, status, key)
        # Whatever it is, a person gets a page and the log gets the trace.
        log.exception("the console failed")
        return _error(words, 500, "error_ours")


def _page(office: Office, serving: Serving, request: Request, words: Words, briefs: Briefs) -> Response:
    place = _place(request)
    if place is None:
        return site.page("welcome.html", _context(words, Place("")))
    place = resolved(place, serving.ledger)
    if not place.customer_id:
        return _error(words, 404, "decision_unknown", id=place.decision_id)
    found = with_decision(serving, look_at(serving, place, office.clock(), words, briefs), words)
    missing = found.empty or (place.decision_id is not None and found.decision is None)
    return site.page("customer.html", _customer(serving, found, words), 404 if missing else 200)


def _live(office: Office, serving: Serving, request: Request, words: Words, briefs: Briefs) -> Response:
    place = _place(request)
    if place is None or not place.customer_id:
        return _error(words, 422, "error_wrong")
    found = look_at(serving, place, office.clock(), words, briefs)
    return site.page("live.html", _customer(serving, found, words))


def _place(request: Request) -> Place | None:
    """What the address asks for; None: nothing yet. WrongPlace where that cannot be."""
    query = request.query_params
    customer_id, decision_id = (query.get(name, "").strip() for name in ("customer", "decision"))
    if not customer_id and not decision_id:
        return None
    for given in filter(None, (customer_id, decision_id)):
        try:
            _ID.validate_python(given)
        except ValidationError as error:
            raise WrongPlace("neither a customer nor a decision can have this id") from error
    return Place(customer_id, decision_id or None, query.get("before") or None, query.get("replay") == "true")


def _customer(serving: Serving, found: Found, words: Words) -> dict[str, object]:
    shown = found.decision.decision_id if found.decision else found.place.decision_id
    return {**_context(words, found.place), "found": found, "shown": shown, "zone": zone_of(serving.decider).key}


def _context(words: Words, place: Place) -> dict[str, object]:
    return {"words": words, "languages": LANGUAGES, "place": place}


def _error(words: Words, status: int, key: str, **values: object) -> Response:
    said = {"heading": words(key, **values), "more": words(f"{key}_more", **values)}
    return site.page("error.html", {**_context(words, Place("")), **said}, status)
