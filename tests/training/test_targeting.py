"""Targeting and breadth, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.breadth import COVERAGE, GINI, NOVELTY, breadth, gini
from training.targeting import KS, PR_AUC, capture, targeting


def test_capture_and_lift_follow_the_order_of_the_scores() -> None:
    scores = np.arange(20.0)[::-1]
    happened = np.zeros(20, dtype=bool)
    happened[[0, 1, 2, 19]] = True
    found = targeting(scores, happened)
    assert [found[f"capture_by_decile_{decile}"] for decile in (1, 2, 5, 10)] == pytest.approx([0.5, 0.75, 0.75, 1.0])
    assert [found[f"lift_by_decile_{decile}"] for decile in (1, 2, 3, 10)] == pytest.approx([5.0, 2.5, 0.0, 2.5])


def test_within_a_tie_nothing_is_earned_whatever_the_order_of_the_rows() -> None:
    scores = np.array([2.0, 1.0, 1.0, 1.0, 1.0])
    for happy in range(1, 5):
        happened = np.arange(5) == happy
        assert capture(scores, happened, 0.2) == 0.0
        assert capture(scores, happened, 0.6) == pytest.approx(0.5)


def test_pr_auc_and_ks_of_a_hand_computed_case() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    found = targeting(scores, np.array([True, False, True, False]))
    assert found[PR_AUC] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found[KS] == pytest.approx(0.5)


def test_with_one_outcome_only_nothing_can_be_said() -> None:
    found = targeting(np.array([0.1, 0.2]), np.array([False, False]))
    assert all(math.isnan(value) for value in found.values())


def test_gini_is_0_for_equal_shares_and_nears_1_where_one_has_all() -> None:
    assert gini(np.full(10, 3.0)) == pytest.approx(0.0)
    assert gini(np.array([0.0, 0.0, 0.0, 8.0])) == pytest.approx(0.75)
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)


def test_breadth_counts_what_is_shown_to_anybody() -> None:
    scores = np.tile(-np.arange(6.0), (10, 1))
    popularity = np.array([0.5, 0.25, 0.125, 0.125, 0.0, 0.0])
    found = breadth(scores, np.ones((10, 6), dtype=bool), popularity)
    assert found[COVERAGE] == 0.5
    assert found[GINI] == pytest.approx(0.5)
    assert found[NOVELTY] == pytest.approx((1 + 2 + 3) / 3)


def test_what_is_not_available_to_anybody_is_not_missed() -> None:
    scores = np.tile(-np.arange(4.0), (5, 1))
    available = np.ones((5, 4), dtype=bool)
    available[:, 3] = False
    assert breadth(scores, available, np.full(4, 0.25))[COVERAGE] == 1.0


def test_the_unheard_of_counts_as_rarer_than_a_single_take_up() -> None:
    scores = np.array([[1.0, 0.0]] * 8)
    assert breadth(scores, np.ones((8, 2), dtype=bool), np.array([0.0, 1.0]), k=1)[NOVELTY] == pytest.approx(4.0)
