"""Contact caps: how often a customer may be contacted, counted over the contacts that the ledger knows.

The rules say which caps hold for a decision; the ledger counts and reserves in one transaction. What counts is written
here once, for both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from features.columns import Purpose

Scope = Literal["overall", "channel", "product", "group"]


class Contact(NamedTuple):
    """One contact with a customer, made or reserved; times in microseconds since 1970 UTC.

    A tuple, for a busy customer has hundreds within a cap's window, and each decision reads them all.
    """

    customer_id: str
    at_us: int
    channel: str
    product_id: str | None
    group: str | None
    """The product's group."""
    purpose: str
    decision_id: str
    """Names the contact for ever; the event id where a contact was made without a decision of ours."""
    expires_us: int | None
    """A reservation lapses if nothing was sent by then; None: sent."""


@dataclass(frozen=True)
class Cap:
    """At most `most` marketing contacts with `at_us > since_us`, of one channel, product or group, or overall."""

    rule_id: str
    scope: Scope
    value: str | None
    """The channel, product or group that the cap is for; None with the scope "overall"."""
    since_us: int
    most: int

    def covers(self, contact: Contact) -> bool:
        """Whether this contact uses the cap up; service and mandatory messages never do."""
        return contact.at_us > self.since_us and (self.scope, self.value) in counted_by(contact)


def counted_by(contact: Contact) -> tuple[tuple[Scope, str | None], ...]:
    """The scopes and values of the caps that a contact uses up."""
    if contact.purpose != Purpose.MARKETING:
        return ()
    return (
        ("overall", None),
        ("channel", contact.channel),
        ("product", contact.product_id),
        ("group", contact.group),
    )


class Tally:
    """One customer's contacts by what caps count them by: a long history is gone through once, not once per cap."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self._times: defaultdict[tuple[Scope, str | None], list[int]] = defaultdict(list)
        for contact in contacts:
            for key in counted_by(contact):
                self._times[key].append(contact.at_us)
        for times in self._times.values():
            times.sort()

    def used(self, cap: Cap) -> int:
        """How many contacts the cap covers."""
        times = self._times.get((cap.scope, cap.value), [])
        return len(times) - bisect_right(times, cap.since_us)


class NotReserved(Exception):
    """The contact may not be made after all. Nothing was written; deciding again finds another action, or none.

    rule, why: the reason not to contact the customer where that happens again and again.
    """

    def __init__(self, rule: str, why: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.why = why


class CapReached(NotReserved):
    """One more contact would break this cap."""

    def __init__(self, cap: Cap) -> None:
        what = "contacts" if cap.scope == "overall" else f"contacts of {cap.scope} {cap.value}"
        super().__init__(
            cap.rule_id,
            "other decisions kept taking the last contact that this limit allows",
            f"at most {cap.most} {what} in its window, and so many there are",
        )
        self.cap = cap


class ConsentChanged(NotReserved):
    """The customer said something about consent, or complained, after that was read for this decision."""

    def __init__(self) -> None:
        super().__init__(
            "consent_changed",
            "the customer's consent kept changing while this was decided",
            "consent changed between reading it and reserving the contact",
        )


def check(contact: Contact, caps: Sequence[Cap], live: Iterable[Contact]) -> None:
    """Raise CapReached for the first cap with no room for one more `contact`; `live`: the customer's live contacts."""
    present = tuple(live)
    for cap in caps:
        if cap.covers(contact) and sum(cap.covers(other) for other in present) >= cap.most:
            raise CapReached(cap)
