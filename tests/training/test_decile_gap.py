"""The largest gap by decile: what chance gives where all is right, and what it does not where something is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from features.schema import Float64
from serving.question import Question
from training.decile_gap import decile_gap, outcomes
from training.predictions import Predictions


def judgeable(p: Float64, taken: np.ndarray, customers: np.ndarray, outside: bool = False, **other: Any) -> Predictions:
    """n rows of two channels, all judged."""
    n, m = p.shape
    yes = np.ones(n, dtype=np.bool_)
    names = ("web", "phone", "sms")[:m]
    question = Question("channel-choice", names, "channel", other.get("link", "joint"), outside, 7.0)
    return Predictions(
        question, customers, np.arange(n), np.ones((n, m), np.bool_), taken, yes & outside, yes, yes, {"model": p}, {}
    )


def right(n: int, seed: int) -> tuple[Float64, np.ndarray, np.ndarray]:
    """Probabilities of two channels, outcomes that they are right about, and a customer per row."""
    draw = np.random.default_rng(seed)
    web = draw.beta(4, 2, n)
    came = draw.random(n) < web
    return np.stack([web, 1 - web], axis=1), np.stack([came, ~came], axis=1), np.arange(n).astype(str).astype(object)


def test_of_right_probabilities_chance_gives_gaps_as_large_as_those_seen() -> None:
    found = [decile_gap(p, judgeable(p, taken, ids), 0, 40) for p, taken, ids in (right(1_000, s) for s in range(50))]
    seen = np.array([one.gap.mean for one in found])
    assert np.mean([one.chance for one in found]) == pytest.approx(seen.mean(), rel=0.08)
    above = np.mean([one.gap.mean > one.chance_high for one in found])
    assert above < 0.15, "about one in twenty lies above what chance stays below in 95 % of draws"
    shares = np.array([one.share for one in found])
    assert 0.35 < shares.mean() < 0.65


def test_chance_gives_less_where_there_is_more_to_see() -> None:
    few, many = (decile_gap(p, judgeable(p, taken, ids), 0, 50) for p, taken, ids in (right(500, 1), right(8_000, 1)))
    assert many.chance < few.chance / 3


def test_a_model_that_says_too_much_is_beyond_chance_and_its_interval_beyond_zero() -> None:
    p, taken, ids = right(3_000, 2)
    bold = p**3 / (p**3).sum(axis=1, keepdims=True)
    found = decile_gap(bold, judgeable(bold, taken, ids), 0, 50)
    assert found.gap.low > 0
    assert found.gap.mean > 2 * found.chance_high
    assert found.share == 0


def test_rows_of_one_customer_widen_the_interval() -> None:
    p, taken, ids = right(200, 3)
    p, taken = np.repeat(p, 20, axis=0), np.repeat(taken, 20, axis=0)
    one, each = (
        decile_gap(p, judgeable(p, taken, who), 0, 10).gap
        for who in (np.repeat(ids, 20), np.arange(4_000).astype(str).astype(object))
    )
    assert one.high - one.low > 3 * (each.high - each.low)


def test_the_gap_is_that_of_a_hand_made_decile() -> None:
    """Ten groups of ten rows with one score each, and as many taken as can be; then the same turned over."""
    said = np.repeat(np.arange(1, 11) / 20, 10)
    count = np.round(np.arange(1, 11) / 20 * 10).astype(int)
    wide = np.concatenate([np.arange(10) < k for k in count])
    base = np.abs(said.reshape(10, 10).mean(axis=1) - count / 10)
    p = said[:, None]
    data = judgeable(p, wide[:, None], np.arange(100).astype(str).astype(object), outside=True, link="each")
    assert decile_gap(p, data, 0, 10).gap.mean == pytest.approx(base.max())
    turned = judgeable(1 - p, ~wide[:, None], np.arange(100).astype(str).astype(object), outside=True, link="each")
    assert decile_gap(1 - p, turned, 0, 10).gap.mean == pytest.approx(base.max())


def test_drawn_outcomes_follow_the_probabilities() -> None:
    generator = np.random.default_rng(4)
    p = np.tile([0.5, 0.3, 0.0], (40_000, 1))
    one_at_most = outcomes(p, False, True, generator)
    assert one_at_most.sum(axis=1).max() == 1
    np.testing.assert_allclose(one_at_most.mean(axis=0), [0.5, 0.3, 0.0], atol=0.01)
    exactly_one = outcomes(p / 0.8, False, False, generator)
    assert (exactly_one.sum(axis=1) == 1).all()
    alone = outcomes(p, True, True, generator)
    assert np.corrcoef(alone[:, 0], alone[:, 1])[0, 1] == pytest.approx(0, abs=0.02)


def test_nothing_judged_is_no_gap() -> None:
    p, taken, ids = right(20, 5)
    assert np.isnan(decile_gap(np.full_like(p, np.nan), judgeable(p, taken, ids), 0).gap.mean)
