"""What is known of a customer at the moment of a question, and what may be offered to them then."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from features import consent, holdings, profile
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import Attribute, Bool, Float64, Rows, RowSchema, States
from serving.content import Value, customer_values
from serving.decision import Ask, Removed
from serving.eligibility import contactable, just_taken_up, rankable, removed_channels, removed_products
from serving.errors import FeaturesUnavailable
from serving.history import History
from serving.policies import Layers
from serving.situation import Situation


class Customers(Protocol):
    """Where online states come from: `features.packed.OnlineStates`."""

    def read(self, customer_ids: Sequence[str]) -> States:
        """The newest states of these customers, in their order."""
        ...


Merge = Callable[[States, Sequence[bytes | None]], States]
"""`features.live.Live.merged`: imported states [n] and what the ledger has of each customer [n] → states [n]."""
Assemble = Callable[[States, Float64, RowSchema], Rows]
"""`features.assemble.assemble`: states [n] and moments [n] (seconds since 1970 UTC) → rows [n]."""


def imported_only(states: States, live: Sequence[bytes | None]) -> States:
    """The states as they were imported, whatever has happened since."""
    return states


@dataclass(frozen=True)
class Look:
    """What was known of one customer at the moment of the question.

    `later` names the views whose newest state is younger than that moment. The online store keeps only the newest
    state, so what such a view said before cannot be told: it is unknown, never answered with what came later.
    refused: bool [1, H], channels without consent for the purpose asked. taken: bool [1, P], products bought just now,
    which count as held. `customer` is empty for an unknown customer.
    ruled_out: products and channels that the declared rules refuse in this situation.
    """

    known: bool
    later: frozenset[str]
    states: States
    rows: Rows
    refused: Bool
    taken: Bool
    rows_of: Callable[[RowSchema], Rows]
    customer: Mapping[str, Value]
    situation: Situation
    ruled_out: tuple[Removed, ...]


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Where to look. Every part is injected; `schema` is any row schema of this build, for held and opted out."""

    catalog: Catalog
    attributes: tuple[Attribute, ...]
    customers: Customers
    history: History
    assemble: Assemble
    schema: RowSchema
    merge: Merge = imported_only

    @cached_property
    def layers(self) -> Layers:
        """The catalogue's policies as rule objects."""
        return Layers.of(self.catalog)

    def look_up(self, ask: Ask) -> Look:
        """What is known of the customer; FeaturesUnavailable, LedgerUnavailable where that cannot be read."""
        as_of = ask.as_of.timestamp()
        moment = np.array([as_of])  # [1]
        past = self.history.past(ask.customer_id, self.layers.since(ask.as_of), ask.as_of)
        try:
            states = self.merge(self.customers.read([ask.customer_id]), [past.live])
            rows = self.assemble(states, moment, self.schema)
            refused = consent.refused(states[consent.NAME], len(self.catalog.channels), _consent_purpose(ask))
            taken = just_taken_up(states, moment, self.catalog)
        except Exception as error:
            raise FeaturesUnavailable(f"online features cannot be read ({type(error).__name__}: {error})") from error
        assembled = {self.schema.fingerprint: rows}

        def rows_of(schema: RowSchema) -> Rows:
            if schema.fingerprint not in assembled:
                assembled[schema.fingerprint] = self.assemble(states, moment, schema)
            return assembled[schema.fingerprint]

        facts = states[profile.NAME]
        known = bool(facts.at.item() <= as_of)  # False for NaN: never seen
        later = frozenset([name for name, state in states.items() if state.at.item() > as_of])
        customer = customer_values(self.attributes, facts) if known else {}
        has = rows.held[0] | taken[0]
        held = frozenset(itertools.compress(self.catalog.product_ids, has.tolist()))
        situation = Situation(
            ask.as_of,
            self.layers.zone(customer.get("time_zone")),
            Purpose(ask.purpose),
            customer,
            None if holdings.NAME in later else held,
            past,
        )
        refusals = self.layers.refusals(situation)
        return Look(known, later, states, rows, refused, taken, rows_of, customer, situation, refusals)

    def eligible(self, ask: Ask, look: Look) -> tuple[Bool, Bool]:
        """Products [P] and channels [H] that may be used; both all False where either has none."""
        products = rankable(look.rows, self.catalog, [_set(ask.eligible)], look.taken)[0]
        if holdings.NAME in look.later:
            products &= ~self.catalog.holdable
        channels = contactable(look.refused, self.catalog, _set(ask.channels))[0]
        for gone in look.ruled_out:
            if gone.subject == "product":
                products[self.layers.product_places[gone.id]] = False
            else:
                channels[self.layers.channel_places[gone.id]] = False
        return products, channels

    def removed(self, ask: Ask, look: Look) -> tuple[Removed, ...]:
        """Products and channels that may not be used, each with the rule that says so."""
        later = holdings.NAME in look.later
        unsure = [
            Removed("product", product.id, "holdings_not_known", "its holdings are newer than as_of")
            for product in (self.catalog.products if later else ())
            if product.holdable
        ]
        products = removed_products(look.rows, self.catalog, _set(ask.eligible), look.taken)
        ours = (*products, *unsure, *removed_channels(look.refused, self.catalog, _set(ask.channels)))
        if not look.ruled_out:
            return ours
        named = {(removed.subject, removed.id) for removed in ours}
        return (*ours, *(gone for gone in look.ruled_out if (gone.subject, gone.id) not in named))

    def language(self, ask: Ask, look: Look) -> str | None:
        """The one asked for, else the customer's own."""
        spoken = look.customer.get("language")
        return ask.language or (spoken if isinstance(spoken, str) else None)


def _consent_purpose(ask: Ask) -> Purpose:
    """A mandatory message skips limits, never a refused channel: where service is refused, so is it."""
    return Purpose.MARKETING if ask.purpose == Purpose.MARKETING else Purpose.SERVICE


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
