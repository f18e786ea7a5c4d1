"""Leaves that learn anew: the same pairs give the leaves that were grown, other pairs what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np

from serving.scorers import Layout, LightGBMScorer
from training import fit_lightgbm, leaves_again
from training.examples import Examples, log_loss
from training.families import Fitted
from training.fit_prior import log_popularity
from training.pairs import MaskedSoftmax, Pairs, PairSequence

RATE, L2 = 0.3, 2.0


def grown(question: Any, examples: Examples) -> tuple[lightgbm.Booster, Layout, Any, Pairs]:
    """Trees on all pairs and columns, without splits of categories, whose leaves have a penalty of their own."""
    layout = Layout.of(question, examples.rows.schema)
    prior, pairs = log_popularity(examples), Pairs.of(examples)
    softmax = MaskedSoftmax(pairs, float(prior[-1]))
    settings = {
        "objective": softmax, "learning_rate": RATE, "lambda_l2": L2, "num_leaves": 7, "min_data_in_leaf": 5,
        "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True,
    }  # fmt: skip
    start = prior[pairs.candidate].astype(np.float64)
    data = lightgbm.Dataset(PairSequence(examples, layout, prior, pairs), init_score=start, params=settings)
    return lightgbm.train(settings, data, num_boost_round=12), layout, prior, pairs


def leaf_values(trees: lightgbm.Booster) -> list[float]:
    return [value for line in trees.model_to_string().splitlines() if line.startswith("leaf_value=")
            for value in map(float, line.removeprefix("leaf_value=").split())]  # fmt: skip


def test_from_the_same_pairs_leaves_learn_what_lightgbm_put_there(choice_world: Callable[..., Any]) -> None:
    world = choice_world(400, 1)
    trees, layout, prior, pairs = grown(world.question, world.examples)
    found = leaves_again.leaves_again(trees, world.examples, layout, prior, pairs, RATE, L2, 1)
    np.testing.assert_allclose(leaf_values(found), leaf_values(trees), rtol=1e-4, atol=1e-7)


def test_from_other_pairs_the_questions_stay_and_the_answers_follow(choice_world: Callable[..., Any]) -> None:
    """The same rows, in which everybody now takes the option after the one they took."""
    world = choice_world(2_000, 1)
    trees, layout, _, _ = grown(world.question, world.examples)
    everything = np.ones_like(world.examples.available)
    turned = replace(world.examples, available=everything, chosen=np.roll(world.examples.chosen, 1, axis=1), taken=None)
    start = log_popularity(turned)
    found = leaves_again.leaves_again(trees, turned, layout, start, Pairs.of(turned), RATE, L2, 1)
    asked = [line for line in trees.model_to_string().splitlines() if line.startswith(("split_feature=", "threshold="))]
    assert asked == [
        line for line in found.model_to_string().splitlines() if line.startswith(("split_feature=", "threshold="))
    ]
    before, after = (
        log_loss(LightGBMScorer(layout, start, one).utilities(turned.rows), turned) for one in (trees, found)
    )
    assert after < log_loss(np.tile(start, (len(turned), 1)), turned) < before


def test_a_refit_of_few_pairs_grows_trees_and_one_of_many_teaches_their_leaves(
    choice_world: Callable[..., Any],
) -> None:
    """Which of both it was is told by the questions of the trees, as the new rows are others."""
    train, valid = (choice_world(300, seed).examples for seed in (1, 2))
    question = choice_world(1, 1).question
    like = fit_lightgbm.fit(question, train, valid)
    few = choice_world(2_000, 3).examples
    many = few.take(np.tile(np.arange(len(few)), -(-fit_lightgbm.FEW_PAIRS // int(few.available[:, :-1].sum())) + 1))

    def questions(fitted: Fitted) -> str:
        assert isinstance(fitted.scorer, LightGBMScorer)
        return "".join(
            line for line in fitted.scorer.booster.model_to_string().splitlines() if line.startswith("threshold=")
        )

    assert questions(fit_lightgbm.refit(question, few, like)) != questions(like)
    again = fit_lightgbm.refit(question, many, like)
    assert questions(again) == questions(like)
    assert (again.rounds, again.importance) == (like.rounds, like.importance)
    assert again.params["rows_given"] == len(many)
