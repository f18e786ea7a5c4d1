"""Feast plug-ins, named by class path in `feature_store.yaml`: the packed online store and its batch engine.

With them Feast's own calls (`materialize`, `get_online_features`, `write_to_online_store`) work on the same file that
`features.packed.OnlineStates` reads. Feast does not enforce a view's ttl online, and neither does this store: what a
state is worth at some moment is decided by the row builder; a user of Feast's SDK has `<view>__at` to decide by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast import Entity, FeatureView, RepoConfig
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.types import Float64, String

from features.arrow import kernels
from features.asof import newest_of_keys
from features.build import at_column
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import InputError
from features.packed import OnlineStates, define, forget
from features.packing import key_column
from features.schema import MARKET_ID, MARKET_KEY, Column, State, View

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]

_KINDS: Mapping[Any, Literal["number", "text"]] = {Float64: "number", String: "text"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME = pa.timestamp("us", "UTC")


def view_of(feature_view: FeatureView) -> View:
    """Our view behind a Feast view; raises InputError for one that the packed store cannot hold."""
    keys = feature_view.join_keys
    other = [field.name for field in feature_view.features if field.dtype not in _KINDS]
    if len(keys) != 1 or other:
        raise InputError(
            "the packed online store holds views with one string key and Float64 or String features, however view "
            f"{feature_view.name!r} has keys {keys} and other types in {other}; cast them in features.views"
        )
    columns = tuple(
        Column(field.name, _KINDS[field.dtype])
        for field in feature_view.features
        if field.name != f"{feature_view.name}__at"
    )
    entity: Literal["customer", "market"] = "market" if keys[0] == MARKET_KEY else "customer"
    return View(feature_view.name, entity, feature_view.ttl or timedelta(0), columns)


class PackedOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in `feature_store.yaml`."""

    type: Literal["features.online.PackedOnlineStore"] = "features.online.PackedOnlineStore"
    path: str
    """Absolute path of the SQLite file."""


class PackedOnlineStore(OnlineStore):
    """Feast's online store interface over one packed file."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, View], OnlineStates] = {}

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows given as protobuf values (small writes through Feast's SDK)."""
        view = view_of(table)
        self.write_arrow(config, table, _table(view, data))
        if progress:
            progress(len(data))

    def write_arrow(self, config: RepoConfig, table: FeatureView, states: pa.Table) -> None:
        """Write an Arrow table of states in bulk."""
        view = view_of(table)
        self._open(config, view).write(view, states)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """Event time and values of each key; (None, None) for a key without a row; missing values are empty."""
        view = view_of(table)
        states = self._open(config, view)
        keys = [_key(entity_key) for entity_key in entity_keys]
        state = states.read(keys)[view.name]
        names = requested_features or [field.name for field in table.features]
        known = [view.entity == "customer" or key == MARKET_ID for key in keys]
        return [_row(view, state, index, names) if known[index] else (None, None) for index in range(len(keys))]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make room for the views that are applied; rows of deleted or changed views are dropped."""
        path = _path(config)
        define(path, [view_of(table) for table in tables_to_keep])
        forget(path, [table.name for table in tables_to_delete])
        self._states.clear()

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove the file."""
        self._states.clear()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{_path(config)}{suffix}").unlink(missing_ok=True)

    def _open(self, config: RepoConfig, view: View) -> OnlineStates:
        key = (str(_path(config)), view)
        if key not in self._states:
            self._states[key] = OnlineStates(_path(config), [view])
        return self._states[key]


class ArrowBatchEngineConfig(FeastConfigBaseModel):
    """`batch_engine` in `feature_store.yaml`."""

    type: Literal["features.online.ArrowBatchEngine"] = "features.online.ArrowBatchEngine"


class ArrowBatchEngine(ComputeEngine):
    """Materialises the newest rows of the offline store as one Arrow table: no protobuf value per cell."""

    def update(self, *_: Any, **__: Any) -> None:
        """Nothing to prepare."""

    def teardown_infra(self, *_: Any, **__: Any) -> None:
        """Nothing to tear down."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **_: Any) -> MaterializationJob:
        name = f"{task.feature_view.name}-{task.end_time.isoformat()}"
        try:
            if not isinstance(self.online_store, PackedOnlineStore):
                raise InputError(
                    "the batch engine features.online.ArrowBatchEngine writes to features.online.PackedOnlineStore, "
                    f"however the online store is {type(self.online_store).__name__}; use batch_engine: local with it"
                )
            self.online_store.write_arrow(self.repo_config, task.feature_view, self._newest(registry, task))
        except Exception as error:  # Feast raises what a job reports
            return _Done(name, error)
        return _Done(name, None)

    def _newest(self, registry: BaseRegistry, task: MaterializationTask) -> pa.Table:
        """Per key, the newest state that had happened and was known by the task's end."""
        feature_view, source = task.feature_view, task.feature_view.batch_source
        newest: pa.Table = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=feature_view.join_keys,
            feature_name_columns=[field.name for field in feature_view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        ).to_arrow()
        if not source.created_timestamp_column:
            return newest
        created, end = newest.column(source.created_timestamp_column), pa.scalar(task.end_time, _TIME)
        early = kernels.fill_null(kernels.greater(created.cast(_TIME), end), False)
        if not kernels.any(early).as_py():
            return newest
        # Feast's pull has no cut-off by created time. A key whose newest state was not known yet may have an older one
        # that was: these few keys are looked up in the source.
        keys = newest.filter(early).column(feature_view.join_keys[0])
        known = newest_of_keys(Path(source.path), feature_view.join_keys[0], keys, task.end_time, newest.column_names)
        return pa.concat_tables([newest.filter(kernels.invert(early)), known.cast(newest.schema)])


class _Done(MaterializationJob):
    """A finished job, as Feast wants to see it."""

    def __init__(self, job_id: str, error: BaseException | None) -> None:
        super().__init__()
        self._job_id = job_id
        self._error = error

    def status(self) -> MaterializationJobStatus:
        return MaterializationJobStatus.ERROR if self._error else MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        return self._error

    def should_be_retried(self) -> bool:
        return False

    def job_id(self) -> str:
        return self._job_id

    def url(self) -> str | None:
        return None


def _row(view: View, state: State, index: int, names: Sequence[str]) -> Read:
    """One key's state as Feast reads it."""
    at = float(state.at[index])
    if math.isnan(at):
        return None, None
    values: dict[str, float | str | None] = {at_column(view): at}
    values |= zip(view.numbers, state.numbers[index].tolist(), strict=True)
    values |= zip(view.texts, state.texts[index], strict=True)
    return _EPOCH + round(at * 1e6) * _MICROSECOND, {name: _value(values[name]) for name in names}


def _value(value: float | str | None) -> Value:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Value()
    return Value(string_val=value) if isinstance(value, str) else Value(double_val=value)


def _table(view: View, data: Sequence[Written]) -> pa.Table:
    """Rows of protobuf values as the Arrow table that the packed store writes."""
    columns: dict[str, pa.Array] = {
        key_column(view): pa.array([_key(key) for key, _, _, _ in data], pa.string()),
        EVENT_TIMESTAMP: pa.array([_utc(event) for _, _, event, _ in data], _TIME),
        CREATED_TIMESTAMP: pa.array([_utc(created or event) for _, _, event, created in data], _TIME),
    }
    kinds = {"number": pa.float64(), "text": pa.string()}
    for column in view.columns:
        if any(column.name not in values for _, values, _, _ in data):
            raise InputError(
                f"a write to view {view.name!r} must give all its features, however {column.name!r} is missing"
            )
        columns[column.name] = pa.array([_plain(values[column.name]) for _, values, _, _ in data], kinds[column.kind])
    return pa.table(columns)


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)


def _key(entity_key: EntityKey) -> str:
    [value] = entity_key.entity_values
    if value.WhichOneof("val") != "string_val":
        raise InputError(
            f"keys of the packed online store are strings, however one is {_plain(value)!r}; pass it as text"
        )
    return str(value.string_val)


def _utc(time: datetime) -> datetime:
    """Feast passes times without a zone and means UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _path(config: RepoConfig) -> Path:
    return Path(config.online_store.path)
