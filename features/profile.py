"""The profile view: the attributes a bank brought, as they stood from each change on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP, Table
from features.folds import DAY, slugs
from features.importing import Bank
from features.row_plan import Part, Source
from features.schema import Attribute, Bool, Column, Float64, RowSchema, State, View

NAME = "profile"
TTL = timedelta(days=36_500)
YEAR = 365.25 * DAY
VOCABULARY_SIZE = 20
"""Text values that get a column of their own; the rest share none, like a value never seen."""


def view(attributes: Sequence[Attribute]) -> View:
    names = slugs(attribute.name for attribute in attributes)
    columns = tuple(
        Column(f"{name}__attr", "text" if attribute.kind == "text" else "number")
        for name, attribute in zip(names, attributes, strict=True)
    )
    return View(NAME, "customer", TTL, columns)


def states(bank: Bank) -> pa.Table:
    """One row per row of `customers`: numbers and flags as float64, dates as seconds since 1970, texts as they are."""
    table = bank.tables[Table.CUSTOMERS]
    columns = {
        CUSTOMER_ID: table[CUSTOMER_ID],
        EVENT_TIMESTAMP: table[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: table[EVENT_TIMESTAMP],
    }
    for column, attribute in zip(view(bank.attributes).columns, bank.attributes, strict=True):
        values = table[attribute.name]
        if attribute.kind == "text":
            columns[column.name] = values.cast(pa.string())
        elif attribute.kind == "date":
            columns[column.name] = _date_seconds(values)
        else:
            columns[column.name] = values.cast(pa.float64())
    return pa.table(columns)


def _date_seconds(values: pa.ChunkedArray) -> pa.Array:
    times = pd.to_datetime(values.to_pandas(), utc=True, format="ISO8601")
    micros = times.astype("datetime64[us, UTC]").to_numpy(dtype="datetime64[us]")
    seconds = micros.astype(np.int64) / 1e6
    return pa.array(seconds, mask=np.isnat(micros))


def vocabularies(bank: Bank, known: Bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Most frequent values of each text attribute among the `customers` rows where `known`; ties by name."""
    table = bank.tables[Table.CUSTOMERS].filter(pa.array(known))
    found = []
    for attribute in bank.attributes:
        if attribute.kind != "text":
            continue
        counts = pc.value_counts(table[attribute.name].drop_null()).to_pylist()
        ordered = sorted(counts, key=lambda item: (-item["counts"], item["values"]))
        found.append((attribute.name, tuple(item["values"] for item in ordered[:VOCABULARY_SIZE])))
    return tuple(found)


def customer_names(attributes: Sequence[Attribute], words: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    plain = [
        f"{attribute.name} (years ago)" if attribute.kind == "date" else attribute.name
        for attribute in attributes
        if attribute.kind != "text"
    ]
    return (*plain, *(f"{name} = {value}" for name, values in words for value in values))


def source(schema: RowSchema) -> Source:
    """One part per attribute that is no text, named by its place; dates become years ago."""
    parts = tuple(
        Part(f"{place}", "since", (place,), YEAR) if kind == "date" else Part(f"{place}", "number", (place,))
        for place, kind in enumerate(schema.plain_kinds)
    )
    return Source(NAME, TTL, len(parts), parts)


def marks(state: State, known: Bool, schema: RowSchema) -> Float64:
    """Float64 [n, k], 1 where an attribute is the word of the column, in the order of `customer_names`.

    known: bool [n], customers whose state says anything at the moment.
    """
    words = schema.word_places
    width = sum(map(len, words))
    block = np.zeros((len(state.at), width))
    found = []  # places in the block as one line: put there together, of many customers
    for row, (texts, said) in enumerate(zip(state.texts.tolist(), known.tolist(), strict=True)):
        for places, text in zip(words, texts if said else (), strict=False):
            place = places.get(text)
            if place is not None:
                found.append(row * width + place)
    if found:
        block.put(found, 1.0)
    return block
