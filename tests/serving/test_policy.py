"""The choice: what it says about its own probabilities is true."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from features.errors import InputError
from serving.policy import METHODS, Policy, draw, greedy

VALUES = np.array([3.0, 2.5, 0.0, -1.0, 2.9])


def test_actions_are_drawn_as_often_as_their_propensity_says() -> None:
    propensities = Policy(temperature=0.5, epsilon=0.2).propensities(VALUES)
    draws = [draw(propensities, uuid.UUID(int=number).hex) for number in range(100_000)]
    seen = np.bincount(draws, minlength=len(VALUES))
    assert chisquare(seen, propensities * len(draws)).pvalue > 1e-3
    assert propensities.min() > 0.03, "every action must be common enough for the test to notice"


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50),
    st.floats(0, 10),
    st.floats(0, 1),
    st.text(min_size=1, max_size=20),
)
def test_propensities_are_a_distribution_above_the_floor_and_never_draw_the_impossible(
    values: list[float], temperature: float, epsilon: float, decision_id: str
) -> None:
    policy = Policy(temperature, epsilon)
    propensities = policy.propensities(np.array(values))
    assert propensities.sum() == pytest.approx(1, abs=1e-12)
    assert (propensities >= policy.floor(len(values)) * (1 - 1e-9)).all()
    assert propensities[draw(propensities, decision_id)] > 0


def test_the_same_decision_id_always_draws_the_same() -> None:
    propensities = Policy(temperature=1.0, epsilon=0.5).propensities(VALUES)
    assert [draw(propensities, f"id-{n}") for n in range(50)] == [draw(propensities, f"id-{n}") for n in range(50)]


def test_without_temperature_and_exploration_the_best_is_certain() -> None:
    assert Policy(0, 0).propensities(VALUES).tolist() == [1, 0, 0, 0, 0]


def test_the_choice_does_not_depend_on_the_currency() -> None:
    policy = Policy()
    assert policy.propensities(VALUES) == pytest.approx(policy.propensities(VALUES * 7.25))


def test_a_very_costly_action_does_not_blur_the_choice_among_good_ones() -> None:
    policy = Policy(temperature=0.1, epsilon=0.0)
    alone = policy.propensities(np.array([3.0, 2.5, 0.0]))
    beside = policy.propensities(np.array([3.0, 2.5, 0.0, -1e6]))
    assert beside == pytest.approx([*alone, 0.0])


def test_with_nothing_to_gain_the_softmax_stays_on_no_contact() -> None:
    assert Policy(temperature=0.5, epsilon=0.0).propensities(np.array([-3.0, -0.1, 0.0])).tolist() == [0, 0, 1]


def test_better_actions_are_likelier() -> None:
    propensities = Policy().propensities(VALUES)
    assert np.argsort(propensities).tolist() == np.argsort(VALUES).tolist()


def test_a_value_that_is_not_finite_is_never_turned_into_a_probability() -> None:
    with pytest.raises(ValueError, match="finite"):
        Policy().propensities(np.array([1.0, np.nan]))


@pytest.mark.parametrize(("temperature", "epsilon"), [(-1, 0.1), (float("nan"), 0.1), (1, -0.1), (1, 1.5)])
def test_impossible_settings_are_refused(temperature: float, epsilon: float) -> None:
    with pytest.raises(InputError):
        Policy(temperature, epsilon)


BUDGETS = st.one_of(st.just(0.0), st.floats(0, 1e9), st.just(np.inf))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.sampled_from(METHODS),
    st.floats(0, 1),
    st.floats(1e-3, 1e6),
    BUDGETS,
)
def test_exploring_never_costs_more_than_its_budget_and_an_explored_action_keeps_the_floor(
    values: list[float], method: str, epsilon: float, gamma: float, budget: float
) -> None:
    policy = Policy(0.3, epsilon, method, gamma, budget)
    found = np.array(values)
    propensities = policy.propensities(found)
    loss = float(propensities @ (found.max() - found))
    assert loss <= budget + 1e-9 * max(1.0, np.ptp(found))
    assert propensities.sum() == pytest.approx(1)
    assert (propensities >= 0).all()
    explored = propensities[(propensities > 0) & (found < found.max())]
    assert (explored >= policy.floor(len(found)) * (1 - 1e-9)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_spent_to_the_last_cent_where_exploring_would_cost_more(method: str) -> None:
    free = Policy(0.5, 0.1, method, gamma=2.0)
    gap = VALUES.max() - VALUES
    cost = float(free.propensities(VALUES) @ gap)
    for budget in (0.2 * cost, 0.5 * cost, 0.99 * cost):
        spent = float(replace(free, loss_budget=budget).propensities(VALUES) @ gap)
        assert spent == pytest.approx(budget)
    assert replace(free, loss_budget=2 * cost).propensities(VALUES) == pytest.approx(free.propensities(VALUES))


def test_a_budget_too_small_for_every_floor_gives_up_the_worst_actions_first() -> None:
    propensities = Policy(0.5, 0.5, loss_budget=0.2).propensities(VALUES)
    assert (propensities > 0).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("method", METHODS)
def test_without_any_budget_nothing_but_the_best_is_chosen(method: str) -> None:
    assert Policy(0.5, 0.5, method, loss_budget=0.0).propensities(VALUES).tolist() == [1, 0, 0, 0, 0]


def test_squarecb_weighs_by_the_inverse_gap() -> None:
    gamma, gain = 7.0, 3.0
    propensities = Policy(epsilon=0.0, method="squarecb", gamma=gamma).propensities(VALUES)
    others = [1 / (5 + gamma * gap / gain) for gap in (0.5, 3.0, 4.0, 0.1)]
    assert propensities == pytest.approx([1 - sum(others), *others])


def test_squarecb_draws_are_as_often_as_its_propensities_say() -> None:
    propensities = Policy(epsilon=0.1, method="squarecb", gamma=5.0, loss_budget=0.8).propensities(VALUES)
    draws = [draw(propensities, uuid.UUID(int=number).hex) for number in range(100_000)]
    seen = np.bincount(draws, minlength=len(VALUES))
    possible = propensities > 0
    assert seen[~possible].sum() == 0
    assert chisquare(seen[possible], propensities[possible] * len(draws)).pvalue > 1e-3


def test_the_greedy_choice_is_shared_by_equals() -> None:
    assert greedy(np.array([1.0, 3.0, 3.0])).tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize(
    "wrong", [{"method": "ucb"}, {"gamma": 0.0}, {"gamma": np.inf}, {"loss_budget": -1.0}, {"loss_budget": np.nan}]
)
def test_impossible_ways_of_exploring_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Policy(**wrong)
