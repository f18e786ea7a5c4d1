"""Point-in-time history for learning and scoring: what was known of each customer at each moment, without Feast's cost.

The rows come from the sources that Feast's registry describes, by the rule that Feast's own joins ask too
(`features.asof`, `features.offline`). Nothing here imports Feast, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from features.arrow import Column, kernels
from features.asof import Asked, Source, rows_that_count
from features.columns import AS_OF, CUSTOMER_ID
from features.errors import InputError
from features.fetch import fetch
from features.home import Build
from features.packing import seconds, unknown
from features.progress import SILENT, Progress
from features.schema import MARKET_ID, Int64, State, States, Texts, View


def history(build: Build, spine: pd.DataFrame, progress: Progress = SILENT) -> States:
    """The states that were known of each spine row's customer at its time: one per row, in the spine's order.

    spine: columns `customer_id` (str) and `as_of` (times with a zone), equal rows as often as they like. A state counts
    when its event and its becoming known are not later than `as_of`, and while it is within its view's ttl; otherwise,
    and for customers never heard of, it is unknown. Raises InputError for a spine that is not like this.
    """
    customers, as_of = _checked(spine)
    nobody_else = pa.chunked_array([pa.repeat(pa.scalar(MARKET_ID), len(as_of))])
    asked = {"customer": Asked.of(customers, as_of), "market": Asked.of(nobody_else, as_of)}
    states = {}
    with progress.step("join the history of the customers", len(build.views)) as advance:
        for view in build.views:
            states[view.name] = states_of(build.view_path(view), view, asked[view.entity], len(as_of))
            advance(1)
    return states


def states_of(path: Path, view: View, asked: Asked, n: int) -> State:
    """The state of `view`, whose Parquet file is at `path`, for each of n questions, in the order of their places."""
    row, event = rows_that_count(Source.of(view, path), asked)
    known = np.flatnonzero(row >= 0)
    state = unknown(view, n)
    place = asked.place[known]
    state.at[place] = seconds(event[known])
    for which, table in fetch(path, row[known], (*view.numbers, *view.texts), view.texts):
        _fill(state, place[which], view, table)
    return state


def _fill(state: State, places: Int64, view: View, table: pa.Table) -> None:
    """Put the rows of `table`, which has some of the view's columns, into `places` of the state."""
    names: Sequence[str] = table.column_names
    numbers = [index for index, name in enumerate(view.numbers) if name in names]
    if numbers:
        block = np.empty((len(places), len(numbers)))
        for position, index in enumerate(numbers):
            block[:, position] = table.column(view.numbers[index]).to_numpy()
        first, last = numbers[0], numbers[-1] + 1  # portions are consecutive columns
        state.numbers[places, first:last] = block
    for index, name in enumerate(view.texts):
        if name in names:
            state.texts[places, index] = _texts(table.column(name))


def _texts(column: Column) -> Texts:
    """A column of texts [k] as objects, None where null; equal texts of a piece are one object, which saves memory."""
    pieces = [np.empty(0, object)]
    for chunk in column.dictionary_encode().chunks:
        different = np.array([*chunk.dictionary.to_pylist(), None], object)
        pieces.append(different[kernels.fill_null(chunk.indices, -1).to_numpy()])
    return np.concatenate(pieces)


def _checked(spine: pd.DataFrame) -> tuple[Column, Int64]:
    """The spine's customers, and its times in microseconds since 1970 UTC."""
    rule = "a spine has columns 'customer_id' (text) and 'as_of' (times with a zone), none empty"
    missing = {CUSTOMER_ID, AS_OF} - set(spine.columns)
    if missing:
        raise InputError(f"{rule}, however {sorted(missing)} are missing")
    if not isinstance(spine[AS_OF].dtype, pd.DatetimeTZDtype) or spine[AS_OF].isna().any():
        raise InputError(f"{rule}, however 'as_of' is {spine[AS_OF].dtype} with {spine[AS_OF].isna().sum()} empty")
    customers = spine[CUSTOMER_ID].to_numpy(dtype=object)
    strange = [customer for customer in customers if not isinstance(customer, str)]
    if strange:
        raise InputError(f"{rule}, however {len(strange)} customer ids are like {strange[0]!r}")
    as_of = spine[AS_OF].dt.as_unit("us").astype(np.int64).to_numpy()
    return pa.chunked_array([pa.array(customers, pa.string())]), as_of
