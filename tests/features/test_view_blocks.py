"""A bank too large for memory is folded customers by customers: the files are those of all at once."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.build import store_states
from features.home import Build
from features.importing import Bank, read_bank
from features.views import by_customers, state_tables, views

AT_ONCE = 10_000


@pytest.fixture(scope="module")
def bank(simulated_bank: Path) -> Bank:
    return read_bank(simulated_bank)


def test_views_in_blocks_of_customers_hold_the_same_as_at_once(bank: Bank, tmp_path: Path) -> None:
    end = datetime(2024, 7, 1, tzinfo=UTC)
    whole, blocks = (Build(tmp_path / name, "f" * 64, views(bank.catalog, bank.attributes), end) for name in "wb")
    store_states(whole, state_tables(bank))
    tables = list(state_tables(bank, AT_ONCE))
    store_states(blocks, tables)
    assert sum(view.name == "engagement" for view, _ in tables) > 3, "blocks are what is tested"
    assert sum(view.name == "market" for view, _ in tables) == 1
    for view in whole.views:
        assert pq.read_table(blocks.view_path(view)).equals(pq.read_table(whole.view_path(view))), view.name


def test_customers_are_whole_in_their_block_and_blocks_are_in_order(bank: Bank) -> None:
    parts = list(by_customers(bank, AT_ONCE))
    ids = [
        sorted({name for table in part.tables.values() for name in table["customer_id"].to_pylist()}) for part in parts
    ]
    assert all(before[-1] < after[0] for before, after in pairwise(ids))
    for name, table in bank.tables.items():
        assert sum(part.tables[name].num_rows for part in parts) == table.num_rows


def test_a_small_bank_is_one_block(bank: Bank) -> None:
    assert list(by_customers(bank, 10**9)) == [bank]
