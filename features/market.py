"""The market view: what all customers took up lately, per product; the bank's popularity, point in time.

Popularity that moves is a feature like any other: it follows launches and withdrawals without a refit.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import EVENT_TIMESTAMP, Holding
from features.folds import DAY, FOREVER, decay, fold, seconds, slugs, state_table, zero_where_missing
from features.importing import Bank
from features.schema import MARKET_ID, MARKET_KEY, Column, Float64, State, View
from features.takeups import take_ups

NAME = "market"
TTL = timedelta(days=730)
HOUR = 3_600.0
SUMS = (("taken_week", 7 * DAY), ("taken_month", 30 * DAY), ("taken_ever", FOREVER))
_TAUS = np.array([tau for _, tau in SUMS])
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


def product_block(state: State, as_of: Float64, products: int) -> Float64:
    """Float64 [n, P, k], columns in the order of PRODUCT_NAMES: the products' shares of all take-ups."""
    sums = zero_where_missing(state.numbers.reshape(len(state.at), products, len(SUMS)))
    age = zero_where_missing(as_of - state.at)[:, None, None]
    counts = sums * decay(age, _TAUS) + EVIDENCE / max(products, 1)
    for position in range(len(SUMS)):
        of_all = counts[:, :, position]  # one sum after the other: their digits depend on the order of adding
        of_all /= of_all.sum(axis=1, keepdims=True)
    return counts
