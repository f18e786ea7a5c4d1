"""How the values of one column lie, in at most ten bins: what a later sample is counted into.

A column with few values has a bin per value; any other has tenths of what was seen, closed on the right, so that a heap
at one value is a bin of its own. What is missing is a bin too: a source that falls silent is the commonest drift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from features.schema import Float64

BINS = 10
OTHER, MISSING = "other", "missing"


@dataclass(frozen=True)
class Histogram:
    """How the values of one column lie. Exactly one of `values` and `borders` describes the bins; missing is the last.

    values: b - 2 values with a bin each, ascending; the last but one bin is for any other.
    borders: b - 2 ascending borders of b - 1 bins, each closed on the right; the outer ones are open.
    shares: [b], they sum to 1 (all 0 where there was no row). rows: how many customers, or rows, they rest on.
    moment: whether the column tells of the moment only (hour, popularity), the same for every customer.
    """

    name: str
    shares: tuple[float, ...]
    rows: float
    values: tuple[float, ...] | None = None
    borders: tuple[float, ...] | None = None
    least: float | None = None
    most: float | None = None
    moment: bool = False
    before: tuple[float, ...] | None = None
    """[b]: shares of the rows that were learned from; None where they are not told."""

    @classmethod
    def of(cls, name: str, values: Float64, weight: Float64, moment: bool = False) -> Histogram:
        """values: float64 [n], NaN = missing. weight: float64 [n], what each row counts for."""
        known = values[np.isfinite(values)]
        distinct = np.unique(known)
        if len(distinct) <= BINS - 2:
            bins: dict[str, Any] = {"values": tuple(distinct.tolist())}
        else:
            inner = np.quantile(known, np.linspace(0, 1, BINS)[1:-1], method="lower")
            borders = np.unique(inner)
            borders = borders[borders < distinct[-1]]
            ends = {"least": float(distinct[0]), "most": float(distinct[-1])}
            bins = {"borders": tuple(borders.tolist()), **ends}
        empty = cls(name, (), 0.0, moment=moment, **bins)
        counts = empty.counts(values, weight)
        total = float(counts.sum())
        return cls(name, _shares(counts), total, moment=moment, **bins)

    def learned_from(self, values: Float64) -> Histogram:
        """The same, beside the shares of earlier rows in these bins. values: float64 [n]."""
        return replace(self, before=_shares(self.counts(values, np.ones(len(values)))))

    def counts(self, values: Float64, weight: Float64) -> Float64:
        """Weight of the values in each bin, float64 [b]. values, weight: float64 [n]."""
        missing = ~np.isfinite(values)
        if self.borders is not None:
            place = np.searchsorted(np.array(self.borders), values, side="left")
            size = len(self.borders) + 1
        else:
            listed = np.array(self.values or ())
            size = len(listed) + 1
            place = np.full(len(values), len(listed), dtype=np.int64)
            if len(listed):
                near = np.minimum(np.searchsorted(listed, values), len(listed) - 1)
                place = np.where(listed[near] == values, near, len(listed))
        place = np.where(missing, size, place)
        return np.bincount(place, weights=weight, minlength=size + 1).astype(np.float64)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, for people; [b]."""
        if self.borders is None:
            return (*(_told(value) for value in self.values or ()), OTHER, MISSING)
        inner = (f"{_told(low)} to {_told(high)}" for low, high in pairwise(self.borders))
        if not self.borders:
            return "any", MISSING
        return f"up to {_told(self.borders[0])}", *inner, f"above {_told(self.borders[-1])}", MISSING

    def shares_of(self, other: Histogram) -> Float64 | None:
        """Shares of another histogram in the bins of this one, float64 [b]; None where its bins are too coarse to tell.

        Single values fall where they fall. Between borders the other's values are taken to lie evenly.
        """
        if other.values is not None:
            points = np.array([*other.values, np.nan], dtype=np.float64)
            shares = np.array([*other.shares[:-2], other.shares[-1]])
            counts = self.counts(points, shares)
            counts[-2] += other.shares[-2]  # values without a bin there have none here either
            return counts
        if self.borders is None or other.borders is None or other.least is None or other.most is None:
            return None
        corners = np.array([other.least, *other.borders, other.most])
        below = np.concatenate([[0.0], np.cumsum(other.shares[:-1])])
        if corners[0] == corners[1]:  # a heap at the smallest value
            corners, below = corners[1:], below[1:]
        at = np.interp(np.array(self.borders), corners, below, left=0.0, right=below[-1])
        return np.concatenate([np.diff(at, prepend=0.0, append=below[-1]), [other.shares[-1]]])


def _shares(counts: Float64) -> tuple[float, ...]:
    return tuple(np.round(counts / max(float(counts.sum()), 1e-12), 6).tolist())


def _told(value: float) -> str:
    """Four digits: 0.01234, 12.34, 12,340."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
