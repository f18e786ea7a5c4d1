"""Pooled metrics under weights of customers are the plain metrics of rows repeated so often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from serving.question import Question
from training.comparison.pooled import Pooled, pooled_differences
from training.evaluate import judge

QUESTION = Question("next-best-product", ("card", "loan", "fund", "home", "gold"), "product", "joint", True, 30.0)


@dataclass(frozen=True)
class Judged:
    """Rows as `judge` sees them."""

    question: Question
    customer_id: Any
    available: Any
    taken: Any
    judged_for_ranking: Any
    judged_for_probability: Any

    def __len__(self) -> int:
        return len(self.customer_id)

    def repeated(self, times: Any) -> Judged:
        fields = ("customer_id", "available", "taken", "judged_for_ranking", "judged_for_probability")
        return replace(self, **{name: np.repeat(getattr(self, name), times, axis=0) for name in fields})


def rows(n: int = 300, seed: int = 0, coarse: bool = False) -> tuple[Judged, Any, Any]:
    """Rows of n / 3 customers, probabilities that know something of them, and others that do not."""
    draw = np.random.default_rng(seed)
    truth = draw.beta(1, 6, (n, 5))
    available = draw.random((n, 5)) < 0.8
    available[:, 0] = True
    taken = (draw.random((n, 5)) < truth) & available
    taken[:, 4] = False  # nobody ever takes gold
    data = Judged(
        QUESTION,
        np.array([f"c{one % (n // 3)}" for one in range(n)], dtype=object),
        available,
        taken,
        taken.any(axis=1),
        draw.random(n) < 0.9,
    )
    knowing, other = (np.where(available, np.clip(one, 0, 1), np.nan) for one in (truth, draw.beta(1, 6, (n, 5))))
    return data, np.round(knowing, 1) if coarse else knowing, other


@pytest.mark.parametrize("coarse", [False, True], ids=["all scores differ", "many ties"])
@pytest.mark.parametrize("seed", range(3))
def test_values_under_whole_weights_are_those_of_rows_repeated_so_often(seed: int, coarse: bool) -> None:
    data, probabilities, _ = rows(seed=seed, coarse=coarse)
    times = np.random.default_rng(seed + 9).poisson(1.0, len(data))
    found = Pooled.of(probabilities, data).values(times.astype(float))
    expected = judge(np.repeat(probabilities, times, axis=0), data.repeated(times))
    assert set(found) == set(expected.values) - set(expected.per_row)
    for name, value in found.items():
        assert value == pytest.approx(expected.values[name], abs=1e-12), name


def test_a_model_that_knows_surely_beats_one_that_does_not() -> None:
    data, knowing, guessing = rows(900)
    found = pooled_differences(knowing, guessing, data, seed=1, resamples=100)
    assert found["auc"].above_zero
    assert found["pr_auc"].above_zero
    assert found["ece"].below_zero
    assert found["auc"].mean == judge(knowing, data).values["auc"] - judge(guessing, data).values["auc"]


def test_a_model_against_itself_differs_by_nothing_at_all() -> None:
    data, knowing, _ = rows()
    found = pooled_differences(knowing, knowing, data, seed=1, resamples=20)
    assert {(one.mean, one.low, one.high) for one in found.values()} == {(0.0, 0.0, 0.0)}


def test_customers_are_drawn_not_rows() -> None:
    """One customer's rows repeated a hundred times tell no more than one: the interval stays as wide."""
    data, knowing, guessing = rows(300)
    times = np.full(len(data), 20)
    once = pooled_differences(knowing, guessing, data, 1, 100)["auc"]
    again = pooled_differences(
        np.repeat(knowing, times, axis=0), np.repeat(guessing, times, axis=0), data.repeated(times), 1, 100
    )["auc"]
    assert (again.low, again.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_what_cannot_be_told_is_nan_and_no_number() -> None:
    data, knowing, guessing = rows()
    never = replace(data, taken=np.zeros_like(data.taken), judged_for_ranking=np.zeros(len(data), bool))
    found = pooled_differences(knowing, guessing, never, 1, 5)
    assert np.isnan([found[name].mean for name in ("auc", "pr_auc", "ks", "coverage")]).all()
    assert not np.isnan(found["ece"].mean)
