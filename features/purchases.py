"""The purchases view: what a customer took up or showed interest in, from the timeline, per product."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from features.catalog import Catalog
from features.columns import Kind
from features.folds import DAY, FOREVER, slugs
from features.importing import Bank
from features.joins import Layout
from features.row_plan import Part, Source
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
PRODUCT_NAMES = (
    "times bought",
    "bought lately",
    "interest lately",
    "offered lately",
    "days since bought",
    "days since interest",
)
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


def source(products: int) -> Source:
    """Each of SUMS and LATEST over the products, [n, P]."""
    sums = products * len(SUMS)
    parts = (
        *(Part(name, "count", range(at, sums, len(SUMS)), tau) for at, (name, _, tau) in enumerate(SUMS)),
        *(
            Part(name, "since", range(sums + at, sums + products * len(LATEST), len(LATEST)), DAY)
            for at, (name, _) in enumerate(LATEST)
        ),
    )
    return Source(NAME, TTL, sums + products * len(LATEST), parts)


def bought_at(state: State, products: int) -> Float64:
    """Seconds since 1970 of the last take-up that the timeline tells, [n, P]; NaN = never."""
    return _latest(state, products)[:, :, 0]


def _latest(state: State, products: int) -> Float64:
    return state.numbers[:, products * len(SUMS) :].reshape(len(state.at), products, len(LATEST))
