"""The decision, step by step: the one place where its order is written.

    look up → known? → rules → score → offers (with texts) → rules for pairs → value → choose → time → reserve → explain

Nothing here asks for the time or draws at random: the moment and the decision id come with the question, so the same
question on the same features gives the same decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from features.columns import Purpose
from features.schema import Float64
from serving.arms import AGENT, Lottery, arm_of, business_as_usual, why_arm, withheld
from serving.candidates import Offers
from serving.content import Contents
from serving.decision import NO_CONTACT, Ask, Decision, Ranked, Ranking, Reason, Removed, Versions
from serving.explain import (
    all_kept_back,
    blocked,
    nothing_left,
    ruled_out,
    unknown_views,
    unknown_zone,
    unscored,
    why_chosen,
)
from serving.lookup import Look, Lookup
from serving.policy import Policy, draw, greedy
from serving.prices import Prices
from serving.registry import PRIOR
from serving.removals import Removals, known_again
from serving.reservation import reserved, sendable
from serving.schedule import ALL_ALIKE, Scheduler
from serving.scoring import Panel, Scores
from serving.slate import Slate
from serving.value import Worth, pressure

_NOTHING = np.array([NO_CONTACT.value])


@dataclass(frozen=True, kw_only=True)
class Decider(Lookup):
    """Decides and ranks, from what it looks up."""

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
    def priors(self) -> str:
        """The priors that the worth of a contact rests on (`serving.response`), which move without the champions."""
        panels = (("products", self.products), ("channels", self.channels))
        return "".join(
            f" {name}-prior={source.version}"
            for name, panel in panels
            for source in panel.sources
            if source.name == PRIOR
        )

    @cached_property
    def _policy_version(self) -> str:
        priced = f" prices={self.prices.version}" if self.prices else ""
        return f"{self.policy.version}{self.priors}{priced}"

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
        slots = self.contents.slots(self.catalog, self.language(ask, look))
        found, failed = slots.offers(
            np.isfinite(product_scores.probabilities), np.isfinite(channel_scores.probabilities), look.customer
        )
        found, refused = sendable(self.layers, found, look.situation)
        decision = self._choose(ask, decision_id, found, look, product_scores, channel_scores)
        decision = self.scheduler.timed(decision, self.catalog, look.states, look.situation.zone)
        decision = reserved(self.layers, decision, look.situation)
        reasons = decision.reasons or (
            *nothing_left(allowed_products, allowed_channels, found),
            *ruled_out((*look.ruled_out, *refused)),
        )
        return decision.but(
            reasons=reasons,
            removed=Removals(removed, known_again(failed), refused, decision.removed),
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

    def _choose(
        self, ask: Ask, decision_id: str, possible: Offers, look: Look, products: Scores, channels: Scores
    ) -> Decision:
        """Draw among the offers and no contact; reasons are empty where there was no offer."""
        found, kept_back = self._released(ask, possible)
        scores = (products.probabilities, channels.probabilities)
        factors = self.worth.factors_at(*scores, found.product, found.channel, pressure(look.rows), look.customer)
        values = self.worth.total(factors)  # [A]
        lots, arm = self._lottery(ask, found, values)
        in_arm, propensities = lots.chances(arm), lots.propensities  # [A + 1] each
        drawn = draw(in_arm, decision_id)
        slate = Slate(found, values, factors, drawn)
        why = why_chosen(slate, self.worth.unit) if arm == "agent" else why_arm(arm)
        versions = {self.products.question: products.version, self.channels.question: channels.version}
        return Decision(
            decision_id=decision_id,
            ask=ask,
            action=slate.action,
            propensity=float(propensities[drawn]),
            value=slate.values[drawn],
            candidates=slate,
            propensities=tuple(propensities.tolist()),
            removed=kept_back,
            reasons=why if len(found) else all_kept_back(kept_back),
            degraded=(),
            dropped=0,
            fallback_channels=slate.fallbacks,
            versions=self.versions(versions),
            arm=arm,
            arm_propensity=float(in_arm[drawn]),
        )

    def _released(self, ask: Ask, possible: Offers) -> tuple[Offers, tuple[Removed, ...]]:
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
        if not kept_back:
            return possible, ()
        places = [place for place, product in enumerate(self.catalog.product_ids) if product in kept_back]
        offered = set(possible.product.tolist())
        found = possible.take(~np.isin(possible.product, places))
        return found, tuple(
            removed for place, removed in zip(places, kept_back.values(), strict=True) if place in offered
        )

    def _lottery(self, ask: Ask, found: Offers, values: Float64) -> tuple[Lottery, str]:
        """What every arm would do, float64 [A + 1] each, and the arm that decides for this customer now.

        Only marketing is experimented with. A mandatory message is sent wherever it can be, by its best action.
        """
        if ask.purpose == Purpose.MANDATORY:
            best = greedy(values) if len(values) else np.empty(0)
            return Lottery(AGENT, np.append(best, 0.0 if len(values) else 1.0), len(found)), "agent"
        net = values - self._opportunity(ask, found) if self.prices else values
        agent = self.policy.propensities(np.concatenate((net, _NOTHING)), NO_CONTACT.value)
        if ask.purpose != Purpose.MARKETING:
            return Lottery(AGENT, agent, len(found)), "agent"
        arms = self.worth.declared.arms
        asked = arms.shares.get("business_as_usual", 0.0) > 0
        usual = business_as_usual(found, self.worth.take_ups, self.worth.costs) if asked else len(found)
        return Lottery(arms, agent, usual), arm_of(arms, ask.customer_id, ask.as_of)

    def _opportunity(self, ask: Ask, found: Offers) -> Float64 | float:
        """What each contact would earn elsewhere in the campaign under way, [A]; other purposes come first."""
        if self.prices is None or ask.purpose != Purpose.MARKETING:
            return 0.0
        return self.prices.of(self.catalog.channel_ids, ask.as_of)[found.channel]

    def no_contact(
        self, ask: Ask, decision_id: str, reasons: tuple[Reason, ...], removed: tuple[Removed, ...]
    ) -> Decision:
        """The decision not to contact where nothing was drawn."""
        versions = self.versions({})
        return Decision(decision_id, ask, None, 1.0, 0.0, (NO_CONTACT,), (1.0,), removed, reasons, (), 0, (), versions)

    def versions(self, models: Mapping[str, str]) -> Versions:
        """What stamps an answer; models: question → version."""
        return Versions(models, self._policy_version, self.features_version, self.catalog_version, self.layers.version)
