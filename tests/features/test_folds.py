"""A fold's state is the closed form over all events so far, however the events arrive."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.folds import DAY, FOREVER, fold, slugs, step

TAUS = [7 * DAY, FOREVER]


def brute_force(at: np.ndarray, amounts: np.ndarray, moment: float) -> np.ndarray:
    age = moment - at
    return np.array([(amounts[:, k] * np.exp(-age / tau))[age >= 0].sum() for k, tau in enumerate(TAUS)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), min_size=1, max_size=60), st.integers(0, 99))
def test_folded_sums_equal_the_sum_over_all_events_before(events: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    entity = np.array([who for who, _ in events])
    at = np.array([day * DAY / 2 for _, day in events])
    amounts = rng.normal(size=(len(events), 2))
    folded = fold(entity, at, amounts, TAUS, np.full((len(events), 0), np.nan))
    assert len(folded.at) == len(set(events)), "one state per entity and time"
    for who, moment, sums in zip(folded.entity, folded.at, folded.sums, strict=True):
        mine = entity == who
        np.testing.assert_allclose(sums, brute_force(at[mine], amounts[mine], moment), atol=1e-9)


def test_latest_value_survives_events_that_do_not_set_it() -> None:
    values = np.array([[5.0, np.nan], [np.nan, 1.0], [np.nan, np.nan], [6.0, np.nan]])
    folded = fold(np.zeros(4, dtype=int), np.arange(4.0), np.zeros((4, 0)), [], values)
    np.testing.assert_array_equal(folded.latest, [[5, np.nan], [5, 1], [5, 1], [6, 1]])


def test_of_events_at_one_time_the_last_given_sets_the_latest_value() -> None:
    folded = fold(
        np.zeros(3, dtype=int), np.array([9.0, 9.0, 1.0]), np.ones((3, 1)), [FOREVER], np.array([[1.0], [2.0], [3.0]])
    )
    np.testing.assert_array_equal(folded.at, [1.0, 9.0])
    np.testing.assert_array_equal(folded.latest[:, 0], [3.0, 2.0])
    np.testing.assert_array_equal(folded.sums[:, 0], [1.0, 3.0])


def test_history_folded_at_once_equals_events_stepped_one_by_one() -> None:
    rng = np.random.default_rng(3)
    at, amounts = np.sort(rng.uniform(0, 90 * DAY, 40)), rng.normal(size=(40, 2))
    values = np.where(rng.random((40, 1)) < 0.4, rng.normal(size=(40, 1)), np.nan)
    folded = fold(np.zeros(40, dtype=int), at, amounts, TAUS, values)
    sums, latest, before = np.zeros((1, 2)), np.full((1, 1), np.nan), at[0]
    for now, amount, value in zip(at, amounts, values, strict=True):
        sums, latest = step(sums, latest, np.array([now - before]), np.array(TAUS), amount[None], value[None])
        before = now
    np.testing.assert_allclose(folded.sums[-1], sums[0], rtol=1e-12)
    np.testing.assert_array_equal(folded.latest[-1], latest[0])


def test_column_names_are_safe_and_distinct() -> None:
    assert slugs(["Gold card", "gold-card", "存款", "x.y"]) == ("gold_card", "gold_card_1", "id2", "x_y")
