"""Which contacts a customer's delivery events make: a message that was sent and did not fail is a contact.

Events belong together by their decision; a receipt that names only a message belongs to the decision of that message.
Of one decision at most one contact counts, the last message that did not fail; where all failed, what the decision
reserved is free again; where nothing is known of any message, it stays reserved. Messages without a decision make
contacts of their own, named by their events. All of it depends on the set of events alone, not on their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from features.columns import Kind, Purpose
from serving.caps import Contact
from serving.events import TimelineEvent

_Subject: TypeAlias = tuple[str, str]
DELIVERIES = (Kind.SENT, Kind.DELIVERED, Kind.FAILED)
"""Kinds of events that make or release contacts. A decision to contact tells what a message was about."""


@dataclass(frozen=True)
class Settled:
    """What delivery events say of contacts. lasting: made for certain. released: names of contacts never made."""

    lasting: tuple[Contact, ...]
    released: tuple[str, ...]


def concerns_contacts(events: Iterable[TimelineEvent]) -> bool:
    """Whether any of these events can make, change or release a contact."""
    return any(map(_tells, events))


def _tells(event: TimelineEvent) -> bool:
    return event.kind in DELIVERIES or (event.kind == Kind.DECIDED and event.channel is not None)


def settled(
    events: Sequence[TimelineEvent], fresh: Sequence[TimelineEvent], groups: Mapping[str, str | None]
) -> Settled:
    """The contacts of every decision and message that `fresh` is about.

    events: all delivery events and decisions to contact of one customer, `fresh` among them. groups: of products.
    """
    decisions = _decisions_of_messages(events)
    about: dict[_Subject, list[TimelineEvent]] = {}
    for event in events:
        about.setdefault(_subject(event, decisions), []).append(event)
    telling = [event for event in fresh if _tells(event)]
    touched = {_subject(event, decisions) for event in telling}
    # Of a message that several decisions claim, receipts belong to one of them, which may just have changed.
    touched |= {("decision", name) for event in telling for name in decisions.get(event.message_id or "", ())}
    found = [_settle(subject, about[subject], groups) for subject in sorted(touched)]
    return Settled(
        tuple(contact for contact, _ in found if contact), tuple(name for _, released in found for name in released)
    )


def _decisions_of_messages(events: Sequence[TimelineEvent]) -> dict[str, set[str]]:
    named: dict[str, set[str]] = {}
    for event in events:
        if event.message_id and event.decision_id:
            named.setdefault(event.message_id, set()).add(event.decision_id)
    return named


def _subject(event: TimelineEvent, decisions: Mapping[str, set[str]]) -> _Subject:
    """What an event belongs to: a decision, else a message, else nothing but itself."""
    decision = event.decision_id or min(decisions.get(event.message_id or "", ()), default=None)
    if decision:
        return "decision", decision
    return ("message", event.message_id) if event.message_id else ("event", event.event_id)


def _settle(
    subject: _Subject, events: Sequence[TimelineEvent], groups: Mapping[str, str | None]
) -> tuple[Contact | None, list[str]]:
    """The contact that the events of one subject make, and the names under which they make none."""
    decision_id = subject[1] if subject[0] == "decision" else None
    failures = [event for event in events if event.kind == Kind.FAILED]
    # Of a decision `delivered` is evidence too: some providers never say that a message left.
    evidence = (Kind.SENT, Kind.DELIVERED) if decision_id else (Kind.SENT,)
    arrived = [event for event in events if event.kind in evidence]
    names = [event.event_id for event in arrived if not event.decision_id]
    kept = [event for event in arrived if not any(_covers(failure, event) for failure in failures)]
    kept = [event for event in kept if event.kind == Kind.SENT] or kept
    if not kept:
        return None, [*names, *([decision_id] if decision_id and failures else [])]
    last = max(kept, key=lambda event: event.order)
    contact = _made_by(last, decision_id or last.event_id, events, groups)
    return contact, [name for name in names if contact is None or name != contact.decision_id]


def _made_by(
    sent: TimelineEvent, name: str, events: Sequence[TimelineEvent], groups: Mapping[str, str | None]
) -> Contact | None:
    """The contact by this message, with what others say of it where it is silent; None: nobody says on what channel."""
    told = sorted((event for event in events if event.kind != Kind.FAILED), key=lambda event: event.order)
    # A message may leave on another channel than was decided; what it is about, the decision knows best.
    channel = next((event.channel for event in (sent, *told) if event.channel), None)
    told = [*(event for event in told if event.kind == Kind.DECIDED), sent, *told]
    product = next((event.product_id for event in told if event.product_id), None)
    # Without a purpose it may have been marketing, so it counts as such.
    purpose = next((event.purpose for event in told if event.purpose), Purpose.MARKETING.value)
    if channel is None:
        return None
    group = groups.get(product) if product else None
    return Contact(sent.customer_id, sent.at_us, channel, product, group, purpose, name, None)


def _covers(failure: TimelineEvent, sent: TimelineEvent) -> bool:
    """Whether it was this message that failed; a failure that names no message or channel means any of the decision."""
    return all(
        one is None or other is None or one == other
        for one, other in ((failure.message_id, sent.message_id), (failure.channel, sent.channel))
    )
