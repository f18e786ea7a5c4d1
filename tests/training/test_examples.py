"""Examples refuse what no choice can look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from training.examples import Examples, log_loss


@pytest.fixture
def examples(choice_world: Callable[..., Any]) -> Examples:
    made: Examples = choice_world(20, 1).examples
    return made


def test_a_share_for_what_was_not_available_is_refused(examples: Examples) -> None:
    available = examples.available & (examples.chosen == 0)
    with pytest.raises(ValueError, match="not available"):
        replace(examples, available=available)


def test_shares_that_do_not_sum_to_one_are_refused(examples: Examples) -> None:
    with pytest.raises(ValueError, match="sums to 1"):
        replace(examples, chosen=examples.chosen / 2)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(examples: Examples, weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        replace(examples, weight=np.full(20, weight, np.float32))


@pytest.mark.parametrize(
    "wrong", [{"available": np.ones((20, 4), bool)}, {"taken": np.ones((20, 5), bool)}, {"at": np.zeros(19)}]
)
def test_arrays_of_another_shape_are_refused(examples: Examples, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(examples, **wrong)


def test_taking_rows_takes_them_everywhere(examples: Examples) -> None:
    full = replace(examples, taken=examples.chosen[:, :-1] > 0, at=np.arange(20.0))
    part = full.take(np.array([3, 1]))
    assert part.at is not None
    assert part.taken is not None
    np.testing.assert_array_equal(part.at, [3, 1])
    np.testing.assert_array_equal(part.taken, part.chosen[:, :-1] > 0)
    np.testing.assert_array_equal(part.rows.customer, full.rows.customer[[3, 1]])


def test_log_loss_is_the_weighted_mean_of_the_chosen_shares(examples: Examples) -> None:
    two = examples.take(slice(0, 2))
    two = Examples(
        two.rows,
        available=np.array([[True, True, True, True, True], [True, True, False, False, False]]),
        chosen=np.array([[0.5, 0.5, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32),
        weight=np.array([1, 3], np.float32),
    )
    equal = np.zeros((2, 5))
    assert log_loss(equal, two) == pytest.approx((np.log(5) + 3 * np.log(2)) / 4)
