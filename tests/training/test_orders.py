"""An order that was kept is the order that was given."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from features.errors import ArtefactError
from training.orders import ENTITIES_FILE, ORDER_FILE, load_order, save_order
from training.plan import Order

UNTIL = datetime(2024, 5, 31, 12, 0, 0, 1, tzinfo=UTC)


def entities(*eligible: frozenset[str] | None) -> pd.DataFrame:
    times = pd.Series([UNTIL] * len(eligible)).astype("datetime64[us, UTC]")
    names = [f"c{number}" for number in range(len(eligible))]
    return pd.DataFrame({"customer_id": names, "as_of": times, "eligible": pd.Series(list(eligible), dtype=object)})


@pytest.mark.parametrize(
    "order",
    [
        Order("next-best-product"),
        Order("channel-choice", "torch", None, 7.5, UNTIL, 2**31 - 1, "customer", "shapley-1", 20),
    ],
)
def test_everything_that_was_asked_for_comes_back(order: Order, tmp_path: Path) -> None:
    save_order(order, tmp_path)
    assert load_order(tmp_path) == order


def test_entities_come_back_in_their_order_to_the_microsecond(tmp_path: Path) -> None:
    asked = entities(frozenset({"loan", "card"}), None, frozenset())
    save_order(Order("next-best-product", entities=asked), tmp_path)
    found = load_order(tmp_path).entities
    assert found is not None
    pd.testing.assert_frame_equal(found, asked)


def test_entities_without_eligible_lists_stay_without(tmp_path: Path) -> None:
    asked = entities(None).drop(columns="eligible")
    save_order(Order("next-best-product", entities=asked), tmp_path)
    found = load_order(tmp_path).entities
    assert found is not None
    assert list(found.columns) == ["customer_id", "as_of"]


@pytest.mark.parametrize("file", [ORDER_FILE, ENTITIES_FILE])
def test_a_damaged_order_is_refused(file: str, tmp_path: Path) -> None:
    save_order(Order("next-best-product", entities=entities(None)), tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match="train again"):
        load_order(tmp_path)


def test_an_order_that_lost_some_of_its_entities_is_refused(tmp_path: Path) -> None:
    save_order(Order("next-best-product", entities=entities(None, None)), tmp_path)
    save_to = tmp_path / "other"
    save_to.mkdir()
    save_order(Order("next-best-product", entities=entities(None)), save_to)
    (tmp_path / ENTITIES_FILE).write_bytes((save_to / ENTITIES_FILE).read_bytes())
    with pytest.raises(ArtefactError, match="names 2 entities"):
        load_order(tmp_path)
