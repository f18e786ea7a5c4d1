"""A timeline as occurrences: the same for many events at once as for each alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from features.catalog import Catalog, Channel, Product
from features.touches import UNKNOWN, Occurrence, Occurrences

KINDS = ("sent", "visited", "converted")
CHANNELS = (None, "sms", "app", "a channel of old")
PRODUCTS = (None, "card", "a product of old")
PURPOSES = (None, "marketing", "service")


def catalog(zone: str) -> Catalog:
    return Catalog("EUR", zone, (Product("card", "Card"),), (Channel("sms", "SMS"), Channel("app", "App")))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Lisbon", "America/St_Johns", "Australia/Lord_Howe", "Asia/Shanghai"])
def test_a_table_has_the_occurrences_of_its_events_one_by_one(zone: str) -> None:
    draw = np.random.default_rng(11)
    at = draw.integers(-(10**15), 2 * 10**15, 500)
    columns = {
        name: pa.array([options[pick] for pick in draw.integers(0, len(options), 500)], pa.string())
        for name, options in (
            ("kind", KINDS),
            ("channel", CHANNELS),
            ("product_id", PRODUCTS),
            ("purpose", PURPOSES),
        )
    }
    table = pa.table({**columns, "event_timestamp": pa.array(at).cast(pa.timestamp("us", tz="UTC"))})
    occurrences = Occurrences(catalog(zone))
    distinct, which = occurrences.of_table(table)
    alone = [
        occurrences.one(row["kind"], row["channel"], row["product_id"], row["purpose"], int(at_us))
        for row, at_us in zip(table.to_pylist(), at, strict=True)
    ]
    assert [distinct[place] for place in which] == alone
    assert len(distinct) == len(set(distinct)) == len(set(alone)), "each is told once"


def test_no_channel_is_not_an_unknown_channel() -> None:
    moment = datetime(2024, 3, 1, 22, 59, 59, 999_999, tzinfo=UTC)
    at_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    occurrences = Occurrences(catalog("Europe/Berlin"))
    assert occurrences.one("sent", "app", None, "service", at_us) == Occurrence("sent", 1, None, "service", 7)
    assert occurrences.one("sent", "fax", "car", None, at_us + 1) == Occurrence("sent", UNKNOWN, UNKNOWN, None, 0)


def test_an_empty_timeline_has_no_occurrences() -> None:
    names = ("kind", "channel", "product_id", "purpose")
    empty = pa.table({name: pa.array([], pa.string()) for name in names}).append_column(
        "event_timestamp", pa.array([], pa.timestamp("us", tz="UTC"))
    )
    distinct, which = Occurrences(catalog("UTC")).of_table(empty)
    assert (distinct, len(which)) == ([], 0)
