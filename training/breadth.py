"""Breadth: how much of the catalogue do recommendations show, how evenly, and how unexpected are they?

probabilities: float64 [n, m]; available: bool [n, m]. What is shown are the first k of a row.
"""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float64
from serving.choice import ranks

COVERAGE = "coverage"
GINI = "exposure_gini"
NOVELTY = "novelty"
SHOWN = 3


def breadth(probabilities: Float64, available: Bool, popularity: Float64, k: int = SHOWN) -> dict[str, float]:
    """coverage, exposure_gini and novelty of the first k.

    coverage: share of the candidates, available anywhere, that some row is shown. exposure_gini: Gini coefficient of
    how often each of those is shown; 0 = all alike, towards 1 = always the same. novelty: mean of −log2 of the
    popularity of what is shown (Zhou et al. 2010), in bits; popularity: float64 [m], shares of the take-ups.
    """
    place = ranks(probabilities, available)
    shown = (place >= 1) & (place <= k)
    anywhere = available.any(axis=0)
    if not shown.any():
        return dict.fromkeys((COVERAGE, GINI, NOVELTY), float("nan"))
    exposure = shown.sum(axis=0)[anywhere]
    smallest = 1.0 / (2.0 * len(probabilities))  # what nobody took is less popular than one take-up in all rows
    surprise = -np.log2(np.maximum(popularity, smallest))
    return {
        COVERAGE: float((exposure > 0).mean()),
        GINI: gini(exposure.astype(np.float64)),
        NOVELTY: float(np.broadcast_to(surprise, shown.shape)[shown].mean()),
    }


def gini(amounts: Float64) -> float:
    """Gini coefficient of non-negative amounts [m], not all zero: mean absolute difference over twice the mean."""
    ordered = np.sort(amounts)
    count = len(ordered)
    weighted = float((np.arange(1, count + 1) * ordered).sum())
    return 2.0 * weighted / (count * float(ordered.sum())) - (count + 1.0) / count
