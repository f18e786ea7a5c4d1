"""Allocation of scarce contacts: solved by hand, by brute force, and bounded by its prices."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.schema import Float64
from serving.allocation import Duals, Limit, Problem, bound, choices, free_of_charge, prune, violations
from serving.relaxation import best, relax
from serving.rounding import on_days, rounded


def problem(
    values: object,
    capacity: object,
    cost: object,
    budget: float = np.inf,
    contacts: int = 1,
    limits: tuple[Limit, ...] = (),
) -> Problem:
    """values: [n, P, H]; every contact is possible."""
    table = np.asarray(values, dtype=np.float64)
    customer, offered, channel = np.indices(table.shape).reshape(3, -1).astype(np.int64)
    per_customer = np.full(len(table), contacts, dtype=np.int64)
    scarce = np.asarray(capacity, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    return Problem(customer, offered, channel, table.ravel(), per_customer, *scarce, budget, limits)


def by_brute_force(given_problem: Problem) -> float:
    """The best of all 2^c plans."""
    count = len(given_problem)
    plans = np.array(list(product((0, 1), repeat=count)), dtype=np.float64)  # [2^c, c]
    fine = np.ones(len(plans), dtype=bool)

    def keep(key: np.ndarray, most: np.ndarray) -> None:
        for one in np.unique(key[key >= 0]):
            fine[:] &= plans[:, key == one].sum(axis=1) <= most[one]

    keep(given_problem.customer, given_problem.contacts)
    keep(given_problem.offer, np.ones(given_problem.offer.max() + 1))
    keep(given_problem.channel, given_problem.capacity)
    for limit in given_problem.limits:
        keep(limit.key, limit.most)
    fine &= plans @ given_problem.cost[given_problem.channel] <= given_problem.budget + 1e-9
    return float((plans @ given_problem.value)[fine].max())


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    """At most 12 columns, with everything that can be scarce; whole numbers, so that sums are exact."""
    customers, products, channels = draw(st.sampled_from([(3, 2, 2), (2, 2, 3), (4, 1, 3), (2, 3, 2), (1, 2, 2)]))
    shape = customers * products * channels
    values = draw(st.lists(st.integers(-2, 9), min_size=shape, max_size=shape))
    capacity = draw(st.lists(st.sampled_from([0, 1, 2, np.inf]), min_size=channels, max_size=channels))
    cost = draw(st.lists(st.integers(0, 4), min_size=channels, max_size=channels))
    found = problem(
        np.reshape(values, (customers, products, channels)),
        capacity,
        cost,
        draw(st.sampled_from([0.0, 3.0, 5.0, 7.0, np.inf])),
        draw(st.integers(1, 3)),
    )
    if draw(st.booleans()):  # a cap of the first channel
        most = np.array(draw(st.lists(st.integers(0, 2), min_size=customers, max_size=customers)), dtype=np.int64)
        key = np.where(found.channel == 0, found.customer, -1)
        found = replace(found, limits=(Limit("cap", key, most),))
    return found


def test_one_message_goes_to_whom_it_is_worth_most_and_its_price_is_what_the_next_would_have_paid() -> None:
    scarce = problem([[[5.0]], [[3.0]], [[2.0]]], [1], [0.0])
    relaxed = relax(scarce)
    assert rounded(scarce, relaxed.x, relaxed.duals).tolist() == [True, False, False]
    assert 3.0 <= relaxed.duals.capacity[0] <= 5.0
    assert relaxed.bound == pytest.approx(5.0)


def test_the_price_of_a_budget_is_the_return_of_the_contact_that_is_cut_in_two() -> None:
    # 2 each: the first is bought whole (6), of the second only half can be paid (4 · ½), at 4 / 2 per unit.
    tight = problem([[[6.0]], [[4.0]], [[1.0]]], [np.inf], [2.0], budget=3.0)
    relaxed = relax(tight)
    assert relaxed.x == pytest.approx([1.0, 0.5, 0.0])
    assert relaxed.duals.budget == pytest.approx(2.0)
    assert relaxed.duals.per_message(tight.cost) == pytest.approx([4.0])
    assert relaxed.bound == pytest.approx(8.0)
    assert tight.value[rounded(tight, relaxed.x, relaxed.duals)].sum() == 6.0


def test_a_scarce_channel_goes_to_whom_it_helps_most_not_to_whom_it_is_worth_most() -> None:
    # Both like the first channel best; the second customer would lose 9 without it, the first only 1.
    helped = problem([[[10.0, 9.0]], [[9.0, 0.0]]], [1, np.inf], [0.0, 0.0])
    relaxed = relax(helped)
    assert rounded(helped, relaxed.x, relaxed.duals).tolist() == [False, True, True, False]
    assert 1.0 <= relaxed.duals.capacity[0] <= 9.0


def test_what_is_not_scarce_is_free() -> None:
    relaxed = relax(problem([[[5.0, 1.0]], [[3.0, 1.0]]], [9, np.inf], [1.0, 2.0], budget=100.0))
    assert relaxed.duals.capacity.tolist() == [0.0, 0.0]
    assert relaxed.duals.budget == 0.0


def test_a_contact_worth_less_than_nothing_is_never_made() -> None:
    losing = problem([[[-1.0, 0.0]]], [5, 5], [0.0, 0.0])
    assert len(prune(losing)) == 0
    relaxed = relax(prune(losing))
    assert (len(relaxed.x), relaxed.bound) == (0, 0.0)


def test_two_contacts_of_one_customer_are_about_different_products() -> None:
    twice = problem([[[9.0, 8.0], [1.0, 2.0]]], [5, 5], [0.0, 0.0], contacts=2)
    relaxed = relax(twice)
    assert rounded(twice, relaxed.x, relaxed.duals).tolist() == [True, False, False, True]


@settings(max_examples=150, deadline=None)
@given(small_problems())
def test_small_plans_are_as_good_as_the_best_of_all_plans(given_problem: Problem) -> None:
    truth = by_brute_force(given_problem)
    pruned = prune(given_problem)
    if not len(pruned):
        assert truth == 0.0
        return
    assert by_brute_force(pruned) == pytest.approx(truth)
    x = best(pruned)
    assert x is not None
    relaxed = relax(pruned)
    plan = rounded(pruned, x, relaxed.duals)
    assert pruned.value[plan].sum() == pytest.approx(truth)
    assert truth <= relaxed.bound + 1e-6


@settings(max_examples=150, deadline=None)
@given(small_problems())
def test_prices_prove_the_relaxation_best_and_leave_nothing_unsold_that_costs(given_problem: Problem) -> None:
    relaxed = relax(given_problem)
    duals, x = relaxed.duals, relaxed.x
    assert relaxed.bound == pytest.approx(float(given_problem.value @ x), abs=1e-6)  # strong duality
    messages, spent = given_problem.spent(x)
    unsold = messages < given_problem.capacity - 1e-6
    assert duals.capacity[unsold] == pytest.approx(0.0, abs=1e-7)
    assert spent >= given_problem.budget - 1e-6 or duals.budget == pytest.approx(0.0, abs=1e-7)
    assert (duals.reduced(given_problem)[x > 1e-6] >= -1e-7).all()  # nobody pays more than it is worth


@settings(max_examples=100, deadline=None)
@given(small_problems(), st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_any_prices_bound_every_plan(given_problem: Problem, prices: list[float]) -> None:
    duals = replace(
        free_of_charge(given_problem),
        capacity=np.array(prices[: len(given_problem.cost)]) * np.isfinite(given_problem.capacity),
        budget=prices[3] if np.isfinite(given_problem.budget) else 0.0,
    )
    assert by_brute_force(given_problem) <= bound(given_problem, duals) + 1e-9


@settings(max_examples=100, deadline=None)
@given(small_problems(), st.integers(1, 3))
def test_a_rounded_plan_breaks_nothing_on_no_day(given_problem: Problem, days: int) -> None:
    asked = replace(
        given_problem, contacts=np.minimum(given_problem.contacts, days), capacity=given_problem.capacity * days
    )
    relaxed = relax(asked)
    plan = rounded(asked, relaxed.x, relaxed.duals)
    day = on_days(asked.customer[plan], asked.channel[plan], days)
    assert sum(violations(asked, plan, day, days).values()) == 0
    assert asked.value[plan].sum() <= relaxed.bound + 1e-6


def test_more_budget_never_makes_the_best_plan_worse_and_each_unit_adds_less_to_the_bound() -> None:
    draw = np.random.default_rng(4)
    values = draw.gamma(1.0, 5.0, (25, 2, 3))
    plans, bounds = [], []
    for budget in np.arange(0.0, 60.0, 5.0):
        asked = prune(problem(values, [10, 10, 3], [1.0, 2.0, 5.0], budget))
        relaxed = relax(asked)
        x = best(asked)
        assert x is not None
        plans.append(asked.value[rounded(asked, x, relaxed.duals)].sum())
        bounds.append(relaxed.bound)
    assert (np.diff(plans) >= -1e-9).all()
    assert (np.diff(bounds) >= -1e-9).all()
    assert (np.diff(bounds, 2) <= 1e-6).all()
    assert plans[-1] > plans[1] > plans[0] == 0.0


def bank(customers: int, contacts: int = 1) -> Problem:
    """Many customers, five products, four channels of which two are scarce, and a tight budget."""
    draw = np.random.default_rng(2)
    values = draw.gamma(0.5, 4.0, (customers, 5, 4)) - np.array([0.1, 0.2, 1.0, 4.0])
    capacity = [np.inf, np.inf, customers // 10, customers // 20]
    return prune(problem(values, capacity, [0.1, 0.2, 1.0, 4.0], customers * 0.3, contacts))


def test_a_large_plan_is_within_a_thousandth_of_its_bound() -> None:
    asked = bank(2_000)
    relaxed = relax(asked)
    plan = rounded(asked, relaxed.x, relaxed.duals)
    value = asked.value[plan].sum()
    assert relaxed.bound * 0.999 <= value <= relaxed.bound + 1e-6
    assert sum(violations(asked, plan, np.ones(int(plan.sum()), dtype=np.int64), 1).values()) == 0


@pytest.mark.parametrize("contacts", [1, 2])
def test_prices_find_what_the_whole_lp_finds(contacts: int) -> None:
    asked = bank(3_000, contacts)
    whole, priced = relax(asked), relax(asked, whole=len(asked) // 5)
    assert priced.bound == pytest.approx(whole.bound, rel=1e-4)
    assert float(asked.value @ priced.x) == pytest.approx(whole.bound, rel=1e-3)
    plan = rounded(asked, priced.x, priced.duals)
    day = on_days(asked.customer[plan], asked.channel[plan], 2)
    assert priced.bound * 0.998 <= asked.value[plan].sum() <= priced.bound
    assert sum(violations(replace(asked, capacity=asked.capacity + 1), plan, day, 2).values()) == 0


def test_dominated_contacts_are_never_considered() -> None:
    # The free channel is never full: the dear one is worth considering only where it is worth more.
    asked = problem([[[5.0, 4.0]], [[5.0, 6.0]]], [np.inf, 1], [0.0, 1.0])
    assert prune(asked).value.tolist() == [5.0, 5.0, 6.0]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda days: st.tuples(
            st.just(days),
            st.lists(st.integers(0, days), min_size=1, max_size=12),
            st.integers(1, 4),
            st.integers(0, 2**31),
        )
    )
)
def test_every_customer_gets_one_contact_a_day_and_no_day_gets_more_than_its_share(
    world: tuple[int, list[int], int, int],
) -> None:
    days, counts, channels, seed = world
    customer = np.repeat(np.arange(len(counts)), counts)
    draw = np.random.default_rng(seed)
    draw.shuffle(customer)
    channel = draw.integers(channels, size=len(customer))
    day = on_days(customer, channel, days)
    assert ((day >= 1) & (day <= days)).all()
    assert len(set(zip(customer.tolist(), day.tolist(), strict=True))) == len(customer)
    for one in range(channels):
        per_day = np.bincount(day[channel == one], minlength=days + 1)
        assert per_day.max() <= -(-int((channel == one).sum()) // days)


def test_more_contacts_than_days_are_refused() -> None:
    with pytest.raises(ValueError, match="2 days"):
        on_days(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), 2)


def test_violations_are_counted_where_there_are_some() -> None:
    asked = problem(np.ones((2, 1, 2)), [1, 1], [3.0, 0.0], budget=5.0)
    everything: Float64 = np.ones(4)
    found = violations(asked, everything > 0, np.array([1, 1, 1, 1]), 1)
    assert {name: count for name, count in found.items() if count} == {
        "capacity of a channel": 2,
        "capacity of a channel on a day": 2,
        "budget": 1,
        "contacts of a customer": 2,
        "one contact of a customer on a day": 2,
        "one offer of a product to a customer": 2,
    }


def test_at_a_price_customers_take_what_is_worth_more_than_it_costs_them() -> None:
    asked = problem([[[5.0, 4.0]], [[2.0, 1.0]]], [1, 1], [0.0, 1.0])
    taken = choices(asked, Duals(np.array([3.0, 0.0]), 0.5))
    assert taken.tolist() == [False, True, False, True]  # 5 − 3 < 4 − 0.5; 2 − 3 < 0 < 1 − 0.5
