"""States of many customers for scoring: the newest ones where these are what the history would say, else the history.

Whoever asks at a moment by which everything had happened and was known gets the newest state of each view, and these
lie packed in the online store; a history reads every state that there ever was to find them. A state that is past its
view's ttl comes back from the one and not from the other: the row builder treats it as unknown either way, so that rows
are the same cell by cell (`features.assemble`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.asof import Asked
from features.assemble import MODULES
from features.columns import AS_OF, CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.history import history, states_of
from features.packed import OnlineStates
from features.schema import MARKET_ID, State
from features.times import micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from features.home import Build
    from features.schema import Int64, States, View

_IN_ROWS = frozenset(module.NAME for module in MODULES)


def states_for_rows(build: Build, entities: pd.DataFrame) -> States:
    """What rows of the entities are made of, in their order: each as of its own moment."""
    [(_, states)] = states_in_parts(build, entities, max(len(entities), 1))
    return states


def states_in_parts(build: Build, entities: pd.DataFrame, size: int) -> Iterator[tuple[slice, States]]:
    """As `states_for_rows`, of so many consecutive entities at once, each part with its place among the entities."""
    asked = np.asarray(entities[AS_OF].astype("datetime64[us, UTC]").astype("int64"), np.int64)
    customers = entities[CUSTOMER_ID].tolist()
    parts = [slice(start, start + size) for start in range(0, max(len(customers), 1), size)]
    end = micros(build.data_end)
    if not len(asked) or asked.min() < end or not build.online_path.is_file():
        states = history(build, entities[[CUSTOMER_ID, AS_OF]])
        yield from ((part, _part(states, part)) for part in parts)
        return
    views = [view for view in build.views if view.name in _IN_ROWS]
    # What all customers took up is told at the end of an hour, which may be later than the last event: then there is a
    # state that the online store has not got, and whoever asks later has to be told of it.
    newest = [view for view in views if _latest(build.view_path(view)) <= end]
    other = {view.name: _as_of(build, view, customers, asked) for view in views if view not in newest}
    online = OnlineStates(build.online_path, newest) if newest else None
    for part in parts:
        told = online.read(customers[part]) if online else {}
        yield part, {**told, **_part(other, part)}


def _part(states: States, part: slice) -> States:
    return {name: State(one.at[part], one.numbers[part], one.texts[part]) for name, one in states.items()}


def _as_of(build: Build, view: View, customers: Sequence[str], asked: Int64) -> State:
    """The view's states by its history, in the order of the customers, each as of its own moment [µs]."""
    path = build.view_path(view)
    if view.entity == "customer":
        return states_of(path, view, Asked.of(_texts(customers), asked), len(asked))
    moments, which = np.unique(asked, return_inverse=True)  # few: a file of entities mostly has one
    return states_of(path, view, Asked.of(_texts([MARKET_ID] * len(moments)), moments), len(moments)).take(which)


def _texts(keys: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(keys, pa.string())])


def _latest(path: Path) -> float:
    """The latest time in a view's file, µs since 1970 UTC; infinity where the file does not tell."""
    told = path.stat()
    return _latest_of(path, told.st_mtime_ns, told.st_size)


@lru_cache(256)
def _latest_of(path: Path, mtime_ns: int, size: int) -> float:
    """As `_latest`. A million customers have thousands of row groups: they are looked through once, not per block."""
    metadata = pq.read_metadata(path)
    names = metadata.schema.names
    columns = [names.index(name) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    latest = -np.inf
    for group in range(metadata.num_row_groups):
        for column in columns:
            told = metadata.row_group(group).column(column).statistics
            if told is None or not told.has_min_max:
                return np.inf
            latest = max(latest, told.max.timestamp() * 1e6)
    return latest
