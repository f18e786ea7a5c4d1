"""Back-off counts: shares by key where there is evidence, the coarser key's where there is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.schema import Attribute, Bool, Float32, Float64, Rows, RowSchema
from serving.count_keys import Fact, Key
from serving.counts_scorer import CountsScorer
from serving.question import Block, Question, masked_log_softmax
from training import fit_counts
from training.count_search import bound
from training.examples import Examples

PRODUCTS, CHANNELS = ("account", "card", "loan", "fund"), ("app", "branch")
NAMES = (
    "age", "segment = young", "segment = old", *(f"{name}: days since bought" for name in PRODUCTS),
    *(f"{name}: visits" for name in CHANNELS), "noise",
)  # fmt: skip
SCHEMA = RowSchema(
    PRODUCTS, (False,) * 4, CHANNELS, (Attribute("segment", "text"),), (("segment", ("young", "old")),), "UTC", NAMES,
    ("own",), ("own",),
)  # fmt: skip
LAST = tuple(NAMES.index(f"{name}: days since bought") for name in PRODUCTS)
VISITS = tuple(NAMES.index(f"{name}: visits") for name in CHANNELS)


def question(block: Block = "product", outside: bool = False) -> Question:
    return Question("m", PRODUCTS if block == "product" else CHANNELS, block, "joint", outside, 30.0)


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def blank(draw: np.random.Generator, n: int) -> Float32:
    """A customer block [n, C] of noise: nothing bought, no visits, no segment."""
    customer = draw.normal(size=(n, len(NAMES))).astype(np.float32)
    customer[:, 1:3] = 0
    customer[:, list(LAST)] = np.nan
    customer[:, list(VISITS)] = 0
    return customer


def chosen_by(
    draw: np.random.Generator, customer: Float32, utilities: Float64, available: Bool | None = None
) -> Examples:
    """Choices by a masked softmax of true utilities [n, m]; no outside option."""
    n, m = utilities.shape
    shown = np.ones((n, m), dtype=bool) if available is None else available
    log_shares = masked_log_softmax(utilities, shown)
    option = (log_shares + draw.gumbel(size=log_shares.shape)).argmax(axis=1)
    rows = Rows(
        customer, draw.normal(size=(n, 4, 1)).astype(np.float32), draw.normal(size=(n, 2, 1)).astype(np.float32),
        np.zeros((n, 4), bool), np.zeros((n, 2), bool), SCHEMA,
    )  # fmt: skip
    options = np.concatenate([shown, np.zeros((n, 1), bool)], axis=1)
    chosen = np.eye(m + 1, dtype=np.float32)[option]
    return Examples(rows, options, chosen, np.ones(n, np.float32), at=np.arange(n, dtype=np.float64))


def halves(examples: Examples) -> tuple[Examples, Examples]:
    border = int(0.75 * len(examples))
    return examples.take(slice(0, border)), examples.take(slice(border, None))


def kinds(scorer: Any) -> list[str]:
    assert isinstance(scorer, CountsScorer)
    return [fact.kind for key in scorer.keys for fact in key.facts]


def test_a_segment_is_a_key_and_its_shares_are_found_though_some_products_could_not_be_bought(
    draw: np.random.Generator,
) -> None:
    """The young like cards e² times as much as the old; half of the cards could not be had."""
    customer = blank(draw, 8000)
    young = draw.random(8000) < 0.5
    customer[:, 1], customer[:, 2] = young, ~young
    truth = np.zeros((8000, 4))
    truth[:, 1] = np.where(young, 1.0, -1.0)
    available = np.ones((8000, 4), bool)
    available[:, 1] = draw.random(8000) < np.where(young, 0.2, 0.8)
    train, valid = halves(chosen_by(draw, customer, truth, available))
    fitted = fit_counts.fit(question(), train, valid)
    assert kinds(fitted.scorer)[0] == "word"
    found = fitted.scorer.utilities(valid.rows)
    found = found - found[:, :1]
    is_young = valid.rows.customer[:, 1] == 1
    liked, disliked = found[is_young, 1].mean(), found[~is_young, 1].mean()
    assert 0.65 < liked < 1.1, "the truth is 1; drawn a little to what all have in common"
    assert -1.1 < disliked < -0.65
    assert np.abs(found[:, 2:4].mean(axis=0)).max() < 0.15


def test_what_was_bought_last_leads_to_what_is_bought_next(draw: np.random.Generator) -> None:
    customer = blank(draw, 4000)
    last = draw.integers(4, size=4000)
    customer[:, list(LAST)] = 100 + 10 * draw.random((4000, 4))
    customer[np.arange(4000), np.array(LAST)[last]] = 5
    truth = 2.0 * (np.arange(4) == ((last + 1) % 4)[:, None])
    train, valid = halves(chosen_by(draw, customer, truth))
    fitted = fit_counts.fit(question(), train, valid)
    assert kinds(fitted.scorer)[0] == "least"
    following = (valid.rows.customer[:, list(LAST)].argmin(axis=1) + 1) % 4
    assert (fitted.scorer.utilities(valid.rows)[:, :4].argmax(axis=1) == following).mean() > 0.99


def test_a_customer_s_own_channel_speaks_where_the_customer_has_a_habit(draw: np.random.Generator) -> None:
    """Everybody has a channel of their own; who has never come gets the share of all."""
    customer = blank(draw, 4000)
    habit = draw.integers(2, size=4000)
    known = draw.random(4000) < 0.7
    customer[np.arange(4000)[known], np.array(VISITS)[habit[known]]] = 4
    truth = 2.5 * (np.arange(2) == habit[:, None])
    train, valid = halves(chosen_by(draw, customer, truth))
    fitted = fit_counts.fit(question("channel"), train, valid)
    assert {"share", "place", "most", "least", "pattern"} & set(kinds(fitted.scorer))
    utilities = fitted.scorer.utilities(valid.rows)
    gap = utilities[:, 1] - utilities[:, 0]
    visits = valid.rows.customer[:, list(VISITS)]
    assert gap[visits[:, 1] > 0].mean() > 1.5
    assert gap[visits[:, 0] > 0].mean() < -1.5
    assert abs(gap[visits.sum(axis=1) == 0].mean()) < 0.3


def test_where_no_column_says_anything_the_prior_is_all(draw: np.random.Generator) -> None:
    losses = []
    for _ in range(5):
        train, valid = halves(chosen_by(draw, blank(draw, 1500), np.tile([0.0, 1.0, -1.0, 0.5], (1500, 1))))
        fitted = fit_counts.fit(question(), train, valid)
        spread = fitted.scorer.utilities(valid.rows)[:, :4].std(axis=0).max()
        losses.append((fitted.rounds, spread))
    assert sorted(rounds for rounds, _ in losses)[2] == 0, "most often no key at all"
    assert max(spread for _, spread in losses) < 0.35, "and if one, it says little"


def test_keys_that_no_longer_hold_in_the_validation_rows_are_left_out(draw: np.random.Generator) -> None:
    customer = blank(draw, 3000)
    customer[:, 1] = draw.random(3000) < 0.5
    truth = np.zeros((3000, 4))
    truth[:, 1] = 2.0 * customer[:, 1] * np.where(np.arange(3000) < 2250, 1, -1)
    train, valid = halves(chosen_by(draw, customer, truth))
    assert fit_counts.fit(question(), train, train).rounds > 0
    assert fit_counts.fit(question(), train, valid).rounds == 0


def test_a_cell_is_believed_by_how_much_more_was_chosen_in_it_than_expected(draw: np.random.Generator) -> None:
    """By hand: 6 young of whom all took the card, of 4 products alike; strength 4."""
    customer = blank(draw, 406)
    customer[:6, 1] = 1
    examples = chosen_by(draw, customer, np.zeros((406, 4)))
    examples.chosen[:] = 0
    examples.chosen[np.arange(406), np.resize([0, 1, 2, 3], 406)] = 1
    examples.chosen[:6] = np.eye(5)[1]
    key = Key((Fact("word", (1, 2)),), True, 4.0)
    like = fit_counts.fit(question(), examples, examples)
    scorer = CountsScorer(like.scorer.layout, like.scorer.prior, (key,), (np.zeros((3, 5), np.float32),))  # type: ignore[attr-defined]
    again = fit_counts.refit(question(), examples, replace(like, scorer=scorer, rounds=1))
    assert isinstance(again.scorer, CountsScorer)
    utility, found = again.scorer.prior[None].astype(float), again.scorer.tables[0][1]
    share = np.exp(masked_log_softmax(utility + found, examples.available[:1]))[0]
    without = 6 * share[:4] / np.exp(found[:4])
    np.testing.assert_allclose(found[:4], np.log((np.array([0, 6, 0, 0]) + 4.0) / (without + 4.0)), atol=0.02)
    assert found[1] == pytest.approx(np.log(10 / 5.5), abs=0.1)
    np.testing.assert_array_equal(again.scorer.tables[0][2], np.zeros(5), err_msg="nobody is old: nothing is said")


def test_the_promise_of_a_key_is_never_more_than_what_it_gains(draw: np.random.Generator) -> None:
    """One group of rows, everything available: the exact gain follows from the sums."""
    for _ in range(200):
        share = draw.dirichlet(np.ones(4))
        chosen, later = (
            draw.multinomial(30, draw.dirichlet(np.ones(4))),
            draw.multinomial(20, draw.dirichlet(np.ones(4))),
        )
        ratio = (chosen + 4.0) / (30 * share + 4.0)
        exact = (later * np.log(ratio)).sum() - 20 * np.log((share * ratio).sum())
        promised = bound(chosen[None] * 1.0, 30 * share[None], later[None] * 1.0, 20 * share[None], 4.0)[0]
        assert promised <= exact + 1e-9


def test_a_refit_keeps_the_keys_and_counts_anew(draw: np.random.Generator) -> None:
    customer = blank(draw, 3000)
    customer[:, 1] = draw.random(3000) < 0.5
    truth = np.zeros((3000, 4))
    truth[:, 1] = 2.0 * customer[:, 1]
    examples = chosen_by(draw, customer, truth)
    train, valid = halves(examples)
    fitted = fit_counts.fit(question(), train, valid)
    again = fit_counts.refit(question(), examples, fitted)
    assert isinstance(fitted.scorer, CountsScorer)
    assert isinstance(again.scorer, CountsScorer)
    assert fitted.rounds == again.rounds > 0
    assert again.scorer.keys == fitted.scorer.keys
    assert not np.array_equal(again.scorer.tables[0], fitted.scorer.tables[0])
    fewer = fit_counts.refit(question(), examples, replace(fitted, rounds=0))
    np.testing.assert_array_equal(fewer.scorer.utilities(valid.rows)[0], again.scorer.prior)


def test_importance_names_the_columns_that_were_counted_by(draw: np.random.Generator) -> None:
    customer = blank(draw, 3000)
    customer[:, 1] = draw.random(3000) < 0.5
    truth = np.zeros((3000, 4))
    truth[:, 1] = 2.0 * customer[:, 1]
    train, valid = halves(chosen_by(draw, customer, truth))
    importance = fit_counts.fit(question(), train, valid).importance
    assert importance is not None
    assert sum(importance.values()) == pytest.approx(1)
    assert importance["segment = young"] + importance["segment = old"] > 0.8


def test_counts_are_refitted_like_counts_only(draw: np.random.Generator, choice_world: Callable[..., Any]) -> None:
    from training import fit_prior

    world = choice_world(100, 1)
    like = fit_prior.fit(world.question, world.examples, world.examples)
    with pytest.raises(ValueError, match="like counts"):
        fit_counts.refit(world.question, world.examples, like)
