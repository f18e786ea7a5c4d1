"""Facts of a row as small integers, each by an example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import ArtefactError
from serving.count_keys import LAST_PLACE, Fact, Key, per_member
from serving.counts_scorer import CountsScorer
from serving.scorers import SCORER_FILE, Layout

N = float("nan")


def codes(fact: Fact, *rows: list[float]) -> list[Any]:
    customer = np.array(rows, np.float32)
    found: list[Any] = fact.codes(customer, np.zeros((len(rows), 3, 1), np.float32)).tolist()
    assert np.max(found) < fact.size
    return found


@pytest.mark.parametrize(
    ("fact", "row", "code"),
    [
        (Fact("bins", (0,), (1.0, 5.0)), [0.0], 0),
        (Fact("bins", (0,), (1.0, 5.0)), [1.0], 0),
        (Fact("bins", (0,), (1.0, 5.0)), [1.5], 1),
        (Fact("bins", (0,), (1.0, 5.0)), [float("inf")], 2),
        (Fact("bins", (0,), (1.0, 5.0)), [N], 3),
        (Fact("word", (0, 1)), [0.0, 1.0], 2),
        (Fact("word", (0, 1)), [0.0, 0.0], 0),
        (Fact("most", (0, 1, 2)), [1.0, N, 4.0], 3),
        (Fact("most", (0, 1, 2)), [0.0, 0.0, N], 0),
        (Fact("least", (0, 1, 2)), [N, 30.0, 4.0], 3),
        (Fact("least", (0, 1, 2)), [N, N, N], 0),
        (Fact("pattern", (0, 1, 2), patterns=((), (0, 2))), [1.0, 0.0, 2.0], 2),
        (Fact("pattern", (0, 1, 2), patterns=((), (0, 2))), [N, 0.0, 0.0], 1),
        (Fact("pattern", (0, 1, 2), patterns=((), (0, 2))), [1.0, 1.0, 1.0], 0),
        (Fact("share", (0, 1, 2), (0.0, 0.5)), [0.0, 3.0, 1.0], [0, 2, 1]),
        (Fact("share", (0, 1, 2), (0.0, 0.5)), [0.0, N, 0.0], [3, 3, 3]),
        (Fact("place", (0, 1, 2)), [7.0, N, 3.0], [1, LAST_PLACE, 0]),
        (Fact("place", (0, 1, 2)), [3.0, 3.0, 9.0], [0, 0, 2]),
    ],
)  # fmt: skip
def test_a_fact_codes_what_the_row_says(fact: Fact, row: list[float], code: Any) -> None:
    assert codes(fact, row) == [code]


def test_two_facts_make_a_key_whose_groups_are_all_their_pairs() -> None:
    key = Key((Fact("word", (0,)), Fact("bins", (1,), (1.0,))), True, 1.0)
    rows = np.array([[flag, value] for flag in (0, 1) for value in (0.0, 2.0, N)], np.float32)
    assert key.codes(rows, np.zeros((6, 3, 1), np.float32)).tolist() == list(range(6))
    assert key.shape(3) == (6, 4)


def test_a_key_of_a_candidate_s_own_column_says_nothing_of_the_outside_option() -> None:
    key = Key((Fact("word", (0,)), Fact("own", (0,), (1.0,))), False, 1.0)
    own = np.array([[[0.0], [2.0], [N]]], np.float32)
    found = key.codes(np.ones((1, 1), np.float32), own)
    assert found.tolist() == [[3, 4, 5]]
    table = np.arange(6, dtype=np.float32)[:, None]
    assert key.looked_up(table, found).tolist() == [[3.0, 4.0, 5.0, 0.0]]


def test_a_key_of_the_customer_alone_must_count_each_candidate_by_itself() -> None:
    with pytest.raises(ValueError, match="by_candidate"):
        Key((Fact("word", (0,)),), False, 1.0)


def test_what_is_told_of_every_member_is_found_by_the_columns_names() -> None:
    names = ("x", "a: held", "b: held", "a: only", "b: days", "a: days")
    assert per_member(names, ("a", "b")) == {"held": (1, 2), "days": (5, 4)}


@pytest.fixture
def saved(choice_world: Callable[..., Any], tmp_path: Path) -> Path:
    world = choice_world(5, 1)
    layout = Layout.of(world.question, world.examples.rows.schema)
    key = Key((Fact("bins", (0,), (0.5,)),), True, 1.0)
    CountsScorer(layout, np.zeros(5, np.float32), (key,), (np.zeros((3, 5), np.float32),)).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("part", "values", "message"), [("columns", [77], "columns 0"), ("edges", [0.5, 0.7], "shapes")]
)
def test_keys_that_do_not_fit_the_rows_or_the_tables_are_refused(
    saved: Path, part: str, values: list[float], message: str
) -> None:
    assert CountsScorer.load(saved).keys[0].strength == 1.0
    document = json.loads((saved / SCORER_FILE).read_text())
    document["config"]["keys"][0]["facts"][0][part] = values
    (saved / SCORER_FILE).write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match=message):
        CountsScorer.load(saved)
