"""States of many customers for scoring: the newest ones where these are what the history would say, else the history.

Whoever asks at a moment by which everything had happened and was known gets the newest state of each view, and these
lie packed in the online store; a history reads every state that there ever was to find them. A state that is past its
view's ttl comes back from the one and not from the other: the row builder treats it as unknown either way, so that rows
are the same cell by cell (`features.assemble`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features.assemble import MODULES
from features.columns import AS_OF, CREATED_TIMESTAMP, CUSTOMER_ID, EVENT_TIMESTAMP
from features.history import history
from features.packed import OnlineStates
from features.times import micros

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from features.home import Build
    from features.schema import States, View

_IN_ROWS = frozenset(module.NAME for module in MODULES)


def states_for_rows(build: Build, entities: pd.DataFrame) -> States:
    """What rows of the entities are made of, in their order: each as of its own moment."""
    asked = entities[AS_OF].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    views = [view for view in build.views if view.name in _IN_ROWS]
    end = micros(build.data_end)
    if len(asked) and asked.min() >= end and build.online_path.is_file() and _nothing_later(build, views, end):
        return OnlineStates(build.online_path, views).read(list(entities[CUSTOMER_ID]))
    return history(build, entities[[CUSTOMER_ID, AS_OF]])


def _nothing_later(build: Build, views: Sequence[View], end: int) -> bool:
    """Whether every state had happened and was known by `end` [µs], as far as the files tell."""
    return all(_latest(build.view_path(view)) <= end for view in views)


def _latest(path: Path) -> float:
    """The latest time in a view's file, µs since 1970 UTC; infinity where the file does not tell."""
    metadata = pq.read_metadata(path)
    latest = -np.inf
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            told = metadata.row_group(group).column(column)
            if told.path_in_schema in (EVENT_TIMESTAMP, CREATED_TIMESTAMP):
                if told.statistics is None or not told.statistics.has_min_max:
                    return np.inf
                latest = max(latest, told.statistics.max.timestamp() * 1e6)
    return latest
