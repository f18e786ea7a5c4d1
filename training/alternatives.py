"""Fewer candidates per row to learn from, where all are too many: estimation on a sampled subset of the alternatives.

What was chosen is always kept, any other candidate j with probability q_j, so that popular ones, which tell more, stay
more often than rare ones. Given what is left of its row, a candidate was chosen with probability

    exp(u_j - ln q_j) / sum over what is left of exp(u_k - ln q_k)

because q_j is what divides the chance of this very subset by its chance under another choice (McFadden 1978, "Modelling
the choice of residential location", section 5; Train 2009, 3.7.1). So utilities that are fitted with -ln q_j added to
them are those of the whole choice, and probabilities need no correction. The outside option is always kept.
"""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float32, Float64

PER_ROW = 4.0
"""Candidates per row that are kept on average where memory is short; where it is shorter still, rows are left out.

Of 46,894 rows of a simulated bank with 12 products MAP@7 of later rows is 0.7185 learned from all of the 448,000 pairs;
from 213,000 of them 0.7182 where candidates are left out, 0.7145 where rows are; from 100,000 to 107,000 of them 0.7159
and 0.7111 (means of two or three seeds, a difference of two fits being ±0.003).
"""
LEAST_KEPT = 0.1
"""No candidate is kept more rarely: the few rows that kept it would weigh too much."""
_STEPS = 60


def chances(available: Bool, log_popularity: Float32 | Float64, most: int, per_row: float = PER_ROW) -> Float64:
    """With what probability each candidate is kept where it was not chosen, float64 [m].

    available: bool [n, m]. log_popularity: [m]. All are 1 where there are at most `most` pairs; where there are more,
    about as many are kept, but no fewer than `per_row` of a row.
    """
    offered = available.mean(axis=0, dtype=np.float64) if len(available) else np.zeros(available.shape[1])
    everything = np.ones(available.shape[1])
    wanted = max(per_row, most / max(len(available), 1))
    if offered.sum() <= wanted:
        return everything
    share = np.exp(np.asarray(log_popularity, dtype=np.float64) - float(np.max(log_popularity)))
    low, high = 0.0, 1.0 / float(share.min())  # at the latter all are kept
    for _ in range(_STEPS):
        factor = (low + high) / 2
        if float(offered @ _kept(share, factor)) < wanted:
            low = factor
        else:
            high = factor
    return _kept(share, high)


def _kept(share: Float64, factor: float) -> Float64:
    return np.clip(factor * share, LEAST_KEPT, 1.0)
