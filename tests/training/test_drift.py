"""Drift: an injected shift is found and named, and without one there is no alarm, whatever the size of the sample."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from features.schema import Float64
from training.monitoring.drift import (
    ALPHA,
    COLUMN,
    MODERATE,
    Drift,
    by_size,
    drift_of,
    holm,
    index_and_chance,
    joined,
    psi,
    smoothed,
)
from training.monitoring.histogram import Histogram


def seen(values: Float64, name: str = "column", moment: bool = False) -> Histogram:
    return Histogram.of(name, values, np.ones(len(values)), moment)


def drift(then: Histogram, now: Float64) -> Drift:
    return drift_of(then, then.counts(now, np.ones(len(now))), COLUMN)


def test_the_index_is_the_formula() -> None:
    then, now = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])
    by_hand = (0.4 - 0.5) * math.log(0.4 / 0.5) + 0.0 + (0.3 - 0.2) * math.log(0.3 / 0.2)
    assert psi(then, now) == pytest.approx(by_hand, abs=1e-15)
    assert psi(now, then) == pytest.approx(by_hand, abs=1e-15), "it is symmetric"
    assert psi(then, then) == 0.0


def test_an_empty_bin_makes_it_large_and_not_infinite() -> None:
    shares = smoothed(np.array([0.0, 10.0, 90.0]))
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] == pytest.approx(0.5 / 101.5)
    found, chance = index_and_chance(np.array([1000.0, 0.0, 0.0]), np.array([0.0, 1000.0, 0.0]))
    assert 10 < found < math.inf
    assert chance < 1e-100


def test_neighbours_too_rare_to_compare_are_joined_and_what_is_missing_only_if_it_is_rare_too() -> None:
    assert joined(np.full(5, 100.0), np.full(5, 100.0)).tolist() == [0, 1, 2, 3, 4]
    # In the smaller sample 1, 2 and 3 are expected in the first bins: they are one. So are the two at the end.
    then, now = np.array([10.0, 20.0, 30.0, 900.0, 20.0, 0.0]), np.array([1.0, 2.0, 3.0, 90.0, 2.0, 0.0])
    assert joined(then, now).tolist() == [0, 0, 0, 1, 1, 1]
    silent = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 98.0])
    assert joined(then, silent)[-1] != joined(then, silent)[-2], "a source that falls silent is not hidden"


@pytest.mark.parametrize("customers", [100, 400, 3_000])
def test_without_a_shift_the_chance_is_as_it_says_for_any_sample(customers: int) -> None:
    random = np.random.default_rng(5)
    makers = (
        lambda n: random.normal(size=n),
        lambda n: np.where(random.random(n) < 0.6, 0.0, random.exponential(size=n)),
        lambda n: random.integers(0, 5, n).astype(np.float64),
        lambda n: np.where(random.random(n) < 0.2, np.nan, random.gamma(2.0, size=n)),
    )
    chances = np.array([drift(seen(make(2_000)), make(customers)).chance for make in makers for _ in range(150)])
    assert 0.02 < (chances < 0.05).mean() < 0.08  # 600 draws at 5 %: 3.3 % to 6.7 % in 19 of 20
    assert 0.35 < (chances < 0.5).mean() < 0.65


def test_forty_columns_without_a_shift_raise_no_alarm_in_nineteen_of_twenty_times() -> None:
    random, alarms = np.random.default_rng(11), 0
    for _ in range(60):
        found = by_size([drift(seen(random.normal(size=500)), random.normal(size=100)) for _ in range(40)])
        alarms += any(one.drifted for one in found)
        assert max(one.psi for one in found) > MODERATE, "by the rule of thumb alone there would be an alarm each time"
    assert alarms <= 60 * ALPHA + 2 * math.sqrt(60 * ALPHA)


def test_the_column_that_shifted_is_the_one_that_is_found() -> None:
    random = np.random.default_rng(3)
    then = [seen(random.normal(size=2_000), f"c{place}") for place in range(50)]
    now = [drift(one, random.normal(0.6 * (one.name == "c7"), 1.0, 300)) for one in then]
    found = by_size(now)
    assert [one.name for one in found if one.drifted] == ["c7"]
    assert found[0].name == "c7"
    assert found[0].psi == pytest.approx(0.36, abs=0.2)  # of normals 0.6 apart: 0.6², less what binning loses


def test_a_source_that_falls_silent_is_found_and_told() -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=1_000)
    found = by_size([drift(seen(values), np.full(200, np.nan))])[0]
    assert found.drifted
    assert found.most_moved == "missing: 0.0% then, 100.0% now"


def test_a_value_never_seen_before_is_found() -> None:
    found = by_size([drift(seen(np.tile([1.0, 2.0], 500)), np.tile([1.0, 2.0, 3.0], 100))])[0]
    assert found.drifted
    assert found.most_moved.startswith("other: 0.0% then, 33.3% now")


def test_a_sure_shift_that_is_too_small_to_matter_is_no_drift() -> None:
    random = np.random.default_rng(6)
    found = by_size([drift(seen(random.normal(size=50_000)), random.normal(0.1, 1.0, 50_000))])[0]
    assert found.chance < 1e-6
    assert found.psi < MODERATE
    assert not found.drifted


def test_a_large_index_of_few_customers_may_be_chance() -> None:
    random = np.random.default_rng(7)
    found = by_size([drift(seen(random.normal(size=500)), random.normal(size=50)) for _ in range(40)])
    assert found[0].psi > MODERATE
    assert not any(one.drifted for one in found)
    assert found[0].why_not == "may be chance"


def test_what_always_moves_and_what_only_tells_the_moment_are_no_drift() -> None:
    random = np.random.default_rng(8)
    judged, now = random.normal(1.0, 1.0, 1_000), random.normal(2.0, 1.0, 400)
    ageing = seen(judged).learned_from(random.normal(-0.2, 1.0, 1_000))
    plain = drift(seen(judged), now)
    assert by_size([plain])[0].drifted
    moved = by_size([drift(ageing, now)])[0]
    assert (moved.drifted, moved.why_not) == (False, "always moves")
    assert moved.usual > moved.psi
    hour = by_size([drift(seen(judged, moment=True), now)])[0]
    assert (hour.drifted, hour.why_not) == (False, "tells of the moment only")


def test_chances_are_corrected_for_the_number_of_columns() -> None:
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == pytest.approx([1.0, 1.0])
    assert holm(np.empty(0)).tolist() == []


def test_a_constant_column_and_no_customers_are_not_judged() -> None:
    constant = drift(seen(np.zeros(100)), np.zeros(100))
    nobody = drift(seen(np.arange(100.0)), np.empty(0))
    assert math.isnan(constant.psi)
    assert math.isnan(nobody.psi)
    assert not any(one.drifted for one in by_size([constant, nobody]))
    assert by_size([constant, replace(constant, name="b", psi=0.2, chance=0.001)])[0].name == "b"
