"""One customer's imported events are found without reading everybody's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import customer_events
from features.columns import Table
from features.customer_events import FILE, CustomerEvents, write_customer_events
from features.errors import ArtefactError
from features.tables import arrow_schema

START = datetime(2024, 1, 1, tzinfo=UTC)


def timeline(customers: list[str]) -> pa.Table:
    """An event per entry, one a minute, the newest first."""
    schema = arrow_schema(Table.TIMELINE)
    count = len(customers)
    lines = {
        "event_id": [f"e{n}" for n in range(count)],
        "customer_id": customers,
        "event_timestamp": [START + timedelta(minutes=count - n) for n in range(count)],
        "kind": ["visited"] * count,
    }
    nulls = {name: pa.nulls(count, schema.field(name).type) for name in schema.names if name not in lines}
    return pa.table({**lines, **nulls}).select(schema.names).cast(schema)


def test_every_customers_events_come_back_in_order_wherever_groups_of_rows_begin(tmp_path: Path) -> None:
    customers = [f"c{n * n % 97:02}" for n in range(20_000)] + ["many"] * 20_000 + ["Ä", "a", "Z"]
    write_customer_events(timeline(customers), tmp_path)
    events = CustomerEvents(tmp_path)
    assert pq.ParquetFile(tmp_path / FILE).num_row_groups > 3
    for customer in {*customers, "", "c", "nobody", "zz", "c99"}:
        expected = [f"e{n}" for n in range(len(customers)) if customers[n] == customer][::-1]
        assert events.of(customer)["event_id"].to_pylist() == expected


def test_only_the_groups_of_rows_of_the_customer_are_read(tmp_path: Path) -> None:
    customers = [f"c{n:06}" for n in range(3 * customer_events.ROWS_AT_ONCE)]
    write_customer_events(timeline(customers), tmp_path)
    events = CustomerEvents(tmp_path)
    assert [events.groups(name) for name in ("c000000", "c020000", "c010000", "a", "d")] == [
        range(1),
        range(2, 3),
        range(1, 2),
        range(0),
        range(3, 3),
    ]


def test_imported_ids_are_known_and_others_are_not(tmp_path: Path) -> None:
    write_customer_events(timeline(["a"] * 1_000), tmp_path)
    events = CustomerEvents(tmp_path)
    assert events.has(["e0", "e999", "e1000", "", "E0"]).tolist() == [True, True, False, False, False]
    assert events.has([]).tolist() == []


def test_a_bank_without_a_timeline_has_no_events(tmp_path: Path) -> None:
    write_customer_events(timeline([]), tmp_path)
    events = CustomerEvents(tmp_path)
    assert events.of("a").num_rows == 0
    assert events.has(["e0"]).tolist() == [False]


def test_a_missing_or_damaged_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=FILE):
        CustomerEvents(tmp_path)
    (tmp_path / FILE).write_bytes(b"PAR1 no")
    with pytest.raises(ArtefactError, match="build the features again"):
        CustomerEvents(tmp_path)
