"""The world of the point-in-time benchmark: four views of 20 numbers over a year, described to Feast, and a spine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000
DAYS = 365
ROW_GROUP = 100_000
KEY, EVENT, CREATED = "customer_id", "event_timestamp", "created_timestamp"
ROW = "row"
"""Number of a spine's row: Feast's duckdb store does not give many rows back in their order."""


@dataclass(frozen=True)
class Sort:
    """A view of 20 features: states per customer, regular (a snapshot) or at random moments, and its ttl in days."""

    name: str
    per_customer: int
    regular: bool
    ttl: int

    @property
    def features(self) -> list[str]:
        return [f"{self.name}_{index:02d}" for index in range(20)]


VIEWS = (
    Sort("monthly", 12, True, 45),
    Sort("yearly", 1, True, 400),
    Sort("visits", 10, False, 120),
    Sort("bookings", 50, False, 60),
)
QUESTIONS = {"all": VIEWS, "events": tuple(view for view in VIEWS if not view.regular)}


def source(folder: Path, view: Sort) -> Path:
    return folder / f"{view.name}.parquet"


def make_world(folder: Path, rows: int, customers: int, seed: int = 0) -> None:
    """Write the sources, sorted by key as a build has them, and the spine; 3 % of the facts are late."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for view in VIEWS:
        with pq.ParquetWriter(source(folder, view), _schema(view)) as file:
            at_once = max(1, ROW_GROUP // view.per_customer)
            for first in range(0, customers, at_once):
                file.write_table(_states(rng, view, first, min(first + at_once, customers)))
    pq.write_table(pa.Table.from_pandas(_spine(rng, rows, customers), preserve_index=False), folder / "spine.parquet")


def read_spine(folder: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(folder / "spine.parquet").to_pandas()
    return frame


def client(folder: Path, offline_store: str) -> Any:
    """Feast's client with one of its offline stores, the views applied."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    customer = Entity(name="customer", join_keys=[KEY], value_type=ValueType.STRING)
    views = [
        FeatureView(
            name=view.name,
            entities=[customer],
            ttl=timedelta(days=view.ttl),
            schema=[Field(name=KEY, dtype=String), *(Field(name=name, dtype=Float64) for name in view.features)],
            source=FileSource(
                name=view.name,
                path=str(source(folder, view).resolve()),
                timestamp_field=EVENT,
                created_timestamp_column=CREATED,
            ),
        )
        for view in VIEWS
    ]
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / f"{offline_store}.registry"),
            repo_path=folder,
            offline_store={"type": offline_store},
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    store.apply([customer, *views])
    return store


def _schema(view: Sort) -> pa.Schema:
    time = pa.timestamp("us", "UTC")
    fields = [(KEY, pa.string()), (EVENT, time), (CREATED, time), *((name, pa.float64()) for name in view.features)]
    return pa.schema(fields)


def _states(rng: np.random.Generator, view: Sort, first: int, last: int) -> pa.Table:
    n = (last - first) * view.per_customer
    code = np.repeat(np.arange(first, last), view.per_customer)
    if view.regular:
        month = np.tile(np.arange(view.per_customer), last - first)
        event = month * (DAYS * DAY // view.per_customer)
    else:
        event = rng.integers(0, DAYS * 86_400, n) * 1_000_000
        event = event[np.lexsort((event, code))]
    late = np.where(rng.random(n) < 0.03, rng.integers(0, 20 * DAY, n), 0)
    started = int(START.timestamp()) * 1_000_000
    columns = [_ids(code), *(pa.array(started + at, pa.timestamp("us", "UTC")) for at in (event, event + late))]
    for index in range(20):
        few = index % 2 == 0  # counts repeat, amounts do not
        values = rng.integers(0, 50, n).astype(np.float64) if few else rng.normal(size=n)
        columns.append(pa.array(values, mask=rng.random(n) < 0.05 if index % 5 == 0 else None))
    return pa.Table.from_arrays(columns, schema=_schema(view))


def _spine(rng: np.random.Generator, rows: int, customers: int) -> pd.DataFrame:
    """Random customers at random times, some unknown, some before everything, some twice."""
    code = rng.integers(0, customers + customers // 100 + 1, rows)
    at = rng.integers(-10 * 86_400, (DAYS + 60) * 86_400, rows) * 1_000_000
    again = rng.random(rows) < 0.01
    again[:1] = False
    before = np.flatnonzero(again)
    code[before], at[before] = code[before - 1], at[before - 1]
    times = pd.to_datetime(int(START.timestamp()) * 1_000_000 + at, unit="us", utc=True).as_unit("us")
    return pd.DataFrame({ROW: np.arange(rows), KEY: _ids(code).to_pandas(), EVENT: times})


def _ids(code: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(np.char.add("c", np.char.zfill(code.astype(str), 8)).astype(object), pa.string())
