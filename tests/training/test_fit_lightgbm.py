"""LightGBM's masked softmax objective against finite differences, its pairs, and what its settings are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serving.scorers import Layout, LightGBMScorer, pair_matrix
from training import fit_lightgbm
from training.examples import Examples, log_loss
from training.pairs import InOrder, MaskedSoftmax, Pairs, PairSequence

KINDS: list[dict[str, Any]] = [{}, {"outside": False}, {"link": "each"}]


def spread(examples: Examples) -> Examples:
    """The same choices, the first two rows' shared by all that was available, with unequal weights."""
    chosen = examples.chosen.copy()
    chosen[:2] = examples.available[:2] / examples.available[:2].sum(axis=1, keepdims=True)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(examples)).astype(np.float32)
    return replace(examples, chosen=chosen, weight=weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_loss(kind: dict[str, Any], choice_world: Callable[..., Any]) -> None:
    pairs = Pairs.of(spread(choice_world(12, 1, **kind).examples))
    softmax = MaskedSoftmax(pairs, outside_utility=0.7)
    at = np.random.default_rng(1).normal(size=len(pairs))
    gradient, curvature = softmax.gradient(at)
    step = 1e-5
    total = pairs.weight.sum()
    for k in range(len(pairs)):
        ahead, behind = at.copy(), at.copy()
        ahead[k] += step
        behind[k] -= step
        slope = total * (softmax.loss(ahead) - softmax.loss(behind)) / (2 * step)
        assert gradient[k] == pytest.approx(slope, abs=1e-6)
        bend = total * (softmax.loss(ahead) - 2 * softmax.loss(at) + softmax.loss(behind)) / step**2
        assert curvature[k] >= bend - 1e-3


def test_two_candidates_that_trade_places_are_as_curved_as_they_say(choice_world: Callable[..., Any]) -> None:
    examples = choice_world(1, 1, outside=False).examples
    two = np.array([[True, True, False, False, False]])
    pairs = Pairs.of(replace(examples, available=two, chosen=np.array([[1, 0, 0, 0, 0]], np.float32)))
    softmax = MaskedSoftmax(pairs, 0.0)
    at, apart, step = np.array([0.3, 0.3]), np.array([1.0, -1.0]), 1e-4
    bend = (softmax.loss(at + step * apart) - 2 * softmax.loss(at) + softmax.loss(at - step * apart)) / step**2
    assert softmax.gradient(at)[1].sum() == pytest.approx(bend, rel=1e-4)


def test_popularity_is_counted_once(choice_world: Callable[..., Any]) -> None:
    """Choices that depend on nothing but popularity: the prior starts the trees, and is added again when scoring."""
    question = choice_world(1, 1).question
    popularity = [0.5, 0.15, 0.04, 0.01, 0.3]

    def made(rows: int, seed: int) -> Examples:
        examples: Examples = choice_world(rows, seed).examples
        option = np.random.default_rng(seed).choice(5, rows, p=popularity)
        return replace(
            examples,
            available=np.ones_like(examples.available),
            chosen=np.eye(5, dtype=np.float32)[option],
        )

    unseen = made(1000, 3)
    fitted = fit_lightgbm.fit(question, made(1000, 1), made(1000, 2))
    shares = question.probabilities(fitted.scorer.utilities(unseen.rows), unseen.available[:, :-1])
    np.testing.assert_allclose(shares.mean(axis=0), popularity[:4], atol=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_its_loss_is_the_log_loss_of_the_examples(kind: dict[str, Any], choice_world: Callable[..., Any]) -> None:
    examples = spread(choice_world(200, 1, **kind).examples)
    pairs = Pairs.of(examples)
    examples = examples.take(np.unique(pairs.row))
    utilities = np.random.default_rng(1).normal(size=(200, 5))
    utilities[:, 4] = 0.7
    inside = MaskedSoftmax(pairs, 0.7).loss(utilities[pairs.row, pairs.candidate])
    assert inside == pytest.approx(log_loss(utilities[np.unique(pairs.row)], examples), rel=1e-6)


def test_a_large_utility_overflows_nowhere(choice_world: Callable[..., Any]) -> None:
    pairs = Pairs.of(choice_world(12, 1).examples)
    softmax = MaskedSoftmax(pairs, outside_utility=-900.0)
    gradient, curvature = softmax.gradient(np.linspace(-2000, 2000, len(pairs)))
    assert np.isfinite(gradient).all()
    assert np.isfinite(curvature).all()
    assert np.isfinite(softmax.loss(np.linspace(-2000, 2000, len(pairs))))


def test_only_available_candidates_of_rows_with_a_choice_are_pairs(choice_world: Callable[..., Any]) -> None:
    examples = choice_world(100, 1, outside=False).examples
    available, chosen = examples.available.copy(), examples.chosen.copy()
    available[3], chosen[3] = [True, False, False, False, False], [1, 0, 0, 0, 0]  # no choice
    weight = examples.weight.copy()
    weight[4] = 0
    pairs = Pairs.of(replace(examples, available=available, chosen=chosen, weight=weight))
    assert not np.isin(pairs.row, [3, 4]).any()
    assert available[pairs.row, pairs.candidate].all()
    others = np.setdiff1d(np.flatnonzero(available.sum(axis=1) > 1), [3, 4])
    assert len(pairs) == available[others, :-1].sum()


def test_beyond_the_memory_limit_whole_rows_are_sampled(choice_world: Callable[..., Any]) -> None:
    examples = choice_world(2000, 1).examples
    everything, some, again = Pairs.of(examples), Pairs.of(examples, 1000, 5), Pairs.of(examples, 1000, 5)
    assert len(some) == pytest.approx(1000, rel=0.2)
    np.testing.assert_array_equal(some.row, again.row)
    row = some.row[0]
    np.testing.assert_array_equal(some.candidate[some.row == row], everything.candidate[everything.row == row])


def test_the_sampling_is_told(choice_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_lightgbm, "PAIR_BYTES", 2 * 8 * 1000)
    world = choice_world(900, 1)
    params = fit_lightgbm.fit(world.question, world.examples, world.examples).params
    assert params["rows_given"] == 900
    assert int(params["rows_used"]) < 450
    assert params["pairs"] == pytest.approx(1000, rel=0.2)


def test_few_pairs_are_learned_in_small_steps_and_many_in_large_ones(choice_world: Callable[..., Any]) -> None:
    world = choice_world(200, 1)
    fitted = fit_lightgbm.fit(world.question, world.examples, choice_world(100, 2).examples)
    assert fitted.params["learning_rate"] == fit_lightgbm.SLOW
    assert fit_lightgbm.learning_rate(fit_lightgbm.FEW_PAIRS) == fit_lightgbm.SLOW
    assert fit_lightgbm.learning_rate(fit_lightgbm.FEW_PAIRS + 1) == fit_lightgbm.FAST


@pytest.mark.parametrize("rate", [fit_lightgbm.SLOW, fit_lightgbm.FAST])
def test_a_refit_takes_as_many_steps_of_the_same_size(rate: float, choice_world: Callable[..., Any]) -> None:
    """A refit has more pairs than the fit before it, perhaps more than are learned slowly."""
    world = choice_world(200, 1)
    fitted = fit_lightgbm.fit(world.question, world.examples, choice_world(100, 2).examples)
    before = replace(fitted, rounds=3, params={**fitted.params, "learning_rate": rate})
    again = fit_lightgbm.refit(world.question, world.examples, before)
    assert (again.rounds, again.params["learning_rate"]) == (3, rate)


def test_training_and_scoring_read_the_same_lines(choice_world: Callable[..., Any]) -> None:
    world = choice_world(50, 1)
    layout = Layout.of(world.question, world.examples.rows.schema)
    prior = np.arange(5, dtype=np.float32)
    pairs = Pairs.of(world.examples)
    lines = PairSequence(world.examples, layout, prior, pairs)
    rows = world.examples.rows
    whole = pair_matrix(layout.customer(rows), layout.candidates(rows), prior, pairs.row, pairs.candidate)
    np.testing.assert_array_equal(lines[10:20], whole[10:20])
    np.testing.assert_array_equal(lines[7], whole[7])
    k = 17
    expected = [*rows.customer[pairs.row[k]], *rows.product[pairs.row[k], pairs.candidate[k]]]
    np.testing.assert_array_equal(whole[k], [*expected, prior[pairs.candidate[k]], pairs.candidate[k]])


def test_candidates_may_be_in_another_order_than_the_catalogue(choice_world: Callable[..., Any]) -> None:
    world = choice_world(900, 1)
    order = [2, 0, 3, 1]
    question = replace(world.question, candidates=tuple(world.question.candidates[i] for i in order))
    examples = world.examples
    turned = replace(examples, available=examples.available[:, [*order, 4]], chosen=examples.chosen[:, [*order, 4]])
    layout = Layout.of(question, examples.rows.schema)
    np.testing.assert_array_equal(layout.candidates(examples.rows), examples.rows.product[:, order])
    fitted = fit_lightgbm.fit(question, turned, turned)
    probabilities = question.probabilities(fitted.scorer.utilities(examples.rows), turned.available[:, :-1])
    assert probabilities[world.flagged, order.index(1)].mean() > 0.8


def test_importance_is_a_share_of_the_gain_by_column(choice_world: Callable[..., Any]) -> None:
    world = choice_world(900, 1)
    importance = fit_lightgbm.fit(world.question, world.examples, choice_world(500, 2).examples).importance
    assert importance is not None
    assert sum(importance.values()) == pytest.approx(1)
    schema = world.examples.rows.schema
    assert set(importance) == {*schema.customer_names, *schema.product_names, "prior", "candidate"}
    noise = [*schema.customer_names[1:], *schema.product_names]
    assert max(importance, key=lambda name: importance[name]) in ("flag", "candidate")
    assert importance["flag"] > max(importance[name] for name in noise)


def test_the_threads_that_score_change_no_bit(choice_world: Callable[..., Any]) -> None:
    world = choice_world(400, 1)
    one = fit_lightgbm.fit(world.question, world.examples, world.examples).scorer
    assert isinstance(one, LightGBMScorer)
    two = LightGBMScorer(one.layout, one.prior, one.booster, threads=2)
    np.testing.assert_array_equal(one.utilities(world.examples.rows), two.utilities(world.examples.rows))


def test_preferences_that_change_no_total_are_learned(choice_world: Callable[..., Any]) -> None:
    """Who has the flag takes card or loan, the others account or fund, and there are as many of both: neither the
    customers' column nor the candidates' has a gain alone, only both together."""
    question = choice_world(1, 1, outside=False).question

    def made(rows: int, seed: int) -> Examples:
        examples: Examples = choice_world(rows, seed, outside=False).examples
        customer = examples.rows.customer.copy()
        customer[:, 0] = np.resize([0, 1], rows)
        lot = np.random.default_rng(seed).integers(2, size=rows)
        option = np.where(customer[:, 0] == 1, 1 + lot, 3 * lot)
        return Examples(
            replace(examples.rows, customer=customer),
            available=np.tile([True, True, True, True, False], (rows, 1)),
            chosen=np.eye(5, dtype=np.float32)[option],
            weight=examples.weight,
        )

    unseen = made(1000, 3)
    fitted = fit_lightgbm.fit(question, made(1500, 1), made(500, 2))
    assert log_loss(fitted.scorer.utilities(unseen.rows), unseen) < np.log(2) + 0.08


def test_lines_that_are_sampled_are_those_of_their_block(choice_world: Callable[..., Any]) -> None:
    world = choice_world(50, 1)
    layout = Layout.of(world.question, world.examples.rows.schema)
    lines = PairSequence(world.examples, layout, np.arange(5, dtype=np.float32), Pairs.of(world.examples))
    lines.batch_size = 16
    whole = lines[:]
    for number in (*range(0, len(lines), 7), len(lines) - 1, 0, 15, 16):
        np.testing.assert_array_equal(lines[number], whole[number].astype(np.float64))


def test_lines_candidate_after_candidate_are_the_same_pairs_and_have_their_derivatives(
    choice_world: Callable[..., Any],
) -> None:
    world = choice_world(50, 1)
    layout, prior = Layout.of(world.question, world.examples.rows.schema), np.arange(5, dtype=np.float32)
    pairs = Pairs.of(world.examples)
    order = pairs.by_candidate()
    lines, sorted_lines = (PairSequence(world.examples, layout, prior, pairs, by) for by in (None, order))
    assert np.all(np.diff(sorted_lines.candidate) >= 0)
    np.testing.assert_array_equal(sorted_lines[:], lines[:][order])
    softmax = MaskedSoftmax(pairs, 0.3)
    utilities = np.random.default_rng(2).normal(size=len(pairs))
    for sorted_ones, plain in zip(
        InOrder(softmax, order)(utilities[order], None), softmax.gradient(utilities), strict=True
    ):
        np.testing.assert_array_equal(sorted_ones, plain[order])


def test_the_order_of_the_lines_changes_nothing_that_is_learned(
    choice_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fit_lightgbm.SETTINGS, "bagging_freq", 0)  # drawn by the number of a line
    world, valid = choice_world(300, 1), choice_world(100, 2).examples
    as_they_are = fit_lightgbm.fit(world.question, world.examples, valid)
    monkeypatch.setattr(fit_lightgbm, "IN_CACHE", 0)
    by_candidate = fit_lightgbm.fit(world.question, world.examples, valid)
    one, other = (fitted.scorer.utilities(valid.rows) for fitted in (as_they_are, by_candidate))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_leaves_are_larger_only_where_steps_are_small() -> None:
    def leaf(rate: float) -> int:
        settings = fit_lightgbm._settings(40_000, 1, 0, {"learning_rate": rate})
        return int(settings["min_data_in_leaf"])

    assert (leaf(fit_lightgbm.SLOW), leaf(fit_lightgbm.FAST)) == (80, 20)
