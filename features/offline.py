"""Feast plug-in, named by class path in `feature_store.yaml`: Feast's duckdb store with our point-in-time join.

`FeatureStore.get_historical_features` then gives the same cells as Feast's own duckdb store, by the rule in
`features.asof`: only keys and times are compared, and the features of the rows that count are fetched by row number.
What the rule does not cover (several join keys, on-demand views, sources that are no local Parquet, SQL as spine) goes
to Feast's store unchanged, and so does everything but history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.saved_dataset import SavedDatasetStorage

from features.arrow import Column, table_of
from features.asof import Asked, Source, rows_that_count
from features.errors import InputError
from features.fetch import fetch
from features.schema import Bool, Int64


class PointInTimeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store` in `feature_store.yaml`."""

    type: Literal["features.offline.PointInTimeOfflineStore"] = "features.offline.PointInTimeOfflineStore"


@dataclass(frozen=True)
class Spine:
    """A spine of n rows as Arrow; at: int64 [n], its moments [µs since 1970 UTC], which are in the column `time`."""

    table: pa.Table
    time: str
    at: Int64
    between: tuple[datetime, datetime]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Spine:
        """The spine that a caller of Feast passes; moments may be texts, and without a zone they are UTC."""
        time = infer_event_timestamp_from_entity_df(dict(zip(frame.columns, frame.dtypes, strict=True)))
        moments = pd.to_datetime(frame[time], utc=True)
        table = pa.Table.from_pandas(frame.assign(**{time: moments}), preserve_index=False)
        at = moments.dt.as_unit("us").astype(np.int64).to_numpy()
        return cls(table.replace_schema_metadata(None), time, at, (moments.min(), moments.max()))


@dataclass(frozen=True)
class Wanted:
    """What is asked of one feature view: its source, the spine's key column, and the features with their new names."""

    source: Source
    key: str
    features: Sequence[str]
    names: Sequence[str]


class PointInTimeOfflineStore(DuckDBOfflineStore):
    """Feast's offline store interface: history by `features.asof`, all else as DuckDBOfflineStore does it."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """A job whose rows are those of `entity_df`, each once and in its order, with the features known then."""
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        if isinstance(entity_df, pd.DataFrame) and not on_demand:
            spine = Spine.of(entity_df)
            options = (spine, feature_refs, full_feature_names, filter_by_created_timestamp)
            wanted = [want for view in feature_views if (want := _wanted(view, *options))]
            if len(wanted) == len(feature_views):
                return PointInTimeJob(spine, wanted, feature_refs, full_feature_names, str(config.repo_path))
        return DuckDBOfflineStore.get_historical_features(
            config,
            feature_views,
            feature_refs,
            entity_df,
            registry,
            project,
            full_feature_names,
            filter_by_created_timestamp,
        )


class PointInTimeJob(RetrievalJob):
    """The rows of a spine with their features; joined when they are first asked for."""

    def __init__(
        self, spine: Spine, wanted: Sequence[Wanted], refs: list[str], full_feature_names: bool, repo: str
    ) -> None:
        super().__init__()
        self._spine = spine
        self._wanted = wanted
        self._full_feature_names = full_feature_names
        self._repo = repo
        keys = [column for column in spine.table.column_names if column != spine.time]
        self._metadata = RetrievalMetadata(refs, keys, *spine.between)
        taken = [name for want in wanted for name in want.names if name in spine.table.column_names]
        if taken:
            raise InputError(
                f"a spine must not have columns named like features, however it has {taken}; rename them, or ask with "
                "full_feature_names=True"
            )

    @cached_property
    def _table(self) -> pa.Table:
        spine = self._spine.table
        keys = {want.key for want in self._wanted}
        asked = {key: Asked.of(spine.column(key), self._spine.at) for key in keys}
        columns = dict(zip(spine.column_names, spine.columns, strict=True))
        for want in self._wanted:
            columns |= _joined(want, asked[want.key], spine.num_rows)
        return table_of(columns)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._table.to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the rows to where a saved dataset lies, as Feast's duckdb store does."""
        source = storage.to_data_source()
        _write_data_source(ibis.memtable(self._table), source, self._repo, "overwrite", allow_overwrite)


def _wanted(
    view: FeatureView, spine: Spine, refs: Sequence[str], full_feature_names: bool, known_only: bool
) -> Wanted | None:
    """What is asked of `view`; None where Feast's own store has to answer."""
    source = view.batch_source
    if not isinstance(source, FileSource) or not isinstance(source.file_format or ParquetFormat(), ParquetFormat):
        return None
    path = Path(source.path)
    keys = view.projection.join_key_map or {entity.name: entity.name for entity in view.entity_columns}
    if len(keys) != 1 or source.field_mapping or not path.is_absolute() or not path.is_file():
        return None
    [(key, spine_key)] = keys.items()
    schema = pq.read_schema(path)
    created = source.created_timestamp_column or None
    times = [schema.field(time).type for time in (source.timestamp_field, created) if time]
    exact = all(pa.types.is_timestamp(time) and time.unit == "us" and time.tz for time in times)
    if not exact or not _comparable(schema.field(key).type, spine.table.column(spine_key).type):
        return None
    prefix = view.projection.name_to_use()
    features = [ref.split(":")[1] for ref in refs if ref.startswith(f"{prefix}:")]
    shown = view.projection.name_alias or view.name
    names = [f"{shown}__{feature}" for feature in features] if full_feature_names else features
    rule = Source(path, key, source.timestamp_field, created, view.ttl or None, known_only)
    return Wanted(rule, spine_key, features, names)


def _comparable(source: pa.DataType, spine: pa.DataType) -> bool:
    """Whether keys of a source and of a spine are of one kind, so that equal ones are equal whoever compares them."""
    if pa.types.is_integer(source) and pa.types.is_integer(spine):
        return bool(source.bit_width <= spine.bit_width)
    return all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in (source, spine))


def _joined(want: Wanted, asked: Asked, n: int) -> dict[str, Column]:
    """The features [n] that count for each row of a spine of n rows, null where none does."""
    row, _ = rows_that_count(want.source, asked)
    known = np.flatnonzero(row >= 0)
    place = asked.place[known]
    schema = pq.read_schema(want.source.path)
    columns = {name: Scattered(schema.field(name).type, n) for name in want.features}
    for which, table in fetch(want.source.path, row[known], list(columns)):
        for name in table.column_names:
            columns[name].put(place[which], table.column(name))
    return {new: columns[name].column() for name, new in zip(want.features, want.names, strict=True)}


class Scattered:
    """A column of n values that comes in pieces, each with the places where its values belong; null elsewhere."""

    def __init__(self, kind: pa.DataType, n: int) -> None:
        self._kind = kind
        self._n = n
        self._flat = kind == pa.float64()
        self._values = np.empty(n if self._flat else 0)
        self._valid: Bool = np.zeros(n if self._flat else 0, np.bool_)
        self._places: list[Int64] = []
        self._pieces: list[Any] = []

    def put(self, places: Int64, values: Column) -> None:
        """Set the values at `places` [k]; each place is set at most once."""
        if self._flat:
            self._values[places] = values.to_numpy()
            self._valid[places] = values.is_valid().to_numpy() if values.null_count else True
        else:
            self._places.append(places)
            self._pieces += values.chunks

    def column(self) -> Column:
        """The values put so far."""
        if self._flat:
            return pa.chunked_array([pa.array(self._values, self._kind, mask=~self._valid)])
        position = np.full(self._n, -1)
        places = np.concatenate([np.empty(0, np.int64), *self._places])
        position[places] = np.arange(len(places))
        return pa.chunked_array(self._pieces, self._kind).take(pa.array(position, mask=position < 0))
