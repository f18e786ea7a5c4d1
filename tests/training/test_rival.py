"""The champion is asked about rows that it cannot have learned from, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.schema import Float64, Rows, RowSchema
from serving.question import Question
from training.dataset import Dataset
from training.predictions import Predictions
from training.rival import FOREVER, Asked, Rival, ask
from training.spine import Spine

QUESTION = Question("m", ("a", "b"), "product", "joint", True, 7.0)
SCHEMA = RowSchema(("a", "b"), (False, False), ("app",), (), (), "UTC", ("x",), ("x",), ("x",))
ANY: Any = SimpleNamespace()


def rows_of(keys: Sequence[tuple[str, int]], available: Any = None, taken: Any = None) -> Dataset:
    """Rows of (customer, moment in µs)."""
    n = len(keys)
    shown = np.ones((n, 2), dtype=np.bool_) if available is None else np.asarray(available)
    marked = np.zeros((n, 2), dtype=np.bool_) if taken is None else np.asarray(taken, dtype=np.bool_)
    ids = np.array([name for name, _ in keys], dtype=object)
    at = np.array([moment for _, moment in keys], dtype=np.int64)
    sort, none = np.array(["entity"] * n, dtype=object), np.full(n, -1, dtype=np.int64)
    spine = Spine(ids, at, at + 1, sort, shown, np.ones(n, np.bool_), marked, none)
    blank = np.zeros((n, 2, 1), np.float32)
    rows = Rows(np.zeros((n, 1), np.float32), blank, blank[:, :1], ~shown, ~shown[:, :1], SCHEMA)
    return Dataset(QUESTION, spine, rows, shown)


def rival(said: Predictions | None, question: Question = QUESTION, until: int = FOREVER) -> Rival:
    model: Any = SimpleNamespace(question=question, row_schema=SCHEMA)
    return Rival("3", "r", model, until, said, "model")


def kept(data: Dataset, value: float) -> Predictions:
    said = np.where(data.available, value, np.nan)
    return Predictions.of(data, {"model": said, "prior": said / 2}, {})


def test_what_it_said_of_rows_that_both_runs_test_on_counts_and_elsewhere_it_says_nothing() -> None:
    theirs = kept(rows_of([("ann", 5), ("bob", 6)]), 0.25)
    mine = rows_of([("cem", 6), ("bob", 6), ("ann", 6)])
    answers = rival(theirs).answers(mine, ANY)
    assert answers[1].tolist() == [0.25, 0.25]
    assert np.isnan(answers[[0, 2]]).all(), "another customer, another moment"


def test_a_row_in_which_other_candidates_were_available_is_another_question() -> None:
    theirs = kept(rows_of([("ann", 5), ("bob", 6)], available=[[True, False], [True, True]]), 0.25)
    answers = rival(theirs).answers(rows_of([("ann", 5), ("bob", 6)]), ANY)
    assert np.isnan(answers[0]).all()
    assert answers[1].tolist() == [0.25, 0.25]


def test_a_champion_whose_run_kept_nothing_may_have_learned_from_everything() -> None:
    assert np.isnan(rival(None).answers(rows_of([("ann", 5)]), ANY)).all()


def test_differences_are_those_of_the_rows_it_answers() -> None:
    data = rows_of([(f"c{row}", row) for row in range(40)], taken=[[row % 2 == 0, False] for row in range(40)])
    champion = np.full((40, 2), np.nan)
    champion[:20] = 0.5
    mine: Float64 = np.where(data.taken, 0.9, 0.1)
    mine[20:] = 0.001  # bad, in rows that are not compared
    asked = Asked(rival(None), {"champion": champion})
    found = asked.differences({"model": mine}, data, 0)
    assert found["test/log_loss_minus_champion"] == pytest.approx(-np.log(0.9) + np.log(0.5))
    assert found["test/log_loss_minus_champion_high"] < 0
    assert found["test/champion/log_loss"] == pytest.approx(-np.log(0.5))
    assert asked.params == {"champion_version": "3", "champion_run": "r", "champion_rows": 20}
    assert not [name for name in found if "champion" not in name], "the model's own metrics are those of all rows"


def test_without_rows_that_it_answers_there_is_nothing_to_tell_but_why() -> None:
    data = rows_of([("ann", 5)])
    asked = Asked(rival(None), {"champion": np.full((1, 2), np.nan)})
    assert asked.differences({"model": np.full((1, 2), 0.5)}, data, 0) == {}
    assert asked.params["champion_rows"] == 0
    assert "may know all test rows" in asked.notes[0]


def test_no_champion_is_nothing_to_tell() -> None:
    asked = ask(None, rows_of([("ann", 5)]), ANY)
    assert (asked.params, asked.notes, asked.fit, dict(asked.said)) == ({}, (), None, {})
