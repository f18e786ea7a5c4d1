"""Ratios of the sums that `training.bootstrap.totals` draws; their intervals where the worst of many is looked at."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from features.schema import Float64
from training.bootstrap import LEVEL, UNKNOWN, Interval, percentile


def interval_of_ratio(values: Float64, among: int) -> Interval:
    """The interval of a ratio, one of `among` that are looked at together: the level holds for all of them at once.

    Bonferroni's correction, as the worst of many groups is looked at. A thousand draws do not reach so far out, so the
    limits are those of a normal distribution of the logarithm with the draws' deviation. values: as of
    `bootstrap.percentile`.
    """
    if among <= 1 or not 0 < values[0] < np.inf:  # a ratio of 0 has no logarithm; its draws are 0 as well
        return percentile(values)
    drawn = values[1:][np.isfinite(values[1:]) & (values[1:] > 0)]
    if not len(drawn):
        return UNKNOWN
    reach = float(norm.isf((1 - LEVEL) / 2 / among) * np.log(drawn).std())
    return Interval(float(values[0]), float(values[0] * np.exp(-reach)), float(values[0] * np.exp(reach)))


def ratio(above: Float64, below: Float64) -> Float64:
    """above / below, elementwise; infinite where only `below` is 0, NaN where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)
