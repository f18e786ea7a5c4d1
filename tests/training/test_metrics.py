"""Metrics against numbers worked out by hand, and against scikit-learn where it has the same one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, ndcg_score, roc_auc_score

from training import metrics

# One row, five candidates: scores put them in the order b, a, d, c; e is not available.
SCORES = np.array([[0.3, 0.4, 0.1, 0.2, np.nan]])
AVAILABLE = np.array([[True, True, True, True, False]])


def row(*taken: int) -> np.ndarray:
    return np.isin(np.arange(5), taken)[None, :]


@pytest.mark.parametrize(
    ("taken", "hr1", "hr3", "average_precision", "ndcg", "mrr"),
    [
        ((1,), 1.0, 1.0, 1.0, 1.0, 1.0),
        ((0,), 0.0, 1.0, 1 / 2, 1 / math.log2(3), 1 / 2),
        ((2,), 0.0, 0.0, 1 / 4, 0.0, 1 / 4),
        # a (rank 2) and c (rank 4): precisions 1/2 and 2/4, over 2 taken
        ((0, 2), 0.0, 1.0, (1 / 2 + 2 / 4) / 2, (1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1 / 2),
        # e cannot be chosen: it is no label
        ((1, 4), 1.0, 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_ranking_metrics_equal_the_hand_computed_ones(
    taken: tuple[int, ...], hr1: float, hr3: float, average_precision: float, ndcg: float, mrr: float
) -> None:
    found = metrics.ranking(SCORES, AVAILABLE, row(*taken))
    names = (metrics.HR_AT_1, metrics.HR_AT_3, metrics.MAP_AT_7, metrics.NDCG_AT_3, metrics.MRR)
    values = [found[name][0] for name in names]
    assert values == pytest.approx([hr1, hr3, average_precision, ndcg, mrr], abs=1e-12)


def test_rows_without_an_available_take_up_are_not_judged() -> None:
    for taken in ((), (4,)):
        assert all(np.isnan(values[0]) for values in metrics.ranking(SCORES, AVAILABLE, row(*taken)).values())


def test_map_at_7_stops_at_rank_7_and_divides_by_what_can_be_found() -> None:
    scores = -np.arange(10.0)[None, :]
    taken = np.ones((1, 10), dtype=bool)
    taken[0, 0] = False
    found = metrics.ranking(scores, np.ones((1, 10), dtype=bool), taken)[metrics.MAP_AT_7][0]
    assert found == pytest.approx(sum((rank - 1) / rank for rank in range(2, 8)) / 7)


def test_map_at_3_looks_at_three_ranks_only() -> None:
    found = metrics.ranking(SCORES, AVAILABLE, row(2))
    assert (found[metrics.MAP_AT_3][0], found[metrics.MAP_AT_7][0]) == (0.0, pytest.approx(1 / 4))
    assert metrics.ranking(SCORES, AVAILABLE, row(1))[metrics.MAP_AT_3][0] == 1.0


@pytest.mark.parametrize(("taken", "at_3", "at_7"), [((1,), 1.0, 1.0), ((2,), 0.0, 1.0), ((0, 2), 0.5, 1.0)])
def test_recall_is_the_share_of_the_taken_that_is_shown(taken: tuple[int, ...], at_3: float, at_7: float) -> None:
    found = metrics.ranking(SCORES, AVAILABLE, row(*taken))
    assert (found[metrics.RECALL_AT_3][0], found[metrics.RECALL_AT_7][0]) == (at_3, at_7)


def test_ndcg_at_7_sees_what_ndcg_at_3_does_not() -> None:
    found = metrics.ranking(SCORES, AVAILABLE, row(2))
    assert (found[metrics.NDCG_AT_3][0], found[metrics.NDCG_AT_7][0]) == pytest.approx((0.0, 1 / math.log2(5)))


def test_ndcg_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    scores, taken = draw.random((200, 8)), draw.random((200, 8)) < 0.3
    judged = taken.any(axis=1)
    found = metrics.ranking(scores, np.ones((200, 8), dtype=bool), taken)[metrics.NDCG_AT_3]
    assert np.isnan(found[~judged]).all()
    assert found[judged].mean() == pytest.approx(ndcg_score(taken[judged], scores[judged], k=3))


def test_the_loss_of_a_choice_is_minus_the_log_of_what_happened_among_the_available() -> None:
    found = metrics.choice_losses(SCORES, AVAILABLE, row(0))
    assert found[metrics.LOG_LOSS][0] == pytest.approx(-math.log(0.3))
    assert found[metrics.BRIER][0] == pytest.approx(0.7**2 + 0.4**2 + 0.1**2 + 0.2**2)


def test_two_outcomes_at_once_share_the_loss() -> None:
    found = metrics.choice_losses(SCORES, AVAILABLE, row(0, 1))
    assert found[metrics.LOG_LOSS][0] == pytest.approx(-(math.log(0.3) + math.log(0.4)) / 2)


def test_pair_losses_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(1)
    scores, taken = draw.random((50, 4)), draw.random((50, 4)) < 0.4
    found = metrics.pair_losses(scores, np.ones((50, 4), dtype=bool), taken)
    assert found[metrics.LOG_LOSS].mean() == pytest.approx(log_loss(taken.ravel(), scores.ravel()))
    assert found[metrics.BRIER].mean() == pytest.approx(brier_score_loss(taken.ravel(), scores.ravel()))


def test_a_pair_that_is_not_available_costs_nothing() -> None:
    one = metrics.pair_losses(SCORES, AVAILABLE, row(1))[metrics.LOG_LOSS][0]
    by_hand = -(math.log(0.7) + math.log(0.4) + math.log(0.9) + math.log(0.8)) / 4
    assert one == pytest.approx(by_hand)


def test_a_certain_mistake_costs_much_and_not_infinity() -> None:
    sure = metrics.pair_losses(np.array([[0.0, 1.0]]), np.ones((1, 2), dtype=bool), np.array([[True, False]]))
    assert 30 < sure[metrics.LOG_LOSS][0] < 40


def test_auc_counts_ties_half_and_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(2)
    scores, happened = np.round(draw.random(300), 1), draw.random(300) < 0.3
    assert metrics.auc(scores, happened) == pytest.approx(roc_auc_score(happened, scores))
    assert metrics.auc(np.ones(4), np.array([True, False, True, False])) == 0.5
    assert np.isnan(metrics.auc(scores, np.zeros(300, dtype=bool)))


def test_knowing_only_what_is_usual_earns_pooled_auc_and_nothing_within_a_candidate() -> None:
    draw = np.random.default_rng(8)
    phone = draw.random(400) < 0.2
    taken = np.stack([phone, ~phone], axis=1)
    constant = np.tile([0.2, 0.8], (400, 1))
    assert metrics.auc(constant.ravel(), taken.ravel()) > 0.75
    assert metrics.auc_by_candidate(constant, np.ones((400, 2), dtype=bool), taken) == 0.5
    better = np.clip(constant + 0.1 * (2 * taken - 1), 0, 1)
    assert metrics.auc_by_candidate(better, np.ones((400, 2), dtype=bool), taken) == 1.0


def test_calibration_gaps_in_bins_of_equal_mass() -> None:
    scores = np.repeat([0.1, 0.9], 50)
    happened = np.concatenate([np.arange(50) < 10, np.arange(50) < 40])  # 0.2 and 0.8
    gaps = metrics.calibration_gaps(scores, happened)
    assert gaps[metrics.ECE] == pytest.approx(0.1)
    assert gaps[metrics.WORST_GAP] == pytest.approx(0.1)
    mean, share, count = metrics.reliability(scores, happened)
    assert list(mean) == pytest.approx([0.1, 0.9])
    assert list(share) == pytest.approx([0.2, 0.8])
    assert list(count) == [50, 50]


def test_bins_have_equal_mass_where_scores_differ() -> None:
    _, _, count = metrics.reliability(np.random.default_rng(3).random(1000), np.zeros(1000, dtype=bool))
    assert list(count) == [100.0] * 10


def test_doubling_calibrated_scores_shows_in_the_ece() -> None:
    draw = np.random.default_rng(4)
    scores = draw.uniform(0, 0.5, 20_000)
    happened = draw.random(20_000) < scores
    assert metrics.calibration_gaps(scores, happened)[metrics.ECE] < 0.012
    assert metrics.calibration_gaps(2 * scores, happened)[metrics.ECE] > 0.2
