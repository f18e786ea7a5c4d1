"""Who is targeted, whether probabilities hold for every group, and what equal rates cost: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from serving.question import Question
from training.predictions import MODEL, Predictions
from training.promotion.fairness import by_group, equal_rates, groups, judged, rate_changes, targeted
from training.promotion.resampled import interval_of_ratio

ROWS = 400


def said(scores: np.ndarray, taken: np.ndarray, group: np.ndarray, other: np.ndarray | None = None) -> Predictions:
    """One row per customer, one product that may always be had."""
    every = np.ones(len(scores), np.bool_)
    told = {MODEL: scores[:, None].astype(np.float64)}
    if other is not None:
        told["champion"] = other[:, None].astype(np.float64)
    return Predictions(
        Question("next-best-product", ("card",), "product", "joint", True, 30.0),
        np.array([f"c{place}" for place in range(len(scores))], dtype=object),
        np.zeros(len(scores), dtype=np.int64),
        every[:, None],
        taken[:, None].astype(np.bool_),
        every,
        taken.astype(np.bool_),
        every,
        told,
        {"side": group.astype(object)},
    )


LEFT = np.arange(ROWS) < ROWS // 2
SIDE = np.where(LEFT, "left", "right")


def test_the_best_are_targeted_and_a_tie_shares_the_room_that_is_left() -> None:
    assert targeted(np.array([0.1, 0.9, 0.5, 0.2, 0.4]), 0.4).tolist() == [0, 1, 1, 0, 0]
    assert targeted(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), 0.4).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert targeted(np.full(10, 0.3), 0.2).tolist() == pytest.approx([0.2] * 10)


def test_a_group_s_rate_stands_beside_that_of_all() -> None:
    """The 80 best of 400 rows are targeted: 60 of the left 200, 20 of the right 200."""
    best = (np.arange(ROWS) % 200) < np.where(LEFT, 60, 20)
    taken = np.arange(ROWS) % 5 == 0
    left, right = by_group(said(np.where(best, 0.4, 0.1), taken, SIDE), 0)
    assert (left.slice, left.group, left.rows, left.take_ups) == ("side", "left", 200, 40)
    assert (left.rate, right.rate) == pytest.approx((0.3, 0.1))
    assert (left.rate_ratio.mean, right.rate_ratio.mean) == pytest.approx((1.5, 0.5))
    assert left.rate_ratio.low > 1 > right.rate_ratio.high


def test_a_group_s_calibration_is_take_ups_predicted_over_seen() -> None:
    taken = np.arange(ROWS) % 5 == 0
    left, right = by_group(said(np.where(LEFT, 0.2, 0.1), taken, SIDE), 0)
    assert left.calibration.mean == pytest.approx(1.0)
    assert right.calibration.mean == pytest.approx(0.5)
    assert left.calibration.low < 1 < left.calibration.high
    assert right.calibration.high < 1


def test_a_group_with_too_few_take_ups_has_no_calibration() -> None:
    left, _ = by_group(said(np.full(ROWS, 0.01), np.arange(ROWS) % 20 == 0, SIDE), 0)
    assert left.take_ups == 10
    assert np.isnan(left.calibration.mean)


def test_a_group_of_few_rows_is_left_out() -> None:
    few = np.where(np.arange(ROWS) < 49, "few", "many")
    found = said(np.full(ROWS, 0.1), np.zeros(ROWS), few)
    assert [group for _, group, _ in groups(found)] == ["many"]


def test_only_rows_whose_probabilities_are_judged_are_looked_at() -> None:
    data = said(np.full(ROWS, 0.1), np.zeros(ROWS), SIDE)
    data.judged_for_probability[LEFT] = False
    assert set(judged(data).slices["side"]) == {"right"}


def test_rates_of_two_models_are_compared_group_by_group() -> None:
    """The champion targets 40 of each side, the model 60 and 20; each reaches the take-ups among those."""
    place = np.arange(ROWS) % 200
    champion = np.where(place < 40, 0.4, 0.1)
    model = np.where(place < np.where(LEFT, 60, 20), 0.4, 0.1)
    taken = place < 40
    left, right = rate_changes(said(model, taken, SIDE, champion), MODEL, "champion", 0)
    assert (left.ratio.mean, right.ratio.mean) == pytest.approx((1.5, 0.5))
    assert right.ratio.high < 0.8
    assert (right.reached, right.other_reached) == pytest.approx((0.5, 1.0))
    assert (left.reached, left.other_reached) == pytest.approx((1.0, 1.0))


def test_equal_rates_cost_the_take_ups_that_lie_in_one_group_alone() -> None:
    """All 80 takers are left, and the model knows them. At equal rates 40 of each side are targeted: half are lost."""
    taken = np.arange(ROWS) < 80
    (found,) = equal_rates(said(np.where(taken, 0.9, 0.01), taken, SIDE), 0)
    assert (found.reached, found.reached_equally) == pytest.approx((1.0, 0.5))
    assert found.difference.mean == pytest.approx(-0.5)
    assert found.difference.below_zero


def test_equal_rates_cost_nothing_where_groups_are_alike() -> None:
    taken = (np.arange(ROWS) % 200) < 40
    (found,) = equal_rates(said(np.where(taken, 0.9, 0.01), taken, SIDE), 0)
    assert found.difference.mean == pytest.approx(0.0)
    assert found.reached_equally == pytest.approx(1.0)


def test_only_the_best_candidate_of_a_row_is_offered() -> None:
    taken = np.arange(ROWS) % 5 == 0
    data = said(np.full(ROWS, 0.1), taken, SIDE)
    two = Predictions(
        Question("next-best-product", ("card", "loan"), "product", "joint", True, 30.0),
        data.customer_id,
        data.as_of,
        np.ones((ROWS, 2), np.bool_),
        np.stack([taken, np.zeros(ROWS)], axis=1).astype(np.bool_),
        data.outside,
        data.judged_for_ranking,
        data.judged_for_probability,
        {MODEL: np.stack([np.where(taken, 0.3, 0.1), np.where(taken, 0.4, 0.1)], axis=1)},
        data.slices,
    )
    assert {found.reached for found in equal_rates(two, 0)} == {0.0}


def test_the_same_seed_gives_the_same_intervals() -> None:
    data = said(np.linspace(0, 0.4, ROWS), np.arange(ROWS) % 5 == 0, SIDE)
    assert by_group(data, 1) == by_group(data, 1)
    assert by_group(data, 1) != by_group(data, 2)


def test_of_many_groups_without_a_difference_hardly_any_world_shows_one() -> None:
    """Two honest models that differ by noise: one interval of 95 % lies off 1 in one of twenty cases, 30 in most."""
    alarms = {"alone": 0, "together": 0}
    for seed in range(60):
        draw = np.random.default_rng(seed)
        seen = np.exp(draw.normal(scale=0.1, size=30))
        drawn = np.concatenate([seen[None, :], seen * np.exp(draw.normal(scale=0.1, size=(1000, 30)))])
        alone = [interval_of_ratio(drawn[:, place], 1) for place in range(30)]
        together = [interval_of_ratio(drawn[:, place], 30) for place in range(30)]
        for name, found in (("alone", alone), ("together", together)):
            alarms[name] += any(one.high < 1 or one.low > 1 for one in found)
    assert alarms["alone"] > 30
    assert alarms["together"] <= 8
