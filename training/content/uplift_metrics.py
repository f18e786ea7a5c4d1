"""How well uplift is ranked: Qini, AUUC and uplift at k, with their normalisation stated, and intervals by customer.

Rows are sorted by their predicted uplift, highest first; φ is the share of rows from the top. Each row is weighed by
the inverse of the probability of what was done to it (all alike in a trial with one propensity), in φ as well as in
m_1(φ) and m_0(φ), the means of the outcome among the treated and the others of that share:

gain(φ)       φ·(m_1(φ) − m_0(φ)), what treating that share earns, per row of all rows
AUUC          ∫ gain(φ) dφ over 0..1                       Gutierrez and Gérardy 2017, eq. 13, divided by the rows
Qini          AUUC − gain(1)/2, the area between the curve and treating at random          Radcliffe 2007
uplift@k      m_1(k) − m_0(k)

Both areas are in the unit of the outcome per row. They are not divided by the area of a perfect ranking, which nobody
knows for outcomes that differ in size. Rows with equal predictions have no order: they enter the curve together, so a
prediction that is the same for all has a Qini of exactly 0. Where a share has rows of one arm only the curve is not
known, and runs straight from its last known point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.schema import Bool, Float64, Int64, Texts
from training.bootstrap import Interval, percentile, weights

SHARES = (0.1, 0.3)
"""The k of uplift@k."""
RESAMPLES = 300
QINI, AUUC, EFFECT = "qini", "auuc", "effect"
"""effect: gain(1), the mean uplift of treating everybody."""


@dataclass(frozen=True)
class Curve:
    """share: float64 [t], from 0 to 1. gain: float64 [t], outcome per row of all rows."""

    share: Float64
    gain: Float64

    @property
    def effect(self) -> float:
        return float(self.gain[-1])

    @property
    def auuc(self) -> float:
        return float(np.trapezoid(self.gain, self.share))

    @property
    def qini(self) -> float:
        return self.auuc - self.effect / 2.0

    def at(self, share: float) -> float:
        """uplift@k: the gain of that share, per row that is treated."""
        return float(np.interp(share, self.share, self.gain)) / share


@dataclass(frozen=True)
class Ranked:
    """A trial in the order of one prediction, so that the same rows can be weighed anew many times.

    treated: bool [n]; outcome, weight: float64 [n]; customer: int64 [n], position of the row's customer; ends: int64
    [t], the last row of each group of equal predictions.
    """

    treated: Bool
    outcome: Float64
    weight: Float64
    customer: Int64
    ends: Int64

    @classmethod
    def by(cls, predicted: Float64, treated: Bool, outcome: Float64, weight: Float64, customer_id: Texts) -> Ranked:
        """All [n]. weight: 1 / probability of what was done. Raises ValueError for predictions that are not finite."""
        if not np.isfinite(predicted).all():
            raise ValueError("predicted uplift is finite, however some of it is not")
        order = np.argsort(-predicted, kind="stable")
        sorted_ = predicted[order]
        ends = np.append(np.flatnonzero(sorted_[1:] != sorted_[:-1]), len(order) - 1)
        customer = pd.factorize(customer_id)[0].astype(np.int64)
        return cls(treated[order], outcome[order], weight[order], customer[order], ends)

    def curve(self, times: Float64 | None = None) -> Curve:
        """times: float64 [n], how often each row counts (None: once)."""
        counts = np.ones(len(self.treated)) if times is None else times
        weight = counts * self.weight
        means, known = [], np.ones(len(self.ends), np.bool_)
        for arm in (self.treated, ~self.treated):
            mass = np.cumsum(weight * arm)[self.ends]
            total = np.cumsum(weight * arm * self.outcome)[self.ends]
            known &= mass > 0
            means.append(total / np.where(mass > 0, mass, 1.0))
        rows = np.cumsum(weight)
        if not known.any():
            return Curve(np.array([0.0, 1.0]), np.array([np.nan, np.nan]))
        share = (rows[self.ends] / rows[-1])[known]
        return Curve(np.append(0.0, share), np.append(0.0, share * (means[0] - means[1])[known]))


def judged(
    ranked: Ranked, seed: int, resamples: int = RESAMPLES, shares: Sequence[float] = SHARES
) -> dict[str, Interval]:
    """Qini, AUUC, effect and uplift@k with percentile intervals; customers are drawn, with Poisson(1) weights.

    The prediction stays as it is: the intervals say how sure the ranking's value is, not how sure the model.
    """
    found = _numbers(ranked.curve(), shares)
    customers = int(ranked.customer.max(initial=-1)) + 1
    draws = (weight[ranked.customer] for block in weights(customers, seed, resamples) for weight in block)
    drawn = [_numbers(ranked.curve(times), shares) for times in draws if times.any()]
    return {name: percentile(np.array([value, *(one[name] for one in drawn)])) for name, value in found.items()}


def _numbers(curve: Curve, shares: Sequence[float]) -> dict[str, float]:
    at = {f"uplift_at_{round(share * 100)}": curve.at(share) for share in shares}
    return {QINI: curve.qini, AUUC: curve.auuc, EFFECT: curve.effect, **at}
