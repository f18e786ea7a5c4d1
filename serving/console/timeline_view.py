"""Events of the timeline as the page shows them: by day, each with its direction, its words and its message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Literal
from zoneinfo import ZoneInfo

from features.columns import DOWNLINK, Kind
from features.times import moment
from serving.console.formats import amount, day, percent
from serving.console.names import Names
from serving.events import TimelineEvent

Direction = Literal["decision", "downlink", "uplink"]

_GOOD = frozenset({Kind.CONVERTED, Kind.OPTED_IN})
_BAD = frozenset({Kind.FAILED, Kind.OPTED_OUT, Kind.COMPLAINED})
_OF_ALL_CHANNELS = frozenset({Kind.OPTED_OUT, Kind.OPTED_IN, Kind.COMPLAINED})
"""Kinds that mean every channel where they name none."""


@dataclass(frozen=True)
class Brief:
    """What the timeline shows of a decision's record."""

    action: Mapping[str, Any] | None
    """What was decided, its rendered message included; None: no contact."""


@dataclass(frozen=True)
class Entry:
    """One event. `at` is the bank's wall clock; `lead` what it is about, the channel mostly; decision_id only where the
    ledger has the record."""

    event_id: str
    at: datetime
    direction: Direction
    tone: Literal["", "good", "bad"]
    lead: str | None
    happened: str
    product: str | None
    purpose: str | None
    notes: tuple[str, ...]
    text: str | None
    decision_id: str | None


@dataclass(frozen=True)
class Day:
    date: date
    label: str
    entries: tuple[Entry, ...]


def days(
    events: Sequence[TimelineEvent],
    names: Names,
    zone: ZoneInfo,
    currency: str,
    brief: Callable[[str], Brief | None],
) -> tuple[Day, ...]:
    """The events in their order, by day of the bank's clock. brief: of a decision id, None where there is no record."""
    entries = [_entry(event, names, zone, currency, brief) for event in events]
    return tuple(
        Day(date, day(date, names.words), tuple(of_day))
        for date, of_day in groupby(entries, key=lambda entry: entry.at.date())
    )


def _entry(
    event: TimelineEvent, names: Names, zone: ZoneInfo, currency: str, brief: Callable[[str], Brief | None]
) -> Entry:
    words = names.words
    known = brief(event.decision_id) if event.decision_id else None
    text = names.message(known.action) if known and event.kind == Kind.SENT else None
    lead, happened, product = _told(event, names)
    return Entry(
        event_id=event.event_id,
        at=moment(event.at_us).astimezone(zone),
        direction="decision" if event.kind == Kind.DECIDED else "downlink" if event.kind in DOWNLINK else "uplink",
        tone="good" if event.kind in _GOOD else "bad" if event.kind in _BAD else "",
        lead=lead,
        happened=happened,
        product=product,
        purpose=words(f"purpose_{event.purpose}") if event.purpose else None,
        notes=_notes(event, names, currency, text is not None),
        text=text,
        decision_id=event.decision_id if known else None,
    )


def _told(event: TimelineEvent, names: Names) -> tuple[str | None, str, str | None]:
    """What an event is about, what happened, and the product."""
    words, kind = names.words, f"kind_{event.kind}"
    if event.kind == Kind.DECIDED:
        action = {"channel": event.channel, "product_id": event.product_id}
        return words(kind), names.action(action), None
    product = names.product(event.product_id) if event.product_id else None
    everywhere = words("all_channels") if event.kind in _OF_ALL_CHANNELS else None
    return names.channel(event.channel) if event.channel else everywhere, words(kind), product


def _notes(event: TimelineEvent, names: Names, currency: str, quoted: bool) -> tuple[str, ...]:
    """What else there is to say of an event, in short. quoted: its message is shown."""
    words = names.words
    notes = []
    if event.kind == Kind.DECIDED and event.propensity is not None:
        notes.append(words("chance", percent=percent(event.propensity)))
    if event.value is not None:
        notes.append(words("value", amount=amount(event.value, currency, words)))
    if event.content_id and event.kind == Kind.SENT and not quoted:
        notes.append(words("content", id=event.content_id))
    return tuple(notes)
