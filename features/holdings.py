"""The holdings view: what a customer holds, since when, after each change."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Holding, Table
from features.folds import DAY, FOREVER, encode, flat, fold, seconds, slugs, state_table, zero_where_missing
from features.importing import Bank
from features.row_plan import Part, Source
from features.schema import Column, Float64, State, View

NAME = "holdings"
TTL = timedelta(days=36_500)
PARTS = ("held", "opened_at", "closed_at")


def view(catalog: Catalog) -> View:
    columns = [Column(f"{product}__{part}") for product in slugs(catalog.product_ids) for part in PARTS]
    return View(NAME, "customer", TTL, tuple(columns))


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of change: 1 or 0 held, times of the last opening and closing, per product."""
    table = bank.tables[Table.HOLDINGS]
    at = seconds(table[EVENT_TIMESTAMP])
    opened = np.asarray(table[Holding.ACTION].to_numpy() == Holding.OPENED)
    # Of a closing and an opening at one moment the opening counts: an exchange leaves the customer holding.
    order = np.argsort(opened, kind="stable")
    table, at, opened = table.take(pa.array(order)), at[order], opened[order]
    customers, ids = encode(table[CUSTOMER_ID])
    products = {product: position for position, product in enumerate(bank.catalog.product_ids)}
    product = np.array([products[name] for name in table[Holding.PRODUCT_ID].to_pylist()], dtype=np.int64)
    values = np.full((len(at), len(products), len(PARTS)), np.nan)
    events = np.arange(len(at))
    values[events, product, 0] = opened
    values[events[opened], product[opened], 1] = at[opened]
    values[events[~opened], product[~opened], 2] = at[~opened]
    folded = fold(customers, at, np.zeros((len(at), 0)), (), flat(values))
    return state_table(view(bank.catalog), ids.take(pa.array(folded.entity)), folded.at, folded.latest)


def source(products: int) -> Source:
    """`held`: 1 where held; a customer or product never seen is not. `opened`: the last opening. Both [n, P]."""
    width = products * len(PARTS)
    held, opened = range(0, width, len(PARTS)), range(1, width, len(PARTS))
    return Source(NAME, TTL, width, (Part("held", "count", held, FOREVER), Part("opened", "since", opened, DAY)))


def held(state: State, products: int) -> Float64:
    """1 where held, [n, P]; a customer or product never seen is not held."""
    return zero_where_missing(state.numbers.reshape(len(state.at), products, len(PARTS))[:, :, 0])


def told_at(state: State, products: int) -> Float64:
    """Seconds since 1970 of the last opening or closing, [n, P]; NaN = never."""
    numbers = state.numbers.reshape(len(state.at), products, len(PARTS))
    return np.fmax(numbers[:, :, 1], numbers[:, :, 2])
