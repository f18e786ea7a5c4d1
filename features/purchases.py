"""The purchases view: what a customer took up or showed interest in, from the timeline, per product."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Table
from features.folds import DAY, FOREVER, decay, encode, flat, fold, seconds, slugs, state_table
from features.importing import Bank
from features.schema import Column, Float64, State, View

NAME = "purchases"
TTL = timedelta(days=3_650)
SUMS = (("bought", FOREVER), ("bought_lately", 90 * DAY), ("interest", 30 * DAY), ("offered", 30 * DAY))
LATEST = ("bought_at",)
PARTS = len(SUMS) + len(LATEST)
INTEREST = (Kind.OPENED, Kind.CLICKED, Kind.REPLIED, Kind.VISITED, Kind.CALLED)
PRODUCT_NAMES = ("times bought", "bought lately", "interest lately", "offered lately", "days since bought")
CUSTOMER_NAMES = ("purchases ever", "days since last purchase")


def view(catalog: Catalog) -> View:
    names = [name for name, _ in SUMS] + list(LATEST)
    columns = [Column(f"{product}__{name}") for product in slugs(catalog.product_ids) for name in names]
    return View(NAME, "customer", TTL, tuple(columns))


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of an event that names a product."""
    kinds = [*INTEREST, Kind.CONVERTED, Kind.DECIDED]
    table = bank.tables[Table.TIMELINE]
    named = pc.and_(pc.is_valid(table[Event.PRODUCT_ID]), pc.is_in(table[Event.KIND], pa.array(kinds)))
    table = table.filter(named)
    at, kind = seconds(table[EVENT_TIMESTAMP]), table[Event.KIND].to_numpy()
    customers, ids = encode(table[CUSTOMER_ID])
    codes = {product: position for position, product in enumerate(bank.catalog.product_ids)}
    product = np.array([codes[name] for name in table[Event.PRODUCT_ID].to_pylist()], dtype=np.int64)
    bought, events = kind == Kind.CONVERTED, np.arange(len(at))
    amounts = np.zeros((len(at), len(codes), len(SUMS)))
    amounts[events, product, 0] = bought
    amounts[events, product, 1] = bought
    amounts[events, product, 2] = np.isin(kind, INTEREST)
    amounts[events, product, 3] = kind == Kind.DECIDED
    values = np.full((len(at), len(codes)), np.nan)
    values[events[bought], product[bought]] = at[bought]
    taus = [tau for _, tau in SUMS] * len(codes)
    folded = fold(customers, at, flat(amounts), taus, values)
    sums = folded.sums.reshape(len(folded.at), len(codes), len(SUMS))
    numbers = flat(np.concatenate([sums, folded.latest[:, :, None]], axis=2))
    return state_table(view(bank.catalog), ids.take(pa.array(folded.entity)), folded.at, numbers)


def product_block(state: State, as_of: Float64, products: int) -> list[Float64]:
    """Columns [n, P] in the order of PRODUCT_NAMES; counts are 0 for a customer without events."""
    numbers = state.numbers.reshape(len(state.at), products, PARTS)
    age = np.nan_to_num(as_of - state.at)[:, None]
    counts = [np.nan_to_num(numbers[:, :, place]) * decay(age, tau) for place, (_, tau) in enumerate(SUMS)]
    return [*counts, (as_of[:, None] - numbers[:, :, len(SUMS)]) / DAY]


def customer_block(blocks: list[Float64]) -> list[Float64]:
    """Columns [n] in the order of CUSTOMER_NAMES, from the product block."""
    if blocks[0].shape[1] == 0:
        nothing = np.zeros(len(blocks[0]))
        return [nothing, np.full_like(nothing, np.nan)]
    since = blocks[-1]
    return [blocks[0].sum(axis=1), np.fmin.reduce(since, axis=1)]
