"""What an action is worth, in catalogue currency, factor by factor.

    P(take-up) × margin × context × lever  −  channel cost  −  fatigue  +  the customer's side

    P(take-up)           P(product) × P(channel works) × response, see `serving.response`
    fatigue              P(opts out | contact) × what reachability is worth; messages of the last month raise it
    the customer's side  P(take-up) × benefit − disturbance

Everything on the right is either given by a model, counted in the log or declared (`features.arbitration`). Each factor
can be switched off: then it no longer tells actions apart, while the unit stays the catalogue's currency.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from features import engagement
from features.arbitration import Declared, Weight
from features.catalog import Catalog, Channel, Product
from features.evidence import Evidence
from features.schema import Float64, Int64, Rows
from serving.response import Rates, Smoothing, opt_out_rates, responses

Pairs: TypeAlias = Sequence[tuple[int, int]] | Int64
"""[A, 2], positions of products and of channels in the catalogue."""
MESSAGES = engagement.CUSTOMER_NAMES[0]
REACHABILITY_SHARE = 0.05
DISTURBANCE_SHARE = 0.0001
"""Defaults as shares of the mean margin, so that they mean the same in every currency."""


@dataclass(frozen=True)
class Factors:
    """What makes up the worth of A actions, each float64 [A]. Probabilities, weights, or amounts of currency."""

    propensity: Float64
    channel: Float64
    response: Float64
    value: Float64
    context: Float64
    lever: Float64
    cost: Float64
    fatigue: Float64
    benefit: Float64
    disturbance: Float64

    def total(self, off: Collection[str] = ()) -> Float64:
        """Float64 [A], in currency. A propensity, channel or value that is `off` counts as its mean over the actions,
        a weight as 1, an amount as 0."""
        if not len(self.propensity):
            return np.empty(0)

        of = self._without(off) if off else self
        taken = of.propensity * of.channel
        taken *= of.response
        np.minimum(taken, 1.0, out=taken)
        total = taken * of.value
        for weight in (of.context, of.lever):
            total *= weight
        for amount in (of.cost, of.fatigue):
            total -= amount
        taken *= of.benefit
        taken -= of.disturbance
        total += taken
        return total

    def _without(self, off: Collection[str]) -> Factors:
        count = len(self.propensity)
        means = {name: np.full(count, getattr(self, name).mean()) for name in ("propensity", "channel", "value")}
        neutral = {**dict.fromkeys(("response", "context", "lever"), 1.0), **dict.fromkeys(("cost", "fatigue"), 0.0)}
        instead = means | {name: np.full(count, number) for name, number in neutral.items()}
        sides = dict.fromkeys(("benefit", "disturbance"), np.zeros(count)) if "customer" in off else {}
        return replace(self, **{name: instead[name] for name in off if name in instead}, **sides)

    def rows(self) -> list[dict[str, float]]:
        """The factors of each action, by name."""
        columns = [getattr(self, name).tolist() for name in FACTORS]
        return [dict(zip(FACTORS, row, strict=True)) for row in zip(*columns, strict=True)]

    @classmethod
    def stack(cls, rows: Sequence[Mapping[str, float]]) -> Factors:
        """The inverse of `rows`."""
        return cls(**{item.name: np.array([row[item.name] for row in rows], dtype=np.float64) for item in fields(cls)})


FACTORS = tuple(item.name for item in fields(Factors))
"""Their names, in order."""


@dataclass(frozen=True)
class Worth:
    """What the catalogue, the log and the declarations say about worth.

    margins: float64 [P], per take-up. costs: float64 [H], per message. response: float64 [P, H], factor on
    P(product) × P(channel works). opt_out: float64 [H], P(opts out | contact) of a rested customer.
    unit: the catalogue's currency, or "take-ups" where no product declares a margin. A cost in money cannot be
    subtracted from a number of take-ups, so all costs in money are then zero.
    """

    catalog: Catalog
    margins: Float64
    costs: Float64
    unit: str
    response: Float64
    opt_out: Float64
    take_ups: Float64 | None = None
    """[P] evidence behind each product's probability; None: not counted, so every product is trusted."""
    declared: Declared = field(default_factory=Declared)

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        declared: Declared | None = None,
        evidence: Evidence | None = None,
        usual: Rates | None = None,
    ) -> Worth:
        """A product without a margin among products with one counts as their mean: no evidence, no opinion.

        usual: the priors' probabilities, which turn the log's counts into a response factor; None: that factor is 1.
        """
        declared = declared or Declared()
        counted = evidence or Evidence.none(catalog)
        margins = [product.margin for product in catalog.products if product.margin is not None]
        mean = float(np.mean(margins)) if margins else 1.0
        return cls(
            catalog=catalog,
            margins=np.array([mean if product.margin is None else product.margin for product in catalog.products]),
            costs=np.array([channel.cost if margins else 0.0 for channel in catalog.channels]),
            unit=catalog.currency if margins else "take-ups",
            response=responses(counted, usual, declared.arbitration.start_evidence),
            opt_out=opt_out_rates(counted, declared.arbitration.opt_out),
            take_ups=None if evidence is None else evidence.take_ups,
            declared=declared,
        )

    def factors(
        self,
        products: Float64,
        channels: Float64,
        pairs: Pairs,
        pressure: float = 0.0,
        customer: Mapping[str, object] | None = None,
    ) -> Factors:
        """The factors of each (product, channel) pair.

        products: float64 [P], probability of take-up. channels: float64 [H], probability that the channel works; NaN
        where there is none, and then no pair may name it. pressure: messages of about the last month. customer:
        attributes for context weights.
        """
        product, channel = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T  # each [A]
        return self.factors_at(products, channels, product, channel, pressure, customer)

    def factors_at(
        self,
        products: Float64,
        channels: Float64,
        product: Int64,
        channel: Int64,
        pressure: float = 0.0,
        customer: Mapping[str, object] | None = None,
    ) -> Factors:
        """`factors`, of pairs by column: product, channel: int64 [A]."""
        growth = self.declared.arbitration.opt_out_growth
        tired = self.opt_out * (1.0 + growth * pressure)  # [H]
        np.minimum(tired, 1.0, out=tired)
        tired *= self._reachability
        pair = product * len(self.costs)
        pair += channel
        response, value, lever, cost, benefit, disturbance, context = self._fixed.take(pair, axis=1)
        for weight, factor in self._of_customers:
            if _fits_customer(weight, customer or {}):
                context *= factor.take(pair)
        return Factors(
            propensity=self._trusted(products).take(product),
            channel=channels.take(channel),
            response=response,
            value=value,
            context=context,
            lever=lever,
            cost=cost,
            fatigue=tired.take(channel),
            benefit=benefit,
            disturbance=disturbance,
        )

    def total(self, factors: Factors) -> Float64:
        """Float64 [A]: expected value of each action in `unit`, without the factors that are switched off."""
        return factors.total(self.declared.arbitration.off)

    def expected(
        self,
        products: Float64,
        channels: Float64,
        pairs: Pairs,
        pressure: float = 0.0,
        customer: Mapping[str, object] | None = None,
    ) -> Float64:
        """Float64 [A]: `total` of the `factors` of each pair."""
        return self.total(self.factors(products, channels, pairs, pressure, customer))

    @cached_property
    def usual(self) -> float:
        """The mean margin, catalogue currency; 0 without products."""
        return float(np.mean(self.margins)) if len(self.margins) else 0.0

    @cached_property
    def _in_money(self) -> float:
        """An amount in money is no number of take-ups."""
        return 0.0 if self.unit == "take-ups" else 1.0

    @cached_property
    def _reachability(self) -> float:
        return _amount(self.declared.arbitration.reachability, REACHABILITY_SHARE, self.usual, self._in_money)

    @cached_property
    def _trusted(self) -> Callable[[Float64], Float64]:
        """A customer's probabilities [P] as far as there is evidence for them, [P]."""
        rules = self.declared.arbitration
        if self.take_ups is None:
            return lambda products: products
        return Smoothing(self.take_ups, rules.start_evidence, rules.start_propensity)

    @cached_property
    def _fixed(self) -> Float64:
        """What is the same for every customer: response, value, lever, cost, benefit, disturbance, and a context that
        weighs nothing; float64 [7, P · H], found once instead of per decision."""
        rules = self.declared.arbitration
        shape = (len(self.margins), len(self.costs))
        margins = self.margins[:, None]
        lever = np.ones(shape)
        for weight in self.declared.weights:
            if weight.attribute is None:
                lever *= self._factor(weight)
        disturbance = _amount(rules.disturbance, DISTURBANCE_SHARE, self.usual, self._in_money)
        benefit = margins * rules.benefit_share * self._in_money
        each = (self.response, margins, lever, self.costs[None, :], benefit, np.asarray(disturbance), np.ones(()))
        return np.stack([np.broadcast_to(one, shape).ravel() for one in each])

    @cached_property
    def _of_customers(self) -> list[tuple[Weight, Float64]]:
        """Each declared weight of some customers with what it multiplies: float64 [P · H]."""
        return [
            (weight, self._factor(weight).ravel()) for weight in self.declared.weights if weight.attribute is not None
        ]

    def _factor(self, weight: Weight) -> Float64:
        """What a weight multiplies every product by on every channel: float64 [P, H]."""
        products, channels = self.catalog.products, self.catalog.channels
        fits = [[weight.weight if _fits(weight, one, via) else 1.0 for via in channels] for one in products]
        return np.array(fits, dtype=np.float64).reshape(len(products), len(channels))


def _fits(weight: Weight, offered: Product, via: Channel) -> bool:
    wanted = ((weight.product, offered.id), (weight.group, offered.group), (weight.channel, via.id))
    return all(name is None or name == found for name, found in wanted)


def pressure(rows: Rows) -> float:
    """Messages to the single customer in `rows`, each counting less by the day: about those of the last month."""
    messages = float(rows.customer[0, rows.schema.customer_places[MESSAGES]])
    return messages if messages > 0 else 0.0  # NaN: never written to


def _fits_customer(weight: Weight, customer: Mapping[str, object]) -> bool:
    return weight.attribute is None or customer.get(weight.attribute) == weight.equals


def _amount(declared: float | None, share: float, usual: float, in_money: float) -> float:
    return in_money * (share * usual if declared is None else declared)
