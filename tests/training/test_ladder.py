"""The ladder: a rung is taken only where it is surely better than the one that is held; test may stop a winner."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.question import Question
from training import metrics
from training.evaluate import Judgement
from training.ladder import Ladder, climb

Contest = Callable[..., Judgement]
HR = metrics.HR_AT_3
ROWS, CANDIDATES = 400, 8


@pytest.fixture
def contest() -> Contest:
    """`contest(counts=0.3, ...)`: the prior ranks at random, each family is right in that share of the other rows.

    The rows in which a family is right are the first ones, so who has the greater share is never behind. Below 0: the
    family is always wrong.
    """

    def make(**families: float) -> Judgement:
        draw = np.random.default_rng(0)
        taken = np.arange(CANDIDATES) == draw.integers(CANDIDATES, size=(ROWS, 1))
        question = Question("m", tuple(f"p{number}" for number in range(CANDIDATES)), "product", "joint", False, 7.0)
        every = np.ones(ROWS, dtype=bool)
        data: Any = SimpleNamespace(
            question=question, customer_id=np.array([f"c{number}" for number in range(ROWS)], dtype=object),
            available=np.ones_like(taken), taken=taken, judged_for_ranking=every, judged_for_probability=every,
        )  # fmt: skip
        data = Rows(**vars(data))
        prior = draw.random(taken.shape)
        lot = draw.random(ROWS)
        said = {"prior": prior}
        for name, share in families.items():
            said[name] = np.where((lot < share)[:, None] & taken, 2.0, prior)
            if share < 0:
                said[name] = np.where(taken, -1.0, prior)
        return Judgement.of(said, {"popularity": prior}, data, 0)

    return make


class Rows(SimpleNamespace):
    def __len__(self) -> int:
        return ROWS


def up(contest: Contest, **families: float) -> Ladder:
    judged = contest(**families)
    return climb("all", judged, judged, HR)


def test_every_rung_that_is_surely_better_is_climbed(contest: Contest) -> None:
    ladder = up(contest, counts=0.2, lightgbm=0.5, torch=0.4, ensemble=0.8)
    assert ladder.family == ladder.best == "ensemble"
    assert [(step.family, step.held, step.promoted) for step in ladder.steps] == [
        ("counts", "prior", True), ("lightgbm", "counts", True), ("ensemble", "lightgbm", True)]  # fmt: skip


def test_the_better_of_the_learners_stands_for_both(contest: Contest) -> None:
    assert up(contest, counts=0.2, lightgbm=0.4, torch=0.6).family == "torch"


def test_a_rung_that_may_be_no_better_is_left_out_and_the_next_is_measured_against_what_is_held(
    contest: Contest,
) -> None:
    ladder = up(contest, counts=0.3, lightgbm=0.304, torch=0.1, ensemble=0.6)
    assert ladder.family == "ensemble"
    assert [(step.family, step.held, step.promoted) for step in ladder.steps] == [
        ("counts", "prior", True), ("lightgbm", "counts", False), ("ensemble", "counts", True)]  # fmt: skip
    assert "lightgbm not surely over counts" in ladder.reason


def test_an_ensemble_that_adds_nothing_is_not_taken(contest: Contest) -> None:
    assert up(contest, counts=0.3, lightgbm=0.6, ensemble=0.6).family == "lightgbm"


def test_where_nothing_surely_beats_the_prior_the_prior_stays_and_the_run_says_so(contest: Contest) -> None:
    ladder = up(contest, counts=0.004, lightgbm=0.0, ensemble=0.0)
    assert ladder.family == "prior"
    assert "no family is surely better than the prior" in ladder.reason


def test_a_family_that_was_asked_for_is_registered(contest: Contest) -> None:
    judged = contest(lightgbm=0.0)
    ladder = climb("lightgbm", judged, judged, HR)
    assert (ladder.family, ladder.reason, ladder.best) == ("lightgbm", "asked for", "prior")


def test_a_winner_that_is_surely_worse_on_the_newest_rows_is_not_shipped(contest: Contest) -> None:
    ladder = climb("all", contest(counts=0.2, lightgbm=0.5), contest(counts=0.2, lightgbm=-1.0), HR)
    assert (ladder.family, ladder.best) == ("prior", "lightgbm")
    assert "surely worse than the prior on the newest rows" in ladder.reason


def test_a_reviewer_sees_each_rung_s_difference_with_its_interval(contest: Contest) -> None:
    ladder = up(contest, counts=0.2, lightgbm=0.5)
    logged = ladder.flat()
    first, second = ladder.steps
    assert logged[f"ladder/counts_minus_prior/{HR}_low"] == first.difference.low > 0
    assert logged[f"ladder/lightgbm_minus_counts/{HR}"] == pytest.approx(second.value - second.held_value)
    told = json.loads(ladder.to_json())
    assert [step["family"] for step in told["steps"]] == ["counts", "lightgbm"]
    assert told["steps"][1]["difference"]["low"] == second.difference.low


def test_for_losses_lower_is_better(contest: Contest) -> None:
    judged = contest(counts=0.5)
    assert climb("all", judged, judged, metrics.LOG_LOSS).steps[0].promoted == (
        judged.difference("counts", "prior")[metrics.LOG_LOSS].high < 0
    )
