"""Looking a customer up for the page: what is known, what happened, and one decision with its account."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from serving.account import account, replayed_account
from serving.console.decision_view import DecisionView, decision_view
from serving.console.formats import fact
from serving.console.names import Names
from serving.console.timeline_view import Brief, Day, days
from serving.console.words import Words
from serving.decide import Decider
from serving.decision import Ask
from serving.ledger import Ledger
from serving.opening import Serving
from serving.timeline import WrongCursor

EVENTS = 50
"""Events on one page."""
REMEMBERED = 4096
"""Decisions whose brief is kept in memory."""
_DECISION_ID = re.compile(r"[0-9a-f]{32}")


class WrongPlace(Exception):
    """An address that no link of the console has: an id that cannot be one, or a cursor not of ours."""


@dataclass(frozen=True)
class Place:
    """What a page is about, as its address says. cursor: where in the timeline; None: the newest events."""

    customer_id: str
    decision_id: str | None = None
    cursor: str | None = None
    replay: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known of a customer now, by the bank's names. consent: per purpose, the outbound channels
    and whether they may be used."""

    known: bool
    attributes: tuple[tuple[str, str], ...]
    held: tuple[str, ...] | None
    consent: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]


@dataclass(frozen=True)
class Found:
    """A customer as the page shows it. decision: the one asked for, or on the newest page the latest one."""

    place: Place
    facts: Facts
    days: tuple[Day, ...]
    next_cursor: str | None
    decision: DecisionView | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of this customer."""
        return not (self.facts.known or self.days or self.place.cursor)


class Briefs:
    """Briefs of decisions by id. A record never changes, so the latest that were asked for are kept in memory."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[str, Brief] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, ledger: Ledger, decision_id: str) -> Brief | None:
        """None where the ledger has no record; raises LedgerUnavailable."""
        with self._lock:
            if decision_id in self._known:
                self._known.move_to_end(decision_id)
                return self._known[decision_id]
        record = ledger.get(decision_id) if _DECISION_ID.fullmatch(decision_id) else None
        if record is None:
            return None  # not remembered: it may be recorded yet
        brief = Brief(orjson.loads(record)["action"])
        with self._lock:
            self._known[decision_id] = brief
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return brief


def resolved(place: Place, ledger: Ledger) -> Place:
    """The place with its customer: where a decision id was searched for, that of the decision."""
    wanted = place.customer_id or place.decision_id or ""
    record = ledger.get(wanted) if _DECISION_ID.fullmatch(wanted) else None
    if record is None or (place.customer_id and place.decision_id):
        return place
    return replace(place, customer_id=orjson.loads(record)["customer_id"], decision_id=wanted)


def look_at(serving: Serving, place: Place, now: datetime, words: Words, briefs: Briefs) -> Found:
    """What changes while a page is looked at: the customer's facts and events. Raises WrongPlace."""
    decider = serving.decider
    names = Names.of(decider.catalog, words)
    try:
        page = serving.timeline.page(place.customer_id, now, place.cursor, EVENTS)
    except WrongCursor as error:
        raise WrongPlace(str(error)) from error
    shown = days(
        page.events, names, zone_of(decider), decider.catalog.currency, lambda id: briefs.of(serving.ledger, id)
    )
    return Found(place, _facts(decider, place.customer_id, now, names, page.consent), shown, page.next_cursor)


def with_decision(serving: Serving, found: Found, words: Words) -> Found:
    """`found` with the account of its decision, where it has one."""
    decision_id = found.place.decision_id or _latest(found)
    if decision_id is None or not _DECISION_ID.fullmatch(decision_id):
        return found
    record = serving.ledger.get(decision_id)
    if record is None or orjson.loads(record)["customer_id"] != found.place.customer_id:
        return found
    decider = serving.decider
    document: dict[str, Any] = (replayed_account if found.place.replay else account)(record, decider)
    names = Names.of(decider.catalog, words)
    return replace(found, decision=decision_view(document, names, decider.worth.unit, zone_of(decider)))


def zone_of(decider: Decider) -> ZoneInfo:
    """The bank's own time zone."""
    return ZoneInfo(decider.catalog.time_zone)


def _latest(found: Found) -> str | None:
    entries = (entry for day in found.days for entry in day.entries if entry.direction == "decision")
    return next((entry.decision_id for entry in entries if entry.decision_id), None)


def _facts(
    decider: Decider, customer_id: str, now: datetime, names: Names, consent: Mapping[str, Mapping[str, bool]]
) -> Facts:
    look = decider.look_up(Ask(customer_id, now))
    held = look.situation.held
    outbound = {channel.id for channel in decider.catalog.channels if channel.outbound}
    ours = {channel: given for channel, given in consent.items() if channel in outbound}
    purposes = dict.fromkeys(purpose for given in ours.values() for purpose in given)
    return Facts(
        known=look.known,
        attributes=tuple((name, fact(value, names.words)) for name, value in look.customer.items()),
        held=None if held is None else tuple(names.product(product) for product in sorted(held)),
        consent=tuple(
            (
                names.words(f"purpose_{purpose}"),
                tuple((names.channel(channel), given[purpose]) for channel, given in ours.items()),
            )
            for purpose in purposes
        ),
    )
