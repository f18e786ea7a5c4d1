"""Feast's objects, made from the feature views: entities, sources, feature views and feature services.

Feature views differ from bank to bank (products and attributes make columns), so they are made by a function and
applied by `features.store`, not found by Feast's scan of a folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

from features.build import at_column
from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.errors import InputError
from features.home import Build
from features.packing import key_column
from features.schema import MARKET_KEY, View

CUSTOMER = Entity(name="customer", join_keys=[CUSTOMER_ID], value_type=ValueType.STRING, description="a customer")
MARKET = Entity(
    name="market", join_keys=[MARKET_KEY], value_type=ValueType.STRING, description="the whole bank: one key, 'all'"
)

SERVICES: Mapping[str, tuple[str, ...] | None] = {
    "next_best_product_v1": None,
    "channel_choice_v1": None,
}
"""Feature service per model and version → the views that it reads; None: all of them."""

_RESERVED = {CUSTOMER_ID, MARKET_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP}
_RESERVED |= {"rn", "entity_row_id", "event_expire_timestamp", "__log_date"}


def definitions(build: Build) -> list[Entity | FileSource | FeatureView | FeatureService]:
    """Everything to apply to Feast's registry for `build`; raises InputError for names that break Feast's joins."""
    check_names(build.views)
    feature_views = {view.name: feature_view(build, view) for view in build.views}
    services = [
        FeatureService(name=name, features=[feature_views[view] for view in wanted or feature_views])
        for name, wanted in SERVICES.items()
    ]
    return [CUSTOMER, MARKET, *feature_views.values(), *services]


def feature_view(build: Build, view: View) -> FeatureView:
    """The Feast view of `view` over its Parquet file in the build."""
    dtypes = {"number": Float64, "text": String}
    fields = [Field(name=column.name, dtype=dtypes[column.kind]) for column in view.columns]
    return FeatureView(
        name=view.name,
        entities=[CUSTOMER if view.entity == "customer" else MARKET],
        ttl=view.ttl,
        # The key is declared too, or Feast infers the schema from the file on every apply.
        schema=[Field(name=key_column(view), dtype=String), Field(name=at_column(view), dtype=Float64), *fields],
        source=FileSource(
            name=view.name,
            path=str(build.view_path(view)),
            timestamp_field=EVENT_TIMESTAMP,
            created_timestamp_column=CREATED_TIMESTAMP,
        ),
    )


def check_names(views: Sequence[View]) -> None:
    """Refuse views that Feast's duckdb join would answer wrongly or not at all.

    It drops columns that end in `_y`, numbers rows in one called `rn`, and DuckDB does not tell upper case from lower.
    """
    names = [name for view in views for name in (at_column(view), *(column.name for column in view.columns))]
    bad = [name for name in names if name.lower() in _RESERVED or name.lower().endswith(("_y", "_yyyy"))]
    bad += [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if bad:
        raise InputError(
            "names of feature columns must be unique over all views, whatever their case, must not end in '_y' and "
            f"must not be one of {sorted(_RESERVED)}, however there is {sorted(bad)}; rename them in features.views"
        )
    endless = [view.name for view in views if view.ttl <= timedelta(0)]
    if endless:
        raise InputError(f"every feature view needs a ttl above zero, however {endless} have none; set it in the view")
