"""The market view: what all customers took up lately, per product; the bank's popularity, point in time.

Popularity that moves is a feature like any other: it follows launches and withdrawals without a refit.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import EVENT_TIMESTAMP, Holding
from features.folds import DAY, FOREVER, fold, seconds, slugs, state_table
from features.importing import Bank
from features.row_plan import Part, Source
from features.schema import MARKET_ID, MARKET_KEY, Column, Float64, View
from features.takeups import take_ups

NAME = "market"
TTL = timedelta(days=730)
HOUR = 3_600.0
SUMS = (("taken_week", 7 * DAY), ("taken_month", 30 * DAY), ("taken_ever", FOREVER))
PRODUCT_NAMES = ("share of take-ups, 7 d", "share of take-ups, 30 d", "share of take-ups, ever")
EVIDENCE = 1.0
"""Take-ups spread evenly over all products before any were seen, so that a share is never 0 / 0."""


def view(catalog: Catalog) -> View:
    columns = [Column(f"{product}__{name}") for product in slugs(catalog.product_ids) for name, _ in SUMS]
    return View(NAME, "market", TTL, tuple(columns))


def states(bank: Bank) -> pa.Table:
    """One row per hour with take-ups, stamped with the end of the hour: a take-up is visible from then on."""
    table = take_ups(bank)
    products = bank.catalog.product_ids
    codes = {product: position for position, product in enumerate(products)}
    product = np.array([codes[name] for name in table[Holding.PRODUCT_ID].to_pylist()], dtype=np.int64)
    hours, hour = np.unique(np.ceil(seconds(table[EVENT_TIMESTAMP]) / HOUR) * HOUR, return_inverse=True)
    counts = np.zeros((len(hours), len(products)))
    np.add.at(counts, (hour, product), 1.0)
    amounts = np.repeat(counts, len(SUMS), axis=1)
    taus = [tau for _, tau in SUMS] * len(products)
    folded = fold(np.zeros(len(hours), dtype=np.int64), hours, amounts, taus, np.zeros((len(hours), 0)))
    keyed = state_table(view(bank.catalog), pa.array([MARKET_ID] * len(hours), pa.string()), folded.at, folded.sums)
    return keyed.rename_columns([MARKET_KEY, *keyed.column_names[1:]])


def source(products: int) -> Source:
    """Each of SUMS over the products, [n, P]."""
    width = products * len(SUMS)
    parts = (Part(name, "count", range(at, width, len(SUMS)), tau) for at, (name, tau) in enumerate(SUMS))
    return Source(NAME, TTL, width, tuple(parts))


def to_shares(counts: Float64, products: int) -> None:
    """Make decayed counts, float64 [len(SUMS) · P, n], the products' shares of all take-ups, where they stand."""
    by_sum = counts.reshape(len(SUMS), products, counts.shape[1], copy=False)
    by_sum += EVIDENCE / max(products, 1)
    # What is added up of one moment lies in one piece, so that it is added up in one order for one as for many.
    by_sum /= np.add.reduce(np.ascontiguousarray(by_sum.transpose(2, 0, 1)), axis=2).T[:, None]
