"""All feature views of a bank, in one list: what they hold and how they are computed from its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from features import consent, engagement, habits, holdings, hours, market, profile, purchases, transactions
from features.catalog import Catalog
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


def state_tables(bank: Bank) -> Iterator[tuple[View, pa.Table]]:
    """Each view with its states: key, `event_timestamp`, `created_timestamp`, then the view's columns.

    At most one row per key and time; a view whose table the bank did not bring has no rows.
    """
    modules = (profile, holdings, transactions, engagement, purchases, consent, habits, hours, market)
    for view, module in zip(views(bank.catalog, bank.attributes), modules, strict=True):
        yield view, module.states(bank)
