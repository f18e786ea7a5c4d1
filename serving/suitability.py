"""Suitability: what is in the customer's best interest, whatever it would earn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from features.catalog import Product
from features.columns import Kind, Purpose
from features.policies import AffordabilityRule, ComplaintRule
from features.times import micros
from serving.situation import Situation


@dataclass(frozen=True)
class Affordability:
    """A product whose payment takes too large a share of what the customer has is not sold; a mandatory message is
    no sale."""

    rule: AffordabilityRule

    def refusal(self, product: Product, at: Situation) -> str | None:
        """Why this product is not suitable; None: it is."""
        if at.purpose == Purpose.MANDATORY or not self.rule.target.product(product):
            return None
        means = at.amount(self.rule.attribute)
        if means is None:
            return None if self.rule.missing else f"{self.rule.attribute} is not known, so neither is affordability"
        if self.rule.payment <= self.rule.share * means:
            return None
        return f"{self.rule.payment:g} is more than {self.rule.share:g} of the customer's {self.rule.attribute}"


@dataclass(frozen=True)
class RecentComplaint:
    """Who complained lately is not sold to."""

    rule: ComplaintRule

    def refusal(self, at: Situation) -> str | None:
        """Why the rule's products and channels are not suitable; None: they are."""
        if at.purpose != Purpose.MARKETING:
            return None
        since_us = micros(at.as_of - timedelta(days=self.rule.days))
        if any(one.kind == Kind.COMPLAINED and one.at_us > since_us for one in at.past.responses):
            return f"the customer complained within {self.rule.days:g} days"
        return None
