"""The prior: popularity by exposure, smoothed where there is little of it, forgetting where that pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.schema import Bool, Float32, Float64
from serving.question import masked_log_softmax
from training import fit_prior
from training.examples import Examples
from training.fit_prior import log_popularity

DAY = 86_400.0


@pytest.fixture
def choices(choice_world: Callable[..., Any]) -> Callable[..., Examples]:
    """Examples of the given availability [n, 5], option taken [n] and times [n] (days)."""

    def make(available: Bool, option: Any, at: Any = None, weight: Any = None) -> Examples:
        rows = choice_world(len(available), 1).examples.rows
        chosen = np.eye(5, dtype=np.float32)[np.asarray(option)]
        weight = np.ones(len(available)) if weight is None else weight
        days = None if at is None else np.asarray(at) * DAY
        return Examples(rows, available, chosen, np.asarray(weight, np.float32), at=days)

    return make


def shares(prior: Float32) -> Float64:
    return np.exp(masked_log_softmax(prior[None, :], np.ones((1, 5), bool)))[0]


def test_where_everything_is_always_available_shares_are_counts(choices: Callable[..., Examples]) -> None:
    option = np.repeat(np.arange(5), [1000, 2000, 3000, 500, 3500])
    prior = log_popularity(choices(np.ones((10_000, 5), bool), option))
    np.testing.assert_allclose(shares(prior), [0.1, 0.2, 0.3, 0.05, 0.35], rtol=5e-3)


def test_popularity_is_divided_by_how_often_an_option_could_be_chosen(choices: Callable[..., Examples]) -> None:
    """Card and loan are taken half of the time when offered against nothing; the loan is offered ten times as often."""
    available = np.zeros((2200, 5), bool)
    available[:, 4] = True
    available[:200, 1] = True
    available[200:, 2] = True
    option = np.where(np.arange(2200) % 2 == 0, 4, available[:, :4].argmax(axis=1))
    prior = log_popularity(choices(available, option))
    assert prior[1] == pytest.approx(prior[2], abs=0.02)
    assert prior[1] == pytest.approx(prior[4], abs=0.02)


def test_masked_choices_recover_the_utilities_that_made_them(choices: Callable[..., Examples]) -> None:
    draw = np.random.default_rng(0)
    truth = np.array([0.0, 1.0, -1.0, 0.5, 2.0])
    available = draw.random((40_000, 5)) < [0.9, 0.2, 0.7, 0.5, 0.8]
    available[:, 0] = True
    log_shares = masked_log_softmax(np.tile(truth, (40_000, 1)), available)
    option = (log_shares + draw.gumbel(size=log_shares.shape)).argmax(axis=1)
    prior = log_popularity(choices(available, option))
    np.testing.assert_allclose(prior - prior[0], truth, atol=0.06)


def test_the_average_probability_of_nothing_is_its_rate_even_with_little_evidence(
    choices: Callable[..., Examples],
) -> None:
    available = np.random.default_rng(0).random((300, 5)) < 0.6
    available[:, 4] = True
    option = np.full(300, 4)
    some = np.flatnonzero(available[:, :4].any(axis=1))[:6]
    option[some] = available[some, :4].argmax(axis=1)
    prior = log_popularity(choices(available, option))
    expected = np.exp(masked_log_softmax(np.tile(prior, (300, 1)), available))[:, 4].mean()
    assert expected == pytest.approx((option == 4).mean(), abs=1e-4)


def test_an_option_never_offered_gets_the_common_rate(choices: Callable[..., Examples]) -> None:
    available = np.ones((1000, 5), bool)
    available[:, 3] = False
    prior = log_popularity(choices(available, np.resize([0, 1, 2, 4, 4, 4], 1000)))
    assert prior[3] == pytest.approx(prior[:3].mean(), abs=0.02)


def test_an_option_offered_often_and_never_taken_is_below_the_others(choices: Callable[..., Examples]) -> None:
    prior = log_popularity(choices(np.ones((1000, 5), bool), np.resize([0, 1, 2, 4], 1000)))
    assert np.isfinite(prior).all()
    assert prior[3] < prior[:3].min() - 3


def test_without_the_outside_option_everything_is_finite(choices: Callable[..., Examples]) -> None:
    available = np.ones((100, 5), bool)
    available[:, 4] = False
    assert np.isfinite(log_popularity(choices(available, np.resize([0, 1], 100)))).all()


def test_weights_count_choices_and_their_scale_does_not(choices: Callable[..., Examples]) -> None:
    everything = np.ones((900, 5), bool)
    option = np.resize([0, 1, 4], 900)
    weight = np.where(option == 1, 3.0, 1.0)
    prior = log_popularity(choices(everything, option, weight=weight))
    assert prior[1] - prior[0] == pytest.approx(np.log(3), abs=0.02)
    scaled = log_popularity(choices(everything, option, weight=weight * 1000))
    np.testing.assert_allclose(scaled, prior, atol=1e-5)


def test_old_choices_are_forgotten_where_that_predicts_better(
    choices: Callable[..., Examples], choice_world: Callable[..., Any]
) -> None:
    question = choice_world(1, 1).question
    everything = np.ones((2000, 5), bool)
    day = np.arange(2000.0)
    changing = choices(everything, np.where(day < 1800, 0, 1), day)
    later = choices(everything[:100], np.ones(100, int), 2000 + day[:100])
    fitted = fit_prior.fit(question, changing, later)
    assert 0 < float(fitted.params["prior_half_life_days"]) <= 90
    stable = choices(everything, np.resize([0, 1, 2, 4], 2000), day)
    same_later = choices(everything[:100], np.resize([0, 1, 2, 4], 100), 2000 + day[:100])
    assert fit_prior.fit(question, stable, same_later).params["prior_half_life_days"] == 0.0


def test_a_refit_keeps_the_half_life(choices: Callable[..., Examples], choice_world: Callable[..., Any]) -> None:
    question = choice_world(1, 1).question
    day = np.arange(400.0)
    train = choices(np.ones((400, 5), bool), np.where(day < 300, 0, 1), day)
    fitted = fit_prior.fit(question, train, train)
    like = replace(fitted, params={**fitted.params, "prior_half_life_days": 30.0})
    again = fit_prior.refit(question, train, like)
    np.testing.assert_array_equal(again.scorer.utilities(train.rows)[0], log_popularity(train, half_life_days=30.0))


def test_a_product_without_a_history_stands_where_its_group_s_sales_put_it(choices: Callable[..., Examples]) -> None:
    """Account and card are one group, taken half of the time; loan and fund another, taken in 2 %. Card and fund were
    launched late: never offered, or three times in vain."""
    available = np.zeros((4006, 5), bool)
    available[:, 4] = True
    available[:2000, 0] = True
    available[2000:4000, 2] = True
    option = np.full(4006, 4)
    option[:2000:2] = 0
    option[2000:4000:50] = 2
    grouped = replace(choices(available, option), groups=(0, 0, 1, 1))
    prior = log_popularity(grouped)
    assert prior[1] == pytest.approx(prior[0], abs=0.05)
    assert prior[3] == pytest.approx(prior[2], abs=0.05)
    available[4000:4003, 1] = True
    available[4003:, 3] = True
    tried = log_popularity(replace(choices(available, option), groups=(0, 0, 1, 1)))
    assert tried[2] < tried[1] < tried[0], (
        "three refusals count against the card, not as much as its group speaks for it"
    )
    assert np.argsort(-tried[:4]).tolist() == [0, 1, 2, 3]
    alike = log_popularity(choices(available, option))
    assert alike[1] == pytest.approx(alike[3], abs=1e-4), "without groups nothing tells the new ones apart"


def test_with_much_history_the_group_says_nothing(choices: Callable[..., Examples]) -> None:
    option = np.repeat(np.arange(5), [1000, 2000, 3000, 500, 3500])
    examples = choices(np.ones((10_000, 5), bool), option)
    np.testing.assert_allclose(
        log_popularity(replace(examples, groups=(0, 0, 1, 1))), log_popularity(examples), atol=5e-3
    )


@pytest.mark.parametrize("options", [5, 8, 9, 64, 65, 130])
def test_choice_sets_stand_in_the_order_of_their_rows_however_many_options_there_are(options: int) -> None:
    available = np.random.default_rng(options).random((300, options)) < 0.5
    available[100:] = available[:200]
    found = np.unique(fit_prior._sortable(np.packbits(available, axis=1)), axis=0, return_index=True)[1]
    assert np.array_equal(available[found], np.unique(available, axis=0))
