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


def customer_block(state: State, as_of: Float64, schema: RowSchema) -> Float64:
    """Float64 [n, k], columns in the order of `customer_names`; dates become years before `as_of`."""
    count, kinds, words = len(state.at), schema.plain_kinds, schema.word_places
    numbers, width = len(kinds), sum(map(len, words))
    # A column more than there are words: the mark of a text that is none of them, or missing.
    block = np.zeros((count, numbers + width + 1))
    block[:, :numbers] = state.numbers[:, :numbers]
    for position, kind in enumerate(kinds):
        if kind == "date":
            block[:, position] = (as_of - state.numbers[:, position]) / YEAR
    texts = state.texts[:, : len(words)].T.tolist()
    if texts:
        marks = [[places.get(text, width) for text in column] for places, column in zip(words, texts, strict=True)]
        block[np.arange(count), np.array(marks) + numbers] = 1.0
    return block[:, :-1]
