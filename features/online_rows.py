"""Between Feast's protobuf values and our states: what Feast's calls give a store to write, and read from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import pyarrow as pa
from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, String

from features.build import at_column
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import InputError
from features.packing import key_column
from features.schema import MARKET_KEY, Column, State, View

Written: TypeAlias = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""A key, its values, event time and created time, as Feast gives them to be written."""
Read: TypeAlias = tuple[datetime | None, dict[str, Value] | None]
"""Event time and values of a key, as Feast reads them; (None, None) for a key without a row."""

_KINDS: dict[Any, Literal["number", "text"]] = {Float64: "number", String: "text"}
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


def row_of(view: View, state: State, index: int, names: Sequence[str]) -> Read:
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


def table_of(view: View, data: Sequence[Written]) -> pa.Table:
    """Rows of protobuf values as the Arrow table that the packed store writes."""
    columns: dict[str, pa.Array] = {
        key_column(view): pa.array([key_of(key) for key, _, _, _ in data], pa.string()),
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


def key_of(entity_key: EntityKey) -> str:
    [value] = entity_key.entity_values
    if value.WhichOneof("val") != "string_val":
        raise InputError(
            f"keys of the packed online store are strings, however one is {_plain(value)!r}; pass it as text"
        )
    return str(value.string_val)


def _utc(time: datetime) -> datetime:
    """Feast passes times without a zone and means UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
