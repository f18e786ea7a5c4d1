"""One suite for every model family: what may be relied on whichever of them answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.errors import ArtefactError, InputError
from features.schema import Bool, Rows
from serving.calibration import IDENTITY
from serving.choice import ChoiceModel, Scorer, ranks
from training import fit_ensemble
from training.examples import Examples, log_loss
from training.families import FAMILIES, Fitted
from training.fit_calibration import fit_calibration

LEARNERS = ("counts", "lightgbm", "torch", "ensemble")
CARD = 1
MakeWorld = Callable[..., Any]


@dataclass(frozen=True)
class Learned:
    """A family fitted on a world, and unseen customers of the same world."""

    name: str
    world: Any
    fitted: Fitted
    model: ChoiceModel
    prior: Fitted

    @property
    def examples(self) -> Examples:
        examples: Examples = self.world.examples
        return examples

    @property
    def rows(self) -> Rows:
        return self.examples.rows

    @property
    def available(self) -> Bool:
        return self.examples.available[:, :-1]


KINDS: dict[str, dict[str, Any]] = {
    "with an outside option": {},
    "something is always chosen": {"outside": False},
    "one candidate tried on each customer": {"link": "each"},
}


def learn(name: str, kind: str, choice_world: MakeWorld, known: Callable[[str, str], Learned] | None = None) -> Learned:
    """known: gives families that were learned before, for the ensemble's members."""
    train, valid, unseen = (choice_world(rows, seed, **KINDS[kind]) for rows, seed in ((900, 1), (500, 2), (500, 3)))
    prior = FAMILIES["prior"].fit(train.question, train.examples, valid.examples)
    if name == "ensemble" and known is not None:
        members = {other: known(other, kind).fitted for other in ("counts", "lightgbm", "torch")}
        fitted = fit_ensemble.of(train.question, train.examples, members, prior)
    else:
        fitted = FAMILIES[name].fit(train.question, train.examples, valid.examples, seed=7)
    model = ChoiceModel(train.question, fitted.scorer, IDENTITY, train.examples.rows.schema)
    return Learned(name, unseen, fitted, model, prior)


@pytest.fixture(scope="module")
def learn_once(choice_world: MakeWorld) -> Callable[[str, str], Learned]:
    known = cache(lambda name, kind: learn(name, kind, choice_world, known))
    return known


@pytest.fixture(params=FAMILIES)
def learned(request: pytest.FixtureRequest, learn_once: Callable[[str, str], Learned]) -> Learned:
    """Every family on joint choice with an outside option."""
    return learn_once(request.param, "with an outside option")


@pytest.fixture(params=FAMILIES)
def conditional(request: pytest.FixtureRequest, learn_once: Callable[[str, str], Learned]) -> Learned:
    """Every family on joint choice in which something is always chosen."""
    return learn_once(request.param, "something is always chosen")


@pytest.fixture(params=FAMILIES)
def each(request: pytest.FixtureRequest, learn_once: Callable[[str, str], Learned]) -> Learned:
    """Every family on customers each of whom was tried with one candidate."""
    return learn_once(request.param, "one candidate tried on each customer")


def test_a_batch_scores_as_its_rows_do_one_by_one(learned: Learned) -> None:
    together = learned.model.probabilities(learned.rows, learned.available)
    alone = [
        learned.model.probabilities(learned.rows.take([i]), learned.available[[i]]) for i in range(len(learned.rows))
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=0, atol=1e-9)


def test_the_order_of_rows_changes_no_score(learned: Learned) -> None:
    order = np.random.default_rng(0).permutation(len(learned.rows))
    direct = learned.model.probabilities(learned.rows, learned.available)
    shuffled = learned.model.probabilities(learned.rows.take(order), learned.available[order])
    np.testing.assert_allclose(shuffled, direct[order], rtol=0, atol=1e-9)


def test_saved_and_loaded_gives_the_same_bits(learned: Learned, tmp_path: Path) -> None:
    learned.model.save(tmp_path / "model")
    loaded = ChoiceModel.load(tmp_path / "model")
    assert loaded.question == learned.model.question
    assert loaded.row_schema == learned.model.row_schema
    assert loaded.scorer.family == learned.name
    np.testing.assert_array_equal(loaded.scorer.utilities(learned.rows), learned.model.scorer.utilities(learned.rows))


def test_a_loaded_model_saves_the_same_files(learned: Learned, tmp_path: Path) -> None:
    learned.model.save(tmp_path / "first")
    ChoiceModel.load(tmp_path / "first").save(tmp_path / "second")
    assert (tmp_path / "first/manifest.json").read_text() == (tmp_path / "second/manifest.json").read_text()


@pytest.mark.parametrize("value", [np.nan, 1e30, -1e30, np.inf, 0.0])
def test_customers_unlike_any_seen_get_finite_probabilities(learned: Learned, value: float) -> None:
    few = learned.rows.take(slice(0, 5))
    strange = replace(few, customer=np.full_like(few.customer, value), product=np.full_like(few.product, value))
    scored = learned.model.score(strange, np.ones((5, 4), dtype=bool))
    assert scored.dropped == 0
    assert np.isfinite(scored.probabilities).all()
    assert (scored.probabilities >= 0).all()
    assert (scored.probabilities <= 1).all()


def test_what_is_not_available_has_no_probability_and_no_rank(learned: Learned) -> None:
    probabilities = learned.model.probabilities(learned.rows, learned.available)
    assert not learned.available.all()
    np.testing.assert_array_equal(np.isnan(probabilities), ~learned.available)
    np.testing.assert_array_equal(ranks(probabilities, learned.available) == 0, ~learned.available)


def test_shares_and_the_outside_option_sum_to_one(learned: Learned) -> None:
    question, utilities = learned.model.question, learned.model.scorer.utilities(learned.rows)
    shares = question.probabilities(utilities, learned.available)
    masked = np.where(learned.examples.available, utilities.astype(float), -np.inf)
    outside = np.exp(masked[:, -1] - np.logaddexp.reduce(masked, axis=1))
    np.testing.assert_allclose(np.nansum(shares, axis=1) + outside, 1.0, atol=1e-12)


def test_without_an_outside_option_the_shares_sum_to_one(conditional: Learned) -> None:
    probabilities = conditional.model.probabilities(conditional.rows, conditional.available)
    np.testing.assert_allclose(np.nansum(probabilities, axis=1), 1.0, atol=1e-12)


def test_a_row_with_nothing_available_has_no_probability(learned: Learned) -> None:
    nothing = learned.model.probabilities(learned.rows.take([0]), np.zeros((1, 4), dtype=bool))
    assert np.isnan(nothing).all()


def test_no_rows_in_no_rows_out(learned: Learned) -> None:
    assert learned.model.probabilities(learned.rows.take([]), np.zeros((0, 4), dtype=bool)).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEARNERS)
def test_the_rule_is_learned_and_the_prior_beaten(
    name: str, kind: str, learn_once: Callable[[str, str], Learned]
) -> None:
    case = learn_once(name, kind)
    loss = log_loss(case.fitted.scorer.utilities(case.rows), case.examples)
    prior = log_loss(case.prior.scorer.utilities(case.rows), case.examples)
    assert loss < 0.75 * prior
    probabilities = case.model.probabilities(case.rows, case.available)
    flagged, plain = case.world.flagged, case.world.plain & case.available[:, CARD]
    assert probabilities[flagged, CARD].mean() > 0.75
    assert probabilities[plain, CARD].mean() < 0.12
    assert (ranks(probabilities, case.available)[flagged, CARD] == 1).mean() > 0.97


def test_the_average_probability_is_the_observed_rate(learned: Learned) -> None:
    probabilities = learned.model.probabilities(learned.rows, learned.available)
    expected = 1 - np.nansum(probabilities, axis=1).mean()
    assert expected == pytest.approx(learned.examples.chosen[:, -1].mean(), abs=0.05)


def test_each_candidate_alone_is_answered_at_its_own_rate(each: Learned) -> None:
    probabilities = each.model.probabilities(each.rows, each.available)
    for candidate in range(4):
        tried = each.available[:, candidate]
        rate = each.examples.chosen[tried, candidate].mean()
        assert probabilities[tried, candidate].mean() == pytest.approx(rate, abs=0.09)


def test_each_candidate_alone_does_not_depend_on_the_others(each: Learned) -> None:
    everything = each.model.probabilities(each.rows, np.ones_like(each.available))
    alone = each.model.probabilities(each.rows, each.available)
    np.testing.assert_array_equal(everything[each.available], alone[each.available])


def test_the_same_seed_gives_the_same_model_bit_for_bit(
    learned: Learned, choice_world: MakeWorld, tmp_path: Path
) -> None:
    torch.rand(3)  # whatever else draws random numbers in between
    again = learn(learned.name, "with an outside option", choice_world)
    assert again.fitted.params == learned.fitted.params
    learned.model.save(tmp_path / "first")
    again.model.save(tmp_path / "second")
    assert (tmp_path / "first/manifest.json").read_text() == (tmp_path / "second/manifest.json").read_text()


def test_refitting_on_the_same_examples_gives_the_same_model(learned: Learned, choice_world: MakeWorld) -> None:
    train = choice_world(900, 1)
    again = FAMILIES[learned.name].refit(train.question, train.examples, learned.fitted, seed=7)
    assert again.rounds == learned.fitted.rounds
    np.testing.assert_array_equal(again.scorer.utilities(learned.rows), learned.fitted.scorer.utilities(learned.rows))


def test_rows_of_another_schema_are_refused(learned: Learned) -> None:
    other = replace(learned.rows.schema, customer_names=tuple(reversed(learned.rows.schema.customer_names)))
    swapped = replace(learned.rows, schema=other)
    with pytest.raises(ArtefactError, match="train again"):
        learned.model.scorer.utilities(swapped)
    with pytest.raises(ArtefactError, match="train again"):
        learned.model.probabilities(swapped, learned.available)


def test_utilities_are_float32_with_the_outside_option_last(learned: Learned) -> None:
    assert isinstance(learned.fitted.scorer, Scorer)
    utilities = learned.fitted.scorer.utilities(learned.rows)
    assert utilities.dtype == np.float32
    assert utilities.shape == (len(learned.rows), 5)


def test_what_is_not_available_teaches_nothing(learned: Learned, choice_world: MakeWorld) -> None:
    """Columns of candidates that could not be chosen are changed: the model stays the same."""
    train = choice_world(900, 1)
    product = train.examples.rows.product.copy()
    product[~train.examples.available[:, :-1]] = 1e6
    changed = replace(train.examples, rows=replace(train.examples.rows, product=product))
    short = replace(learned.fitted, rounds=5)
    one, two = (
        FAMILIES[learned.name].refit(train.question, examples, short, seed=7).scorer.utilities(learned.rows)
        for examples in (train.examples, changed)
    )
    np.testing.assert_array_equal(one, two)


def test_calibration_keeps_ranks_and_range(learned: Learned) -> None:
    calibration = replace(
        fit_calibration(learned.model.question, learned.fitted.scorer, learned.examples), by_candidate=()
    )
    assert calibration.kind != "none"
    calibrated = replace(learned.model, calibration=calibration).probabilities(learned.rows, learned.available)
    plain = learned.model.probabilities(learned.rows, learned.available)
    np.testing.assert_array_equal(ranks(calibrated, learned.available), ranks(plain, learned.available))
    assert np.nanmin(calibrated) >= 0
    assert np.nanmax(calibrated) <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_no_examples_is_an_error_that_says_so(name: str, choice_world: MakeWorld) -> None:
    world = choice_world(50, 1)
    empty = world.examples.take(np.zeros(50, dtype=bool))
    with pytest.raises(InputError, match="validation example"):
        FAMILIES[name].fit(world.question, world.examples, empty)
