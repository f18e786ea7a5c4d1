"""Experiments with arms: how many customers one needs, and what its outcome says.

What is compared are take-up rates of two arms, by the logarithm of their ratio with the variance
(1 − p₁) / x₁ + (1 − p₂) / x₂ for x of n customers that took up (Katz et al. 1978). Power is that of this very
interval, summed over the binomial distributions of both counts and not approximated, so that it holds for small and
unequal arms too. Arms are sticky, so a customer is one unit, however many messages there were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from features.errors import InputError
from features.schema import Float64, Int64

LEVEL = 0.95
POWER = 0.8
MOST_CUSTOMERS = 100_000_000
TAIL = 1e-9
"""Probability of control counts that are not summed over."""
NO_EVENT = 0.5
"""Counts as so many take-ups where an arm had none: an interval over it is wide, not undefined."""


@dataclass(frozen=True)
class Size:
    """How many customers each arm needs, and the power that they give."""

    control: int
    treated: int
    power: float


@dataclass(frozen=True)
class Arm:
    """customers of an arm, and how many of them took up."""

    customers: int
    took_up: int

    def __post_init__(self) -> None:
        if not 0 <= self.took_up <= self.customers or self.customers < 1:
            raise InputError(
                f"an arm has 1 customer or more and at most as many take-ups, however {self.took_up} of "
                f"{self.customers} were given; count again"
            )


@dataclass(frozen=True)
class Lift:
    """Ratio of the take-up rates minus 1, with its interval at LEVEL; 0.1 = a tenth more take-ups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """What an experiment says. lift is None, with the reason, where it is too small to say anything."""

    power: float
    lift: Lift | None
    reason: str


def size(baseline: float, lift: float, control_share: float = 0.5, power: float = POWER) -> Size:
    """The smallest arms of these shares that find a true `lift` over the `baseline` rate with this power.

    baseline: rate of the control arm. lift: 0.1 = a tenth more. control_share: of all customers. Raises InputError
    where no number up to a hundred million will do.
    """
    _check(baseline, lift, control_share)
    if not 0 < power < 1:
        raise InputError(f"power lies between 0 and 1, however it is {power:g}; 0.8 is usual")

    def arms(total: int) -> tuple[int, int]:
        control = max(round(total * control_share), 1)
        return control, max(total - control, 1)

    def enough(total: int) -> bool:
        return power_of(*arms(total), baseline, lift) >= power

    high = 16
    while not enough(high):
        if high > MOST_CUSTOMERS:
            raise InputError(
                f"a lift of {lift:.1%} over {baseline:.2%} needs more than {MOST_CUSTOMERS:,} customers; look for a "
                "larger one, or give the smaller arm a larger share"
            )
        high *= 2
    low = high // 2
    while high - low > max(1, high // 2_000):  # counts are whole, so power rises in steps: no finer than a permille
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    control, treated = arms(high)
    return Size(control, treated, power_of(control, treated, baseline, lift))


def power_of(control: int, treated: int, baseline: float, lift: float) -> float:
    """Probability that the interval of the lift excludes 0, where the true rates are baseline·(1, 1 + lift)."""
    seen = np.arange(int(binom.ppf(TAIL, control, baseline)), int(binom.isf(TAIL, control, baseline)) + 1)
    above = _turn(seen, control, treated, upper=True)
    below = _turn(seen, control, treated, upper=False)
    rate = baseline * (1.0 + lift)
    excluded = binom.sf(above - 1, treated, rate) + binom.cdf(below, treated, rate)
    return float((binom.pmf(seen, control, baseline) * excluded).sum())


def lift_of(control: Arm, treated: Arm) -> Lift:
    """The ratio of the rates minus 1, with its log-ratio interval."""
    middle, error = _log_ratio(
        np.array([float(control.took_up)]), np.array([float(treated.took_up)]), control.customers, treated.customers
    )
    reach = norm.ppf((1 + LEVEL) / 2) * error
    low, value, high = np.expm1([middle[0] - reach[0], middle[0], middle[0] + reach[0]])
    return Lift(float(value), float(low), float(high))


def read(
    control: Arm, treated: Arm, smallest_lift: float, power: float = POWER, baseline: float | None = None
) -> Reading:
    """The lift, unless the arms are too small to have found the smallest lift that matters; then nothing but that.

    baseline: the rate that the experiment was planned with. None: what control shows; as that falls short of the true
    rate every other time, arms of exactly the planned size are then refused as often.
    """
    rate = max(control.took_up, NO_EVENT) / control.customers if baseline is None else baseline
    _check(rate, smallest_lift, 0.5)
    share = control.customers / (control.customers + treated.customers)
    reached = power_of(control.customers, treated.customers, rate, smallest_lift)
    if reached >= power:
        return Reading(reached, lift_of(control, treated), "")
    needed = size(rate, smallest_lift, share, power)
    return Reading(
        reached,
        None,
        f"a lift of {smallest_lift:.0%} over {rate:.2%} would be found with probability {reached:.0%} only; wait for "
        f"{needed.control:,} customers in control (there are {control.customers:,}) and {needed.treated:,} treated "
        f"(there are {treated.customers:,})",
    )


def _turn(seen: Int64, control: int, treated: int, upper: bool) -> Int64:
    """int64 [k]: per control count, the least treated count whose interval lies above 0, or the greatest below it.

    The distance from 0 in standard errors rises with the treated count, so halving finds the turn.
    """
    critical = norm.ppf((1 + LEVEL) / 2)
    low, high = np.full(len(seen), -1), np.full(len(seen), treated + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        distance, error = _log_ratio(seen.astype(np.float64), middle.astype(np.float64), control, treated)
        passed = distance > critical * error if upper else distance >= -critical * error
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return np.asarray(high if upper else low, dtype=np.int64)


def _log_ratio(seen: Float64, taken: Float64, control: int, treated: int) -> tuple[Float64, Float64]:
    """Logarithm of the ratio of the rates, and its standard error; [k] each."""
    control_taken, treated_taken = np.maximum(seen, NO_EVENT), np.maximum(taken, NO_EVENT)
    ratio = np.log(treated_taken / treated) - np.log(control_taken / control)
    variance = 1 / treated_taken - 1 / treated + 1 / control_taken - 1 / control
    return ratio, np.sqrt(np.maximum(variance, 0.0))


def _check(baseline: float, lift: float, control_share: float) -> None:
    if not 0 < baseline < 1 or not 0 < baseline * (1 + lift) < 1 or lift == 0:
        raise InputError(
            f"rates lie between 0 and 1 and differ, however they are {baseline:g} and {baseline * (1 + lift):g}; "
            "correct --baseline or --lift"
        )
    if not 0 < control_share < 1:
        raise InputError(f"--control-share lies between 0 and 1, however it is {control_share:g}")
