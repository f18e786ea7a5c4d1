"""Who may be offered what, and through which channel: hard rules, before any score.

What holds for every bank answers with booleans for many customers at once (batch scoring uses the same ones) and with
named reasons for one customer. What a bank declares is a rule object with an id, which answers with a reason or None;
these hold for every purpose, because a message to somebody whom it does not fit is wrong whatever it is sent for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np

from features import holdings, purchases
from features.catalog import Catalog, Product
from features.policies import AudienceRule, HoldingRule, PeriodRule, ReachRule
from features.schema import Bool, Float64, Rows, States
from serving.decision import Removed
from serving.situation import Situation

BOOKED_WITHIN = timedelta(days=30)
"""How long the bank's holdings may take to tell of a take-up; after that they are believed."""
_BOOKED_SECONDS = BOOKED_WITHIN.total_seconds()
_gone = lru_cache(maxsize=8_192)(Removed)  # what falls for one customer falls for many


def rankable(
    rows: Rows, catalog: Catalog, eligible: Sequence[frozenset[str] | None], taken: Bool | None = None
) -> Bool:
    """Bool [n, P]: products that customer n may be offered.

    A holder is not offered a `holdable` product again; where `eligible[n]` is a set, only its products are allowed.
    taken: bool [n, P], `just_taken_up`, whose products are not offered either; None: that is not asked.
    """
    if len(eligible) != len(rows):
        raise ValueError(f"rankable needs one eligible set (or None) per row, however {len(eligible)} != {len(rows)}")
    allowed: Bool = ~_held_again(rows, catalog)
    asked: dict[frozenset[str], Bool] = {}  # of many customers few lists are different ones
    for position, wanted in enumerate(eligible):
        if wanted is not None:
            if wanted not in asked:
                asked[wanted] = np.array([product in wanted for product in catalog.product_ids], dtype=np.bool_)
            allowed[position] &= asked[wanted]
    return allowed if taken is None else allowed & ~taken


def removed_products(
    rows: Rows, catalog: Catalog, eligible: frozenset[str] | None, taken: Bool | None = None
) -> Iterator[Removed]:
    """The reasons behind `rankable` for the single customer in `rows`, plus eligible ids the catalogue lacks."""
    again = _held_again(rows, catalog)[0]
    held = again.tolist()
    if eligible is None:  # few are gone
        there = again if taken is None else again | taken[0]
        places: Iterable[int] = there.nonzero()[0].tolist()
    else:
        places = range(len(catalog.product_ids))
    bought = None if taken is None else taken[0].tolist()
    for position in places:
        product = catalog.product_ids[position]
        if eligible is not None and product not in eligible:
            yield _gone("product", product, "not_eligible", "not in the request's eligible list")
        elif held[position]:
            yield _gone("product", product, "held", "the customer holds it, and a holder is not offered it again")
        elif bought is not None and bought[position]:
            yield _gone("product", product, "just_taken_up", "the customer took it up; holdings do not tell of it yet")
    for product in sorted((eligible or frozenset()) - set(catalog.product_ids)):
        yield Removed("product", product, "unknown_product", "not in the catalogue")


def just_taken_up(states: States, as_of: Float64, catalog: Catalog) -> Bool:
    """Bool [n, P]: holdable products that were taken up in the days before the moments [n] (seconds since 1970), later
    than all that the holdings tell of them. Who has just bought holds, though the bank has not booked it yet."""
    count = len(catalog.products)
    bought = purchases.bought_at(states[purchases.NAME], count)
    told = holdings.told_at(states[holdings.NAME], count)
    age = as_of[:, None] - bought  # NaN where never, and then no comparison holds
    recent: Bool = (age >= 0) & (age <= _BOOKED_SECONDS)
    return recent & ~(told >= bought) & catalog.holdable[None, :]


def contactable(refused: Bool, catalog: Catalog, channels: frozenset[str] | None) -> Bool:
    """Bool [n, H]: outbound channels with consent, within `channels` where that is a set. refused: bool [n, H]."""
    open_ = catalog.outbound
    if channels is not None:
        open_ = open_ & np.array([channel in channels for channel in catalog.channel_ids], dtype=np.bool_)
    allowed: Bool = open_[None, :] & ~refused
    return allowed


def removed_channels(refused: Bool, catalog: Catalog, channels: frozenset[str] | None) -> Iterator[Removed]:
    """The reasons behind `contactable` for a single customer (refused: bool [1, H]), plus asked ids it lacks."""
    said_no = refused[0].tolist()
    shut: Bool = refused[0] | ~catalog.outbound
    places: Iterable[int] = range(len(said_no)) if channels is not None else shut.nonzero()[0].tolist()
    for position in places:
        channel = catalog.channels[position]
        if not channel.outbound:
            yield _gone("channel", channel.id, "inbound_only", "the customer comes by it; we cannot send on it")
        elif channels is not None and channel.id not in channels:
            yield _gone("channel", channel.id, "not_allowed", "not in the request's channels")
        elif said_no[position]:
            yield _gone("channel", channel.id, "no_consent", "the customer opted out of it")
    for channel_id in sorted((channels or frozenset()) - set(catalog.channel_ids)):
        yield Removed("channel", channel_id, "unknown_channel", "not in the catalogue")


def _held_again(rows: Rows, catalog: Catalog) -> Bool:
    """Bool [n, P]: held, and of a kind that is not offered twice."""
    again: Bool = rows.held & catalog.holdable[None, :]
    return again


@dataclass(frozen=True)
class Holding:
    """Products for holders of others, or for those who lack them."""

    rule: HoldingRule

    def refusal(self, product: Product, at: Situation) -> str | None:
        """Why this product may not be offered; None: it may."""
        if not self.rule.target.product(product):
            return None
        if at.held is None:
            return "what the customer held then is not known"
        if self.rule.requires and not at.held.intersection(self.rule.requires):
            return f"the customer holds none of {', '.join(self.rule.requires)}"
        ruled_out = [name for name in self.rule.excludes if name in at.held]
        return f"the customer holds {', '.join(ruled_out)}" if ruled_out else None


@dataclass(frozen=True)
class Audience:
    """Products or channels for an age, a segment, any attribute."""

    rule: AudienceRule

    def refusal(self, at: Situation) -> str | None:
        """Why the rule's products and channels are not for this customer; None: they are."""
        rule, value = self.rule, at.customer.get(self.rule.attribute)
        if value is None:
            return None if rule.missing else f"{rule.attribute} is not known"
        if rule.least is not None or rule.most is not None:
            amount = at.amount(rule.attribute)
            if amount is None:
                return f"{rule.attribute} has no amount"
            if rule.least is not None and amount < rule.least:
                return f"{rule.attribute} is below {rule.least:g}"
            if rule.most is not None and amount > rule.most:
                return f"{rule.attribute} is above {rule.most:g}"
        if (rule.any_of and value not in rule.any_of) or value in rule.none_of:
            return f"{rule.attribute} is not one that it is for"
        return None


@dataclass(frozen=True)
class Reach:
    """A channel reaches only those of whom the bank has the address: for every purpose, a mandatory one too."""

    rule: ReachRule

    def refusal(self, at: Situation) -> str | None:
        """Why the channel does not reach this customer; None: it does."""
        value = at.customer.get(self.rule.attribute)
        return f"{self.rule.attribute} is not there" if value is None or value is False or value == "" else None


@dataclass(frozen=True)
class Period:
    """Applicability: products for a campaign's days, by the moment of the question and by that of the message."""

    rule: PeriodRule

    def refusal(self, product: Product, moment: datetime, at: Situation) -> str | None:
        """Why this product does not apply at `moment`; None: it does."""
        rule = self.rule
        if not rule.target.product(product):
            return None
        if rule.starts is not None and moment < rule.starts:
            return f"it applies from {rule.starts.isoformat()}"
        if rule.ends is not None and moment >= rule.ends:
            return f"it applied until {rule.ends.isoformat()}"
        if rule.weekdays and moment.astimezone(at.zone).weekday() not in rule.weekdays:
            return "it does not apply on this day of the week"
        return None
