"""Taking events in: each is checked by itself, brought to the words of the timeline, and handed to the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import orjson
from pydantic import ValidationError

from features.catalog import Catalog
from features.schema import Bool
from features.times import micros
from serving.contract import flaws
from serving.contract_events import EventItem
from serving.events import AHEAD_US, Outcome, TimelineEvent, at_most_now
from serving.statuses import NoEvent, Statuses


class Appends(Protocol):
    """What intake needs of a ledger; see `serving.ledger.Ledger.append`."""

    def append(self, events: Sequence[TimelineEvent]) -> tuple[Outcome, ...]: ...


@dataclass(frozen=True)
class Result:
    """What became of one event. event_id None: it could not be read. reason: of a rejection."""

    event_id: str | None
    status: Outcome | Literal["rejected"]
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {name: value for name, value in vars(self).items() if name != "reason" or value is not None}


class Rejected(ValueError):
    """An event that cannot be taken; the text says why, and nothing that the caller sent."""


@dataclass(frozen=True)
class Intake:
    """Takes events in for one bank. imported: event ids [n] → bool [n], whether the features were built from them."""

    ledger: Appends
    catalog: Catalog
    imported: Callable[[Sequence[str]], Bool] | None = None

    def take(self, items: Sequence[Any], received: datetime) -> list[Result]:
        """The result of each item, parsed JSON, in order; what is accepted is durable. Raises LedgerUnavailable."""
        statuses = Statuses.of(self.catalog)
        known = _ids(self.catalog)
        results: list[Result | None] = [None] * len(items)
        events: dict[int, TimelineEvent] = {}
        for place, item in enumerate(items):
            try:
                events[place] = _event(item, received, statuses, known)
            except Rejected as error:
                results[place] = Result(_id_of(item), "rejected", str(error))
        for place in self._imported(events):
            results[place] = Result(events.pop(place).event_id, "duplicate")
        outcomes = self.ledger.append(tuple(events.values())) if events else ()
        for (place, event), outcome in zip(events.items(), outcomes, strict=True):
            results[place] = Result(event.event_id, outcome)
        return [result for result in results if result is not None]

    def _imported(self, events: Mapping[int, TimelineEvent]) -> list[int]:
        """The places of events that the features were built from already."""
        if self.imported is None or not events:
            return []
        known = self.imported([event.event_id for event in events.values()])
        return [place for place, was in zip(events, known, strict=True) if was]


def _ids(catalog: Catalog) -> dict[str, frozenset[str]]:
    """What the columns that name something of the catalogue may name."""
    return {
        "channel": frozenset(catalog.channel_ids),
        "product_id": frozenset(catalog.product_ids),
        "content_id": frozenset(content.id for content in catalog.contents),
    }


def _event(item: Any, received: datetime, statuses: Statuses, known: Mapping[str, frozenset[str]]) -> TimelineEvent:
    """The event that a JSON value describes; raises Rejected."""
    try:
        given = EventItem.model_validate_json(orjson.dumps(item))
    except ValidationError as error:
        pointer, detail = (flaws(error) or [("", "not JSON")])[0]
        raise Rejected(f"{pointer.removeprefix('/') or 'event'}: {detail}") from None
    for name, ids in known.items():
        if getattr(given, name) not in (None, *ids):
            raise Rejected(f"{name}: not in the catalogue")
    at_us, created_us = micros(given.event_timestamp), micros(received)
    if at_us > created_us + AHEAD_US:
        raise Rejected(f"event_timestamp: more than {AHEAD_US // 60_000_000} minutes ahead of our clock")
    kind = given.kind or _kind(given, statuses)
    values = given.model_dump(exclude={"kind", "status", "event_timestamp"})
    return at_most_now(TimelineEvent(**values, at_us=at_us, kind=kind.value, created_us=created_us))


def _kind(given: EventItem, statuses: Statuses) -> Any:
    try:
        return statuses.kind(given.channel or "", given.status or "")
    except NoEvent as error:
        raise Rejected(f"status: {error}") from None


def _id_of(item: Any) -> str | None:
    """The id that a rejected event came with, where it has one that can be shown."""
    found = item.get("event_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) and len(found) <= 256 else None
