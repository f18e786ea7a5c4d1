"""The reference of a run: small, whole after a round trip, and comparable with another run's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.assemble import CALENDAR_NAMES
from features.errors import ArtefactError
from training.monitoring.drift import between
from training.monitoring.histogram import BINS, Histogram
from training.monitoring.reference import BEST_SCORE, Reference, is_moment

World = Callable[..., Any]


def of(world: Any, **options: Any) -> Reference:
    rows, question = world.examples.rows, world.question
    available = world.examples.available[:, :-1]
    scores = np.where(available, 1 / (1 + np.exp(-rows.customer[:, 1:2] - np.arange(4) / 4)), np.nan)
    return Reference.of(rows, np.where(np.isnan(scores), np.nan, scores), question, **options)


def test_a_reference_comes_back_as_it_was_saved_and_is_small(choice_world: World, tmp_path: Path) -> None:
    made = of(choice_world(800, 1))
    path = tmp_path / "reference" / "reference.json"
    made.save(path)
    assert Reference.load(path) == made
    assert path.stat().st_size < 1_000 * (len(made.columns) + len(made.scores))
    assert all(len(one.shares) <= BINS for one in (*made.columns, *made.scores))
    assert [one.name for one in made.scores] == [BEST_SCORE, *(f"score of {name}" for name in made.candidates)]
    assert {one.name for one in made.columns} >= {"flag", "age", "card: visits"}


@pytest.mark.parametrize("text", ["", "{", '{"format": 99}', '{"format": 1}'])
def test_a_damaged_reference_is_refused_with_what_to_do(text: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match="train again"):
        Reference.load(path)
    with pytest.raises(ArtefactError, match="train again"):
        Reference.load(tmp_path / "none.json")


def test_a_heap_at_one_value_is_a_bin_of_its_own_and_so_is_what_is_missing() -> None:
    values = np.concatenate([np.zeros(500), np.linspace(1, 2, 400), np.full(100, np.nan)])
    made = Histogram.of("x", values, np.ones(1_000))
    assert made.labels[0] == "up to 0"
    assert made.shares[0] == pytest.approx(0.5)
    assert (made.labels[-1], made.shares[-1]) == ("missing", pytest.approx(0.1))
    assert sum(made.shares) == pytest.approx(1.0, abs=1e-5)


def test_few_values_have_a_bin_each_and_a_new_one_is_told_apart() -> None:
    made = Histogram.of("x", np.array([0.0, 1.0, 1.0, 3.0]), np.ones(4))
    assert made.labels == ("0", "1", "3", "other", "missing")
    assert made.counts(np.array([1.0, 2.0, np.nan, 5.0, 0.0]), np.ones(5)).tolist() == [1, 1, 0, 2, 1]


def test_every_customer_counts_once_however_many_rows(choice_world: World) -> None:
    world = choice_world(300, 2)
    customers = np.array([f"c{min(place, 200)}" for place in range(300)], dtype=object)
    made = of(world, customer_id=customers)
    assert (made.rows, made.customers) == (300, 201)
    flag = next(one for one in made.columns if one.name == "flag")
    assert flag.rows == pytest.approx(201)
    had = world.examples.rows.customer[:, 0] == 1
    assert flag.shares[1] == pytest.approx((had[:200].sum() + had[200:].mean()) / 201, abs=1e-5)


def test_two_references_of_one_population_do_not_differ_and_a_shift_between_them_is_found(choice_world: World) -> None:
    one, other = of(choice_world(3_000, 3)), of(choice_world(3_000, 4))
    assert not [drift for drift in between(one, other) if drift.drifted]
    moved = choice_world(3_000, 4)
    moved.examples.rows.customer[:, 2] += 1.0
    assert [drift.name for drift in between(one, of(moved)) if drift.drifted] == ["balance"]


def test_only_what_is_the_same_for_all_customers_tells_of_the_moment() -> None:
    assert all(is_moment(name) for name in CALENDAR_NAMES)
    assert is_moment("card: share of take-ups, 30 d")
    assert not is_moment("card: days since opened")
    assert not is_moment("income")


def test_the_file_says_what_it_is(choice_world: World, tmp_path: Path) -> None:
    of(choice_world(50, 5)).save(tmp_path / "reference.json")
    written = json.loads((tmp_path / "reference.json").read_text())
    assert written["model"] == "next-best-product"
    assert written["rows"] == 50
    assert set(written["columns"][0]) >= {"name", "shares", "values", "borders"}
