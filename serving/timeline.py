"""A customer's timeline: what was imported and what the ledger was given since, all channels in one order."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import orjson
import pyarrow as pa

from features.catalog import Catalog
from features.columns import EVENT_TIMESTAMP, Kind
from features.consent import PURPOSES
from features.times import micros
from serving.events import COLUMNS, TimelineEvent

MOST = 500
"""Events on one page."""
_SAID = (Kind.OPTED_OUT, Kind.OPTED_IN)


class Imported(Protocol):
    """The imported timeline by customer: `features.customer_events.CustomerEvents`."""

    def of(self, customer_id: str) -> pa.Table:
        """The customer's events in order of time and id, in the columns of the timeline."""
        ...


class Remembers(Protocol):
    """What a timeline needs of a ledger; see `serving.ledger.Ledger.timeline`."""

    def timeline(
        self,
        customer_id: str,
        as_of_us: int,
        before: tuple[int, str] | None,
        limit: int,
        kinds: Collection[str] | None = None,
    ) -> tuple[TimelineEvent, ...]: ...


class WrongCursor(ValueError):
    """A cursor that no page gave."""


@dataclass(frozen=True)
class Page:
    """A part of a timeline, newest first.

    next_cursor: where the next page begins, None: there is no more. consent: channel → purpose → whether the customer
    may be contacted, from all events up to the moment asked about, not only those of the page; silence is consent.
    """

    events: tuple[TimelineEvent, ...]
    next_cursor: str | None
    consent: Mapping[str, Mapping[str, bool]]


@dataclass(frozen=True)
class Timeline:
    """Timelines of all customers; imported None: nothing was."""

    ledger: Remembers
    catalog: Catalog
    imported: Imported | None = None

    def page(self, customer_id: str, as_of: datetime, cursor: str | None, limit: int) -> Page:
        """At most `limit` events with a time up to `as_of`, after those of the page that gave `cursor` (None: first).

        Raises WrongCursor, LedgerUnavailable.
        """
        as_of_us, before = micros(as_of), None if cursor is None else _place(cursor)
        brought = [event for event in self._imported(customer_id) if event.at_us <= as_of_us]
        given = self.ledger.timeline(customer_id, as_of_us, before, limit + 1)
        older = (event for event in brought if before is None or event.order < before)
        # What was exported from the ledger and imported again is one event.
        both = {event.event_id: event for event in (*given, *older)}
        found = sorted(both.values(), key=lambda event: event.order, reverse=True)
        shown = tuple(found[:limit])
        return Page(
            shown,
            _cursor(shown[-1]) if len(found) > limit else None,
            self._consent(customer_id, as_of_us, brought),
        )

    def _imported(self, customer_id: str) -> Iterator[TimelineEvent]:
        if self.imported is None:
            return
        table = self.imported.of(customer_id)
        # When an imported event became known is not told: as if at once.
        names = [EVENT_TIMESTAMP if name in ("at_us", "created_us") else name for name in COLUMNS]
        columns = [table[name].cast(pa.int64()) if name == EVENT_TIMESTAMP else table[name] for name in names]
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            yield TimelineEvent(*values)

    def _consent(self, customer_id: str, as_of_us: int, brought: Sequence[TimelineEvent]) -> dict[str, dict[str, bool]]:
        told = [event for event in brought if event.kind in _SAID]
        told += self._said(customer_id, as_of_us)
        # Of an opt-in and an opt-out at one moment the opt-out counts.
        told.sort(key=lambda event: (event.at_us, event.kind == Kind.OPTED_OUT))
        state = {channel: {str(purpose): True for purpose in PURPOSES} for channel in self.catalog.channel_ids}
        for event in told:
            for channel, purposes in state.items():
                for purpose in purposes:
                    if event.channel in (None, channel) and event.purpose in (None, purpose):
                        purposes[purpose] = event.kind == Kind.OPTED_IN
        return state

    def _said(self, customer_id: str, as_of_us: int) -> Iterator[TimelineEvent]:
        before: tuple[int, str] | None = None
        while True:
            block = self.ledger.timeline(customer_id, as_of_us, before, MOST, [str(kind) for kind in _SAID])
            yield from block
            if len(block) < MOST:
                return
            before = block[-1].order


def _cursor(event: TimelineEvent) -> str:
    """An opaque name of a place in a timeline."""
    return base64.urlsafe_b64encode(orjson.dumps(event.order)).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str]:
    try:
        at_us, event_id = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        raise WrongCursor("a cursor comes from the page before; this one does not") from None
    if not isinstance(at_us, int) or not isinstance(event_id, str) or abs(at_us) >= 2**63:
        raise WrongCursor("a cursor comes from the page before; this one does not")
    return at_us, event_id
