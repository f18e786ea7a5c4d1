"""Feast plug-ins, named by class path in `feature_store.yaml`: the packed online stores and their batch engine.

With them Feast's own calls (`materialize`, `get_online_features`, `write_to_online_store`) work on the same rows that
`features.online_states` reads. Feast does not enforce a view's ttl online, and neither do these stores: what a state is
worth at some moment is decided by the row builder; a user of Feast's SDK has `<view>__at` to decide by.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import ibis
import numpy as np
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, RepoConfig, utils
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import FeastConfigBaseModel

from features import redis_states
from features.arrow import kernels
from features.asof import newest_of_keys
from features.columns import CUSTOMER_ID
from features.errors import InputError
from features.online_answer import Answer, Plan, keys_of, plan_of
from features.online_rows import Read, Written, key_of, row_of, table_of, view_of
from features.packed import OnlineStates, PackedStates, define, forget
from features.redis_states import RedisStates
from features.schema import MARKET_ID, State, States, View

_TIME = pa.timestamp("us", "UTC")
_ROWS_PER_BLOCK = 65_536
_PLANS = 100


class PackedStore(OnlineStore):
    """Feast's online store interface over packed rows, wherever they are."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, ...], tuple[tuple[View, ...], PackedStates]] = {}
        self._plans: dict[int, tuple[object, Plan | None]] = {}

    @abstractmethod
    def _place(self, config: RepoConfig) -> tuple[str, ...]:
        """Where the rows are."""

    @abstractmethod
    def _open(self, config: RepoConfig, views: Sequence[View]) -> PackedStates:
        """The states of some views."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows given as protobuf values (small writes through Feast's SDK)."""
        view = view_of(table)
        self._states_of(config, view).write(view, table_of(view, data))
        if progress:
            progress(len(data))

    def load(self, config: RepoConfig, table: FeatureView, blocks: Iterable[pa.Table]) -> None:
        """Write the states of all keys of a view, in blocks."""
        view = view_of(table)
        self._states_of(config, view).load(view, blocks)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """Event time and values of each key; (None, None) for a key without a row; missing values are empty."""
        view = view_of(table)
        keys = [key_of(entity_key) for entity_key in entity_keys]
        return _rows(view, keys, self._states_of(config, view).read(keys)[view.name], requested_features, table)

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """What Feast answers, read in one round trip; what is asked by more than plain keys, Feast answers itself."""
        given = (features, entity_rows, registry, project, full_feature_names, include_feature_view_version_metadata)
        context = utils._get_cached_request_context(registry, project, features, full_feature_names)
        plan = self._plan(context, full_feature_names)
        keys = keys_of(plan, features, entity_rows) if plan and not include_feature_view_version_metadata else None
        if not plan or not keys:
            return super().get_online_features(config, *given)
        customers = keys.get(CUSTOMER_ID) or [""]
        states = self._states_of(config, *plan.views).read(customers)
        # Feast's own response, where it is asked for, is of the very states that were read.
        again = _Again(customers, states)
        return Answer(plan.columns(keys, states), lambda: again.get_online_features(config, *given))

    def _plan(self, context: Sequence[Any], full_feature_names: bool) -> Plan | None:
        """The plan of a request; Feast resolves equal requests once and gives the same list of views then."""
        resolved = context[5]
        held = self._plans.get(id(resolved))
        if held is None or held[0] is not resolved:
            if len(self._plans) > _PLANS:
                self._plans.clear()
            held = self._plans[id(resolved)] = resolved, plan_of(context, full_feature_names)
        return held[1]

    def _states_of(self, config: RepoConfig, *views: View) -> PackedStates:
        """The states of some views, opened once."""
        key = (*self._place(config), *(view.name for view in views))
        held = self._states.get(key)
        if held is None or held[0] != views:
            held = self._states[key] = views, self._open(config, views)
        return held[1]


class PackedOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in `feature_store.yaml`: a file."""

    type: Literal["features.online.PackedOnlineStore"] = "features.online.PackedOnlineStore"
    path: str
    """Absolute path of the SQLite file."""


class PackedOnlineStore(PackedStore):
    """Packed rows in one SQLite file."""

    def _place(self, config: RepoConfig) -> tuple[str, ...]:
        return (config.online_store.path,)

    def _open(self, config: RepoConfig, views: Sequence[View]) -> PackedStates:
        return OnlineStates(Path(config.online_store.path), views)

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
        path = Path(config.online_store.path)
        define(path, [view_of(table) for table in tables_to_keep])
        forget(path, [table.name for table in tables_to_delete])
        self._states.clear()

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove the file."""
        self._states.clear()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{config.online_store.path}{suffix}").unlink(missing_ok=True)


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` in `feature_store.yaml`: a Redis server."""

    type: Literal["features.online.PackedRedisOnlineStore"] = "features.online.PackedRedisOnlineStore"
    url: str
    """redis://user:password@host:port/database, or rediss:// or unix://."""
    prefix: str
    """What all keys begin with: another one for each build, so that one is made while another is read."""


class PackedRedisOnlineStore(PackedStore):
    """Packed rows on a Redis server."""

    def _place(self, config: RepoConfig) -> tuple[str, ...]:
        return config.online_store.url, config.online_store.prefix

    def _open(self, config: RepoConfig, views: Sequence[View]) -> PackedStates:
        return RedisStates(config.online_store.url, config.online_store.prefix, views)

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
        store = config.online_store
        redis_states.define(store.url, store.prefix, [view_of(table) for table in tables_to_keep])
        redis_states.forget(store.url, store.prefix, [table.name for table in tables_to_delete])
        self._states.clear()

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove all keys with the prefix."""
        self._states.clear()
        redis_states.remove(config.online_store.url, config.online_store.prefix)


class _Again(OnlineStore):
    """Reads, as Feast does, states that were read before."""

    def __init__(self, customers: Sequence[str], states: States) -> None:
        self._place_of = {customer: place for place, customer in enumerate(customers)}
        self._states = states

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """As the store itself."""
        view, keys = view_of(table), [key_of(entity_key) for entity_key in entity_keys]
        market = view.entity == "market"
        places = np.array([0 if market else self._place_of[key] for key in keys], np.int64)
        return _rows(view, keys, self._states[view.name].take(places), requested_features, table)

    def online_write_batch(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("states that were read are not written to; use the store")

    update = teardown = online_write_batch


class ArrowBatchEngineConfig(FeastConfigBaseModel):
    """`batch_engine` in `feature_store.yaml`."""

    type: Literal["features.online.ArrowBatchEngine"] = "features.online.ArrowBatchEngine"


class ArrowBatchEngine(ComputeEngine):
    """Materialises the newest rows of the offline store as Arrow tables: no protobuf value per cell."""

    def update(self, *_: Any, **__: Any) -> None:
        """Nothing to prepare."""

    def teardown_infra(self, *_: Any, **__: Any) -> None:
        """Nothing to tear down."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **_: Any) -> MaterializationJob:
        name = f"{task.feature_view.name}-{task.end_time.isoformat()}"
        try:
            if not isinstance(self.online_store, PackedStore):
                raise InputError(
                    "the batch engine features.online.ArrowBatchEngine writes to features.online.PackedOnlineStore or "
                    f"PackedRedisOnlineStore, however the online store is {type(self.online_store).__name__}; use "
                    "batch_engine: local with it"
                )
            self.online_store.load(self.repo_config, task.feature_view, self._newest(task))
        except Exception as error:  # Feast raises what a job reports
            return _Done(name, error)
        return _Done(name, None)

    def _newest(self, task: MaterializationTask) -> Iterator[pa.Table]:
        """Per key, the newest state that had happened and was known by the task's end; in blocks."""
        feature_view, source = task.feature_view, task.feature_view.batch_source
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=feature_view.join_keys,
            feature_name_columns=[field.name for field in feature_view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        for newest in _blocks(job, feature_view.join_keys[0]):
            yield self._known(task, newest) if source.created_timestamp_column else newest

    def _known(self, task: MaterializationTask, newest: pa.Table) -> pa.Table:
        """The newest states, without those that became known later than the task's end.

        Feast's pull has no cut-off by created time. A key whose newest state was not known yet may have an older one
        that was: these few keys are looked up in the source.
        """
        key, source = task.feature_view.join_keys[0], task.feature_view.batch_source
        created, end = newest.column(source.created_timestamp_column), pa.scalar(task.end_time, _TIME)
        early = kernels.fill_null(kernels.greater(created.cast(_TIME), end), False)
        if not kernels.any(early).as_py():
            return newest
        keys = newest.filter(early).column(key)
        known = newest_of_keys(Path(source.path), key, keys, task.end_time, newest.column_names)
        return pa.concat_tables([newest.filter(kernels.invert(early)), known.cast(newest.schema)])


def _rows(view: View, keys: list[str], state: State, wanted: list[str] | None, table: FeatureView) -> list[Read]:
    """The states of some keys as Feast reads them."""
    names = wanted or [field.name for field in table.features]
    known = [view.entity == "customer" or key == MARKET_ID for key in keys]
    return [row_of(view, state, index, names) if known[index] else (None, None) for index in range(len(keys))]


def _blocks(job: RetrievalJob, key: str) -> Iterator[pa.Table]:
    """What a job finds, in the order of the keys: the stores lay them side by side.

    From DuckDB it comes in blocks, and DuckDB spills what it sorts: memory does not grow with the customers.
    """
    if isinstance(job, IbisRetrievalJob):
        # What ibis 12 has for this (to_pyarrow_batches) calls what DuckDB 2 has no longer.
        ordered = job.table.order_by(key)
        backend = ibis.get_backend(ordered)
        for batch in backend.con.sql(backend.compile(ordered)).to_arrow_reader(_ROWS_PER_BLOCK):
            yield pa.Table.from_batches([batch])
    else:
        yield job.to_arrow().sort_by(key)


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
