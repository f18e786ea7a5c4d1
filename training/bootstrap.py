"""Paired bootstrap by customer: how sure is a mean, or a difference of two models on the same rows.

Rows of one customer are not independent, so customers are drawn, not rows. Each draw gives every customer a Poisson(1)
weight, the limit of drawing with replacement (Chamandy et al. 2012, "Estimating uncertainty for massive data streams").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.schema import Float64, Texts

RESAMPLES = 1_000
LEVEL = 0.95
BLOCK_CELLS = 4_000_000
"""Weights drawn at once: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval at the level LEVEL; NaN where nothing was judged."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def intervals(
    per_row: Mapping[str, Float64], customer_id: Texts, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Mean and interval per name. per_row: float64 [n], NaN = not judged; customer_id: [n].

    All names share the draws, so their intervals belong together; the same seed gives the same intervals.
    """
    names = list(per_row)
    if not names or not len(customer_id):
        return {name: Interval(np.nan, np.nan, np.nan) for name in names}
    values = np.stack([per_row[name] for name in names], axis=1)  # [n, k]
    judged = ~np.isnan(values)
    codes, customers = pd.factorize(customer_id)
    sums = _per_customer(np.where(judged, values, 0.0), codes, len(customers))  # [c, k]
    counts = _per_customer(judged.astype(np.float64), codes, len(customers))  # [c, k]
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // len(customers))
    means = []
    for start in range(0, resamples, block):
        size = (min(block, resamples - start), len(customers))
        weights = generator.poisson(1.0, size).astype(np.float64)  # [block, c]
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(weights @ sums / (weights @ counts))
    drawn = np.concatenate(means)  # [resamples, k]
    found = {}
    for position, name in enumerate(names):
        column = drawn[~np.isnan(drawn[:, position]), position]
        total = counts[:, position].sum()
        if not total or not len(column):
            found[name] = Interval(np.nan, np.nan, np.nan)
            continue
        low, high = np.quantile(column, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[name] = Interval(float(sums[:, position].sum() / total), float(low), float(high))
    return found


def paired(
    model: Mapping[str, Float64], other: Mapping[str, Float64], customer_id: Texts, seed: int
) -> dict[str, Interval]:
    """Intervals of model - other, row by row, for every metric that both have."""
    both = {name: model[name] - other[name] for name in model if name in other}
    return intervals(both, customer_id, seed)


def _per_customer(values: Float64, codes: np.ndarray[tuple[int], np.dtype[np.int64]], customers: int) -> Float64:
    """Sums of [n, k] by customer, float64 [customers, k]."""
    columns = [np.bincount(codes, weights=column, minlength=customers) for column in values.T]
    return np.stack(columns, axis=1)
