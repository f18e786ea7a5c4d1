"""Ways to the same point-in-time rows: Feast's duckdb store, a query by hand, our offline store, our states."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from history_world import CREATED, EVENT, KEY, QUESTIONS, ROW, client, read_spine, source

from features.schema import Column, View

Ask = Callable[[], pa.Table]
OURS = "features.offline.PointInTimeOfflineStore"


def feast_with(folder: Path, question: str, offline_store: str) -> Ask:
    store, spine = client(folder, offline_store), read_spine(folder)
    features = [f"{view.name}:{name}" for view in QUESTIONS[question] for name in view.features]

    def ask() -> pa.Table:
        from features.store import own_duckdb

        with own_duckdb():
            return store.get_historical_features(spine, features, filter_by_created_timestamp=True).to_arrow()

    return ask


def by_hand(folder: Path, question: str) -> Ask:
    """DuckDB as one would write it: range join on keys and times alone, the features fetched by row number."""
    import duckdb

    spine = read_spine(folder)
    parts, joins, names = [], [], []
    for view in QUESTIONS[question]:
        read = f"read_parquet('{source(folder, view)}', file_row_number = true)"
        parts.append(f"""
            {view.name}_row as (
                select {ROW}, arg_max(file_row_number, (state.{EVENT}, state.{CREATED})) as counts
                from spine join {read} as state on state.{KEY} = spine.{KEY} and state.{EVENT} <= spine.{EVENT}
                and state.{CREATED} <= spine.{EVENT} and state.{EVENT} >= spine.{EVENT} - interval {view.ttl} day
                group by {ROW}
            ),
            {view.name}_found as (
                select {ROW}, {", ".join(view.features)} from {view.name}_row
                join {read} on file_row_number = counts
            )""")
        joins.append(f"left join {view.name}_found using ({ROW})")
        names += view.features
    columns = ", ".join([ROW, KEY, EVENT, *names])
    query = f"with {', '.join(parts)} select {columns} from spine {' '.join(joins)} order by {ROW}"

    def ask() -> pa.Table:
        with duckdb.connect() as connection:
            connection.execute("set time zone 'UTC'")
            connection.execute(f"set temp_directory = '{folder / 'spill'}'")
            connection.register("spine", spine)
            return connection.sql(query).to_arrow_table()

    return ask


def states(folder: Path, question: str) -> Ask:
    """What training and scoring get, `features.history`: states as rows of float64, without Feast."""
    from features.asof import Asked
    from features.history import states_of

    spine = read_spine(folder)
    wanted = [
        View(view.name, "customer", timedelta(days=view.ttl), tuple(Column(name) for name in view.features))
        for view in QUESTIONS[question]
    ]

    def ask() -> pa.Table:
        keys = pa.chunked_array([pa.array(spine[KEY], pa.string())])
        asked = Asked.of(keys, spine[EVENT].dt.as_unit("us").astype(np.int64).to_numpy())
        found = {view.name: states_of(folder / f"{view.name}.parquet", view, asked, len(spine)) for view in wanted}
        columns: dict[str, Any] = {}
        for view in wanted:
            for index, name in enumerate(view.numbers):
                columns[name] = found[view.name].numbers[:, index]
        return pa.table({ROW: pa.array(spine[ROW]), KEY: keys, EVENT: pa.array(spine[EVENT]), **columns})

    return ask


WAYS: Mapping[str, Callable[[Path, str], Ask]] = {
    "feast-duckdb": lambda folder, question: feast_with(folder, question, "duckdb"),
    "by-hand": by_hand,
    "ours": lambda folder, question: feast_with(folder, question, OURS),
    "ours-states": states,
}


def digests(table: pa.Table) -> dict[str, str]:
    """Per column a digest of every cell, bit for bit, rows by number; null is not-a-number, as states know no null."""
    table = table.sort_by(ROW)
    return {name: _digest(table.column(name).combine_chunks()) for name in table.column_names}


def _digest(column: Any) -> str:
    told = hashlib.sha256()
    if pa.types.is_floating(column.type):
        values = np.array(column.to_numpy(zero_copy_only=False), np.float64)
        values[np.isnan(values)] = np.nan
        told.update(values.tobytes())
    else:
        told.update(pd.util.hash_array(column.cast(pa.string()).to_numpy(zero_copy_only=False)).tobytes())
    return told.hexdigest()
