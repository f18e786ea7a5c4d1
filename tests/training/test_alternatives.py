"""Candidates left out of rows: which stay, and that what is learned is the whole choice all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.schema import Bool, Float64
from training import fit_lightgbm
from training.alternatives import LEAST_KEPT, chances
from training.examples import Examples, log_loss
from training.pairs import MaskedSoftmax, Pairs

UTILITIES = np.array([1.5, 0.0, -1.0, -2.0])
"""Of four candidates; the outside option has 0."""


def drawn(world: Any, rows: int, outside: bool) -> Examples:
    """Choices by `UTILITIES` among what is available at random, of customers who are all alike."""
    draw = np.random.default_rng(4)
    examples: Examples = world(rows, 1, outside=outside).examples
    available = np.concatenate([draw.random((rows, 4)) < 0.9, np.full((rows, 1), outside)], axis=1)
    available[:, 0] |= ~available[:, :4].any(axis=1)
    noisy = np.where(available, np.append(UTILITIES, 0.0) + draw.gumbel(size=available.shape), -np.inf)
    chosen = np.eye(5, dtype=np.float32)[noisy.argmax(axis=1)]
    return replace(examples, available=available, chosen=chosen, taken=None)


def few(available: Bool, log_popularity: Float64 = UTILITIES, most: int = 0) -> Float64:
    """Two candidates per row, of however few pairs."""
    return chances(available, log_popularity, most=0, per_row=2)


def test_few_pairs_are_all_kept() -> None:
    available = np.ones((100, 8), dtype=bool)
    np.testing.assert_array_equal(chances(available, np.zeros(8), per_row=2, most=800), np.ones(8))
    assert chances(available, np.zeros(8), per_row=2, most=799).max() < 1
    np.testing.assert_array_equal(chances(np.ones((0, 8), dtype=bool), np.zeros(8), most=0), np.ones(8))


def test_popular_candidates_stay_more_often_and_as_many_stay_as_are_wanted() -> None:
    draw = np.random.default_rng(0)
    available = draw.random((5000, 12)) < np.linspace(0.4, 1, 12)
    popularity = draw.permutation(np.linspace(-4, 2, 12))
    kept = chances(available, popularity, per_row=4, most=0)
    assert float(available.mean(axis=0) @ kept) == pytest.approx(4, abs=1e-6)
    order = np.argsort(popularity)
    assert (np.diff(kept[order]) >= 0).all()
    assert kept.min() == LEAST_KEPT
    assert kept.max() == 1
    between = (kept > LEAST_KEPT) & (kept < 1)
    np.testing.assert_allclose(np.diff(np.log(kept[between]) - popularity[between]), 0, atol=1e-9)
    rest = chances(available, popularity, per_row=4, most=5000 * 6)
    assert float(available.mean(axis=0) @ rest) == pytest.approx(6, abs=1e-6), "no fewer pairs than may be"


@pytest.mark.parametrize("outside", [True, False])
def test_what_was_chosen_stays_and_the_rest_as_often_as_it_should(choice_world: Any, outside: bool) -> None:
    examples = drawn(choice_world, 30_000, outside)
    whole = Pairs.of(examples)
    some = Pairs.of(examples, seed=3, keep=few)
    assert some.available == whole.available == len(whole)
    kept = np.exp(-some.offset)
    assert kept.min() < 0.9
    assert some.chosen.sum() == examples.chosen[np.unique(some.row), :4].sum()
    for candidate in range(4):
        others = examples.available[:, candidate] & (examples.chosen[:, candidate] == 0)
        stayed = int(((some.candidate == candidate) & (some.chosen == 0)).sum())
        # rows with nothing left to choose from are gone, so a little fewer
        assert stayed <= others.sum() * kept[candidate] + 4 * np.sqrt(others.sum())
        assert stayed >= 0.8 * others.sum() * kept[candidate]
    counts = np.bincount(some.group) + some.outside
    assert counts.min() >= 2
    np.testing.assert_array_equal(some.start, np.flatnonzero(np.diff(some.row, prepend=-1)))
    again = Pairs.of(examples, seed=3, keep=few)
    np.testing.assert_array_equal(again.row, some.row)


@pytest.mark.parametrize("outside", [True, False])
def test_the_true_utilities_are_where_the_loss_of_what_is_left_is_least(choice_world: Any, outside: bool) -> None:
    """Its gradient is 0 there, within 4 standard errors; without the offset it is nowhere near."""
    examples = drawn(choice_world, 30_000, outside)
    pairs = Pairs.of(examples, keep=few)
    assert len(pairs) < 0.8 * pairs.available

    def away(offset: Float64) -> Float64:
        first, second = MaskedSoftmax(pairs, 0.0).gradient((UTILITIES + offset)[pairs.candidate])
        spread = np.sqrt(np.bincount(pairs.candidate, second))
        return np.asarray(np.abs(np.bincount(pairs.candidate, first)) / spread)

    assert away(pairs.offset).max() < 4
    assert away(np.zeros(4)).max() > 20


def test_trees_learned_from_some_candidates_say_what_trees_learned_from_all_say(
    choice_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, valid, later = (choice_world(rows, seed) for rows, seed in ((4000, 1), (1000, 2), (2000, 3)))
    monkeypatch.setattr(fit_lightgbm, "chances", few)
    some = fit_lightgbm.fit(world.question, world.examples, valid.examples)
    assert int(some.params["pairs"]) < 0.75 * int(some.params["pairs_given"])
    monkeypatch.undo()
    every = fit_lightgbm.fit(world.question, world.examples, valid.examples)
    assert every.params["pairs"] == every.params["pairs_given"]
    told = [log_loss(fitted.scorer.utilities(later.examples.rows), later.examples) for fitted in (some, every)]
    assert told[0] < told[1] + 0.02
