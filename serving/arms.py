"""Experiments: who decides for a customer, for a whole period, and what each of them would do with which probability.

    agent               the models and the policy
    random              every feasible action alike, no contact among them
    business_as_usual   the product most often taken up, through the cheapest channel; no model is asked
    holdout             no contact

A customer's arm is SHA-256 of salt|customer|period, so it sticks for the period, needs no table, and is the same on
every machine. The *propensity of a decision* is that of the whole policy, the lottery of arms included:

    propensity(a) = Σ over arms of share(arm) · P(a | arm)

and this is what the timeline logs and what off-policy estimates divide by. `P(a | arm)` of the arm that decided is kept
beside it. Two draws of one customer in one period share their arm: estimate intervals by customer, not by decision.

A product may have a control group of its own (`Arms.products`), and a new one is let out slowly (`Maturity`). Both are
hash-assigned rules of who may be offered what, so propensities are given them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from features.arbitration import ARMS, Arms, Maturity
from features.schema import Float64
from serving.candidates import Offers
from serving.decision import Reason, Removed
from serving.policy import uniform

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AGENT = Arms()
"""No experiment."""

_WHY = {
    "random": "the random arm decides for this customer in this period: every feasible action alike",
    "business_as_usual": "business as usual decides for this customer in this period",
    "holdout": "the customer is in the holdout of this period: no marketing contact",
}


def period(arms: Arms, at: datetime) -> int:
    """The number of the period that `at` lies in, counted from 1970."""
    return (at - EPOCH) // timedelta(days=arms.period_days)


def arm_of(arms: Arms, customer_id: str, at: datetime) -> str:
    """The arm that decides for the customer in the period of `at`."""
    there = [arm for arm, share in arms.shares.items() if share > 0]
    if len(there) == 1:  # whatever is drawn
        return there[0]
    lot = uniform(f"{arms.salt}|{customer_id}|{period(arms, at)}")
    drawn = "agent"
    reached = 0.0
    for arm in ARMS:
        share = arms.shares.get(arm, 0.0)
        if share > 0 and lot >= reached:
            drawn = arm  # the last arm with a share takes what rounding leaves
        reached += share
    return drawn


def why_arm(arm: str) -> tuple[Reason, ...]:
    """The reason of a decision that the agent did not take."""
    return (Reason(f"arm_{arm}", _WHY[arm]),)


@dataclass(frozen=True)
class Lottery:
    """What each arm would do. agent: float64 [K], the policy's propensities; usual: the action of business as usual.

    The last of the K actions is no contact.
    """

    arms: Arms
    agent: Float64
    usual: int

    def chances(self, arm: str) -> Float64:
        """Float64 [K]: with which the arm takes each action."""
        if arm == "agent":
            return self.agent
        count = len(self.agent)
        if arm == "random":
            return np.full(count, 1.0 / count)
        taken = np.zeros(count)
        taken[self.usual if arm == "business_as_usual" else count - 1] = 1.0
        return taken

    @property
    def by_arm(self) -> dict[str, Float64]:
        """The chances of every arm there is."""
        return {arm: self.chances(arm) for arm in ARMS}

    @property
    def propensities(self) -> Float64:
        """Float64 [K]: of the whole policy, the lottery of arms included."""
        # What has no share adds nothing, to the last bit.
        each = [
            self.chances(arm) if share == 1 else share * self.chances(arm)
            for arm, share in self.arms.shares.items()
            if share > 0
        ]
        total = sum(each[1:], each[0])
        return np.asarray(total / np.add.reduce(total))


def business_as_usual(found: Offers, take_ups: Float64 | None, costs: Float64) -> int:
    """Position of the most taken-up product (catalogue order where nothing is counted) through the cheapest channel,
    first channel and first content where several are; len(found), which is no contact, where nothing can be offered."""
    if not len(found):
        return 0
    taken = np.zeros(len(found)) if take_ups is None else take_ups[found.product]
    # Columns from the least important: what stands first is last here.
    return int(np.lexsort((costs[found.channel], found.product, -taken))[0])


def withheld(
    arms: Arms,
    maturity: Maturity | None,
    take_ups: Float64 | None,
    product_ids: Sequence[str],
    customer_id: str,
    at: datetime,
) -> dict[str, Removed]:
    """Products that this customer is not offered now: control groups and new products on their ramp."""
    found: dict[str, Removed] = {}
    if not arms.products and (maturity is None or take_ups is None):
        return found
    now = period(arms, at)
    for place, product in enumerate(product_ids):
        share = arms.products.get(product, 0.0)
        if share > 0 and uniform(f"{arms.salt}|{product}|{customer_id}|{now}") < share:
            reason = "the customer is in this product's control group of this period"
            found[product] = Removed("product", product, "product_holdout", reason)
        elif maturity is not None and take_ups is not None:
            out = released(maturity, float(take_ups[place]))
            if out < 1 and uniform(f"maturity|{product}|{customer_id}") >= out:
                reason = f"a new product, offered to {out:.0%} of customers so far"
                found[product] = Removed("product", product, "maturing", reason)
    return found


def released(maturity: Maturity, take_ups: float) -> float:
    """Share of customers that a product with so many take-ups is offered to: a line from `least_share` up to 1."""
    grown = min(take_ups / maturity.mature_at, 1.0)
    return maturity.least_share + (1.0 - maturity.least_share) * grown
