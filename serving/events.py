"""Events as the ledger keeps them: idempotent by their id, in any order of arrival.

An event is named once and for all. The same event again is a duplicate; another event under a name that is taken is a
conflict, and is not written. What a customer's events mean (live state, consent, contacts) is a fold over the set of
them, so neither the order in which they arrive nor how often matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from features.columns import Kind
from features.live import LiveEvent
from features.schema import Bool
from serving.errors import LedgerUnavailable

Outcome = Literal["accepted", "duplicate", "conflict"]
AHEAD_US = 5 * 60 * 1_000_000
"""Microseconds by which the clocks of other systems may be ahead of ours."""
CONSENT_KINDS = frozenset({Kind.OPTED_OUT, Kind.OPTED_IN, Kind.COMPLAINED})
"""After one of these a decision made on what was known before may not be carried out."""


@dataclass(frozen=True)
class TimelineEvent:
    """One row of table `timeline`, its columns in this order; times in microseconds since 1970 UTC."""

    event_id: str
    customer_id: str
    at_us: int
    kind: str
    channel: str | None = None
    purpose: str | None = None
    product_id: str | None = None
    content_id: str | None = None
    decision_id: str | None = None
    message_id: str | None = None
    propensity: float | None = None
    value: float | None = None
    created_us: int = 0
    """When it became known here."""

    @property
    def row(self) -> tuple[Any, ...]:
        """The values in the order of the columns."""
        return tuple(vars(self).values())

    @property
    def order(self) -> tuple[int, str]:
        """What timelines are ordered by."""
        return self.at_us, self.event_id


COLUMNS = tuple(TimelineEvent.__dataclass_fields__)
Fold: TypeAlias = Callable[[bytes | None, Sequence[LiveEvent]], bytes]
"""`features.live.Live.add`: one customer's live state (None: none yet) and events of theirs, in any order → the new
live state."""


def unfolded(state: bytes | None, events: Sequence[LiveEvent]) -> bytes:
    """The fold of a ledger that nobody reads live states from."""
    return b""


def at_most_now(event: TimelineEvent) -> TimelineEvent:
    """The event with a time that is not later than its receipt: what a clock ahead of ours says happens now."""
    return event if event.at_us <= event.created_us else replace(event, at_us=event.created_us)


def sorted_out(
    given: Sequence[TimelineEvent], stored: Mapping[str, TimelineEvent]
) -> tuple[list[Outcome], list[TimelineEvent]]:
    """The outcome of each event given what the ledger has under their ids, and the events to write."""
    known = dict(stored)
    outcomes: list[Outcome] = []
    fresh: list[TimelineEvent] = []
    for event in given:
        before = known.get(event.event_id)
        if before is None:
            known[event.event_id] = event
            fresh.append(event)
            outcomes.append("accepted")
        else:
            outcomes.append("duplicate" if _same(before, event) else "conflict")
    return outcomes, fresh


def by_customer(events: Iterable[TimelineEvent]) -> dict[str, list[TimelineEvent]]:
    """The events of each customer, in the order given."""
    found: dict[str, list[TimelineEvent]] = {}
    for event in events:
        found.setdefault(event.customer_id, []).append(event)
    return found


def folded(fold: Fold, state: bytes | None, events: Iterable[TimelineEvent]) -> bytes | None:
    """The live state after `events`, all of one customer; raises LedgerUnavailable where it cannot be computed.

    A decision for a moment that lies ahead (a question about next week, say) is left out: it would make everything
    that is known of the customer seem to come from the future.
    """
    live = [
        LiveEvent(
            event.event_id,
            event.at_us,
            event.kind,
            event.channel,
            event.purpose,
            event.product_id,
        )
        for event in events
        if event.at_us <= event.created_us + AHEAD_US and (event.kind != Kind.DECIDED or event.product_id)
    ]
    if not live:
        return state
    try:
        return fold(state, live)
    except Exception as error:
        raise LedgerUnavailable(f"the live state cannot be computed ({type(error).__name__}: {error})") from error


def left_over(events: Sequence[TimelineEvent], imported: Callable[[Sequence[str]], Bool]) -> list[TimelineEvent]:
    """The events that the features have not imported; imported: event ids [n] → bool [n]."""
    gone = imported([event.event_id for event in events])
    return [event for event, was in zip(events, gone, strict=True) if not was]


def check_key(found: str | None, key: str | None) -> None:
    """Raise LedgerUnavailable where the live states were computed for others than those that this process has opened.

    found: what the ledger says (`Ledger.rebase`). key: of this process; None: it has not said.
    """
    if key is not None and found != key:
        raise LedgerUnavailable(
            "the ledger must go with the features that this process has opened, however another process has opened "
            "newer ones with it; start this one again"
        )


def changes_consent(events: Iterable[TimelineEvent]) -> bool:
    """Whether decisions made without knowing of these events may no longer be carried out."""
    return any(event.kind in CONSENT_KINDS for event in events)


def _same(before: TimelineEvent, again: TimelineEvent) -> bool:
    """Whether both are one event, whenever they were received.

    What was ahead of our clock was written with the time of its receipt, and would be again.
    """
    if before.at_us == before.created_us and before.at_us <= again.at_us <= before.created_us + AHEAD_US:
        again = replace(again, at_us=before.at_us)
    return before == replace(again, created_us=before.created_us)
