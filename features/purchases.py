"""The purchases view: what a customer took up or showed interest in, from the timeline, per product."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import Kind
from features.folds import DAY, FOREVER, decay, slugs, zero_where_missing
from features.importing import Bank
from features.joins import Layout
from features.schema import Column, Float64, State, View
from features.touches import Folding, Occurrence, Touch, fold_timeline

NAME = "purchases"
TTL = timedelta(days=3_650)
BOUGHT = (Kind.CONVERTED,)
INTEREST = (Kind.OPENED, Kind.CLICKED, Kind.REPLIED, Kind.VISITED, Kind.CALLED)
SUMS = (
    ("bought", BOUGHT, FOREVER),
    ("bought_lately", BOUGHT, 90 * DAY),
    ("interest", INTEREST, 30 * DAY),
    ("offered", (Kind.DECIDED,), 30 * DAY),
)
LATEST = (("bought_at", BOUGHT), ("interest_at", INTEREST))
_TAUS = np.array([tau for _, _, tau in SUMS])
PRODUCT_NAMES = (
    "times bought",
    "bought lately",
    "interest lately",
    "offered lately",
    "days since bought",
    "days since interest",
)
TIMES_BOUGHT, SINCE_BOUGHT = PRODUCT_NAMES.index("times bought"), PRODUCT_NAMES.index("days since bought")
CUSTOMER_NAMES = ("purchases ever", "days since last purchase")


def view(catalog: Catalog) -> View:
    products = slugs(catalog.product_ids)
    names = [f"{product}__{name}" for part in (SUMS, LATEST) for product in products for name, *_ in part]
    return View(NAME, "customer", TTL, tuple(Column(name) for name in names))


def folding(catalog: Catalog) -> Folding:
    """Events that name a product of the catalogue count, each for its product."""
    products = len(catalog.products)
    layout = Layout(tuple(tau for _, _, tau in SUMS) * products, len(LATEST) * products)

    def touch(event: Occurrence) -> Touch:
        if event.product is None or event.product < 0:
            return Touch()
        sums, times = event.product * len(SUMS), layout.sums + event.product * len(LATEST)
        return Touch(
            tuple(sums + place for place, (_, kinds, _) in enumerate(SUMS) if event.kind in kinds),
            tuple(times + place for place, (_, kinds) in enumerate(LATEST) if event.kind in kinds),
        )

    return Folding(layout, touch)


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of an event that counts for a product."""
    return fold_timeline(bank, view(bank.catalog), folding(bank.catalog))


def product_block(state: State, as_of: Float64, products: int) -> Float64:
    """Float64 [n, P, k], columns in the order of PRODUCT_NAMES; counts are 0 for a customer without events."""
    shape = (len(state.at), products, len(SUMS))
    sums = state.numbers[:, : products * len(SUMS)].reshape(shape)
    age = zero_where_missing(as_of - state.at)[:, None, None]
    block = np.empty((len(state.at), products, len(PRODUCT_NAMES)))
    block[:, :, : len(SUMS)] = zero_where_missing(sums) * decay(age, _TAUS)
    block[:, :, len(SUMS) :] = (as_of[:, None, None] - _latest(state, products)) / DAY
    return block


def bought_at(state: State, products: int) -> Float64:
    """Seconds since 1970 of the last take-up that the timeline tells, [n, P]; NaN = never."""
    return _latest(state, products)[:, :, 0]


def _latest(state: State, products: int) -> Float64:
    return state.numbers[:, products * len(SUMS) :].reshape(len(state.at), products, len(LATEST))


def customer_block(block: Float64) -> Float64:
    """Float64 [n, k], columns in the order of CUSTOMER_NAMES, from the product block."""
    bought, since = block[:, :, TIMES_BOUGHT], block[:, :, SINCE_BOUGHT]
    told = np.empty((len(block), len(CUSTOMER_NAMES)))
    if bought.shape[1] == 0:
        told[:] = (0.0, np.nan)
        return told
    bought.sum(axis=1, out=told[:, 0])
    np.fmin.reduce(since, axis=1, out=told[:, 1])
    return told
