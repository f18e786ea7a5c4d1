"""Calibration by candidate, in worlds where the gap of each is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from features.schema import Float64
from serving.question import Question
from training.calibration_by import CandidateCalibration, by_candidate, draw, load, save
from training.predictions import Predictions


def world(taken: Sequence[Sequence[int]], outside: Sequence[bool] | None = None) -> Predictions:
    """One customer a row; taken: [n, m]."""
    marked = np.array(taken, dtype=np.bool_)
    n, m = marked.shape
    everywhere = np.ones(n, dtype=np.bool_)
    plain = everywhere if outside is None else np.array(outside)
    question = Question("m", tuple("abc"[:m]), "product", "joint", True, 7.0)
    ids = np.array([f"c{row}" for row in range(n)], dtype=object)
    shown = np.ones_like(marked)
    return Predictions(question, ids, np.arange(n), shown, marked, everywhere, everywhere, plain, {}, {})


def found(probabilities: Float64, data: Predictions) -> dict[str, CandidateCalibration]:
    return {one.candidate: one for one in by_candidate(probabilities, data, seed=0)}


def a_fifth(rows: int) -> list[int]:
    return [1 if row % 5 == 0 else 0 for row in range(rows)]


def test_each_candidate_has_its_own_gap_though_the_whole_has_none() -> None:
    data = world([[a, b] for a, b in zip(a_fifth(500), a_fifth(500), strict=True)])
    by = found(np.tile([0.1, 0.3], (500, 1)), data)
    assert [by[name].gap for name in "ab"] == pytest.approx([-0.1, 0.1])
    assert [by[name].rate for name in "ab"] == pytest.approx([0.2, 0.2])
    assert [by[name].ece for name in "ab"] == pytest.approx([0.1, 0.1])
    low, high = by["a"].gap_low, by["a"].gap_high
    assert low is not None
    assert high is not None
    assert low < -0.1 < high < 0, "500 rows are enough to be sure of a tenth"


def test_only_rows_that_are_judged_and_candidates_that_were_available_count() -> None:
    data = world([[1, 0], [0, 1], [0, 0], [1, 1]], outside=[True, True, True, False])
    said = np.array([[0.5, 0.1], [0.5, 0.1], [np.nan, 0.1], [0.9, 0.9]])
    by = found(said, data)
    assert (by["a"].pairs, by["a"].taken, by["a"].predicted) == (2, 1, 0.5)
    assert (by["b"].pairs, by["b"].taken) == (3, 1)


def test_nothing_taken_is_no_proof_of_a_gap() -> None:
    by = found(np.full((20, 1), 0.02), world([[0]] * 20))
    low, high = by["a"].gap_low, by["a"].gap_high
    assert low is not None
    assert high is not None
    assert low == pytest.approx(0.02 - (1 - 0.025 ** (1 / 20))), "Clopper and Pearson, nothing of twenty"
    assert low < 0 < high


def test_a_candidate_that_was_never_available_has_no_numbers() -> None:
    by = found(np.array([[0.5, np.nan]]), world([[1, 0]]))
    one = by["b"]
    assert (one.pairs, one.rate, one.gap, one.gap_low, one.ece, one.reliability) == (0, None, None, None, None, ())


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    kept = by_candidate(np.array([[0.5, np.nan], [0.25, np.nan]]), world([[1, 0], [0, 0]]), seed=0)
    save(kept, tmp_path / "calibration" / "by_candidate.json")
    assert load(tmp_path / "calibration" / "by_candidate.json") == kept


def test_every_candidate_that_is_judged_is_drawn_the_most_taken_first() -> None:
    data = world([[a, 0, 0] for a in a_fifth(50)])
    said = np.tile([0.2, 0.1, np.nan], (50, 1))
    drawn = draw(by_candidate(said, data, seed=0), "title")
    titles = [axes.get_title(loc="left") for axes in drawn.axes if axes.get_visible()]
    assert [title.splitlines()[0] for title in titles] == ["a", "b"]
