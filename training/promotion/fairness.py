"""Fairness by group: who would be reached, are the probabilities true of everyone, and what would equal rates cost?

Targeted: the rows that a campaign with room for a share of all of them reaches, by the best probability of each row.
Within a tie no order is earned, so the rows of a tie share what room is left. Rows are those whose probabilities are
judged; the groups are those of `training.slices`, as they were when the predictions were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float64
from training.bootstrap import Interval, percentile, totals
from training.predictions import MODEL, Predictions
from training.promotion import resampled

CAPACITY = 0.2
"""Share of the rows that is targeted."""
FOUR_FIFTHS = 0.8
"""Selection rates that differ by more than a fifth are looked at (EEOC Uniform Guidelines, 29 CFR 1607.4 D)."""
FEWEST_ROWS = 50
FEWEST_TAKEN = 20
"""Rows, and take-ups seen or expected, below which a group says nothing."""


@dataclass(frozen=True)
class GroupFairness:
    """One group of one slice.

    rate: share of its rows that is targeted. rate_ratio: that over the rate of all rows. take_ups: that happened.
    calibration: take-ups predicted over take-ups seen; NaN where FEWEST_TAKEN are neither seen nor expected.
    """

    slice: str
    group: str
    rows: int
    take_ups: int
    rate: float
    rate_ratio: Interval
    calibration: Interval


@dataclass(frozen=True)
class RateChange:
    """How often one model targets a group against another.

    rate, other_rate: shares of its rows that are targeted. ratio: rate over other_rate, 1 = as often. reached,
    other_reached: shares of its take-ups whose row and best candidate are targeted; NaN where it has none.
    """

    slice: str
    group: str
    rows: int
    rate: float
    other_rate: float
    ratio: Interval
    reached: float
    other_reached: float


@dataclass(frozen=True)
class EqualRates:
    """What targeting every group of a slice at the same rate would do to the take-ups that are reached.

    reached, reached_equally: share of all take-ups whose row and best candidate are targeted. difference: per
    take-up, equally minus now; below zero is what equal rates cost.
    """

    slice: str
    reached: float
    reached_equally: float
    difference: Interval


def judged(data: Predictions) -> Predictions:
    """The rows that fairness looks at."""
    return data.take(data.judged_for_probability)


def best(probabilities: Float64) -> Float64:
    """The best probability of each row, float64 [n]; 0 where a row has none."""
    return np.asarray(np.where(np.isnan(probabilities), 0.0, probabilities).max(axis=1, initial=0.0))


def targeted(scores: Float64, share: float = CAPACITY) -> Float64:
    """How much of each row is targeted, float64 [n] in [0, 1], `share` on average; a tie at the border shares it."""
    room = share * len(scores)
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0) + 1  # rows up to the end of each tie
    first = np.concatenate([[0], last[:-1]])
    filled = np.clip((room - first) / np.maximum(last - first, 1), 0.0, 1.0)
    reached = np.empty(len(scores))
    reached[order] = np.repeat(filled, last - first)
    return reached


def groups(data: Predictions) -> Iterator[tuple[str, str, Bool]]:
    """Slice, group and its rows, bool [n], of every group with FEWEST_ROWS."""
    for name, of_row in data.slices.items():
        for group in sorted(set(of_row.tolist())):
            rows = np.asarray(of_row == group, dtype=np.bool_)
            if rows.sum() >= FEWEST_ROWS:
                yield name, str(group), rows


def by_group(data: Predictions, seed: int, name: str = MODEL, share: float = CAPACITY) -> tuple[GroupFairness, ...]:
    """Every group with FEWEST_ROWS, with 95 % intervals by customer. name: whose probabilities."""
    data = judged(data)
    found = list(groups(data))
    if not found:
        return ()
    predicted, taken = expected(data, name), happened(data)
    reached = targeted(best(data.probabilities[name]), share)
    one = np.ones(len(data))
    masks = np.stack([rows for _, _, rows in found], axis=1)  # [n, g]
    parts = [of_row[:, None] * masks for of_row in (one, reached, predicted, taken)]
    everyone = np.stack([one, reached], axis=1)
    drawn = totals(np.concatenate([*parts, everyone], axis=1), data.customer_id, seed)
    count, hit, expects, sees = (drawn[:, k * len(found) : (k + 1) * len(found)] for k in range(4))
    overall = resampled.ratio(drawn[:, -1], drawn[:, -2])
    rates = resampled.ratio(hit, count)
    made = []
    for place, (slice_name, group, rows) in enumerate(found):
        enough = max(sees[0, place], expects[0, place]) >= FEWEST_TAKEN
        told = resampled.ratio(expects[:, place], sees[:, place]) if enough else np.full(len(drawn), np.nan)
        made.append(
            GroupFairness(
                slice_name,
                group,
                int(rows.sum()),
                int(sees[0, place]),
                float(rates[0, place]),
                percentile(resampled.ratio(rates[:, place], overall)),
                percentile(told),
            )
        )
    return tuple(made)


def equal_rates(data: Predictions, seed: int, name: str = MODEL, share: float = CAPACITY) -> tuple[EqualRates, ...]:
    """What equal targeted rates would cost, per slice: the best rows of each group, as many per row as overall."""
    data = judged(data)
    scores = best(data.probabilities[name])
    hits = best_taken(data, name)
    now = targeted(scores, share)
    made = []
    for slice_name, of_row in data.slices.items():
        equal = np.zeros(len(data))
        for group in set(of_row.tolist()):
            rows = of_row == group
            equal[rows] = targeted(scores[rows], share)
        drawn = totals(np.stack([now * hits, equal * hits, happened(data)], axis=1), data.customer_id, seed)
        shares = [resampled.ratio(drawn[:, place], drawn[:, 2]) for place in (0, 1)]
        difference = percentile(shares[1] - shares[0])
        made.append(EqualRates(slice_name, float(shares[0][0]), float(shares[1][0]), difference))
    return tuple(made)


def rate_changes(
    data: Predictions, name: str, other: str, seed: int, share: float = CAPACITY
) -> tuple[RateChange, ...]:
    """Targeted rates of `name` over those of `other`, for every group of which `other` targets FEWEST_TAKEN rows.

    The intervals hold for all groups at once.
    """
    data = judged(data)
    found = list(groups(data))
    if not found:
        return ()
    both = [targeted(best(data.probabilities[one]), share) for one in (name, other)]
    hits = [reached * best_taken(data, one) for reached, one in zip(both, (name, other), strict=True)]
    taken = happened(data)
    columns = [reached * rows for reached in both for _, _, rows in found]
    drawn = totals(np.stack(columns, axis=1), data.customer_id, seed)
    mine, theirs = drawn[:, : len(found)], drawn[:, len(found) :]
    ratios = resampled.ratio(mine, theirs)
    return tuple(
        RateChange(
            slice_name,
            group,
            int(rows.sum()),
            float(mine[0, place] / rows.sum()),
            float(theirs[0, place] / rows.sum()),
            resampled.interval_of_ratio(ratios[:, place], len(found)),
            *(float(resampled.ratio(hit[rows].sum(), taken[rows].sum())) for hit in hits),
        )
        for place, (slice_name, group, rows) in enumerate(found)
        if theirs[0, place] >= FEWEST_TAKEN
    )


def expected(data: Predictions, name: str) -> Float64:
    """Take-ups predicted per row, float64 [n]: the sum over what is available."""
    return np.asarray(np.nansum(np.where(data.available, data.probabilities[name], np.nan), axis=1))


def happened(data: Predictions) -> Float64:
    """Take-ups seen per row, float64 [n]."""
    return np.asarray((data.taken & data.available).sum(axis=1), dtype=np.float64)


def best_taken(data: Predictions, name: str) -> Float64:
    """1.0 where the best candidate of the row was taken, float64 [n]."""
    probabilities = data.probabilities[name]
    place = np.where(np.isnan(probabilities), -1.0, probabilities).argmax(axis=1)
    return np.asarray((data.taken & data.available)[np.arange(len(data)), place], dtype=np.float64)
