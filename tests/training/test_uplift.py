"""Uplift learners in worlds whose uplift is known: constant, none, in one subgroup."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.errors import InputError
from features.schema import Float64
from training.content.uplift import CLIP, LEARNERS, Trial, cross_fitted, parts, propensities
from training.content.uplift_metrics import QINI, Ranked, judged


def world(effect: Float64 | float, rows: int = 3_000, share: float = 0.5, seed: int = 0) -> Trial:
    """Two rows a customer; what is known moves the outcome, and `effect` [n] is what treating adds."""
    draw = np.random.default_rng(seed)
    x = columns(rows, seed)
    treated = draw.random(rows) < share
    outcome = x[:, 1] + effect * treated + 0.5 * draw.normal(size=rows)
    who = np.array([f"c{row // 2}" for row in range(rows)], dtype=object)
    return Trial(x, treated, outcome, np.full(rows, share), who)


def columns(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(1_000 + seed).normal(size=(rows, 3)).astype(np.float32)


def in_subgroup(rows: int, seed: int = 0) -> Float64:
    return np.asarray(columns(rows, seed)[:, 0] > 0, dtype=np.float64)


def qini(trial: Trial, effect: Float64, propensity: Float64) -> tuple[float, float]:
    weight = 1.0 / np.where(trial.treated, propensity, 1.0 - propensity)
    found = judged(Ranked.by(effect, trial.treated, trial.outcome, weight, trial.customer_id), 0, 100)[QINI]
    return found.low, found.high


@pytest.mark.parametrize("name", LEARNERS)
def test_a_constant_uplift_is_found_and_no_ranking_is_claimed(name: str) -> None:
    trial = world(0.5)
    found = cross_fitted(trial, [name], 0)
    assert found.effects[name].mean() == pytest.approx(0.5, abs=0.05)
    assert found.effects[name].std() < 0.2
    assert qini(trial, found.effects[name], found.propensity)[0] <= 0.0


@pytest.mark.parametrize("name", LEARNERS)
def test_where_nothing_has_an_effect_none_is_claimed(name: str) -> None:
    trial = world(0.0)
    found = cross_fitted(trial, [name], 0)
    assert found.effects[name].mean() == pytest.approx(0.0, abs=0.05)
    low, high = qini(trial, found.effects[name], found.propensity)
    assert low <= 0.0 <= high


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("share", [0.5, 0.15])
def test_the_one_subgroup_that_reacts_is_found(name: str, share: float) -> None:
    effect = in_subgroup(3_000)
    trial = world(effect, share=share)
    found = cross_fitted(trial, [name], 0)
    reacts = found.effects[name][effect == 1.0].mean()
    others = found.effects[name][effect == 0.0].mean()
    assert reacts - others > 0.6
    assert others == pytest.approx(0.0, abs=0.2)
    assert qini(trial, found.effects[name], found.propensity)[0] > 0.05  # the best possible is 0.125


def test_a_log_that_treats_the_better_half_more_often_is_seen_through() -> None:
    """Treated nine times in ten where the outcome is higher anyway: the naive difference is far from the effect."""
    rows = 6_000
    draw = np.random.default_rng(5)
    x = columns(rows)
    share = np.where(x[:, 1] > 0, 0.9, 0.1)
    treated = draw.random(rows) < share
    outcome = 2.0 * (x[:, 1] > 0) + 0.5 * treated + 0.5 * draw.normal(size=rows)
    who = np.arange(rows).astype(str).astype(object)
    naive = outcome[treated].mean() - outcome[~treated].mean()
    assert naive > 1.5
    known = Trial(x, treated, outcome, share, who)
    for trial in (known, replace(known, propensity=None)):
        for name, effect in cross_fitted(trial, list(LEARNERS), 0).effects.items():
            # the T-learner's models are drawn to what each arm mostly saw: some of the difference stays
            assert effect.mean() == pytest.approx(0.5, abs=0.2 if name == "t" else 0.1), name


def test_propensities_that_are_known_are_used_as_they_are_and_others_estimated_near_the_truth() -> None:
    rows = 6_000
    x = columns(rows)
    share = np.where(x[:, 0] > 0, 0.8, 0.2)
    treated = np.random.default_rng(6).random(rows) < share
    trial = Trial(x, treated, np.zeros(rows), share, np.arange(rows).astype(str).astype(object))
    assert propensities(trial, 0) is share
    found = propensities(replace(trial, propensity=None), 0)
    assert np.abs(found - share).mean() < 0.05
    assert CLIP <= found.min() <= found.max() <= 1 - CLIP


def test_nobody_is_judged_by_a_model_that_learned_from_them() -> None:
    who = np.repeat(np.array(["a", "b", "c", "d", "e"], dtype=object), 3)
    asked = []
    for learned, judged_rows in parts(who, 3, 0):
        assert not set(who[learned]) & set(who[judged_rows])
        asked += judged_rows.tolist()
    assert sorted(asked) == list(range(15))
    # outcomes that are pure memory: a model that had seen the customer would know them
    draw = np.random.default_rng(7)
    rows = 2_000
    x = np.repeat(np.arange(rows // 4), 4).astype(np.float32)[:, None]
    treated = draw.random(rows) < 0.5
    outcome = np.repeat(draw.normal(size=rows // 4), 4) * treated
    trial = Trial(x, treated, outcome, np.full(rows, 0.5), x[:, 0].astype(str).astype(object))
    effect = cross_fitted(trial, ["t"], 0).effects["t"]
    assert np.corrcoef(effect[treated], outcome[treated])[0, 1] < 0.1


def test_the_same_seed_gives_the_same_uplift() -> None:
    trial = world(0.5, rows=600)
    one, same = (cross_fitted(trial, ["dr"], 1).effects["dr"] for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_an_arm_with_too_few_rows_is_refused_with_the_numbers() -> None:
    trial = world(0.5, rows=100)
    rare = replace(trial, treated=np.arange(100) < 5)
    with pytest.raises(InputError, match=r"at least 20 rows of each arm.*treated"):
        cross_fitted(rare, ["t"], 0)
    with pytest.raises(InputError, match="learners are t, x, dr"):
        cross_fitted(trial, ["s"], 0)
    with pytest.raises(InputError, match="between 0 and 1"):
        replace(trial, propensity=np.ones(100))
