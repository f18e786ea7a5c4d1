"""The decision, step by step: the one place where its order is written.

    look up → known? → eligible → score → offers (with texts) → value → choose → explain

Nothing here asks for the time or draws at random: the moment and the decision id come with the question, so the same
question on the same features gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from features import consent, holdings, profile
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import Attribute, Bool, Float64, Rows, RowSchema, States
from serving.candidates import Offer, offers
from serving.content import Contents, Value, customer_values
from serving.decision import Ask, Candidate, Decision, Ranked, Ranking, Reason, Removed, Versions
from serving.eligibility import contactable, rankable, removed_channels, removed_products
from serving.errors import FeaturesUnavailable
from serving.explain import blocked, fallbacks, nothing_left, unknown_views, unscored, why_chosen
from serving.policy import Policy, draw
from serving.scoring import Panel, Scores
from serving.value import Worth

NO_CONTACT = Candidate(None, 0.0)


class Customers(Protocol):
    """Where online states come from: `features.packed.OnlineStates`."""

    def read(self, customer_ids: Sequence[str]) -> States:
        """The newest states of these customers, in their order."""
        ...


Assemble = Callable[[States, Float64, RowSchema], Rows]
"""`features.assemble.assemble`: states [n] and moments [n] (seconds since 1970 UTC) → rows [n]."""


@dataclass(frozen=True)
class Look:
    """What was known of one customer at the moment of the question.

    `later` names the views whose newest state is younger than that moment. The online store keeps only the newest
    state, so what such a view said before cannot be told: it is unknown, never answered with what came later.
    refused: bool [1, H], channels without consent for the purpose asked. `customer` is empty for an unknown customer.
    """

    known: bool
    later: frozenset[str]
    rows: Rows
    refused: Bool
    rows_of: Callable[[RowSchema], Rows]
    customer: Mapping[str, Value]


@dataclass(frozen=True)
class Decider:
    """Decides and ranks. Every part is injected; `schema` is any row schema of this build, for held and opted out."""

    catalog: Catalog
    attributes: tuple[Attribute, ...]
    customers: Customers
    assemble: Assemble
    schema: RowSchema
    products: Panel
    channels: Panel
    contents: Contents
    policy: Policy
    worth: Worth
    features_version: str
    catalog_version: str

    def decide(self, ask: Ask, decision_id: str) -> Decision:
        """The next best action for one customer, or no contact; FeaturesUnavailable where consent cannot be read."""
        look = self._look_up(ask)
        no_way = blocked(look.known, look.later)
        if no_way:
            return self._no_contact(ask, decision_id, (no_way,), self._removed(ask, look) if look.known else ())
        allowed_products, allowed_channels = self._eligible(ask, look)
        removed = self._removed(ask, look)
        product_scores = self.products.score(look.rows_of, allowed_products)
        channel_scores = self.channels.score(look.rows_of, allowed_channels)
        removed += (*unscored("product", product_scores), *unscored("channel", channel_scores))
        found, failed = offers(
            self.catalog,
            self.contents,
            np.isfinite(product_scores.probabilities),
            np.isfinite(channel_scores.probabilities),
            look.customer,
            self._language(ask, look),
        )
        decision = self._choose(ask, decision_id, found, product_scores, channel_scores)
        reasons = decision.reasons or nothing_left(allowed_products, allowed_channels, found)
        return replace(
            decision,
            reasons=reasons,
            removed=(*removed, *failed),
            degraded=(*product_scores.degraded, *channel_scores.degraded, *unknown_views(look.later)),
            dropped=len(product_scores.dropped) + len(channel_scores.dropped),
        )

    def rank(self, ask: Ask, limit: int | None = None) -> Ranking:
        """Products by calibrated probability, held and ineligible ones absent; an unknown customer is ranked cold."""
        look = self._look_up(ask)
        allowed = rankable(look.rows, self.catalog, [_set(ask.eligible)])[0]
        scores = self.products.score(look.rows_of, allowed)
        shown = np.flatnonzero(np.isfinite(scores.probabilities))
        best = shown[np.argsort(-scores.probabilities[shown], kind="stable")][:limit]
        products = tuple(
            Ranked(self.catalog.product_ids[at], float(scores.probabilities[at]), place)
            for place, at in enumerate(best, start=1)
        )
        unknown = (Reason("unknown_customer", "nothing is known of this customer: ranked cold"),)
        return Ranking(
            ask,
            products,
            (*removed_products(look.rows, self.catalog, _set(ask.eligible)), *unscored("product", scores)),
            () if look.known else unknown,
            (*scores.degraded, *unknown_views(look.later)),
            len(scores.dropped),
            self._versions({self.products.question: scores.version}),
        )

    def _look_up(self, ask: Ask) -> Look:
        moment = np.array([ask.as_of.timestamp()])  # [1]
        try:
            states = self.customers.read([ask.customer_id])
            rows = self.assemble(states, moment, self.schema)
            refused = consent.refused(states[consent.NAME], len(self.catalog.channels), _consent_purpose(ask))
        except Exception as error:
            raise FeaturesUnavailable(f"online features cannot be read ({type(error).__name__}: {error})") from error
        assembled = {self.schema.fingerprint: rows}

        def rows_of(schema: RowSchema) -> Rows:
            if schema.fingerprint not in assembled:
                assembled[schema.fingerprint] = self.assemble(states, moment, schema)
            return assembled[schema.fingerprint]

        facts = states[profile.NAME]
        known = bool(facts.at[0] <= moment[0])  # False for NaN: never seen
        later = frozenset(name for name, state in states.items() if state.at[0] > moment[0])
        return Look(known, later, rows, refused, rows_of, customer_values(self.attributes, facts) if known else {})

    def _eligible(self, ask: Ask, look: Look) -> tuple[Bool, Bool]:
        """Products [P] and channels [H] that may be used; both all False where either has none."""
        products = rankable(look.rows, self.catalog, [_set(ask.eligible)])[0]
        if holdings.NAME in look.later:
            products &= np.array([not product.holdable for product in self.catalog.products], dtype=np.bool_)
        channels = contactable(look.refused, self.catalog, _set(ask.channels))[0]
        return products, channels

    def _removed(self, ask: Ask, look: Look) -> tuple[Removed, ...]:
        later = holdings.NAME in look.later
        unsure = (
            Removed("product", product.id, "holdings_not_known", "its holdings are newer than as_of")
            for product in self.catalog.products
            if later and product.holdable
        )
        products = removed_products(look.rows, self.catalog, _set(ask.eligible))
        return (*products, *unsure, *removed_channels(look.refused, self.catalog, _set(ask.channels)))

    def _choose(
        self, ask: Ask, decision_id: str, found: Sequence[Offer], products: Scores, channels: Scores
    ) -> Decision:
        """Draw among the offers and no contact; reasons are empty where there was no offer."""
        pairs = [(offer.product, offer.channel) for offer in found]
        values = self.worth.expected(products.probabilities, channels.probabilities, pairs)  # [A]
        candidates = (
            *(Candidate(offer.action, float(value)) for offer, value in zip(found, values, strict=True)),
            NO_CONTACT,
        )
        propensities = self.policy.propensities(np.append(values, NO_CONTACT.value), NO_CONTACT.value)  # [A + 1]
        drawn = draw(propensities, decision_id)
        chosen = candidates[drawn]
        versions = {self.products.question: products.version, self.channels.question: channels.version}
        return Decision(
            decision_id=decision_id,
            ask=ask,
            action=chosen.action,
            propensity=float(propensities[drawn]),
            value=chosen.value,
            candidates=candidates,
            propensities=tuple(float(propensity) for propensity in propensities),
            removed=(),
            reasons=why_chosen(candidates, drawn, self.worth.unit) if found else (),
            degraded=(),
            dropped=0,
            fallback_channels=fallbacks(candidates, chosen),
            versions=self._versions(versions),
        )

    def _no_contact(
        self, ask: Ask, decision_id: str, reasons: tuple[Reason, ...], removed: tuple[Removed, ...]
    ) -> Decision:
        versions = self._versions({})
        return Decision(decision_id, ask, None, 1.0, 0.0, (NO_CONTACT,), (1.0,), removed, reasons, (), 0, (), versions)

    def _language(self, ask: Ask, look: Look) -> str | None:
        spoken = look.customer.get("language")
        return ask.language or (spoken if isinstance(spoken, str) else None)

    def _versions(self, models: Mapping[str, str]) -> Versions:
        return Versions(models, self.policy.version, self.features_version, self.catalog_version)


def _consent_purpose(ask: Ask) -> Purpose:
    """A mandatory message skips limits, never a refused channel: where service is refused, so is it."""
    return Purpose.MARKETING if ask.purpose == Purpose.MARKETING else Purpose.SERVICE


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
