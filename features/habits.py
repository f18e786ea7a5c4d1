"""The habits view: what became of a customer's messages per channel.

It answers "by which channel does this customer take notice": counts, decayed over half a year, of messages, not of
events. A message is noticed once however often it is opened, so these counts ask for all events of a message and are
no join of two halves of a history: they are made from the tables, not from live events. A habit changes over weeks, so
there is one state per customer and week with events, visible from the end of that week on: point in time exactly, and
small where customers come every day.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features import hours
from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, REACTIONS, Event, Kind, Table
from features.folds import DAY, Codes, counts_at, encode, fold, seconds, slugs, state_table
from features.importing import Bank
from features.schema import Column, Float64, States, View
from features.times import PARTS

NAME = "habits"
TTL = timedelta(days=730)
MEMORY = 180 * DAY
WEEK = 7 * DAY
RECEIPTS = (Kind.DELIVERED, Kind.FAILED)
ANSWERS = frozenset({Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED})
OUTCOMES: tuple[tuple[str, Collection[Kind]], ...] = (
    ("delivered", (Kind.DELIVERED,)),
    ("failed", (Kind.FAILED,)),
    ("noticed", REACTIONS),
    ("answered", ANSWERS),
)


@dataclass(frozen=True)
class Habits:
    """n customers' decayed counts: outcomes float64 [n, H, 4] in the order of OUTCOMES, parts float64 [n, 8]."""

    outcomes: Float64
    parts: Float64

    @classmethod
    def none(cls, count: int, channels: int) -> Habits:
        """Of customers of whom nothing is known."""
        return cls(np.zeros((count, channels, len(OUTCOMES))), np.zeros((count, PARTS)))


def view(catalog: Catalog) -> View:
    columns = [Column(f"{channel}__habit_{name}") for channel in slugs(catalog.channel_ids) for name, _ in OUTCOMES]
    return View(NAME, "customer", TTL, tuple(columns))


def states(bank: Bank) -> pa.Table:
    """One row per customer and week with receipts or reactions, stamped with the end of the week."""
    table = bank.tables[Table.TIMELINE]
    table = table.filter(pc.is_in(table[Event.KIND], pa.array(sorted({*REACTIONS, *RECEIPTS}))))
    table = table.filter(pc.is_valid(table[Event.CHANNEL]))
    at, kind = seconds(table[EVENT_TIMESTAMP]), table[Event.KIND].to_numpy()
    customers, ids = encode(table[CUSTOMER_ID])
    positions = {name: position for position, name in enumerate(bank.catalog.channel_ids)}
    channel = np.array([positions.get(name, -1) for name in table[Event.CHANNEL].to_pylist()], dtype=np.int64)
    message = message_keys(table)
    amounts = np.zeros((len(at), len(positions) * len(OUTCOMES)))
    for place, (_, kinds) in enumerate(OUTCOMES):
        hits = _first_of_message(np.isin(kind, tuple(kinds)) & (channel >= 0), message, channel, at)
        amounts[hits, channel[hits] * len(OUTCOMES) + place] = 1.0
    entity, end, summed = _by_week(customers, at, amounts)
    folded = fold(entity, end, summed, [MEMORY] * summed.shape[1], np.zeros((len(end), 0)))
    return state_table(view(bank.catalog), ids.take(pa.array(folded.entity)), folded.at, folded.sums)


def message_keys(table: pa.Table) -> np.ndarray:
    """Per event, what names its message: message_id, else decision_id, else the event itself; object [n]."""
    return np.asarray(
        pc.coalesce(table[Event.MESSAGE_ID], table[Event.DECISION_ID], table[Event.EVENT_ID]).to_numpy(), dtype=object
    )


def habits(states: States, as_of: Float64, channels: int) -> Habits:
    """The counts as of moments [n] (seconds since 1970 UTC); zeros where nothing was known, or only too long ago."""
    outcomes = counts_at(states[NAME], as_of, MEMORY, TTL).reshape(len(as_of), channels, len(OUTCOMES))
    return Habits(outcomes, hours.parts(states[hours.NAME], as_of))


def _first_of_message(hits: np.ndarray, message: np.ndarray, channel: Codes, at: Float64) -> Codes:
    """Positions of the first hit of every message on its channel: a message is noticed once, however often opened."""
    found = np.flatnonzero(hits)
    found = found[np.argsort(at[found], kind="stable")]
    later = pd.DataFrame({"message": message[found], "channel": channel[found]}).duplicated().to_numpy()
    return np.asarray(found[~later], dtype=np.int64)


def _by_week(customers: Codes, at: Float64, amounts: Float64) -> tuple[Codes, Float64, Float64]:
    """Customer, end of the week and summed amounts of every customer's weeks with events.

    An event at the very end of a week belongs to it: the state that it enters is visible at that moment.
    """
    week = np.ceil(at / WEEK).astype(np.int64)
    pairs, group = np.unique(np.stack([customers, week], axis=1), axis=0, return_inverse=True)
    summed = np.zeros((len(pairs), amounts.shape[1]))
    np.add.at(summed, group.reshape(-1), amounts)
    return pairs[:, 0], pairs[:, 1] * WEEK, summed
