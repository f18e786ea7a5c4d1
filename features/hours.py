"""The hours view: in which parts of the day a customer is active, in the catalogue's zone.

It answers "when does this customer look": reactions and visits on any channel, decayed over half a year. Every event
counts, also the third opening of one message: it tells of an hour at which the customer was there.
"""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from features.catalog import Catalog
from features.columns import REACTIONS, VISITS
from features.folds import DAY, counts_at
from features.importing import Bank
from features.joins import Layout
from features.schema import Column, Float64, State, View
from features.times import PARTS
from features.touches import Folding, Occurrence, Touch, fold_timeline

NAME = "hours"
TTL = timedelta(days=730)
MEMORY = 180 * DAY
ACTIVE = frozenset({*REACTIONS, *VISITS})


def view(catalog: Catalog) -> View:
    return View(NAME, "customer", TTL, tuple(Column(f"active_in_part_{part}") for part in range(PARTS)))


def folding(catalog: Catalog) -> Folding:
    """Reactions and visits count, with a channel or without, each for its part of the day."""

    def touch(event: Occurrence) -> Touch:
        return Touch((event.part,)) if event.kind in ACTIVE else Touch()

    return Folding(Layout((MEMORY,) * PARTS, 0), touch)


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of a reaction or visit."""
    return fold_timeline(bank, view(bank.catalog), folding(bank.catalog))


def parts(state: State, as_of: Float64) -> Float64:
    """The counts [n, 8] as of moments [n] (seconds since 1970 UTC); zeros where nothing was known, or too long ago."""
    return counts_at(state, as_of, MEMORY, TTL)
