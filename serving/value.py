"""What an action is worth: probability × margin − cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.catalog import Catalog
from features.schema import Float64


@dataclass(frozen=True)
class Worth:
    """What the catalogue says about money.

    margins: float64 [P], per take-up. costs: float64 [H], per message.
    unit: the catalogue's currency, or "take-ups" where no product declares a margin. A cost in money cannot be
    subtracted from a number of take-ups, so costs are then zero.
    """

    margins: Float64
    costs: Float64
    unit: str

    @classmethod
    def of(cls, catalog: Catalog) -> Worth:
        """A product without a margin among products with one counts as their mean: no evidence, no opinion."""
        declared = [product.margin for product in catalog.products if product.margin is not None]
        if not declared:
            return cls(np.ones(len(catalog.products)), np.zeros(len(catalog.channels)), "take-ups")
        mean = float(np.mean(declared))
        margins = [mean if product.margin is None else product.margin for product in catalog.products]
        return cls(np.array(margins), np.array([channel.cost for channel in catalog.channels]), catalog.currency)

    def expected(self, products: Float64, channels: Float64, pairs: Sequence[tuple[int, int]]) -> Float64:
        """Float64 [A]: expected value of each (product, channel) pair, in `unit`.

        products: float64 [P], probability of take-up. channels: float64 [H], probability that the channel works.
        Take-up needs the message to arrive and be heeded: P(take-up) × P(channel works) × margin − cost.
        """
        if not pairs:
            return np.empty(0)
        product, channel = np.array(pairs, dtype=np.int64).T  # each [A]
        value: Float64 = products[product] * channels[channel] * self.margins[product] - self.costs[channel]
        return value
