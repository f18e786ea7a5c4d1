"""The ladder: a rung is taken only where it is surely better than the one that is held; test may stop a winner."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.errors import InputError
from serving.question import Question
from training import metrics
from training.evaluate import Judgement
from training.ladder import Evidence, Ladder, climb

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


def rungs_of(ladder: Ladder) -> list[tuple[str, str, bool]]:
    return [(step.family, step.held, step.promoted) for step in ladder.steps]


def test_every_rung_that_is_surely_better_is_climbed(contest: Contest) -> None:
    ladder = up(contest, counts=0.2, lightgbm=0.5, torch=0.4, ensemble=0.8)
    assert ladder.family == ladder.best == "ensemble"
    assert rungs_of(ladder) == [
        ("counts", "prior", True), ("lightgbm", "counts", True), ("torch", "lightgbm", False),
        ("ensemble", "lightgbm", True)]  # fmt: skip


def test_every_learner_is_tried_in_turn(contest: Contest) -> None:
    assert up(contest, counts=0.2, lightgbm=0.4, torch=0.6).family == "torch"
    assert up(contest, counts=0.2, lightgbm=0.1, torch=0.6).family == "torch"
    assert up(contest, counts=0.2, lightgbm=0.6, torch=0.604).family == "lightgbm", "torch may be no better"


def test_a_rung_that_may_be_no_better_is_left_out_and_the_next_is_measured_against_what_is_held(
    contest: Contest,
) -> None:
    ladder = up(contest, counts=0.3, lightgbm=0.304, ensemble=0.6)
    assert ladder.family == "ensemble"
    assert rungs_of(ladder) == [
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


def asked_for_more(contest: Contest, valid: dict[str, float], more: dict[str, float]) -> tuple[Ladder, bool]:
    """The ladder where valid says one thing and more rows another, and whether these were asked."""
    asked = []

    def found() -> Evidence:
        asked.append(True)
        return Evidence(contest(**more), "more rows")

    return climb("all", contest(**valid), contest(**valid), HR, found), bool(asked)


def test_where_valid_decides_every_rung_no_more_rows_are_asked(contest: Contest) -> None:
    ladder, asked = asked_for_more(contest, {"counts": 0.2, "lightgbm": 0.5, "ensemble": 0.1}, {})
    assert (ladder.family, asked) == ("lightgbm", False)
    assert (ladder.judged_on, ladder.rows, ladder.on_valid) == ("the validation rows", ROWS, ())
    assert ladder.flat()["ladder/cross_fitted"] == 0


def test_where_valid_cannot_tell_more_rows_decide_and_the_run_says_so(contest: Contest) -> None:
    valid, more = {"counts": 0.1, "lightgbm": 0.104}, {"counts": 0.2, "lightgbm": 0.4}
    ladder, asked = asked_for_more(contest, valid, more)
    assert (ladder.family, asked) == ("lightgbm", True)
    assert rungs_of(ladder) == [("counts", "prior", True), ("lightgbm", "counts", True)]
    assert [step.promoted for step in ladder.on_valid] == [True, False]
    assert "on more rows" in ladder.reason
    told = json.loads(ladder.to_json())
    assert (told["judged_on"], told["rows"]) == ("more rows", ROWS)
    assert told["on_valid"][1]["difference"]["low"] <= 0 < told["steps"][1]["difference"]["low"]
    assert (ladder.flat()["ladder/cross_fitted"], ladder.flat()["ladder/rows"]) == (1, ROWS)


def test_what_valid_took_by_luck_is_taken_back_where_more_rows_are_asked(contest: Contest) -> None:
    valid, more = {"counts": 0.1, "lightgbm": 0.104}, {"counts": 0.0, "lightgbm": 0.0}
    ladder, _ = asked_for_more(contest, valid, more)
    assert ladder.family == "prior"
    assert ladder.on_valid[0].promoted


def test_whom_the_validation_rows_surely_deny_more_rows_do_not_promote(contest: Contest) -> None:
    """Times change: what was surely better in older rows is surely worse in the newest."""
    valid, more = {"counts": -1.0, "lightgbm": 0.004}, {"counts": 0.5, "lightgbm": 0.3}
    ladder, asked = asked_for_more(contest, valid, more)
    assert (ladder.family, asked) == ("lightgbm", True)
    assert rungs_of(ladder) == [("counts", "prior", False), ("lightgbm", "prior", True)]
    denied = ladder.steps[0].denied
    assert denied is not None
    assert denied.high < 0 < ladder.steps[0].difference.low
    assert "counts surely not over prior any more" in ladder.reason


def test_what_can_bring_but_a_little_is_not_worth_more_fits(contest: Contest) -> None:
    ladder, asked = asked_for_more(contest, {"counts": 0.9, "lightgbm": 0.904}, {})
    assert ladder.steps[1].at_best > 0, "it may be better"
    assert (ladder.family, asked) == ("counts", False)


def test_where_more_rows_cannot_be_judged_valid_decides_and_the_run_says_why(contest: Contest) -> None:
    def impossible() -> Evidence:
        raise InputError("there are too few")

    judged = contest(counts=0.1, lightgbm=0.104)
    ladder = climb("all", judged, judged, HR, impossible)
    assert (ladder.family, ladder.judged_on, ladder.not_more) == ("counts", "the validation rows", "there are too few")


def test_a_family_that_was_asked_for_needs_no_more_rows(contest: Contest) -> None:
    judged = contest(lightgbm=0.004)
    assert climb("lightgbm", judged, judged, HR, more=lambda: pytest.fail("asked")).family == "lightgbm"


def test_of_a_loss_the_lower_end_is_what_a_rung_may_bring(contest: Contest) -> None:
    judged = contest(counts=0.5)
    step = climb("all", judged, judged, metrics.LOG_LOSS).steps[0]
    assert step.at_best == -step.difference.low
    assert up(contest, counts=0.5).steps[0].at_best == up(contest, counts=0.5).steps[0].difference.high
