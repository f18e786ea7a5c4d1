"""The oracle of a simulated bank is right: what it promises happens, and nobody who knows less does better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import Needs, Oracle, Rates, shares

from features.importing import Bank, read_bank
from features.schema import Bool, Float64, Int64, Texts
from features.simulate import simulate
from training import metrics
from training.bootstrap import intervals
from training.labels import AT, WHAT, take_ups
from training.spine import JUST_BEFORE

CUSTOMERS, MONTHS = 1_500, 8
THREE_SIGMA = 3.0 / 1.96
"""Half-widths of a 95 % interval: thirteen gaps are looked at."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("oracle") / "bank"
    simulate(made, CUSTOMERS, MONTHS, seed=5)
    return made


@pytest.fixture(scope="module")
def bank(folder: Path) -> Bank:
    return read_bank(folder)


@pytest.fixture(scope="module")
def oracle(folder: Path, bank: Bank) -> Oracle:
    return Oracle(folder, bank)


@pytest.fixture(scope="module")
def occasions(bank: Bank, oracle: Oracle) -> tuple[Texts, Rates, Bool]:
    """Who took something up, the rates just before, and what it was: bool [n, P]."""
    taken = take_ups(bank)
    customer_id, as_of = taken["customer_id"].to_numpy(object), taken[AT].to_numpy(np.int64) - JUST_BEFORE
    return customer_id, oracle.at(customer_id, as_of), np.eye(12, dtype=np.bool_)[taken[WHAT].to_numpy(np.int64)]


def test_what_the_oracle_promises_happens(occasions: tuple[Texts, Rates, Bool]) -> None:
    """Calibrated as a whole and for every product: the share of take-ups that it gives to each."""
    customer_id, rates, taken = occasions
    share = np.nan_to_num(shares(rates.all, ~rates.held))
    gaps = {str(place): share[:, place] - taken[:, place] for place in range(12)}
    first = share.argmax(axis=1)
    rows = np.arange(len(share))
    gaps["first"] = share[rows, first] - taken[rows, first]
    found = intervals(gaps, customer_id, seed=0)
    wide = {name: gap.told() for name, gap in found.items() if abs(gap.mean) > THREE_SIGMA * (gap.high - gap.low) / 2}
    assert not wide


def test_nothing_that_is_taken_has_no_rate(occasions: tuple[Texts, Rates, Bool]) -> None:
    _, rates, taken = occasions
    assert (rates.all[taken] > 0).mean() > 0.999


def test_who_knows_less_ranks_worse(folder: Path, oracle: Oracle, occasions: tuple[Texts, Rates, Bool]) -> None:
    customer_id, rates, taken = occasions
    needs = Needs.of(folder, oracle.truth)
    blind = {
        "messages": rates.organic,
        "tastes": rates.organic * np.exp(-needs.taste[rates.customer]) + rates.message,
    }
    best = mean_average_precision(rates.all, ~rates.held, taken)
    for name, values in blind.items():
        lost = intervals({name: best - mean_average_precision(values, ~rates.held, taken)}, customer_id, seed=0)[name]
        assert lost.above_zero, f"without {name}: {lost.told()}"


def test_the_parts_of_the_needs_add_up_and_are_what_they_say(folder: Path, oracle: Oracle) -> None:
    needs = Needs.of(folder, oracle.truth)
    whole = needs.settled + needs.taste + needs.events
    assert np.allclose(whole, oracle.truth.need, atol=1e-4)
    woken = np.abs(needs.events).max(axis=2) > 1e-3  # [M, N]
    assert not woken[0].any(), "nothing has happened before the first month"
    assert 0.02 < woken[-1].mean() < 0.3, "a few had something happen lately"


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_messages_under_way_count_for_as_much_as_they_do(occasions: tuple[Texts, Rates, Bool], factor: float) -> None:
    customer_id, rates, taken = occasions
    right, wrong = (
        metrics.choice_losses(shares(rates.organic + times * rates.message, ~rates.held), ~rates.held, taken)
        for times in (1.0, factor)
    )
    worse = intervals({"gap": wrong[metrics.LOG_LOSS] - right[metrics.LOG_LOSS]}, customer_id, seed=0)["gap"]
    assert worse.above_zero, worse.told()


def mean_average_precision(rates: Float64, available: Bool, taken: Bool) -> Float64:
    return metrics.ranking(shares(rates, available), available, taken)[metrics.MAP_AT_7]


def test_shares_are_probabilities_of_what_is_available() -> None:
    rates = np.array([[1.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    found = shares(rates, np.array([[True, True, False], [True, False, False]]))
    assert np.array_equal(found, np.array([[0.25, 0.75, np.nan], [0.0, np.nan, np.nan]]), equal_nan=True)


def test_rows_without_a_last_decision_count_as_of_their_own_moment(oracle: Oracle) -> None:
    before: Int64 = np.array([1_704_067_200_000_000], dtype=np.int64)  # the first moment of the calendar
    assert oracle.at(np.array(["c00000000"], dtype=object), before).month[0] == 0
