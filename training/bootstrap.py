"""Paired bootstrap by customer: how sure is a mean, or a difference of two models on the same rows.

Rows of one customer are not independent, so customers are drawn, not rows. Each draw gives every customer a Poisson(1)
weight, the limit of drawing with replacement (Chamandy et al. 2012, "Estimating uncertainty for massive data streams").
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.schema import Float64, Texts

Name = TypeVar("Name", bound=Hashable)

RESAMPLES = 1_000
LEVEL = 0.95
BLOCK_CELLS = 4_000_000
"""Weights drawn at once: 32 MB."""
MOST_KEPT = 64_000_000
"""Weights of a series that are kept, a byte each: the rows of a part are judged again and again with the same draws."""


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

    @property
    def negated(self) -> Interval:
        """Of the difference the other way round."""
        return Interval(-self.mean, -self.high, -self.low)

    def flat(self, name: str) -> dict[str, float]:
        """As metrics of a run: `name`, `name_low` and `name_high`."""
        return dict(zip(_names(name), (self.mean, self.low, self.high), strict=True))

    @classmethod
    def logged(cls, metrics: Mapping[str, float], name: str) -> Interval | None:
        """What `flat` was logged as; None where it was not."""
        names = _names(name)
        return cls(*(metrics[one] for one in names)) if all(one in metrics for one in names) else None

    def told(self, form: str = "+.4f") -> str:
        """ "+0.012 [+0.004, +0.019]"; form: of each number, such as "+.3f"."""
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def weights(customers: int, seed: int, resamples: int = RESAMPLES) -> Iterator[Float64]:
    """Draws of Poisson(1) weights, blocks of float64 [b, customers], `resamples` in all; one seed, one series."""
    block = max(1, BLOCK_CELLS // max(customers, 1))
    if customers * resamples <= MOST_KEPT:
        kept = _kept(customers, seed, resamples)
        yield from (kept[start : start + block].astype(np.float64) for start in range(0, resamples, block))
        return
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        yield generator.poisson(1.0, (min(block, resamples - start), customers)).astype(np.float64)


@lru_cache(maxsize=4)
def _kept(customers: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """The series of `weights`, uint8 [resamples, customers]: 255 would be a draw of one in 10^500."""
    generator = np.random.default_rng(seed)
    kept = np.empty((resamples, customers), dtype=np.uint8)
    for draw in kept:
        draw[:] = generator.poisson(1.0, customers)
    kept.flags.writeable = False
    return kept


def totals(columns: Float64, customer_id: Texts, seed: int, resamples: int = RESAMPLES) -> Float64:
    """Sums over the rows, float64 [1 + resamples, k]: first as they are, then as drawn. columns: float64 [n, k]."""
    codes, customers = pd.factorize(customer_id)
    count = len(customers)
    sums = np.stack([np.bincount(codes, weights=column, minlength=count) for column in columns.T], axis=1)  # [c, k]
    return np.concatenate(
        [sums.sum(axis=0, keepdims=True), *(drawn @ sums for drawn in weights(count, seed, resamples))]
    )


def percentile(values: Float64) -> Interval:
    """The interval of a statistic: values[0] of the rows as they are, the rest of the draws; those that are NaN are
    left out."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return UNKNOWN
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))


def intervals(
    per_row: Mapping[Name, Float64], customer_id: Texts, seed: int, resamples: int = RESAMPLES
) -> dict[Name, Interval]:
    """Mean and interval per name. per_row: float64 [n], NaN = not judged; customer_id: [n].

    All names share the draws, so their intervals belong together; the same seed gives the same intervals.
    """
    names = list(per_row)
    if not names or not len(customer_id):
        return dict.fromkeys(names, UNKNOWN)
    values = np.stack([per_row[name] for name in names], axis=1)  # [n, k]
    judged = ~np.isnan(values)
    both = np.concatenate([np.where(judged, values, 0.0), judged], axis=1)  # [n, 2 k]
    sums = totals(both, customer_id, seed, resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, : len(names)] / sums[:, len(names) :]  # [1 + resamples, k]
    return {name: percentile(means[:, place]) for place, name in enumerate(names)}


def paired(
    model: Mapping[str, Float64], other: Mapping[str, Float64], customer_id: Texts, seed: int
) -> dict[str, Interval]:
    """Intervals of model - other, row by row, for every metric that both have."""
    both = {name: model[name] - other[name] for name in model if name in other}
    return intervals(both, customer_id, seed)


def _names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"
