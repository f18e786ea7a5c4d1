"""PyTorch: its loss, its missing values, and that it leaves torch as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from serving.network import Architecture, ChoiceNetwork, Standardise, TorchScorer
from training import fit_prior, fit_torch
from training.examples import Examples, log_loss
from training.families import Fitted
from training.fit_prior import log_popularity
from training.fit_torch import masked_cross_entropy


def epochs(world: Any, count: int) -> Fitted:
    """An earlier fit that stopped after so many epochs."""
    return replace(fit_prior.fit(world.question, world.examples, world.examples), rounds=count)


def noise(examples: Examples) -> Examples:
    """The same choices by other customers, to whom everything is available."""
    rows = examples.rows.take(np.roll(np.arange(len(examples)), 1))
    return replace(examples, rows=rows, available=np.ones_like(examples.available))


@pytest.mark.parametrize("kind", [{}, {"outside": False}, {"link": "each"}])
def test_its_loss_is_the_log_loss_of_the_examples(kind: dict[str, Any], choice_world: Callable[..., Any]) -> None:
    examples = choice_world(100, 1, **kind).examples
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 100).astype(np.float32)
    examples = replace(examples, weight=weight / weight.mean())
    utilities = np.random.default_rng(1).normal(size=(100, 5)) * 30
    arrays = (utilities, examples.available, examples.chosen, examples.weight)
    loss = masked_cross_entropy(*(torch.from_numpy(array) for array in arrays))
    assert loss.item() == pytest.approx(log_loss(utilities, examples), rel=1e-6)


def test_what_is_masked_gets_no_gradient_and_no_nan(choice_world: Callable[..., Any]) -> None:
    examples = choice_world(100, 1).examples
    utilities = torch.zeros((100, 5), requires_grad=True)
    arrays = (torch.from_numpy(array) for array in (examples.available, examples.chosen, examples.weight))
    masked_cross_entropy(utilities, *arrays).backward()
    assert utilities.grad is not None
    gradient = utilities.grad.numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[~examples.available] == 0).all()


def test_an_untrained_network_is_the_prior(choice_world: Callable[..., Any]) -> None:
    world = choice_world(200, 1)
    nothing = fit_torch.refit(world.question, world.examples, epochs(world, 0))
    prior = log_popularity(world.examples)
    np.testing.assert_array_equal(nothing.scorer.utilities(world.examples.rows), np.tile(prior, (200, 1)))


def test_noise_leaves_the_network_no_worse_than_the_prior(choice_world: Callable[..., Any]) -> None:
    question = choice_world(1, 1).question
    train, valid, unseen = (noise(choice_world(rows, seed).examples) for rows, seed in ((300, 1), (300, 2), (2000, 3)))
    fitted = fit_torch.fit(question, train, valid)
    prior = np.tile(log_popularity(train), (2000, 1))
    assert log_loss(fitted.scorer.utilities(unseen.rows), unseen) < log_loss(prior, unseen) * 1.01


def test_missing_values_are_the_mean_with_a_sign_of_their_own() -> None:
    values = np.array([[1.0, 5.0], [3.0, np.nan], [-2.0, 7.0]], dtype=np.float32)
    standardise = Standardise(2)
    standardise.learn(values)
    shown = standardise(torch.tensor([[np.nan, np.nan], [1.0, 5.0]]))
    np.testing.assert_array_equal(shown[0].numpy(), [0, 0, 0, 1])  # the first column was never missing: no sign
    np.testing.assert_array_equal(shown[1, 2:].numpy(), [0, 0])
    known = standardise(torch.from_numpy(values[:, :1].repeat(2, axis=1)))[:, 0].numpy()
    assert known.mean() == pytest.approx(0, abs=1e-6)
    assert known.std() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("values", [np.full((4, 2), np.nan), np.full((4, 2), 3.0), np.full((4, 2), 1e30)])
def test_columns_without_spread_stay_finite(values: Any) -> None:
    standardise = Standardise(2)
    standardise.learn(values.astype(np.float32))
    assert torch.isfinite(standardise(torch.tensor([[np.nan, np.inf], [-1e30, 0.0]]))).all()


def test_torch_is_left_as_it_was(choice_world: Callable[..., Any]) -> None:
    world = choice_world(60, 1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit_torch.refit(world.question, world.examples, epochs(world, 2), seed=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_gives_another_network(choice_world: Callable[..., Any]) -> None:
    world = choice_world(300, 1)
    one, two = (fit_torch.refit(world.question, world.examples, epochs(world, 2), seed).scorer for seed in (1, 2))
    assert (one.utilities(world.examples.rows) != two.utilities(world.examples.rows)).any()


def test_scoring_in_blocks_changes_no_score(choice_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world = choice_world(50, 1)
    scorer = fit_torch.refit(world.question, world.examples, epochs(world, 3)).scorer
    whole = scorer.utilities(world.examples.rows)
    monkeypatch.setattr("serving.network.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(scorer.utilities(world.examples.rows), whole, atol=1e-6)


def test_a_network_keeps_its_sizes() -> None:
    network = ChoiceNetwork(Architecture(customer=4, candidates=3, columns=2))
    assert network(torch.zeros(5, 4), torch.zeros(5, 3, 2)).shape == (5, 4)
    assert TorchScorer.family == "torch"
