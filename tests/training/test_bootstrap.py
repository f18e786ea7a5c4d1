"""Intervals: seeded, paired, by customer, and covering as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from training.bootstrap import intervals, paired, weights


def ids(customers: int, each: int) -> np.ndarray:
    return np.repeat(np.array([f"c{number}" for number in range(customers)], dtype=object), each)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = {"m": np.random.default_rng(0).random(200)}
    one, same, other = (intervals(values, ids(100, 2), seed)["m"] for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one.low < one.mean < one.high


def test_ninety_five_percent_intervals_cover_the_truth_about_that_often() -> None:
    draw = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        values = draw.normal(0.3, 1, 120)
        found = intervals({"m": values}, ids(120, 1), seed, resamples=400)["m"]
        covered += found.low <= 0.3 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_rows_of_one_customer_do_not_count_as_independent() -> None:
    draw = np.random.default_rng(6)
    by_customer = np.repeat(draw.normal(size=50), 40)  # forty times the same row
    clustered = intervals({"m": by_customer}, ids(50, 40), 0)["m"]
    naive = intervals({"m": by_customer}, ids(2000, 1), 0)["m"]
    assert (clustered.high - clustered.low) > 4 * (naive.high - naive.low)


def test_a_small_but_constant_difference_is_sure_although_the_rows_vary_wildly() -> None:
    noise = np.random.default_rng(7).normal(0, 10, 500)
    gap = paired({"m": noise + 0.01}, {"m": noise}, ids(500, 1), 0)["m"]
    assert gap.mean == pytest.approx(0.01)
    assert gap.above_zero


def test_rows_that_are_not_judged_do_not_count() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan])
    assert intervals({"m": values}, ids(4, 1), 0)["m"].mean == 2.0
    assert np.isnan(intervals({"m": np.full(4, np.nan)}, ids(4, 1), 0)["m"].mean)


@pytest.mark.parametrize("customers", [1, 70, 9_000])
def test_draws_that_are_kept_are_the_series_of_the_seed(customers: int) -> None:
    asked = [np.concatenate(list(weights(customers, 3, 500))) for _ in range(2)]
    series = np.random.default_rng(3).poisson(1.0, (500, customers)).astype(np.float64)
    assert np.array_equal(asked[0], series)
    assert np.array_equal(asked[1], series)
