"""Intervals of ratios of sums: right where the answer is known, better than percentiles where rewards are seldom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from training.policies.policy_interval import Parts, intervals_of

LOGS = 150


def named(count: int) -> np.ndarray:
    return np.arange(count).astype(str).astype(object)


def mean_of(values: np.ndarray) -> dict[str, Parts]:
    return {"mean": Parts(values, np.ones(len(values)))}


def test_where_nothing_is_skewed_the_interval_is_the_one_of_the_textbook() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 4_000)
    found = intervals_of(mean_of(values), named(4_000), seed=1)["mean"]
    reach = norm.ppf(0.975) * values.std() / np.sqrt(4_000)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_intervals_of_seldom_and_large_rewards_hold_the_truth_where_percentiles_do_not() -> None:
    """A fiftieth earns, log-normally: 8 rewards of 400 decisions."""
    draw, held, held_by_percentiles = np.random.default_rng(2), 0, 0
    truth = 0.02 * np.exp(0.5)
    for number in range(LOGS):
        values = np.where(draw.random(400) < 0.02, np.exp(draw.normal(size=400)), 0.0)
        found = intervals_of(mean_of(values), named(400), seed=number)["mean"]
        held += found.low <= truth <= found.high
        weights = draw.poisson(1.0, (400, 400))
        low, high = np.quantile((weights @ values) / weights.sum(axis=1), [0.025, 0.975])
        held_by_percentiles += bool(low <= truth <= high)
    assert held >= 0.9 * LOGS
    assert held_by_percentiles <= held - 0.06 * LOGS


@pytest.mark.parametrize(("events", "high"), [(1, 4.0), (2, 8.0), (3, 12.0), (4, 10.0)])
def test_with_a_handful_of_rewards_the_upper_end_is_finite_and_of_the_right_size(events: int, high: float) -> None:
    values = np.zeros(10_000)
    values[:events] = 1.0
    found = intervals_of(mean_of(values), named(10_000), seed=1)["mean"]
    assert 10_000 * found.high == pytest.approx(high, rel=0.05)


def test_decisions_of_one_customer_count_as_one() -> None:
    values = np.random.default_rng(3).normal(size=1_000)
    apart = intervals_of(mean_of(values), named(1_000), seed=1)["mean"]
    sixteenfold = intervals_of(mean_of(np.tile(values, 16)), np.tile(named(1_000), 16), seed=1)["mean"]
    assert (sixteenfold.low, sixteenfold.high) == pytest.approx((apart.low, apart.high))


def test_a_ratio_that_cannot_vary_has_no_width_and_one_without_a_denominator_no_interval() -> None:
    weight = np.random.default_rng(4).exponential(size=200)
    found = intervals_of({"snips": Parts(3.0 * weight, weight)}, named(200), seed=1)["snips"]
    assert (found.low, found.high) == pytest.approx((3.0, 3.0), abs=1e-9)
    none = intervals_of({"snips": Parts(np.zeros(5), np.zeros(5))}, named(5), seed=1)["snips"]
    assert np.isnan([none.mean, none.low, none.high]).all()


def test_estimates_of_one_log_share_their_draws_and_the_seed_decides_them() -> None:
    values = np.random.default_rng(5).exponential(size=300)
    one = Parts(values, np.ones(300))
    both = intervals_of({"a": one, "b": Parts(2.0 * values, np.ones(300))}, named(300), seed=7)
    assert both["b"].high == pytest.approx(2.0 * both["a"].high)
    assert intervals_of({"a": one}, named(300), seed=7)["a"] == both["a"]
    assert intervals_of({"a": one}, named(300), seed=8)["a"] != both["a"]
