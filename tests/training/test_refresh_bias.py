"""The bias finds how far levels moved, no further than the evidence goes, and never looks ahead."""

from __future__ import annotations

import numpy as np
import pytest

from features.schema import Bool, Float64
from serving.calibration import Calibration, shifted
from training.labels import DAY
from training.refresh_bias import FEWEST, HALF_LIFE_DAYS, fit_bias, walk, weights

ONE_OF = np.random.default_rng(1)


def world(rows: int, rates: tuple[float, ...], said: tuple[float, ...], seed: int = 0) -> tuple[Float64, Bool]:
    """One candidate is tried per row; the model says `said`, `rates` are true."""
    draw = np.random.default_rng(seed)
    tried = np.eye(len(rates), dtype=bool)[draw.integers(len(rates), size=rows)]
    taken = tried & (draw.random((rows, 1)) < np.array(rates))
    return np.where(tried, np.array(said), np.nan), taken


def log_odds(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def test_the_shift_is_how_far_the_rates_moved_and_its_interval_holds_the_truth() -> None:
    said, taken = world(20_000, (0.2, 0.05), (0.1, 0.05))
    bias = fit_bias(said, taken, np.ones(len(said)))
    moved = np.array([log_odds(0.2) - log_odds(0.1), 0.0])
    assert ((bias.low < moved) & (moved < bias.high)).all()
    assert bias.low[0] > 0.6
    again = shifted(said, bias.shifts)
    assert np.nanmean(again[:, 0]) == pytest.approx(0.2, abs=0.01)


def test_intervals_hold_the_truth_about_nineteen_times_of_twenty() -> None:
    held = []
    for seed in range(200):
        said, taken = world(1_500, (0.1, 0.1), (0.1, 0.1), seed)
        bias = fit_bias(said, taken, np.ones(len(said)))
        held.append((bias.low < 0) & (bias.high > 0))
    assert 0.92 <= np.mean(held) <= 1.0


def test_little_evidence_moves_little_and_none_moves_with_the_others() -> None:
    said, taken = np.full((3, 2), 0.1), np.zeros((3, 2), bool)
    said[:, 1] = np.nan
    taken[0, 0] = True
    few = fit_bias(said, taken, np.ones(3))
    many = fit_bias(np.tile(said, (500, 1)), np.tile(taken, (500, 1)), np.ones(1_500))
    whole = log_odds(1 / 3) - log_odds(0.1)
    assert 0 < few.shifts[0] < 0.45 * whole
    assert many.shifts[0] == pytest.approx(whole, abs=0.05)
    assert 0 < few.shifts[1] < few.shifts[0]
    assert few.errors[1] > few.errors[0]


def test_nothing_new_moves_nothing() -> None:
    bias = fit_bias(np.empty((0, 2)), np.empty((0, 2), bool), np.empty(0))
    assert bias.shifts.tolist() == [0.0, 0.0]


def test_old_outcomes_count_half_after_the_half_life() -> None:
    now = 1_000 * DAY
    assert weights(np.array([now, now - int(HALF_LIFE_DAYS * DAY)]), now).tolist() == [1.0, 0.5]
    early, late = world(4_000, (0.1,), (0.1,)), world(4_000, (0.3,), (0.1,))
    said, taken = (np.concatenate(parts) for parts in zip(early, late, strict=True))
    closes = np.repeat([now - 120 * DAY, now], 4_000)
    faded = fit_bias(said, taken, weights(closes, now)).shifts[0]
    assert faded > log_odds(0.28) - log_odds(0.1) > fit_bias(said, taken, np.ones(8_000)).shifts[0]


def test_a_perfect_or_an_absurd_model_is_no_reason_to_run_away() -> None:
    sure = np.array([[1.0], [0.0]] * 500)
    assert abs(fit_bias(sure, sure == 1.0, np.ones(1_000)).shifts[0]) < 1e-6
    wrong = fit_bias(sure, sure == 0.0, np.ones(1_000))
    assert np.isfinite(wrong.shifts).all()
    assert np.isfinite(fit_bias(np.full((900, 1), 1e-9), np.ones((900, 1), bool), np.ones(900)).shifts).all()


def test_rows_are_scored_by_what_had_closed_before_them_and_nothing_else() -> None:
    said, taken = world(2_000, (0.3, 0.1), (0.1, 0.1))
    as_of = np.arange(2_000) * DAY // 20
    closes, teaches = as_of + 7 * DAY, np.ones(2_000, bool)
    before = walk(said, taken, teaches, as_of, closes)
    border = 60 * DAY
    changed = taken.copy()
    changed[closes > border] = ~changed[closes > border] & ~np.isnan(said[closes > border])
    after = walk(said, changed, teaches, as_of, closes)
    same = before.judged & after.judged & (as_of <= border)
    assert same.sum() > 500
    assert np.array_equal(before.said[same], after.said[same], equal_nan=True)
    assert not np.array_equal(before.said, after.said, equal_nan=True), "later rows do learn from them"
    wins = np.sort(closes[taken.any(axis=1)])
    assert as_of[before.judged].min() >= wins[FEWEST - 1]
    assert np.array_equal(np.isnan(before.said[before.judged]), np.isnan(said[before.judged]))


def test_rows_that_do_not_teach_are_scored_and_not_used() -> None:
    said, taken = world(2_000, (0.3,), (0.1,))
    as_of = np.arange(2_000) * DAY // 20
    teaches = np.arange(2_000) % 2 == 0
    mixed = walk(said, taken & teaches[:, None], teaches, as_of, as_of + DAY)
    alone = walk(said[teaches], taken[teaches], teaches[teaches], as_of[teaches], as_of[teaches] + DAY)
    assert np.nanmean(mixed.said[mixed.judged & teaches]) == pytest.approx(
        np.nanmean(alone.said[alone.judged]), rel=0.02
    )
    assert mixed.judged[~teaches].any()


def test_too_few_take_ups_judge_nothing() -> None:
    said, taken = np.full((100, 1), 0.1), np.zeros((100, 1), bool)
    taken[: FEWEST - 1] = True
    at = np.arange(100) * DAY
    assert not walk(said, taken, np.ones(100, bool), at, at).judged.any()


def test_equal_shifts_leave_every_ranking_as_it_was_and_others_move_candidates_past_each_other() -> None:
    said = np.random.default_rng(0).uniform(0.01, 0.9, (50, 4))
    plain = Calibration("beta", (1.1, 0.9, 0.2))
    equal = Calibration("beta", (1.1, 0.9, 0.2), shifts=(0.7,) * 4)
    order = np.argsort(plain.apply(said), axis=1)
    assert (np.argsort(equal.apply(said), axis=1) == order).all()
    lifted = Calibration("beta", (1.1, 0.9, 0.2), shifts=(3.0, 0.0, 0.0, 0.0)).apply(said)
    assert (np.argsort(lifted[:, 1:], axis=1) == np.argsort(plain.apply(said)[:, 1:], axis=1)).all()
    assert (lifted.argmax(axis=1) == 0).mean() > (plain.apply(said).argmax(axis=1) == 0).mean()


def test_a_calibration_keeps_its_shifts_and_one_of_old_has_none() -> None:
    one = Calibration("identity", (), "e", shifts=(0.25, -1.5))
    assert Calibration.from_json(one.to_json()) == one
    assert Calibration.from_json('{"kind": "identity", "parameters": [], "evidence": ""}').shifts == ()
    said = np.array([[0.3, np.nan]])
    assert one.apply(said)[0, 0] == pytest.approx(1 / (1 + np.exp(-(log_odds(0.3) + 0.25))))
    assert np.isnan(one.apply(said)[0, 1])
    with pytest.raises(ValueError, match="finite"):
        Calibration("identity", shifts=(float("nan"),))
