"""What actions are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.catalog import Catalog, Channel, Product
from serving.value import Worth

CATALOG = Catalog(
    "EUR",
    "UTC",
    (Product("a", "A", margin=100.0), Product("b", "B", margin=300.0), Product("c", "C")),
    (Channel("push", "Push", cost=0.5), Channel("sms", "SMS", cost=2.0)),
)


def test_value_is_probability_times_margin_minus_cost() -> None:
    worth = Worth.of(CATALOG)
    values = worth.expected(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25]), [(0, 0), (1, 1)])
    assert values == pytest.approx([0.1 * 0.5 * 100 - 0.5, 0.2 * 0.25 * 300 - 2.0])


def test_a_product_without_a_margin_counts_as_the_mean_of_the_others() -> None:
    assert Worth.of(CATALOG).margins.tolist() == [100, 300, 200]


def test_without_any_margin_values_count_take_ups_and_costs_in_money_are_left_out() -> None:
    bare = replace(CATALOG, products=(Product("a", "A"), Product("b", "B")))
    worth = Worth.of(bare)
    assert worth.unit == "take-ups"
    assert worth.expected(np.array([0.1, 0.2]), np.array([0.5, 0.25]), [(1, 1)]) == pytest.approx([0.05])


def test_no_pairs_have_no_values() -> None:
    assert Worth.of(CATALOG).expected(np.zeros(3), np.zeros(2), []).shape == (0,)
