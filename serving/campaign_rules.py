"""The policy layers over a whole campaign: what each customer may be offered on every day of it, and how often.

A campaign's day is a day after the customer's `as_of`. Where periods are declared every day is looked at, otherwise the
first: silence and caps only loosen as time goes by. What a cap leaves at the start holds for the whole campaign, which
is never too much, whatever the cap's window, and too little where a window ends within the campaign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from features.catalog import Catalog
from features.columns import Purpose
from features.customer_events import EventsByCustomer
from features.home import Build
from features.importing import Bank
from features.schema import Bool
from features.times import micros
from serving.caps import Contact
from serving.contact_policy import ContactCap
from serving.history import EVENT_COLUMNS, Past, Receipts, Response, contacts_of, responses_of
from serving.policies import Layers
from serving.situation import Situation, Value


@dataclass(frozen=True)
class Counted:
    """A cap for one subject (a channel, product or group, if it is for one); counts: bool [P, H], what it counts."""

    cap: ContactCap
    subject: str | None
    counts: Bool

    @property
    def name(self) -> str:
        return self.cap.rule.id if self.subject is None else f"{self.cap.rule.id} ({self.subject})"


@dataclass(frozen=True)
class Log:
    """The imported timeline of a bank, of which a block's customers are read at a time: a bank's contacts are many."""

    bank: Bank
    events: EventsByCustomer
    receipts: Receipts

    @classmethod
    def of(cls, build: Build) -> Log:
        return cls(build.bank, EventsByCustomer(build.bank_folder), Receipts.of(build.bank))


@dataclass(frozen=True)
class CampaignRules:
    """The layers, the log that they look at, and the days of the campaign, 1 … days, each a day after the other."""

    layers: Layers
    contacts: Mapping[str, Sequence[Contact]]
    responses: Mapping[str, Sequence[Response]]
    days: int
    log: Log | None = None
    """Where the contacts and responses of customers come from; None: they are all here already."""

    @classmethod
    def of(cls, build: Build, days: int) -> CampaignRules:
        """The rules of a build's catalogue over its imported timeline."""
        return cls(Layers.of(build.catalog), {}, {}, days, Log.of(build))

    def among(self, customers: Iterable[str], first: datetime) -> CampaignRules:
        """The same rules with the log of these customers, of whom nobody is asked about before `first`."""
        if self.log is None:
            return self
        theirs = self.log.events.of(sorted(set(customers)), EVENT_COLUMNS)
        since = self.layers.since(first)
        made = () if since is None else contacts_of(self.log.bank, theirs, self.log.receipts, micros(since))
        return replace(self, contacts=_by_customer(made), responses=responses_of(self.log.bank, theirs))

    @property
    def counted(self) -> tuple[Counted, ...]:
        """Every cap that a campaign could use up; that of a product is used up by one contact, see `refused`."""
        catalog = self.layers.catalog
        found = [
            Counted(cap, subject, _about(catalog, cap, subject))
            for cap in self.layers.caps
            for subject in _subjects(catalog, cap)
        ]
        return tuple(one for one in found if one.cap.rule.target.scope != "product")

    def situation(
        self, customer_id: str, as_of: datetime, customer: Mapping[str, Value], held: frozenset[str]
    ) -> Situation:
        """The customer as the rules see them, from what was known at `as_of`."""
        now_us = micros(as_of)
        made = tuple(one for one in self.contacts.get(customer_id, ()) if one.at_us <= now_us)
        answered = tuple(one for one in self.responses.get(customer_id, ()) if one.at_us <= now_us)
        zone = self.layers.zone(customer.get("time_zone"))
        return Situation(as_of, zone, Purpose.MARKETING, customer, held, Past(made, answered))

    def refused(self, at: Situation, open_: Bool) -> Bool:
        """Bool [P, H]: contacts of `open_` (bool [P, H]) that a rule refuses on some day of the campaign."""
        catalog = self.layers.catalog
        found = np.zeros(open_.shape, dtype=np.bool_)
        for day in range(self.days if self.layers.periods else 1):
            then = replace(at, as_of=at.as_of + timedelta(days=day))
            found[[catalog.product_ids.index(one.id) for one in self.layers.products(then)], :] = True
            found[:, [catalog.channel_ids.index(one.id) for one in self.layers.channels(then)]] = True
            if not self._pairs_matter:
                continue
            left = np.argwhere(open_ & ~found).tolist()
            pairs = [(catalog.products[product], catalog.channels[channel]) for product, channel in left]
            for product_id, channel_id in self.layers.pairs(pairs, then):
                found[catalog.product_ids.index(product_id), catalog.channel_ids.index(channel_id)] = True
        return found

    @property
    def _pairs_matter(self) -> bool:
        """Whether a rule about products depends on the time of sending, and so on the channel."""
        scopes = {limit.rule.target.scope for limit in self.layers.limits}
        return bool(self.layers.periods or scopes - {"overall", "channel"})

    def left(self, counted: Counted, at: Situation) -> int:
        """How many contacts of the kind the cap leaves to the customer."""
        cap = counted.cap.cap(counted.subject, at.as_of, at.zone)
        return max(0, cap.most - sum(cap.covers(contact) for contact in at.past.contacts))


def _by_customer(made: Iterable[Contact]) -> dict[str, list[Contact]]:
    found: dict[str, list[Contact]] = defaultdict(list)
    for contact in made:
        found[contact.customer_id].append(contact)
    return dict(found)


def _subjects(catalog: Catalog, cap: ContactCap) -> list[str | None]:
    """What the cap counts by: each by itself where it names none."""
    target = cap.rule.target
    if target.scope == "overall" or target.value is not None:
        return [target.value]
    every = {
        "channel": catalog.channel_ids,
        "product": catalog.product_ids,
        "group": tuple(dict.fromkeys(product.group for product in catalog.products if product.group)),
    }
    return list(every[target.scope])


def _about(catalog: Catalog, cap: ContactCap, subject: str | None) -> Bool:
    """Bool [P, H]: the contacts that this cap, for this subject, counts."""
    of = {"product": "id", "group": "group"}.get(cap.rule.target.scope)
    products = [of is None or getattr(product, of) == subject for product in catalog.products]
    channels = [cap.rule.target.scope != "channel" or channel.id == subject for channel in catalog.channels]
    counted: Bool = np.array(products, dtype=np.bool_)[:, None] & np.array(channels, dtype=np.bool_)[None, :]
    return counted
