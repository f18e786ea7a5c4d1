"""The transactions view: money in and out as decayed sums, the last balance, spending by category."""

from __future__ import annotations

import zlib
from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Table, Transaction
from features.folds import DAY, FOREVER, encode, fold, seconds, state_table
from features.importing import Bank
from features.row_plan import Part, Source
from features.schema import Column, View

NAME = "transactions"
TTL = timedelta(days=730)
BUCKETS = 12
"""Spending categories share this many columns by a stable hash: no vocabulary, so no later category changes a row."""

SUMS = (
    ("money_in", 30 * DAY),
    ("money_out", 30 * DAY),
    ("money_in_slow", 180 * DAY),
    ("money_out_slow", 180 * DAY),
    ("bookings", 30 * DAY),
    ("bookings_ever", FOREVER),
    *((f"spending_{bucket:02d}", 90 * DAY) for bucket in range(BUCKETS)),
)
LATEST = ("balance", "booked_at")
CUSTOMER_NAMES = (*(name for name, _ in SUMS), "net flow 30 d", "balance", "days since booking")


def view() -> View:
    columns = [Column(f"{name}__tx") for name, _ in SUMS] + [Column(f"{name}__tx") for name in LATEST]
    return View(NAME, "customer", TTL, tuple(columns))


def bucket(category: str | None) -> int:
    """The spending column of a category: CRC-32 of its UTF-8 bytes, modulo the number of columns."""
    return zlib.crc32((category or "").encode()) % BUCKETS


def states(bank: Bank) -> pa.Table:
    """One row per customer and booking time."""
    table = bank.tables[Table.TRANSACTIONS]
    at, amount = seconds(table[EVENT_TIMESTAMP]), table[Transaction.AMOUNT].to_numpy()
    customers, ids = encode(table[CUSTOMER_ID])
    categories, names = encode(table[Transaction.CATEGORY].fill_null(""))
    buckets = np.array([bucket(name) for name in names.to_pylist()], dtype=np.int64)[categories]
    incoming, outgoing = np.maximum(amount, 0.0), np.maximum(-amount, 0.0)
    amounts = np.zeros((len(at), len(SUMS)))
    amounts[:, 0], amounts[:, 2] = incoming, incoming
    amounts[:, 1], amounts[:, 3] = outgoing, outgoing
    amounts[:, 4:6] = 1.0
    amounts[np.arange(len(at)), 6 + buckets] = outgoing
    values = np.column_stack([table[Transaction.BALANCE].to_numpy(zero_copy_only=False).astype(float), at])
    folded = fold(customers, at, amounts, [tau for _, tau in SUMS], values)
    numbers = np.hstack([folded.sums, folded.latest])
    return state_table(view(), ids.take(pa.array(folded.entity)), folded.at, numbers)


def source() -> Source:
    """The sums one by one, `balance` and `booked`."""
    parts = [Part(name, "sum", (place,), tau) for place, (name, tau) in enumerate(SUMS)]
    count = len(SUMS)
    latest = (Part("balance", "number", (count,)), Part("booked", "since", (count + 1,), DAY))
    return Source(NAME, TTL, count + len(LATEST), (*parts, *latest))
