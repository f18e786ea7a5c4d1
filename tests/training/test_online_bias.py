"""The online bias: finds a known shift, forgets, stays at home without one, and looks at nothing that is not known."""

from __future__ import annotations

import numpy as np
import pytest

from features.schema import Bool, Float64
from training.online_bias import OnlineBias, corrected


def drawn(rows: int, shift: float, seed: int = 0) -> tuple[Float64, Bool]:
    """What a model said of [rows, 1] pairs, and what was taken with log-odds higher by `shift`."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(-1.0, 1.0, (rows, 1))
    taken = draw.random((rows, 1)) < 1 / (1 + np.exp(-logit - shift))
    return 1 / (1 + np.exp(-logit)), taken


def known(rows: int, delay: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.maximum(np.arange(rows) - delay, 0).astype(np.int64)


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.0])
def test_a_shift_of_the_log_odds_is_found(shift: float) -> None:
    said, taken = drawn(6_000, shift)
    online = OnlineBias(1, half_life=1_500)
    for row in range(len(said)):
        online.learn(said[row], taken[row])
    half = np.array([0.5])
    found = online.apply(half)[0]
    assert np.log(found / (1 - found)) == pytest.approx(shift, abs=0.2)


def test_what_was_is_forgotten() -> None:
    before, after = drawn(4_000, 1.5), drawn(2_000, -1.5, seed=1)
    online = OnlineBias(1, half_life=200)
    for said, taken in (before, after):
        for row in range(len(said)):
            online.learn(said[row], taken[row])
    found = online.apply(np.array([0.5]))[0]
    assert np.log(found / (1 - found)) == pytest.approx(-1.5, abs=0.4)


def test_one_candidate_may_differ_from_the_others() -> None:
    draw = np.random.default_rng(2)
    said = np.full((4_000, 3), 0.3)
    said[:, 2] = np.where(draw.random(4_000) < 0.5, 0.3, np.nan)
    taken = draw.random((4_000, 3)) < np.array([0.3, 0.6, 0.3])
    found = corrected(said, taken, known(4_000, 0))
    np.testing.assert_allclose(found[-1][:2], [0.3, 0.6], atol=0.06)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(said))


def test_outcomes_that_are_not_known_yet_change_nothing() -> None:
    said, taken = drawn(1_000, 1.0)
    found = corrected(said, taken, known(1_000, 300))
    other = taken.copy()
    other[500:] = ~other[500:]
    changed = corrected(said, other, known(1_000, 300))
    np.testing.assert_array_equal(found[:801], changed[:801])
    assert (found[801:] != changed[801:]).all()


def test_before_anything_is_known_the_model_is_right() -> None:
    said, taken = drawn(400, 2.0)
    found = corrected(said, taken, known(400, 300))
    np.testing.assert_allclose(found[:301], said[:301])


def test_the_future_is_refused() -> None:
    said, taken = drawn(10, 0.0)
    with pytest.raises(ValueError, match="earlier ones"):
        corrected(said, taken, np.arange(10) + 1)
