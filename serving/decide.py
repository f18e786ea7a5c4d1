"""The decision, step by step: the one place where its order is written.

    look up → known? → rules → score → offers (with texts) → rules for pairs → value → choose → time → reserve → explain

Nothing here asks for the time or draws at random: the moment and the decision id come with the question, so the same
question on the same features gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from features import consent, holdings, profile
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import Attribute, Bool, Float64, Rows, RowSchema, States
from serving.arms import AGENT, Lottery, arm_of, business_as_usual, lottery, why_arm, withheld
from serving.candidates import Offer, offers
from serving.content import Contents, Value, customer_values
from serving.decision import Ask, Candidate, Decision, Ranked, Ranking, Reason, Removed, Versions
from serving.eligibility import contactable, rankable, removed_channels, removed_products
from serving.errors import FeaturesUnavailable
from serving.explain import (
    all_kept_back,
    blocked,
    fallbacks,
    nothing_left,
    ruled_out,
    unknown_views,
    unknown_zone,
    unscored,
    why_chosen,
)
from serving.history import History
from serving.policies import Layers
from serving.policy import Policy, draw, greedy
from serving.prices import Prices
from serving.reservation import reserved, sendable
from serving.schedule import ALL_ALIKE, Scheduler
from serving.scoring import Panel, Scores
from serving.situation import Situation
from serving.value import Worth, pressure

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
    ruled_out: products and channels that the declared rules refuse in this situation.
    """

    known: bool
    later: frozenset[str]
    states: States
    rows: Rows
    refused: Bool
    rows_of: Callable[[RowSchema], Rows]
    customer: Mapping[str, Value]
    situation: Situation
    ruled_out: tuple[Removed, ...]


@dataclass(frozen=True)
class Decider:
    """Decides and ranks. Every part is injected; `schema` is any row schema of this build, for held and opted out."""

    catalog: Catalog
    attributes: tuple[Attribute, ...]
    customers: Customers
    history: History
    assemble: Assemble
    schema: RowSchema
    products: Panel
    channels: Panel
    contents: Contents
    policy: Policy
    worth: Worth
    features_version: str
    catalog_version: str
    scheduler: Scheduler = ALL_ALIKE
    prices: Prices | None = None
    """What a campaign under way says that contacts are worth elsewhere."""

    @cached_property
    def layers(self) -> Layers:
        """The catalogue's policies as rule objects."""
        return Layers.of(self.catalog)

    def decide(self, ask: Ask, decision_id: str) -> Decision:
        """The next best action for one customer, or no contact; FeaturesUnavailable where consent cannot be read."""
        look = self.look_up(ask)
        no_way = blocked(look.known, look.later)
        if no_way:
            removed = self.removed(ask, look) if look.known else ()
            left_alone = self.no_contact(ask, decision_id, (no_way,), removed)
            return replace(left_alone, features=look.states, past=look.situation.past)
        allowed_products, allowed_channels = self.eligible(ask, look)
        removed = self.removed(ask, look)
        product_scores = self.products.score(look.rows_of, allowed_products)
        channel_scores = self.channels.score(look.rows_of, allowed_channels)
        removed += (*unscored("product", product_scores), *unscored("channel", channel_scores))
        found, failed = offers(
            self.catalog,
            self.contents,
            np.isfinite(product_scores.probabilities),
            np.isfinite(channel_scores.probabilities),
            look.customer,
            self.language(ask, look),
        )
        found, refused = sendable(self.layers, found, look.situation)
        decision = self._choose(ask, decision_id, found, look, product_scores, channel_scores)
        decision = self.scheduler.timed(decision, self.catalog, look.states, look.situation.zone)
        decision = reserved(self.layers, decision, look.situation)
        reasons = decision.reasons or (
            *nothing_left(allowed_products, allowed_channels, found),
            *ruled_out((*look.ruled_out, *refused)),
        )
        return replace(
            decision,
            reasons=reasons,
            removed=(*removed, *failed, *refused, *decision.removed),
            degraded=(
                *product_scores.degraded,
                *channel_scores.degraded,
                *self.scheduler.missing,
                *unknown_views(look.later),
                *unknown_zone(look.customer.get("time_zone"), look.situation.zone),
            ),
            dropped=len(product_scores.dropped) + len(channel_scores.dropped),
            features=look.states,
            past=look.situation.past,
        )

    def rank(self, ask: Ask, limit: int | None = None) -> Ranking:
        """Products by calibrated probability, held and ineligible ones absent; an unknown customer is ranked cold."""
        look = self.look_up(ask)
        allowed, _ = self.eligible(ask, look)
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
            (
                *(gone for gone in self.removed(ask, look) if gone.subject == "product"),
                *unscored("product", scores),
            ),
            () if look.known else unknown,
            (*scores.degraded, *unknown_views(look.later)),
            len(scores.dropped),
            self.versions({self.products.question: scores.version}),
        )

    def look_up(self, ask: Ask) -> Look:
        """What is known of the customer; FeaturesUnavailable, LedgerUnavailable where that cannot be read."""
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
        customer = customer_values(self.attributes, facts) if known else {}
        held = frozenset(name for name, has in zip(self.catalog.product_ids, rows.held[0], strict=True) if has)
        situation = Situation(
            ask.as_of,
            self.layers.zone(customer.get("time_zone")),
            Purpose(ask.purpose),
            customer,
            None if holdings.NAME in later else held,
            self.history.past(ask.customer_id, self.layers.since(ask.as_of), ask.as_of),
        )
        refusals = (*self.layers.products(situation), *self.layers.channels(situation))
        return Look(known, later, states, rows, refused, rows_of, customer, situation, refusals)

    def eligible(self, ask: Ask, look: Look) -> tuple[Bool, Bool]:
        """Products [P] and channels [H] that may be used; both all False where either has none."""
        products = rankable(look.rows, self.catalog, [_set(ask.eligible)])[0]
        if holdings.NAME in look.later:
            products &= np.array([not product.holdable for product in self.catalog.products], dtype=np.bool_)
        channels = contactable(look.refused, self.catalog, _set(ask.channels))[0]
        gone = {(removed.subject, removed.id) for removed in look.ruled_out}
        products &= np.array([("product", name) not in gone for name in self.catalog.product_ids], dtype=np.bool_)
        channels &= np.array([("channel", name) not in gone for name in self.catalog.channel_ids], dtype=np.bool_)
        return products, channels

    def removed(self, ask: Ask, look: Look) -> tuple[Removed, ...]:
        """Products and channels that may not be used, each with the rule that says so."""
        later = holdings.NAME in look.later
        unsure = (
            Removed("product", product.id, "holdings_not_known", "its holdings are newer than as_of")
            for product in self.catalog.products
            if later and product.holdable
        )
        products = removed_products(look.rows, self.catalog, _set(ask.eligible))
        ours = (*products, *unsure, *removed_channels(look.refused, self.catalog, _set(ask.channels)))
        named = {(removed.subject, removed.id) for removed in ours}
        return (*ours, *(gone for gone in look.ruled_out if (gone.subject, gone.id) not in named))

    def _choose(
        self, ask: Ask, decision_id: str, possible: Sequence[Offer], look: Look, products: Scores, channels: Scores
    ) -> Decision:
        """Draw among the offers and no contact; reasons are empty where there was no offer."""
        found, kept_back = self._released(ask, possible)
        pairs = [(offer.product, offer.channel) for offer in found]
        factors = self.worth.factors(
            products.probabilities, channels.probabilities, pairs, pressure(look.rows), look.customer
        )
        values = self.worth.total(factors)  # [A]
        candidates = (
            *(
                Candidate(offer.action, float(value), made_of)
                for offer, value, made_of in zip(found, values, factors.rows(), strict=True)
            ),
            NO_CONTACT,
        )
        lots, arm = self._lottery(ask, found, values)
        in_arm, propensities = lots.by_arm[arm], lots.propensities  # [A + 1] each
        drawn = draw(in_arm, decision_id)
        chosen = candidates[drawn]
        why = why_chosen(candidates, drawn, self.worth.unit) if arm == "agent" else why_arm(arm)
        versions = {self.products.question: products.version, self.channels.question: channels.version}
        return Decision(
            decision_id=decision_id,
            ask=ask,
            action=chosen.action,
            propensity=float(propensities[drawn]),
            value=chosen.value,
            candidates=candidates,
            propensities=tuple(float(propensity) for propensity in propensities),
            removed=kept_back,
            reasons=why if found else all_kept_back(kept_back),
            degraded=(),
            dropped=0,
            fallback_channels=fallbacks(candidates, chosen),
            versions=self.versions(versions),
            arm=arm,
            arm_propensity=float(in_arm[drawn]),
        )

    def _released(self, ask: Ask, possible: Sequence[Offer]) -> tuple[Sequence[Offer], tuple[Removed, ...]]:
        """The offers that no control group and no maturity ramp keeps from this customer; only marketing has them."""
        if ask.purpose != Purpose.MARKETING:
            return possible, ()
        declared = self.worth.declared
        kept_back = withheld(
            declared.arms,
            declared.maturity,
            self.worth.take_ups,
            self.catalog.product_ids,
            ask.customer_id,
            ask.as_of,
        )
        offered = {offer.action.product_id for offer in possible}
        found = [offer for offer in possible if offer.action.product_id not in kept_back]
        return found, tuple(removed for product, removed in kept_back.items() if product in offered)

    def _lottery(self, ask: Ask, found: Sequence[Offer], values: Float64) -> tuple[Lottery, str]:
        """What every arm would do, float64 [A + 1] each, and the arm that decides for this customer now.

        Only marketing is experimented with. A mandatory message is sent wherever it can be, by its best action.
        """
        if ask.purpose == Purpose.MANDATORY:
            best = greedy(values) if len(values) else np.empty(0)
            return lottery(AGENT, np.append(best, 0.0 if len(values) else 1.0), len(found)), "agent"
        net = values - self._opportunity(ask, found)
        agent = self.policy.propensities(np.append(net, NO_CONTACT.value), NO_CONTACT.value)
        if ask.purpose != Purpose.MARKETING:
            return lottery(AGENT, agent, len(found)), "agent"
        arms = self.worth.declared.arms
        usual = business_as_usual(found, self.worth.take_ups, self.worth.costs)
        return lottery(arms, agent, usual), arm_of(arms, ask.customer_id, ask.as_of)

    def _opportunity(self, ask: Ask, found: Sequence[Offer]) -> Float64:
        """Float64 [A]: what each contact would earn elsewhere in the campaign under way; other purposes come first."""
        if self.prices is None or ask.purpose != Purpose.MARKETING:
            return np.zeros(len(found))
        of_channel = self.prices.of(self.catalog.channel_ids, ask.as_of)
        return of_channel[np.array([offer.channel for offer in found], dtype=np.int64)]

    def no_contact(
        self, ask: Ask, decision_id: str, reasons: tuple[Reason, ...], removed: tuple[Removed, ...]
    ) -> Decision:
        """The decision not to contact where nothing was drawn."""
        versions = self.versions({})
        return Decision(decision_id, ask, None, 1.0, 0.0, (NO_CONTACT,), (1.0,), removed, reasons, (), 0, (), versions)

    def language(self, ask: Ask, look: Look) -> str | None:
        """The one asked for, else the customer's own."""
        spoken = look.customer.get("language")
        return ask.language or (spoken if isinstance(spoken, str) else None)

    def versions(self, models: Mapping[str, str]) -> Versions:
        """What stamps an answer; models: question → version."""
        priced = f" prices={self.prices.version}" if self.prices else ""
        return Versions(
            models, f"{self.policy.version}{priced}", self.features_version, self.catalog_version, self.layers.version
        )


def _consent_purpose(ask: Ask) -> Purpose:
    """A mandatory message skips limits, never a refused channel: where service is refused, so is it."""
    return Purpose.MARKETING if ask.purpose == Purpose.MARKETING else Purpose.SERVICE


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
