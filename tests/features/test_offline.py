"""Feast's history through our offline store, against Feast's own duckdb store, cell by cell, in random small worlds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64, String
from history_ways import WAYS, digests
from history_world import make_world

from features.errors import InputError
from features.offline import PointInTimeJob
from features.store import own_duckdb

START = datetime(2024, 3, 30, tzinfo=UTC)
KEYS = ["ann", "bob", "cat", "Ömer", "王"]
FEATURES = ["snapshots:income", "snapshots:job", "snapshots:kids", "events:clicks", "events:word"]
Ours, Theirs = "features.offline.PointInTimeOfflineStore", "duckdb"


def states(rng: np.random.Generator, n: int, in_order: bool) -> pa.Table:
    """n states of few keys on few moments, so that events tie, facts are late and values are missing."""
    event = rng.integers(0, 12, n)
    late = np.where(rng.random(n) < 0.3, rng.integers(0, 8, n), 0)
    # One created time per state of a key: of equal (event, created) any may count.
    frame = pd.DataFrame({"key": rng.integers(0, len(KEYS), n), "event": event, "created": event + late})
    frame = frame.drop_duplicates()
    if in_order:
        frame = frame.sort_values(["key", "event", "created"])
    n = len(frame)
    number = pa.array(rng.normal(size=n), mask=rng.random(n) < 0.2)
    return pa.table(
        {
            "who": pa.array([KEYS[key] for key in frame["key"]]),
            "happened": pa.array(
                [START + timedelta(days=int(day)) for day in frame["event"]], pa.timestamp("us", "UTC")
            ),
            "known": pa.array(
                [START + timedelta(days=int(day)) for day in frame["created"]], pa.timestamp("us", "UTC")
            ),
            "first": number,
            "text": pa.array([f"t{index}" for index in range(n)], pa.string(), mask=rng.random(n) < 0.2),
            "count": pa.array(rng.integers(0, 9, n), pa.int64(), mask=rng.random(n) < 0.2),
        }
    )


def spine(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """n rows with unknown customers, missing ones and repetitions, in no order."""
    days = rng.integers(-2, 24, n)
    who = rng.choice(np.array([*KEYS, "nobody", None], object), n)
    at = pd.Series([START + timedelta(days=int(day)) for day in days], dtype="datetime64[us, UTC]")
    return pd.DataFrame({"row": np.arange(n), "who": pd.Series(who, dtype=object), "at": at})


class World:
    """Two views over two files, described to Feast once, with either offline store."""

    def __init__(self, folder: Path, rng: np.random.Generator, rows: int, in_order: bool, group: int) -> None:
        who = Entity(name="customer", join_keys=["who"], value_type=ValueType.STRING)
        self.objects: list[Any] = [who]
        columns = {"snapshots": ("income", "job", "kids"), "events": ("clicks", "word", "visits")}
        self.ttls = {"snapshots": timedelta(days=7), "events": timedelta(days=3)}
        for name, (first, text, count) in columns.items():
            table = states(rng, rows, in_order).rename_columns(["who", "happened", "known", first, text, count])
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=group)
            schema = [("who", String), (first, Float64), (text, String), (count, Int64)]
            self.objects.append(
                FeatureView(
                    name=name,
                    entities=[who],
                    ttl=self.ttls[name],
                    schema=[Field(name=field, dtype=dtype) for field, dtype in schema],
                    source=FileSource(
                        name=name,
                        path=str(folder / f"{name}.parquet"),
                        timestamp_field="happened",
                        created_timestamp_column="known",
                    ),
                )
            )
        self.folder = folder

    def client(self, offline: str) -> FeatureStore:
        registry = str(self.folder / f"{offline}.db")
        settings = {"project": "p", "provider": "local", "registry": registry, "offline_store": {"type": offline}}
        online = {"type": "sqlite", "path": str(self.folder / "online.db")}
        store = FeatureStore(
            config=RepoConfig(
                repo_path=self.folder, **settings, online_store=online, entity_key_serialization_version=3
            )
        )
        store.apply(self.objects)
        return store


def both(
    world: World, asked: pd.DataFrame, features: list[str] = FEATURES, **options: Any
) -> tuple[pa.Table, pa.Table]:
    with own_duckdb():
        jobs = [
            world.client(offline).get_historical_features(asked.copy(), features, **options)
            for offline in (Ours, Theirs)
        ]
        assert isinstance(jobs[0], PointInTimeJob)
        assert not isinstance(jobs[1], PointInTimeJob)
        return jobs[0].to_arrow(), jobs[1].to_arrow().sort_by("row")  # it does not promise the spine's order


def assert_cell_identical(ours: pa.Table, theirs: pa.Table) -> None:
    assert ours.column_names == theirs.column_names
    for name in theirs.column_names:
        assert ours.column(name).type == theirs.column(name).type, name
        assert ours.column(name).to_pylist() == theirs.column(name).to_pylist(), name


@pytest.mark.parametrize(("seed", "known_only"), [(0, True), (1, True), (2, False), (3, False)])
def test_every_cell_is_that_of_feasts_duckdb_store(tmp_path: Path, seed: int, known_only: bool) -> None:
    rng = np.random.default_rng(seed)
    world = World(tmp_path, rng, rows=150, in_order=seed % 2 == 0, group=40)
    asked = spine(rng, 300)
    ours, theirs = both(world, asked, filter_by_created_timestamp=known_only)
    assert_cell_identical(ours, theirs)
    assert ours.column("row").to_pylist() == list(range(300))
    assert 0 < ours.column("income").null_count < 300


def test_only_what_is_asked_for_is_read_and_full_names_are_feasts(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    world = World(tmp_path, rng, rows=60, in_order=True, group=100)
    asked = spine(rng, 40)
    ours, theirs = both(world, asked, ["events:word", "snapshots:kids"], full_feature_names=True)
    assert_cell_identical(ours, theirs)
    assert ours.column_names == ["row", "who", "at", "events__word", "snapshots__kids"]


def test_a_spine_with_a_column_named_like_a_feature_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    store = World(tmp_path, rng, rows=20, in_order=True, group=100).client(Ours)
    with pytest.raises(InputError, match="income"):
        store.get_historical_features(spine(rng, 4).assign(income=1.0), FEATURES)


def test_what_our_join_does_not_cover_goes_to_feasts_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    world = World(tmp_path, rng, rows=60, in_order=True, group=100)
    asked = spine(rng, 40)
    ours, _ = both(world, asked)
    table = pq.read_table(tmp_path / "events.parquet")
    finer = table.column("happened").cast(pa.timestamp("ns", "UTC"))
    pq.write_table(table.set_column(1, "happened", finer), tmp_path / "events.parquet")
    with own_duckdb():
        job = world.client(Ours).get_historical_features(asked, FEATURES)
        assert not isinstance(job, PointInTimeJob)
        assert_cell_identical(ours, job.to_arrow().sort_by("row"))


def test_the_benchmarks_ways_agree_in_every_cell(tmp_path: Path) -> None:
    make_world(tmp_path, rows=400, customers=30)
    told = {way: digests(WAYS[way](tmp_path, "all")()) for way in WAYS}
    assert len(told["ours"]) == 83
    for way in WAYS:
        assert told[way] == told["feast-duckdb"], way
