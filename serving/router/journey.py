"""What a decision's way to the customer asks for next: send a hop, wait, or nothing more.

The state of a journey is what the timeline says of it, nothing else: a router that was killed reads it and goes on.
One hop at a time, each at the time that the decision cleared for it, never earlier: quiet hours and caps were checked
for that moment. A hop that failed, or did not arrive by its deadline, gives way to the next; one that arrived ends the
journey. So does what the customer did meanwhile: having taken the product up, or refused marketing after the decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from features.columns import Kind, Purpose

ARRIVED = frozenset({Kind.DELIVERED, Kind.OPENED, Kind.CLICKED, Kind.REPLIED})
"""Words of a provider or a customer that a message reached them."""
Outcome = Literal["arrived", "failed", "late", "refused", "converted", "no_contact", "invalid"]
"""How a journey ended. failed: every hop did, or was not heard of in time. late: no time was left to send. refused:
consent was withdrawn. invalid: the service refused the job or a receipt."""


@dataclass(frozen=True)
class Leg:
    """One hop of a decision with what it says."""

    channel: str
    content_id: str | None
    text: str
    send_at: datetime
    deadline: datetime


@dataclass(frozen=True)
class Route:
    """A decision as a router needs it; no legs: the choice was not to contact."""

    decision_id: str
    customer_id: str
    purpose: str
    product_id: str | None
    as_of: datetime
    legs: tuple[Leg, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Route:
        """From the answer of /v1/decide or /v1/route."""
        action = answer["action"] or {}
        legs = tuple(
            Leg(
                hop["channel"],
                hop["content_id"],
                hop["text"] or "",
                datetime.fromisoformat(hop["send_at"]),
                datetime.fromisoformat(hop["deadline"]),
            )
            for hop in answer["chain"]
        )
        as_of = datetime.fromisoformat(answer["as_of"])
        who = answer["decision_id"], answer["customer_id"], answer["purpose"]
        return cls(*who, action.get("product_id"), as_of, legs)

    def message_id(self, place: int) -> str:
        """The message of the leg at `place`: the same whoever asks, so that nobody sends it twice."""
        return f"{self.decision_id}.{place + 1}"

    def event(self, place: int, kind: Kind, at: datetime) -> dict[str, Any]:
        """What became of a leg, as /v1/events takes it; its id names it for ever."""
        leg, message_id = self.legs[place], self.message_id(place)
        return {
            "event_id": f"{message_id}:{kind}",
            "customer_id": self.customer_id,
            # Clocks differ: what follows from a decision does not lie before it.
            "event_timestamp": max(at, self.as_of).isoformat(),
            "kind": str(kind),
            "channel": leg.channel,
            "purpose": self.purpose,
            "product_id": self.product_id,
            "content_id": leg.content_id,
            "decision_id": self.decision_id,
            "message_id": message_id,
        }


@dataclass(frozen=True)
class Send:
    """Send the leg at this place now."""

    place: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do before this time, unless the timeline changes."""

    until: datetime
    word = "waiting"


@dataclass(frozen=True)
class Done:
    """The journey has ended."""

    outcome: Outcome
    reason: str = ""

    @property
    def word(self) -> str:
        return self.outcome


Step: TypeAlias = Send | Wait | Done


def next_step(route: Route, timeline: Sequence[Mapping[str, Any]], now: datetime) -> Step:
    """The next step at `now`; timeline: the customer's events since the decision, in any order."""
    if not route.legs:
        return Done("no_contact")
    places = {route.message_id(place): place for place in range(len(route.legs))}
    kinds: dict[int, set[str]] = {}
    for event in timeline:
        place = places.get(event.get("message_id", ""))
        if place is not None:
            kinds.setdefault(place, set()).add(event["kind"])
    if any(found & ARRIVED for found in kinds.values()):
        return Done("arrived")
    if _converted(route, timeline):
        return Done("converted")
    tried = max(kinds, default=-1)
    if tried >= 0 and Kind.FAILED not in kinds[tried] and now < route.legs[tried].deadline:
        return Wait(route.legs[tried].deadline)
    refused = False
    for place in range(tried + 1, len(route.legs)):
        leg = route.legs[place]
        if now >= leg.deadline:  # the router was away: a message that nobody would wait for any more is not sent
            continue
        if _refused(route.purpose, leg.channel, timeline):
            refused = True
            continue
        return Send(place) if now >= leg.send_at else Wait(leg.send_at)
    if refused:
        return Done("refused")
    return Done("failed" if kinds else "late")


def _converted(route: Route, timeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the customer has taken up meanwhile what the decision was for."""
    if route.purpose != Purpose.MARKETING:
        return False
    return any(event["kind"] == Kind.CONVERTED and event.get("product_id") == route.product_id for event in timeline)


def _refused(purpose: str, channel: str, timeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether consent for the channel was withdrawn since the decision, which knew what was said before it."""
    if purpose == Purpose.MANDATORY:
        return False
    said = [
        (datetime.fromisoformat(event["event_timestamp"]), event["kind"] == Kind.OPTED_OUT)
        for event in timeline
        if event["kind"] in (Kind.OPTED_OUT, Kind.OPTED_IN)
        and event.get("channel") in (None, channel)
        and event.get("purpose") in (None, purpose)
    ]
    return max(said, default=(None, False))[1]  # at one moment a refusal wins
