"""Features as folds over events in the order of time: decayed sums and latest values.

A decayed sum with time constant tau after events a_1 … a_k at t_1 … t_k is
S_k = S_{k-1}·exp(−(t_k − t_{k-1})/tau) + a_k, and at a later moment t it is S_k·exp(−(t − t_k)/tau): a state needs
no window to slide, and no job to age it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.schema import Float64, State, View

DAY = 86_400.0
"""Seconds in a day."""

FOREVER = float("inf")
"""A time constant without decay: the sum is a plain count."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Folded:
    """States after each kept event: the last one of every (entity, time), in order of entity and time.

    entity: int64 [k], at: float64 [k] seconds, sums: float64 [k, a], latest: float64 [k, b] (NaN: never set).
    """

    entity: Codes
    at: Float64
    sums: Float64
    latest: Float64


def decay(age: Float64, tau: float | Float64) -> Float64:
    """Factor exp(−age/tau) for an age in seconds; 1 for tau = infinity."""
    return np.exp(-np.asarray(age) / tau)


def zero_where_missing(numbers: Float64) -> Float64:
    """The numbers with 0 for NaN; `np.nan_to_num` asks for infinities too, which one customer has to wait for."""
    return np.where(np.isnan(numbers), 0.0, numbers)


def step(
    sums: Float64, latest: Float64, age: Float64, taus: Float64, amounts: Float64, values: Float64
) -> tuple[Float64, Float64]:
    """States of m entities after one event each.

    sums, amounts: [m, a]; latest, values: [m, b], NaN in `values` leaves the state as it is; age: [m] seconds since
    the entity's event before; taus: [a] seconds.
    """
    return sums * decay(age[:, None], taus) + amounts, np.where(np.isnan(values), latest, values)


def counts_at(state: State, as_of: Float64, tau: float, ttl: timedelta) -> Float64:
    """Decayed sums [n, b], all that a state holds, as of moments [n]; 0 where not known then, or older than ttl."""
    age = as_of - state.at  # NaN where nothing is known, and then no comparison holds
    known = (age >= 0) & (age <= ttl.total_seconds())
    faded = np.where(known, decay(np.where(known, age, 0.0), tau), 0.0)[:, None]
    return np.asarray(zero_where_missing(state.numbers) * faded)


def fold(entity: Codes, at: Float64, amounts: Float64, taus: Sequence[float], values: Float64) -> Folded:
    """Fold events of many entities; events may come in any order, equal times keep the order given.

    entity: [n] codes 0…m-1; at: [n] seconds; amounts: [n, a]; taus: [a] seconds; values: [n, b], NaN = not set.
    Works through the k-th event of every entity at once, so the cost is that of the longest history in Python steps.
    """
    order = np.lexsort((at, entity))
    entity, at, amounts, values = entity[order], at[order], amounts[order], values[order]
    count = len(entity)
    sums, latest = np.zeros_like(amounts), np.full_like(values, np.nan)
    if count == 0:
        return Folded(entity, at, sums, latest)
    tau = np.asarray(taus, dtype=np.float64)
    first = np.r_[True, entity[1:] != entity[:-1]]
    sums[first], latest[first] = amounts[first], values[first]
    for now in ranks(entity):
        sums[now], latest[now] = step(
            sums[now - 1], latest[now - 1], at[now] - at[now - 1], tau, amounts[now], values[now]
        )
    keep = np.r_[(entity[1:] != entity[:-1]) | (at[1:] != at[:-1]), True]
    return Folded(entity[keep], at[keep], sums[keep], latest[keep])


def ranks(entity: Codes) -> Iterator[Codes]:
    """Of events sorted by entity, n > 0: the positions of every entity's second event, then of the third, and so on."""
    starts = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]])
    lengths = np.diff(np.r_[starts, len(entity)])
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[longest_first], lengths[longest_first]
    for rank in range(1, int(lengths[0])):
        yield starts[: int(np.searchsorted(-lengths, -rank, side="left"))] + rank


def flat(block: Float64) -> Float64:
    """[n, a, b] as [n, a·b]; numpy cannot infer the width of zero rows by itself."""
    return block.reshape(len(block), block.shape[1] * block.shape[2])


def slugs(ids: Iterable[str]) -> tuple[str, ...]:
    """Column-safe, distinct names for ids, stable for a given sequence of ids."""
    names: list[str] = []
    for position, identifier in enumerate(ids):
        slug = re.sub(r"\W+", "_", identifier, flags=re.ASCII).strip("_").lower() or f"id{position}"
        names.append(slug if slug not in names else f"{slug}_{position}")
    return tuple(names)


def state_table(view: View, keys: pa.Array, at: Float64, numbers: Float64) -> pa.Table:
    """The Arrow table of a view of numbers: key, event and created timestamps (µs UTC), one column each.

    History that was imported is taken as known when it happened: created = event time.
    """
    times = pa.array(np.round(at * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))
    columns = {CUSTOMER_ID: keys, EVENT_TIMESTAMP: times, CREATED_TIMESTAMP: times}
    for position, name in enumerate(view.numbers):
        column = numbers[:, position]
        columns[name] = pa.array(column, mask=np.isnan(column))
    return pa.table(columns)


def seconds(times: pa.ChunkedArray | pa.Array) -> Float64:
    """Timestamps (µs UTC) as float64 seconds since 1970; exact to the microsecond until the year 2255."""
    micros = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return np.asarray(micros, dtype=np.float64) / 1e6


def encode(ids: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """Codes 0…m-1 of ids and the m distinct ids, in order of first appearance."""
    encoded = ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary
