"""All feature views of a bank, in one list: what they hold and how they are computed from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from features import consent, engagement, habits, holdings, hours, market, profile, purchases, transactions
from features.arrow import column_of, kernels
from features.catalog import Catalog
from features.columns import CUSTOMER_ID
from features.importing import Bank
from features.schema import Attribute, View


def views(catalog: Catalog, attributes: Sequence[Attribute]) -> tuple[View, ...]:
    """The views of a catalogue and its customers' attributes; their names and columns are fixed by these alone."""
    return (
        profile.view(attributes),
        holdings.view(catalog),
        transactions.view(),
        engagement.view(catalog),
        purchases.view(catalog),
        consent.view(catalog),
        habits.view(catalog),
        hours.view(catalog),
        market.view(catalog),
    )


EVENTS_AT_ONCE = 2_000_000
"""Rows of all tables from which views are computed at once; bounds memory, about 2 KB each for a dozen products."""


def state_tables(bank: Bank, at_once: int = EVENTS_AT_ONCE) -> Iterator[tuple[View, pa.Table]]:
    """Each view with its states: key, `event_timestamp`, `created_timestamp`, then the view's columns.

    At most one row per key and time; a view whose table the bank did not bring has no rows. A bank with more rows than
    `at_once` comes in blocks of whole customers, in the order of their ids: each view of customers then comes once per
    block.
    """
    modules = (profile, holdings, transactions, engagement, purchases, consent, habits, hours, market)
    pairs = list(zip(views(bank.catalog, bank.attributes), modules, strict=True))
    for part in by_customers(bank, at_once):
        for view, module in pairs:
            if view.entity == "customer":
                yield view, module.states(part)
    for view, module in pairs:
        if view.entity == "market":
            yield view, module.states(bank)


def by_customers(bank: Bank, at_once: int) -> Iterator[Bank]:
    """The bank in parts of about `at_once` rows, a customer in one of them, in the order of their ids."""
    rows = sum(table.num_rows for table in bank.tables.values())
    if rows <= at_once:
        yield bank
        return
    columns = {name: table[CUSTOMER_ID] for name, table in bank.tables.items()}
    known = kernels.unique(pa.chunked_array([chunk for column in columns.values() for chunk in column.chunks]))
    known = known.take(kernels.array_sort_indices(known))
    count = min(-(-rows // at_once), len(known))
    part_of = {
        name: (kernels.index_in(column, known).to_numpy().astype(np.int64) * count // len(known)).astype(np.int32)
        for name, column in columns.items()
    }
    for part in range(count):
        tables = {name: table.filter(column_of(part_of[name] == part)) for name, table in bank.tables.items()}
        yield replace(bank, tables=tables)
