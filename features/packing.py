"""How the state of one key in one view becomes a packed row, and back: layouts, times, blocks of numbers and texts.

The numbers are one block of little-endian float64 in the view's order (integers are exact up to 2^53), NaN = missing;
the texts are one JSON list, null = missing. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from features.arrow import Column, kernels
from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.errors import ArtefactError, InputError
from features.schema import MARKET_KEY, Float64, Int64, State, Texts, View

_FLOAT64 = np.dtype("<f8")


def key_column(view: View) -> str:
    """Name of the column that a view is keyed by."""
    return CUSTOMER_ID if view.entity == "customer" else MARKET_KEY


def layout(view: View) -> str:
    """Canonical JSON of what fixes the meaning of a packed row of `view`."""
    return json.dumps([view.entity, [[column.name, column.kind] for column in view.columns]])


def fingerprint(view: View) -> str:
    """SHA-256 of the view's layout: rows can be read alike exactly when these agree."""
    return hashlib.sha256(layout(view).encode()).hexdigest()


def seconds(microseconds: Int64) -> Float64:
    """Seconds since 1970 as float64: the one conversion for `at`, so that both paths agree to the last bit."""
    return microseconds / np.float64(1e6)


def microseconds(column: Column) -> Int64:
    """Microseconds since 1970 UTC of a column of times without nulls."""
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(), np.int64)


def unknown(view: View, n: int) -> State:
    """The state of n entities of which nothing is known, to be filled in."""
    return State(
        np.full(n, np.nan),
        np.full((n, len(view.numbers)), np.nan),
        np.full((n, len(view.texts)), None, dtype=object),
    )


def stacked(states: Sequence[State]) -> State:
    """The states of one view of consecutive blocks of entities, as one."""
    return State(
        np.concatenate([state.at for state in states]),
        np.concatenate([state.numbers for state in states]),
        np.concatenate([state.texts for state in states]),
    )


class Packed(NamedTuple):
    """The rows of a block of states, as columns of n values each: what a store writes for each key."""

    keys: Sequence[str]
    events: Sequence[int]
    """Microseconds since 1970 UTC, as `created`."""
    created: Sequence[int]
    numbers: Sequence[bytes]
    texts: Sequence[str | None]
    """None for a view without texts."""


def check_keys(view: View, table: pa.Table) -> None:
    """Refuse a table with a state of nobody, or of no time."""
    nobody, never = (table.column(name).null_count for name in (key_column(view), EVENT_TIMESTAMP))
    if nobody or never:
        raise InputError(
            f"every state of view {view.name!r} has a key and an event time, however of {table.num_rows} states "
            f"{nobody} have no key and {never} no time; leave them out"
        )


def pack(view: View, table: pa.Table) -> Packed:
    """The rows of a table of states (key, event and created timestamps, the view's columns), packed.

    Raises InputError where a row has no key or no event time.
    """
    check_keys(view, table)
    n, width = table.num_rows, len(view.numbers)
    keys, event = table.column(key_column(view)), table.column(EVENT_TIMESTAMP)
    created = kernels.coalesce(table.column(CREATED_TIMESTAMP), event)
    numbers = np.empty((n, width), _FLOAT64)
    for index, name in enumerate(view.numbers):
        numbers[:, index] = table.column(name).cast(pa.float64()).to_numpy()
    raw, size = numbers.tobytes(), width * _FLOAT64.itemsize
    blocks = [raw[start : start + size] for start in range(0, n * size, size)] if width else [b""] * n
    texts: Sequence[str | None] = [None] * n
    if view.texts:
        columns: list[list[Any]] = [table.column(name).to_pylist() for name in view.texts]
        texts = [orjson.dumps(row).decode() for row in zip(*columns, strict=True)]
    return Packed(keys.to_pylist(), microseconds(event).tolist(), microseconds(created).tolist(), blocks, texts)


_NO_TEXTS: Texts = np.empty((1, 0), dtype=object)


def unpacked(view: View, at: Float64, numbers: bytes, texts: str | None) -> State:
    """The state of one entity from its packed row; at: its event time, float64 [1], seconds since 1970."""
    width = len(view.numbers)
    if len(numbers) != width * _FLOAT64.itemsize:
        raise damaged(view, 1, len(numbers) / _FLOAT64.itemsize)
    if not view.texts:
        return State(at, np.ndarray((1, width), _FLOAT64, numbers), _NO_TEXTS)
    words = np.empty((1, len(view.texts)), dtype=object)
    words[0] = orjson.loads(texts or "[]")
    return State(at, np.ndarray((1, width), _FLOAT64, numbers), words)


def damaged(view: View, rows: int, numbers: float) -> ArtefactError:
    """That some rows of a view hold so many numbers, and why that is wrong."""
    return ArtefactError(
        f"packed rows of view {view.name!r} must hold {len(view.numbers)} numbers each, however {rows} of them "
        f"hold {numbers:g}; the online store is damaged, build the features again"
    )


class Unpacking:
    """Packed rows of one view as they come from a store, each with the place among n entities that it belongs to.

    Columns of equal length: places, event times (microseconds since 1970 UTC), numbers, texts.
    """

    def __init__(self, *columns: Sequence[Any]) -> None:
        """columns: all four, or none where rows are added one by one."""
        places, events, numbers, texts = columns or ((), (), (), ())
        self._places: list[int] = list(places)
        self._events: list[int] = list(events)
        self._numbers: list[bytes] = list(numbers)
        self._texts: list[str | None] = list(texts)

    def add(self, place: int, event_us: int, numbers: bytes, texts: str | None) -> None:
        self._places.append(place)
        self._events.append(event_us)
        self._numbers.append(numbers)
        self._texts.append(texts)

    def state(self, view: View, n: int) -> State:
        """The state of n entities; those that were given no row are unknown."""
        places, width = self._places, len(view.numbers)
        if not places:
            return unknown(view, n)
        raw = b"".join(self._numbers)
        if len(raw) != len(places) * width * _FLOAT64.itemsize:
            raise damaged(view, len(places), len(raw) / _FLOAT64.itemsize)
        block = np.frombuffer(raw, _FLOAT64)
        texts = np.empty((len(places), len(view.texts)), dtype=object)
        if view.texts:
            texts[:] = [orjson.loads(texts or "[]") for texts in self._texts]
        given = State(seconds(np.array(self._events, np.int64)), block.reshape(len(places), width), texts)
        if places == list(range(n)):
            return given
        state = unknown(view, n)
        state.at[places], state.numbers[places], state.texts[places] = given.at, given.numbers, given.texts
        return state
