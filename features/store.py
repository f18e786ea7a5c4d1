"""Feast as the store of customer states: apply, materialise, and point-in-time history for learning.

Beside the definitions and the plug-ins the one module that imports Feast. Import it where it is used: it costs seconds.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import yaml
from feast import FeatureStore, RepoConfig

from features.asof import states_at
from features.build import at_column
from features.columns import AS_OF, CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.definitions import definitions
from features.errors import InputError, NextbestError
from features.home import Build
from features.packing import key_column, unknown
from features.progress import SILENT, Advance, Progress
from features.schema import Int64, State, States, Texts, View

SPINE_ROW = "spine_row"
BLOCK_ROWS = 50_000
"""Spine rows that are joined at once: bounds memory, which grows with the states of their customers."""

_FIRST = datetime(1900, 1, 1, tzinfo=UTC)


def feature_store(build: Build, online: str | None = "") -> FeatureStore:
    """Feast's own client of a build: registry, history and online features, over the packed store.

    online: URL of a Redis server; empty: the build's file; None: without online features.
    """
    settings = yaml.safe_load(resources.files("features").joinpath("feature_store.yaml").read_text("utf-8"))
    stores = settings.pop("online_stores")
    settings["online_store"] = None if online is None else stores["redis" if online else "file"]
    filled = _filled(settings, {"folder": str(build.folder.resolve()), "build": build.folder.name, "url": online or ""})
    return FeatureStore(config=RepoConfig(repo_path=build.feast_folder, **filled))


def apply(build: Build, online: str | None = "") -> None:
    """Register the build's definitions; what is registered already is brought up to date."""
    build.feast_folder.mkdir(parents=True, exist_ok=True)
    with _no_printing():
        feature_store(build, online).apply(definitions(build))


def materialise(build: Build, until: datetime, progress: Progress = SILENT, online: str = "") -> None:
    """Bring the newest states that had happened, and were known, by `until` into the online store."""
    store = feature_store(build, online)
    with progress.step("materialise the feature views", len(build.views)) as advance, own_duckdb():
        for view in build.views:
            with _no_printing():
                store.materialize(start_date=_FIRST, end_date=until, feature_views=[view.name])
            advance(1)


def history(build: Build, spine: pd.DataFrame, progress: Progress = SILENT, block_rows: int = BLOCK_ROWS) -> States:
    """The states that were known of each spine row's customer at its time: one per row, in the spine's order.

    spine: columns `customer_id` (str) and `as_of` (times with a zone), equal rows as often as they like. A state counts
    when its event and its becoming known are not later than `as_of`, and while it is within its view's ttl; otherwise,
    and for customers never heard of, it is unknown. Raises InputError for a spine that is not like this.
    """
    customers, as_of = _checked(spine)
    customer_of_row, customer_ids = pd.factorize(customers, sort=True)
    times, time_of_row = np.unique(as_of, return_inverse=True)
    # Equal rows are asked once; sorted by customer, a block touches few row groups of the sources.
    pairs, pair_of_row = np.unique(customer_of_row * np.int64(len(times)) + time_of_row, return_inverse=True)
    customer_of_pair, time_of_pair = np.divmod(pairs, max(len(times), 1))
    at = pd.DatetimeIndex(times[time_of_pair].astype("datetime64[us]"), tz="UTC")
    asked = pd.DataFrame({CUSTOMER_ID: customer_ids[customer_of_pair], EVENT_TIMESTAMP: at})
    views = {entity: [view for view in build.views if view.entity == entity] for entity in ("customer", "market")}
    with progress.step("join the history of the customers", len(pairs)) as advance, own_duckdb():
        states = _join(_current(build), build, views["customer"], asked, pair_of_row, advance, block_rows)
    for view in views["market"]:
        states[view.name] = states_at(build.view_path(view), view, as_of)
    return {view.name: states[view.name] for view in build.views}


def _join(
    store: FeatureStore,
    build: Build,
    views: Sequence[View],
    asked: pd.DataFrame,
    asked_of_row: Int64,
    advance: Advance,
    block_rows: int,
) -> dict[str, State]:
    """Join `views` to the rows of `asked`, in blocks; row i of the answer is what row asked_of_row[i] was told.

    Feast says which state counts, by its time alone; its other columns are fetched by key and time afterwards. Asked
    for all of them, Feast sorts every earlier state of a customer in full width: three times the work.
    """
    states = {view.name: unknown(view, len(asked_of_row)) for view in views}
    features = [f"{view.name}:{at_column(view)}" for view in views]
    order = np.argsort(asked_of_row, kind="stable")
    for start in range(0, len(asked) if views else 0, block_rows):
        block = asked.iloc[start : start + block_rows]
        block = block.assign(**{SPINE_ROW: np.arange(len(block))})
        job = store.get_historical_features(entity_df=block, features=features, filter_by_created_timestamp=True)
        counted = in_spine_order(job.to_arrow(), len(block))
        first, last = np.searchsorted(asked_of_row, (start, start + len(block)), sorter=order)
        rows = order[first:last]
        for view in views:
            table = _fetch(build.view_path(view), view, block, counted.column(at_column(view)))
            place = np.full(len(block), -1, dtype=np.int64)
            place[table.column(SPINE_ROW).to_numpy()] = np.arange(table.num_rows)
            taken = place[asked_of_row[rows] - start]
            _fill(states[view.name], rows[taken >= 0], view, table, taken[taken >= 0])
        advance(len(block))
    return states


def _fetch(path: Path, view: View, asked: pd.DataFrame, at: pa.ChunkedArray) -> pa.Table:
    """The states of a view for the rows of `asked` that have one: at most one each, with the row's number.

    at: [n], seconds since 1970 of the state that counts, null where none does. Of several that are known of one
    moment, that which became known last counts.
    """
    wanted = pa.table(
        {
            "asked_id": pa.array(asked[CUSTOMER_ID], pa.string()),
            "asked_at": at,
            "asked_when": pa.array(asked[EVENT_TIMESTAMP], pa.timestamp("us", "UTC")),
            SPINE_ROW: pa.array(asked[SPINE_ROW]),
        }
    )
    columns = ", ".join(f'"{name}"' for name in (at_column(view), *view.numbers, *view.texts))
    query = f"""
        select {SPINE_ROW}, {CREATED_TIMESTAMP}, {columns} from read_parquet($path) join wanted
        on "{key_column(view)}" = asked_id and "{at_column(view)}" = asked_at and {CREATED_TIMESTAMP} <= asked_when
    """
    with duckdb.connect() as connection:
        connection.execute("set time zone 'UTC'")
        connection.register("wanted", wanted)
        found = connection.sql(query, params={"path": str(path)}).to_arrow_table()
    row = found.column(SPINE_ROW).to_numpy()
    order = np.lexsort((found.column(CREATED_TIMESTAMP).cast(pa.int64()).to_numpy(), row))
    newest = np.r_[row[order][1:] != row[order][:-1], True][: len(row)]
    return found.take(pa.array(order[newest]))


def in_spine_order(table: pa.Table, n: int) -> pa.Table:
    """The joined rows 0..n-1 in that order; raises when the join lost, doubled or invented one.

    Feast's default store does all three, and no error says so.
    """
    ids = table.column(SPINE_ROW).to_numpy()
    order = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[order], np.arange(n)):
        raise NextbestError(
            f"a point-in-time join must give back each of its {n} rows once, however {len(ids)} came back with "
            f"{len(np.unique(ids))} different row ids; check the offline store in features/feature_store.yaml"
        )
    return table.take(pa.array(order))


def _fill(state: State, rows: Int64, view: View, table: pa.Table, taken: Int64) -> None:
    """Put row taken[i] of the joined table into row rows[i] of `state`."""
    state.at[rows] = table.column(at_column(view)).to_numpy()[taken]
    for index, name in enumerate(view.numbers):
        state.numbers[rows, index] = table.column(name).to_numpy()[taken]
    for index, name in enumerate(view.texts):
        state.texts[rows, index] = table.column(name).to_numpy()[taken]


def _checked(spine: pd.DataFrame) -> tuple[Texts, Int64]:
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
    return customers, spine[AS_OF].dt.as_unit("us").astype(np.int64).to_numpy()


def _current(build: Build) -> FeatureStore:
    """Feast's client; the definitions are applied again where the home was moved, as they hold absolute paths."""
    store = feature_store(build, None)
    paths = {view.name: view.batch_source.path for view in store.list_feature_views()}
    if any(paths.get(view.name) != str(build.view_path(view)) for view in build.views):
        apply(build, None)
        store = feature_store(build, None)
    return store


def _filled(settings: Any, words: Mapping[str, str]) -> Any:
    """The settings with each {word} filled in, wherever it stands."""
    if isinstance(settings, dict):
        return {name: _filled(value, words) for name, value in settings.items()}
    if isinstance(settings, str):
        for word, value in words.items():
            settings = settings.replace(f"{{{word}}}", value)
    return settings


@contextmanager
def own_duckdb() -> Iterator[None]:
    """A DuckDB of its own for Feast's queries, closed afterwards; it spills to a temporary folder, not to `./.tmp`."""
    before = ibis.options.default_backend
    with tempfile.TemporaryDirectory() as folder:
        backend = ibis.duckdb.connect(temp_directory=folder)
        ibis.set_backend(backend)
        try:
            with warnings.catch_warnings():
                # ibis 12 calls what DuckDB 2 deprecates, and Feast turns such warnings on.
                warnings.simplefilter("ignore", DeprecationWarning)
                yield
        finally:
            ibis.options.default_backend = before
            backend.disconnect()


@contextmanager
def _no_printing() -> Iterator[None]:
    """Feast prints coloured progress to stdout, where --json writes."""
    with redirect_stdout(io.StringIO()):
        yield
