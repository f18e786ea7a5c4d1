"""`get_online_features` over packed states: all views in one round trip, and protobuf only for those who ask for it.

Feast puts every value into a protobuf message and takes it out again for `to_dict`: nearly all of the time that its SDK
takes. An `Answer` keeps the values as they were read; whoever asks for `proto` gets what Feast itself makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from feast import FeatureService
from feast.online_response import OnlineResponse

from features.build import at_column
from features.online_rows import view_of
from features.packing import key_column
from features.schema import MARKET_ID, State, States, View

Keys: TypeAlias = Mapping[str, list[str]]
"""Join key → its value in each of n rows."""


class Answer(OnlineResponse):
    """What Feast answers, from columns of n values that are there already."""

    def __init__(self, columns: dict[str, list[Any]], whole: Callable[[], OnlineResponse]) -> None:
        """columns: by name, join keys first; whole: makes Feast's own response, of the same values."""
        self._columns = columns
        self._whole = whole

    @cached_property
    def _made(self) -> OnlineResponse:
        return self._whole()

    @property
    def proto(self) -> Any:
        """Feast's message."""
        return self._made.proto

    @property
    def _feature_types(self) -> Any:
        return self._made._feature_types

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """Name → values; missing ones are None."""
        if include_event_timestamps:
            answer: dict[str, Any] = self._made.to_dict(include_event_timestamps)
            return answer
        return {name: list(values) for name, values in self._columns.items()}


@dataclass(frozen=True)
class Plan:
    """What is asked of each view: its features and their names in the answer."""

    parts: tuple[tuple[View, tuple[tuple[str, str], ...]], ...]

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(view for view, _ in self.parts)

    def columns(self, keys: Keys, states: States) -> dict[str, list[Any]]:
        """The answer's columns, from the states of the customers in `keys` (of anybody, where only the market is)."""
        columns: dict[str, list[Any]] = {name: list(values) for name, values in keys.items()}
        for view, asked in self.parts:
            state = states[view.name]
            if view.entity == "market":
                state = _of_market(state, keys[key_column(view)])
            values = _values(view, state)
            columns |= {name: values[feature] for feature, name in asked}
        return columns


def plan_of(context: Sequence[Any], full_feature_names: bool) -> Plan | None:
    """What a request, as Feast resolved it, asks of packed views; None where Feast has to answer itself."""
    _, on_demand, _, _, _, grouped, _, request_data, entityless = context
    if on_demand or request_data or entityless or not grouped:
        return None
    parts = []
    for table, features in grouped:
        projection = table.projection
        if projection.join_key_map or projection.name_alias or getattr(projection, "version_tag", None) is not None:
            return None
        prefix = f"{projection.name_to_use()}__" if full_feature_names else ""
        parts.append((view_of(table), tuple((feature, f"{prefix}{feature}") for feature in features)))
    return Plan(tuple(parts))


def keys_of(plan: Plan, features: Any, entity_rows: Any) -> Keys | None:
    """The join keys of a request; None where they are not plain texts under exactly the names that the plan needs."""
    if isinstance(features, FeatureService) and getattr(features, "precompute_online", False):
        return None
    if isinstance(entity_rows, list):
        names = entity_rows[0].keys() if entity_rows else ()
        if any(row.keys() != names for row in entity_rows):
            return None
        keys = {name: [row[name] for row in entity_rows] for name in names}
    else:
        keys = {name: values for name, values in entity_rows.items() if isinstance(values, list)}
        if len(keys) < len(entity_rows):
            return None
    if not keys or keys.keys() != {key_column(view) for view in plan.views}:
        return None
    columns = list(keys.values())
    same = len({len(values) for values in columns}) == 1 and columns[0]
    return keys if same and all(type(value) is str for values in columns for value in values) else None


def _of_market(state: State, keys: list[str]) -> State:
    """The market's state for each of n keys; unknown for another key than its own."""
    taken = state.take(np.zeros(len(keys), np.int64))
    other = np.array([key != MARKET_ID for key in keys])
    taken.at[other], taken.numbers[other], taken.texts[other] = np.nan, np.nan, None
    return taken


def _values(view: View, state: State) -> dict[str, list[Any]]:
    """Feature → its values, None where missing."""
    numbers = np.column_stack([state.at, state.numbers])
    missing = np.isnan(numbers)
    columns: list[list[Any]] = numbers.T.tolist()
    for column in np.flatnonzero(missing.any(axis=0)).tolist():
        for row in np.flatnonzero(missing[:, column]).tolist():
            columns[column][row] = None
    return dict(zip((at_column(view), *view.numbers), columns, strict=True)) | dict(
        zip(view.texts, state.texts.T.tolist(), strict=True)
    )
