"""The planner's power and the interval's coverage, against simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features.errors import InputError
from training.experiment import Arm, lift_of, power_of, read, size

EXPERIMENTS = 20_000


def found_share(control: int, treated: int, baseline: float, lift: float, seed: int) -> float:
    """Share of simulated experiments whose interval excludes 0: by the formula of Katz et al., written here again."""
    draw = np.random.default_rng(seed)
    x = np.maximum(draw.binomial(control, baseline, EXPERIMENTS), 0.5)
    y = np.maximum(draw.binomial(treated, baseline * (1 + lift), EXPERIMENTS), 0.5)
    error = np.sqrt((1 - x / control) / x + (1 - y / treated) / y)
    return float((np.abs(np.log((y / treated) / (x / control))) > 1.959964 * error).mean())


@pytest.mark.parametrize(
    ("baseline", "lift", "control_share"),
    [(0.02, 0.2, 0.5), (0.02, 0.2, 0.1), (0.02, 0.2, 0.9), (0.3, 0.1, 0.05), (0.005, 0.5, 0.2), (0.1, -0.2, 0.25)],
)
def test_planned_experiments_find_the_lift_four_times_out_of_five(
    baseline: float, lift: float, control_share: float
) -> None:
    planned = size(baseline, lift, control_share)
    assert planned.control / (planned.control + planned.treated) == pytest.approx(control_share, abs=0.01)
    assert 0.78 <= found_share(planned.control, planned.treated, baseline, lift, seed=1) <= 0.82
    assert planned.power == pytest.approx(
        found_share(planned.control, planned.treated, baseline, lift, seed=2), abs=0.01
    )


def test_fewer_customers_than_planned_have_less_power() -> None:
    planned = size(0.02, 0.2, 0.3)
    assert power_of(planned.control * 9 // 10, planned.treated * 9 // 10, 0.02, 0.2) < 0.8 <= planned.power < 0.81


def test_without_a_lift_one_is_found_once_in_twenty() -> None:
    assert power_of(20_000, 5_000, 0.05, 0.0) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(("control", "treated"), [(2_000, 2_000), (20_000, 1_000), (400, 4_000)])
def test_the_interval_of_the_lift_covers_the_truth(control: int, treated: int) -> None:
    draw, covered = np.random.default_rng(3), 0
    for _ in range(2_000):
        arms = Arm(control, int(draw.binomial(control, 0.05))), Arm(treated, int(draw.binomial(treated, 0.06)))
        found = lift_of(*arms)
        covered += found.low <= 0.2 <= found.high
    assert 0.935 <= covered / 2_000 <= 0.97


def test_the_lift_of_a_hand_computed_case() -> None:
    found = lift_of(Arm(1_000, 50), Arm(500, 30))
    error = math.sqrt(0.95 / 50 + 0.94 / 30)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(1.2 * math.exp(-1.959964 * error) - 1)
    assert found.high == pytest.approx(1.2 * math.exp(1.959964 * error) - 1)


def test_an_arm_without_take_ups_has_a_wide_interval_and_not_none() -> None:
    found = lift_of(Arm(100, 5), Arm(100, 0))
    assert -1 < found.low < found.value < 0 < found.high


def test_an_underpowered_experiment_says_nothing_but_what_it_lacks() -> None:
    small = read(Arm(1_000, 20), Arm(1_000, 60), smallest_lift=0.2)
    assert small.lift is None, "not even a difference that looks large"
    assert "wait for" in small.reason
    large = read(Arm(50_000, 1_000), Arm(50_000, 1_300), smallest_lift=0.2)
    assert large.lift is not None
    assert large.lift.low > 0


def test_an_experiment_of_the_planned_size_is_read_even_if_control_falls_short_of_the_plan() -> None:
    planned = size(0.02, 0.2, 0.5)
    unlucky = Arm(planned.control, round(0.018 * planned.control)), Arm(planned.treated, round(0.023 * planned.treated))
    assert read(*unlucky, smallest_lift=0.2).lift is None, "by what control shows"
    assert read(*unlucky, smallest_lift=0.2, baseline=0.02).lift is not None
    with pytest.raises(InputError, match="rates lie between 0 and 1"):
        read(*unlucky, smallest_lift=0.2, baseline=1.5)


@pytest.mark.parametrize(
    ("baseline", "lift", "share", "complaint"),
    [
        (0.0, 0.1, 0.5, "rates lie between 0 and 1"),
        (0.6, 0.9, 0.5, "rates lie between 0 and 1"),
        (0.1, 0.0, 0.5, "and differ"),
        (0.1, 0.1, 1.0, "--control-share"),
        (0.001, 0.001, 0.5, "needs more than 100,000,000 customers"),
    ],
)
def test_what_cannot_be_planned_is_refused(baseline: float, lift: float, share: float, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        size(baseline, lift, share)
