"""The consent view: on which channels and for which purposes a customer said no, and when they last complained."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose, Table
from features.folds import DAY, encode, flat, fold, seconds, slugs, state_table
from features.importing import Bank
from features.schema import Bool, Column, Float64, State, View

NAME = "consent"
TTL = timedelta(days=36_500)
PURPOSES = (Purpose.MARKETING, Purpose.SERVICE)
"""Mandatory messages know no opt-out."""
KINDS = (Kind.OPTED_OUT, Kind.OPTED_IN, Kind.COMPLAINED)
CUSTOMER_NAMES = ("days since complaint",)


def view(catalog: Catalog) -> View:
    columns = [
        Column(f"{channel}__{purpose}_refused") for channel in slugs(catalog.channel_ids) for purpose in PURPOSES
    ]
    return View(NAME, "customer", TTL, (*columns, Column("complained_at__all")))


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of a consent event or complaint; 1 = refused, 0 = agreed, null = never said."""
    table = bank.tables[Table.TIMELINE]
    table = table.filter(pc.is_in(table[Event.KIND], pa.array(KINDS)))
    # Of an opt-in and an opt-out at one moment the opt-out counts.
    opted_out = np.asarray(table[Event.KIND].to_numpy() == Kind.OPTED_OUT)
    table = table.take(pa.array(np.argsort(opted_out, kind="stable")))
    at, kind = seconds(table[EVENT_TIMESTAMP]), table[Event.KIND].to_numpy()
    customers, ids = encode(table[CUSTOMER_ID])
    channels = np.array(bank.catalog.channel_ids, dtype=object)
    channel, purpose = table[Event.CHANNEL].to_numpy(), table[Event.PURPOSE].to_numpy()
    for_channel = _matches(channel, channels)
    for_purpose = _matches(purpose, np.array(PURPOSES, dtype=object))
    said = np.isin(kind, (Kind.OPTED_OUT, Kind.OPTED_IN))
    applies = for_channel[:, :, None] & for_purpose[:, None, :] & said[:, None, None]
    refusal = np.where(kind == Kind.OPTED_OUT, 1.0, 0.0)[:, None, None]
    values = flat(np.where(applies, refusal, np.nan))
    complaints = np.where(kind == Kind.COMPLAINED, at, np.nan)[:, None]
    folded = fold(customers, at, np.zeros((len(at), 0)), (), np.hstack([values, complaints]))
    return state_table(view(bank.catalog), ids.take(pa.array(folded.entity)), folded.at, folded.latest)


def _matches(given: np.ndarray, known: np.ndarray) -> Bool:
    """[n, k]: True where the event names the value, or names none and therefore means all of them."""
    none = np.array([value is None for value in given], dtype=bool)
    return np.asarray((given[:, None] == known[None, :]) | none[:, None], dtype=bool)


def refused(state: State, channels: int, purpose: Purpose) -> Bool:
    """[n, H]: True where contact on the channel for the purpose was refused; silence is consent."""
    numbers = state.numbers[:, : channels * len(PURPOSES)].reshape(len(state.at), channels, len(PURPOSES))
    if purpose not in PURPOSES:
        return np.zeros((len(state.at), channels), dtype=bool)
    return np.asarray(numbers[:, :, PURPOSES.index(purpose)] == 1.0)


def customer_block(state: State, as_of: Float64) -> list[Float64]:
    """Columns [n] in the order of CUSTOMER_NAMES."""
    return [(as_of - state.numbers[:, -1]) / DAY]
