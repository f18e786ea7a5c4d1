"""The policy layers in their order: who may get what, whether it applies now, whether it suits, how often is enough.

A decision asks three times: for products, for channels, and, because windows and periods are measured when the message
is sent and quiet hours put that off, for the pairs of both. What a layer refuses carries the id of the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from features.catalog import Catalog, Channel, Product
from features.columns import Purpose
from features.policies import (
    AffordabilityRule,
    AudienceRule,
    CapRule,
    ComplaintRule,
    HoldingRule,
    PeriodRule,
    ReachRule,
    Reservation,
    SuppressionRule,
    Target,
    version,
)
from features.policy_file import declared
from features.times import micros
from serving.caps import Cap, Contact
from serving.contact_policy import ContactCap, Suppression
from serving.decision import Removed
from serving.eligibility import Audience, Holding, Period, Reach
from serving.quiet_hours import next_allowed, zone_of
from serving.situation import Situation
from serving.suitability import Affordability, RecentComplaint

_OF_CHANNELS = ("overall", "channel")
"""Scopes whose rules are about channels, whatever the product."""


@dataclass(frozen=True)
class Layers:
    """A catalogue's policies as rule objects. version: a hash of the declarations, which stamps every decision."""

    catalog: Catalog
    version: str
    of_products: tuple[Holding | Affordability, ...]
    of_customers: tuple[Audience | Reach | RecentComplaint, ...]
    """Rules whose answer is the same for all products and channels that they are about."""
    periods: tuple[Period, ...]
    suppressions: tuple[Suppression, ...]
    caps: tuple[ContactCap, ...]
    reservation: timedelta | None

    @classmethod
    def of(cls, catalog: Catalog) -> Layers:
        """InputError where the declarations were never checked and are wrong."""
        rules = declared(catalog)
        hours = [rule.hours for rule in rules if isinstance(rule, Reservation)]
        of_products: list[Holding | Affordability] = []
        of_customers: list[Audience | Reach | RecentComplaint] = []
        for rule in rules:
            match rule:
                case HoldingRule():
                    of_products.append(Holding(rule))
                case AffordabilityRule():
                    of_products.append(Affordability(rule))
                case AudienceRule():
                    of_customers.append(Audience(rule))
                case ReachRule():
                    of_customers.append(Reach(rule))
                case ComplaintRule():
                    of_customers.append(RecentComplaint(rule))
        return cls(
            catalog,
            version(catalog),
            tuple(of_products),
            tuple(of_customers),
            tuple(Period(rule) for rule in rules if isinstance(rule, PeriodRule)),
            tuple(Suppression(rule) for rule in rules if isinstance(rule, SuppressionRule)),
            tuple(ContactCap(rule) for rule in rules if isinstance(rule, CapRule)),
            timedelta(hours=min(hours)) if hours else None,
        )

    @cached_property
    def products_by_id(self) -> dict[str, Product]:
        return {product.id: product for product in self.catalog.products}

    @cached_property
    def channels_by_id(self) -> dict[str, Channel]:
        return {channel.id: channel for channel in self.catalog.channels}

    @cached_property
    def product_places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.catalog.product_ids)}

    @cached_property
    def channel_places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.catalog.channel_ids)}

    @cached_property
    def limits(self) -> tuple[Suppression | ContactCap, ...]:
        """What only marketing is held to."""
        return *self.suppressions, *self.caps

    def since(self, as_of: datetime) -> datetime | None:
        """How far back contacts matter to a decision at `as_of`; None: no rule counts them."""
        return None if self._reach_back is None else as_of - self._reach_back

    @cached_property
    def _reach_back(self) -> timedelta | None:
        return max((cap.reach_back for cap in self.caps), default=None)

    def zone(self, named: object) -> ZoneInfo:
        """The customer's zone; the catalogue's where they have none, or one that is not known."""
        return zone_of(named) or self._zone

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.catalog.time_zone)

    def defer(self, channel_id: str, moment: datetime, at: Situation) -> datetime:
        """The first moment from `moment` on outside the channel's quiet hours, UTC; mandatory messages ignore them."""
        quiet = None if at.purpose == Purpose.MANDATORY else self.channels_by_id[channel_id].quiet_hours
        return next_allowed(moment, at.zone, quiet)

    def refusals(self, at: Situation) -> tuple[Removed, ...]:
        """The products, then the channels, that the rules refuse now."""
        everywhere = tuple(self._of_customer(at))
        return (*self._products(at, everywhere), *self._channels(at, everywhere))

    def products(self, at: Situation) -> Iterator[Removed]:
        """The products that may not be offered now, each with the first rule that says so."""
        return self._products(at, tuple(self._of_customer(at)))

    def channels(self, at: Situation) -> Iterator[Removed]:
        """The channels that may not be used when quiet hours first allow it, each with the first rule that says so."""
        return self._channels(at, tuple(self._of_customer(at)))

    def may_refuse_pairs(self, at: Situation) -> bool:
        """Whether a rule may refuse a product on a channel to this customer, though each may be used by itself."""
        return bool(self.periods) or any(limit.may_refuse(at) for limit in self._limits_of_products)

    def pairs(self, pairs: Iterable[tuple[Product, Channel]], at: Situation) -> dict[tuple[str, str], Removed]:
        """Of pairs that passed the rules for products and channels, those that may not be sent then; by their ids."""
        found: dict[tuple[str, str], Removed] = {}
        if not self.may_refuse_pairs(at):
            return found
        known: dict[tuple[str, datetime], tuple[str, str] | None] = {}
        send_times: dict[str, datetime] = {}
        for product, channel in pairs:
            send_at = send_times.get(channel.id)
            if send_at is None:
                send_at = send_times[channel.id] = self.defer(channel.id, at.as_of, at)
            if (product.id, send_at) not in known:
                known[product.id, send_at] = next(self._when_sent(product, send_at, at), None)
            refused = known[product.id, send_at]
            if refused:
                found[product.id, channel.id] = Removed("action", f"{product.id}/{channel.id}", *refused)
        return found

    def allowed(self, product: Product | None, channel: Channel, send_at: datetime, at: Situation) -> bool:
        """Whether a channel, and product, that passed the rules for themselves may be used at `send_at`."""
        limited = next(self._limits_of_channel(channel, send_at, at), None)
        return limited is None and (product is None or next(self._when_sent(product, send_at, at), None) is None)

    def caps_of(self, product: Product | None, channel: Channel, send_at: datetime, at: Situation) -> tuple[Cap, ...]:
        """What the ledger has to check in the transaction that records this contact; none but for marketing."""
        if at.purpose != Purpose.MARKETING:
            return ()
        return tuple(
            cap.cap(_value(cap.rule.target, product, channel), send_at, at.zone)
            for cap in self.caps
            if cap.rule.target.channel(channel) and (product is None or cap.rule.target.product(product))
            if product is not None or cap.rule.target.scope in _OF_CHANNELS
        )

    def contact(
        self, customer_id: str, product: Product | None, channel: Channel, send_at: datetime, purpose: str, name: str
    ) -> Contact:
        """The contact to reserve; name: the decision's id."""
        at_us = micros(send_at)
        lapses = None if self.reservation is None else at_us + self.reservation // timedelta(microseconds=1)
        product_id, group = (None, None) if product is None else (product.id, product.group)
        return Contact(customer_id, at_us, channel.id, product_id, group, purpose, name, lapses)

    def _of_customer(self, at: Situation) -> Iterator[tuple[Target, str, str]]:
        for rule in self.of_customers:
            reason = rule.refusal(at)
            if reason:
                yield rule.rule.target, rule.rule.id, reason

    def _products(self, at: Situation, everywhere: Sequence[tuple[Target, str, str]]) -> Iterator[Removed]:
        """Each rule is asked once, for the first product that it is about: its answer is that for all of them."""
        first: dict[int, tuple[str, str]] = {}
        for target, name, why in everywhere:
            if target.scope != "channel":
                for place in self._places_of(target):
                    first.setdefault(place, (name, why))
        for rule in (*self.periods, *self.of_products):
            places = self._places_of(rule.rule.target)
            if places:
                about = self.catalog.products[places[0]]
                reason = rule.refusal(about, at.as_of, at) if isinstance(rule, Period) else rule.refusal(about, at)
                if reason:
                    for place in places:
                        first.setdefault(place, (rule.rule.id, reason))
        for place in sorted(first):
            yield Removed("product", self.catalog.products[place].id, *first[place])

    def _channels(self, at: Situation, everywhere: Sequence[tuple[Target, str, str]]) -> Iterator[Removed]:
        everywhere = [one for one in everywhere if one[0].scope in _OF_CHANNELS]
        limited = any(limit.may_refuse(at) for limit in self._limits_of_channels)
        for channel in self.catalog.channels if everywhere or limited else ():
            first = next(((name, why) for target, name, why in everywhere if target.channel(channel)), None)
            if first is None and limited:
                first = next(self._limits_of_channel(channel, self.defer(channel.id, at.as_of, at), at), None)
            if first:
                yield Removed("channel", channel.id, *first)

    def _limits_of_channel(self, channel: Channel, send_at: datetime, at: Situation) -> Iterator[tuple[str, str]]:
        for limit in self._limits_of_channels:
            target = limit.rule.target
            if limit.may_refuse(at) and target.channel(channel):
                reason = limit.refusal(_value(target, None, channel), send_at, at)
                if reason:
                    yield limit.rule.id, reason

    def _when_sent(self, product: Product, send_at: datetime, at: Situation) -> Iterator[tuple[str, str]]:
        for period in self.periods:
            reason = period.refusal(product, send_at, at)
            if reason:
                yield period.rule.id, f"{reason}, and quiet hours put it off to {send_at.isoformat()}"
        for limit in self._limits_of_products:
            target = limit.rule.target
            if limit.may_refuse(at) and target.product(product):
                reason = limit.refusal(_value(target, product, None), send_at, at)
                if reason:
                    yield limit.rule.id, reason

    @cached_property
    def _limits_of_channels(self) -> tuple[Suppression | ContactCap, ...]:
        return tuple(limit for limit in self.limits if limit.rule.target.scope in _OF_CHANNELS)

    @cached_property
    def _limits_of_products(self) -> tuple[Suppression | ContactCap, ...]:
        return tuple(limit for limit in self.limits if limit.rule.target.scope not in _OF_CHANNELS)

    @cached_property
    def _targets(self) -> dict[Target, list[int]]:
        return {}

    def _places_of(self, target: Target) -> list[int]:
        """The positions of the products that a rule with this target is about."""
        if target not in self._targets:
            products = self.catalog.products
            self._targets[target] = [place for place, product in enumerate(products) if target.product(product)]
        return self._targets[target]


def _value(target: Target, product: Product | None, channel: Channel | None) -> str | None:
    """What of an action a rule with this target counts by."""
    if target.scope == "channel":
        return None if channel is None else channel.id
    if target.scope == "overall" or product is None:
        return None
    return product.id if target.scope == "product" else product.group
