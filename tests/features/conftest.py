"""A bank of three customers, three products and three channels, small enough to be read at a glance."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CATALOG = """\
currency = "EUR"
time_zone = "Europe/Prague"

[[products]]
id = "card"
name = "Credit card"
group = "cards"
margin = 40
holdable = true

[[products]]
id = "loan"
name = "Consumer loan"
holdable = true

[[products]]
id = "fund"
name = "Fund units"

[[channels]]
id = "app_push"
name = "App push"
direction = "outbound"
cost = 0.0
quiet_hours = ["21:00", "08:00"]
max_length = 120

[[channels]]
id = "voice"
name = "Call"
direction = "both"
cost = 2.5
capacity = 100
quiet_hours = "20:00-09:00"

[[channels]]
id = "website"
name = "Website"
direction = "inbound"
cost = 0

[[contents]]
id = "card_en"
product_id = "card"
channel = "app_push"
language = "en"
template = "A card for you"

[[contents]]
id = "greeting"
language = "cs"
template = "Dobrý den"

[[policies]]
id = "weekly_cap"
kind = "cap"
limit = 3
days = 7
"""

TIME = pa.timestamp("us", tz="UTC")

CUSTOMERS = {
    "customer_id": (pa.string(), ["c1", "c2", "c3", "c1"]),
    "event_timestamp": (TIME, [1, 1, 2, 20]),
    "age": (pa.int64(), [30, 40, None, 31]),
    "student": (pa.bool_(), [True, False, None, False]),
    "birth_date": (pa.string(), ["1990-05-01", "1980-02-29", None, "1990-05-01"]),
    "city": (pa.string(), ["Praha", "Brno", "", "Praha"]),
}

HOLDINGS = {
    "customer_id": (pa.string(), ["c1", "c2", "c1"]),
    "event_timestamp": (TIME, [2, 3, 15]),
    "product_id": (pa.string(), ["card", "loan", "card"]),
    "action": (pa.string(), ["opened", "opened", "closed"]),
}

TRANSACTIONS = {
    "customer_id": (pa.string(), ["c1", "c1", "c2", "c3"]),
    "event_timestamp": (TIME, [3, 3, 4, 5]),
    "amount": (pa.float64(), [-12.5, -12.5, 1000.0, -3.0]),
    "category": (pa.string(), ["food", "food", "salary", None]),
    "balance": (pa.float64(), [87.5, 75.0, None, 0.0]),
}

_KINDS = "decided sent delivered opened clicked converted failed replied visited called opted_out opted_in complained"


def _timeline() -> dict[str, tuple[pa.DataType, list[Any]]]:
    kinds = _KINDS.split()
    ours = [kind in ("decided", "sent", "delivered", "opened", "clicked") for kind in kinds]
    by_kind = {"visited": "website", "called": "voice", "converted": None}
    return {
        "event_id": (pa.string(), [f"e{number:02d}" for number in range(len(kinds))]),
        "customer_id": (pa.string(), ["c1" if mine else "c2" for mine in ours]),
        "event_timestamp": (TIME, [10 + number for number in range(len(kinds))]),
        "kind": (pa.string(), kinds),
        "channel": (pa.string(), [by_kind.get(kind, "app_push") for kind in kinds]),
        "purpose": (pa.string(), ["marketing" if mine else None for mine in ours]),
        "product_id": (pa.string(), ["card" if mine else None for mine in ours]),
        "content_id": (pa.string(), ["card_en" if mine else None for mine in ours]),
        "decision_id": (pa.string(), ["d1" if mine else None for mine in ours]),
        "message_id": (
            pa.string(),
            ["m1" if mine and kind != "decided" else None for mine, kind in zip(ours, kinds, strict=True)],
        ),
        "propensity": (pa.float64(), [0.25 if kind == "decided" else None for kind in kinds]),
        "value": (pa.float64(), [40.0 if kind == "converted" else None for kind in kinds]),
    }


def day(number: int) -> dt.datetime:
    """The start of a day, counted from 2024-01-01 as day 1."""
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number - 1)


def _table(columns: dict[str, tuple[pa.DataType, list[Any]]]) -> pa.Table:
    arrays = {
        name: pa.array([day(value) for value in values] if kind == TIME else values, kind)
        for name, (kind, values) in columns.items()
    }
    return pa.table(arrays)


@pytest.fixture
def small_bank_folder(tmp_path: Path) -> Path:
    """A valid bank data directory: 3 customers known from days 1 and 2 of 2024, events on days 10 to 22.

    Every table in Parquet, every kind of event once, an attribute of every kind.
    """
    folder = tmp_path / "bank"
    folder.mkdir()
    (folder / "catalog.toml").write_text(CATALOG, encoding="utf-8")
    tables = {
        "customers": _table(CUSTOMERS),
        "holdings": _table(HOLDINGS),
        "transactions": _table(TRANSACTIONS),
        "timeline": _table(_timeline()),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder
