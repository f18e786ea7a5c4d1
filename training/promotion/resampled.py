"""Intervals of what is made of several sums at once: ratios, gaps within bins, differences of them.

The draws are those of `training.bootstrap`: customers, not rows, each with a Poisson(1) weight.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from features.schema import Float64, Texts
from training.bootstrap import BLOCK_CELLS, LEVEL, RESAMPLES, Interval


def totals(columns: Float64, customer_id: Texts, seed: int, resamples: int = RESAMPLES) -> Float64:
    """Sums over the rows, float64 [1 + resamples, k]: first as they are, then as drawn. columns: float64 [n, k]."""
    codes, customers = pd.factorize(customer_id)
    count = len(customers)
    sums = np.stack([np.bincount(codes, weights=column, minlength=count) for column in columns.T], axis=1)  # [c, k]
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // max(count, 1))
    drawn = [sums.sum(axis=0, keepdims=True)]
    for start in range(0, resamples, block):
        weights = generator.poisson(1.0, (min(block, resamples - start), count)).astype(np.float64)
        drawn.append(weights @ sums)
    return np.concatenate(drawn)


def interval(values: Float64) -> Interval:
    """The interval of a statistic: values[0] of the rows as they are, the rest of the draws. NaN draws are left out."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return Interval(np.nan, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))


def interval_of_ratio(values: Float64, among: int) -> Interval:
    """The interval of a ratio, one of `among` that are looked at together: the level holds for all of them at once.

    Bonferroni's correction, as the worst of many groups is looked at. A thousand draws do not reach so far out, so the
    limits are those of a normal distribution of the logarithm with the draws' deviation. values: as of `interval`.
    """
    if among <= 1 or not 0 < values[0] < np.inf:  # a ratio of 0 has no logarithm; its draws are 0 as well
        return interval(values)
    drawn = values[1:][np.isfinite(values[1:]) & (values[1:] > 0)]
    if not len(drawn):
        return Interval(np.nan, np.nan, np.nan)
    reach = float(norm.isf((1 - LEVEL) / 2 / among) * np.log(drawn).std())
    return Interval(float(values[0]), float(values[0] * np.exp(-reach)), float(values[0] * np.exp(reach)))


def ratio(above: Float64, below: Float64) -> Float64:
    """above / below, elementwise; infinite where only `below` is 0, NaN where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)
