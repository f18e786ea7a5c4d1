"""Qini, AUUC and uplift at k: hand-computed, equal to another implementation, invariant where they must be."""

from __future__ import annotations

import numpy as np
import pytest

from features.schema import Bool, Float64, Texts
from training.content.uplift_metrics import QINI, Curve, Ranked, judged

PREDICTED = np.array([0.9, 0.9, 0.8, 0.7, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.2, 0.1])
TREATED = np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0], dtype=np.bool_)
TAKEN = np.array([1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1], dtype=np.float64)


def ids(count: int) -> Texts:
    return np.array([f"c{number}" for number in range(count)], dtype=object)


def uplift_curve(predicted: Float64, treated: Bool, outcome: Float64, weight: Float64 | None = None) -> Curve:
    """The curve of rows of a customer each."""
    rows = len(predicted)
    return Ranked.by(predicted, treated, outcome, np.ones(rows) if weight is None else weight, ids(rows)).curve()


def trial(rows: int, seed: int, effect: float) -> tuple[Float64, Bool, Float64]:
    """Prediction, treated and outcome of rows whose uplift is `effect` where the prediction is positive, else 0."""
    draw = np.random.default_rng(seed)
    predicted, treated = draw.normal(size=rows), draw.random(rows) < 0.5
    return predicted, treated, draw.normal(size=rows) + effect * treated * (predicted > 0)


def test_a_curve_of_four_rows_is_as_counted_by_hand() -> None:
    # after 2 rows: treated mean 4, other 1: gain 2/4 * 3 = 1.5; after 4: means 3 and 2: gain 1 * 1 = 1
    curve = uplift_curve(np.array([2.0, 2.0, 1.0, 1.0]), np.array([True, False, True, False]),
                         np.array([4.0, 1.0, 2.0, 3.0]))  # fmt: skip
    np.testing.assert_allclose(curve.share, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(curve.gain, [0.0, 1.5, 1.0])
    assert curve.auuc == pytest.approx(0.5 * 1.5 / 2 + 0.5 * (1.5 + 1.0) / 2)
    assert curve.qini == pytest.approx(curve.auuc - 0.5)
    assert curve.at(0.5) == pytest.approx(3.0)
    assert curve.effect == pytest.approx(1.0)


def test_the_curve_is_that_of_scikit_uplift() -> None:
    """`sklift.metrics.uplift_curve` of scikit-uplift 0.5.1 on these rows, divided by their number."""
    curve = uplift_curve(PREDICTED, TREATED, TAKEN)
    np.testing.assert_allclose(curve.share * 12, [0, 2, 3, 5, 6, 7, 8, 10, 11, 12])
    theirs = [0.0, 2.0, 3.0, 5.0, 4.0, 2.9166666666666665, 4.0, 2.0, 1.1, 0.0]
    np.testing.assert_allclose(curve.gain * 12, theirs, atol=1e-12)


def test_a_prediction_that_is_the_same_for_all_has_a_qini_of_exactly_zero() -> None:
    _, treated, outcome = trial(501, 1, 1.0)
    curve = uplift_curve(np.full(501, 0.3), treated, outcome)
    assert curve.qini == 0.0
    assert curve.auuc == pytest.approx(curve.effect / 2)


def test_the_opposite_order_turns_the_sign_of_the_qini() -> None:
    predicted, treated, outcome = trial(20_000, 2, 1.0)
    right, wrong = (uplift_curve(sign * predicted, treated, outcome).qini for sign in (1, -1))
    # the best order of an effect of 1 in half the rows: gain min(φ, ½), area 3/8, less ½·½
    assert right == pytest.approx(0.125, abs=0.02)
    assert wrong == pytest.approx(-0.125, abs=0.02)


def test_weights_of_one_over_the_propensity_undo_a_log_that_treats_some_more_often() -> None:
    draw = np.random.default_rng(3)
    share = np.where(draw.random(60_000) < 0.5, 0.9, 0.1)
    treated = draw.random(60_000) < share
    # the outcome is higher where more are treated, though the treatment does nothing
    outcome = (share > 0.5) + draw.normal(size=60_000)
    predicted = draw.normal(size=60_000)
    weight = 1.0 / np.where(treated, share, 1.0 - share)
    assert uplift_curve(predicted, treated, outcome).effect > 0.5
    assert uplift_curve(predicted, treated, outcome, weight).effect == pytest.approx(0.0, abs=0.05)


def test_a_first_share_with_one_arm_only_is_bridged_from_zero() -> None:
    curve = uplift_curve(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, True, False, False]),
                         np.array([1.0, 1.0, 0.0, 0.0]))  # fmt: skip
    np.testing.assert_allclose(curve.share, [0.0, 0.75, 1.0])
    np.testing.assert_allclose(curve.gain, [0.0, 0.75, 1.0])


def test_without_one_of_the_arms_nothing_is_known() -> None:
    curve = uplift_curve(np.arange(4.0), np.ones(4, np.bool_), np.ones(4))
    assert np.isnan(curve.qini)
    ranked = Ranked.by(np.arange(4.0), np.ones(4, np.bool_), np.ones(4), np.ones(4), ids(4))
    assert all(np.isnan(found.mean) for found in judged(ranked, 0, 20).values())


def test_the_interval_of_the_qini_covers_its_true_value_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(150):
        predicted, treated, outcome = trial(400, 100 + seed, 1.0)
        ranked = Ranked.by(predicted, treated, outcome, np.ones(400), ids(400))
        found = judged(ranked, seed, 100)[QINI]
        covered += found.low <= 0.125 <= found.high
    assert 0.90 <= covered / 150 <= 0.99


def test_customers_are_drawn_not_rows() -> None:
    predicted, treated, outcome = trial(300, 4, 1.0)
    copied = [np.repeat(part, 4) for part in (predicted, treated, outcome)]
    rows, customers = (
        judged(Ranked.by(*copied, np.ones(1200), who), 0)[QINI] for who in (ids(1200), np.repeat(ids(300), 4))
    )
    assert customers.high - customers.low > 1.5 * (rows.high - rows.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    ranked = Ranked.by(PREDICTED, TREATED, TAKEN, np.ones(12), ids(12))
    assert judged(ranked, 1, 50) == judged(ranked, 1, 50) != judged(ranked, 2, 50)
