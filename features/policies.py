"""What a bank declares in `[[policies]]`: the rules around every decision, each with an id.

    kind            layer            keeps
    holding         eligibility      products for holders of others, or for those who lack them
    audience        eligibility      products or channels for an age, a segment, any attribute
    reach           eligibility      a channel for customers who can be reached by it
    period          applicability    products for a campaign's days
    affordability   suitability      products for customers who can pay for them
    complaint       suitability      products from customers who complained lately
    cap             contact policy   marketing contacts to a number in a rolling or calendar window
    suppression     contact policy   marketing silent for a while after negative responses
    reservation     contact policy   a decided contact in the count, sent or not, for some hours

`features.policy_file` reads and checks them, `serving` obeys them. Quiet hours belong to the channels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from features.catalog import Catalog, Channel, Product

Scope = Literal["overall", "channel", "product", "group"]
Calendar = Literal["day", "week", "month", "quarter", "year"]
Plain = str | int | float | bool
FOR_PEOPLE = ("name", "note")
"""Keys of any policy that change nothing."""


@dataclass(frozen=True)
class Target:
    """What a rule is about: everything, one channel, product or group, or (value None) each of them by itself."""

    scope: Scope = "overall"
    value: str | None = None

    def product(self, product: Product) -> bool:
        """Whether the rule is about this product; a product without a group is in no group."""
        if self.scope == "group":
            return product.group is not None and self.value in (None, product.group)
        return self.scope != "product" or self.value in (None, product.id)

    def channel(self, channel: Channel) -> bool:
        """Whether the rule is about this channel."""
        return self.scope != "channel" or self.value in (None, channel.id)

    def __str__(self) -> str:
        return "overall" if self.scope == "overall" else f"of {self.scope} {self.value or 'by itself'}"


@dataclass(frozen=True)
class HoldingRule:
    """Offered only to those who hold one of `requires` (where there are any) and none of `excludes`."""

    id: str
    target: Target
    requires: tuple[str, ...]
    excludes: tuple[str, ...]


@dataclass(frozen=True)
class AudienceRule:
    """Only for customers whose attribute lies in [least, most] and in `any_of`, and not in `none_of`.

    A date counts as completed years, so that a birth date is an age. missing: whether an unknown attribute passes.
    """

    id: str
    target: Target
    attribute: str
    least: float | None
    most: float | None
    any_of: tuple[Plain, ...]
    none_of: tuple[Plain, ...]
    missing: bool


@dataclass(frozen=True)
class ReachRule:
    """The channel reaches only customers whose attribute is there and is not false."""

    id: str
    target: Target
    attribute: str


@dataclass(frozen=True)
class PeriodRule:
    """Only from `starts` to before `ends`, on these weekdays (Monday = 0, the customer's own) where there are any."""

    id: str
    target: Target
    starts: datetime | None
    ends: datetime | None
    weekdays: tuple[int, ...]


@dataclass(frozen=True)
class AffordabilityRule:
    """Only where `payment` <= `share` x the attribute, both in catalogue currency and for the same time."""

    id: str
    target: Target
    attribute: str
    payment: float
    share: float
    missing: bool


@dataclass(frozen=True)
class ComplaintRule:
    """Not for `days` after a complaint."""

    id: str
    target: Target
    days: float


@dataclass(frozen=True)
class CapRule:
    """At most `limit` marketing contacts in the last `days`, or in the customer's present calendar period."""

    id: str
    target: Target
    limit: int
    days: float | None
    calendar: Calendar | None


@dataclass(frozen=True)
class SuppressionRule:
    """No marketing for `days` after the last of `after` responses of these kinds within `within` days (None: ever)."""

    id: str
    target: Target
    after: int
    days: float
    within: float | None
    responses: tuple[str, ...]


@dataclass(frozen=True)
class Reservation:
    """A decided contact counts for `hours` after its time; then it lapses if nothing was sent."""

    id: str
    hours: float


Policy = (
    HoldingRule
    | AudienceRule
    | ReachRule
    | PeriodRule
    | AffordabilityRule
    | ComplaintRule
    | CapRule
    | SuppressionRule
    | Reservation
)


def version(catalog: Catalog) -> str:
    """16 hex digits that change with every declaration that can change what is allowed, and with nothing else."""
    declared = {
        "policies": [{key: entry[key] for key in entry if key not in FOR_PEOPLE} for entry in catalog.policies],
        "channels": [[channel.id, channel.direction, channel.quiet_hours] for channel in catalog.channels],
        "products": [[product.id, product.group, product.holdable] for product in catalog.products],
        "time_zone": catalog.time_zone,
    }
    return hashlib.sha256(json.dumps(declared, sort_keys=True, default=_text).encode()).hexdigest()[:16]


def _text(value: object) -> object:
    """The types that TOML has and JSON lacks: dates and times; and read-only mappings."""
    return dict(value) if isinstance(value, Mapping) else str(value)
