"""Sorted look-ups against the rule written out: every candidate of every time, the newest of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from features.asof import newest_known, newest_of_keys, states_at
from features.schema import Column, View

MARKET = View("market", "market", timedelta(days=10), (Column("share"), Column("mood", "text")))
DAY = 86_400_000_000


def written(path: Path, key: str, rows: list[tuple[str, int, int, float]]) -> Path:
    time = pa.timestamp("us", "UTC")
    columns = {
        key: pa.array([row[0] for row in rows], pa.string()),
        "event_timestamp": pa.array([row[1] * DAY for row in rows], time),
        "created_timestamp": pa.array([row[2] * DAY for row in rows], time),
        "share": pa.array([row[3] for row in rows], pa.float64()),
        "mood": pa.array([f"m{row[3]:g}" for row in rows], pa.string()),
    }
    pq.write_table(pa.table(columns), path / "view.parquet")
    return path / "view.parquet"


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique=True, max_size=15),
    st.lists(st.integers(-1, 10), max_size=8),
)
def test_the_newest_known_row_is_the_one_of_the_rule(rows: list[tuple[int, int]], asked: list[int]) -> None:
    event, created = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    found = newest_known(event, created, np.array(asked, np.int64))
    for time, row in zip(asked, found.tolist(), strict=True):
        candidates = [pair for pair in rows if max(pair) <= time]
        assert (None if row < 0 else rows[row]) == max(candidates, default=None)


def test_a_state_holds_from_its_moment_to_the_end_of_its_ttl(tmp_path: Path) -> None:
    path = written(tmp_path, "market_id", [("all", 0, 0, 1.0), ("all", 5, 5, 2.0)])
    asked = np.array([-1, 0, 5 * DAY - 1, 5 * DAY, 15 * DAY, 15 * DAY + 1], np.int64)
    state = states_at(path, MARKET, asked)
    np.testing.assert_array_equal(state.numbers[:, 0], [np.nan, 1.0, 1.0, 2.0, 2.0, np.nan])
    assert state.texts[:, 0].tolist() == [None, "m1", "m1", "m2", "m2", None]
    np.testing.assert_array_equal(state.at, [np.nan, 0.0, 0.0, 432_000.0, 432_000.0, np.nan])


def test_a_view_without_rows_is_unknown_at_all_times(tmp_path: Path) -> None:
    state = states_at(written(tmp_path, "market_id", []), MARKET, np.array([0, DAY], np.int64))
    assert np.isnan(state.at).all()
    assert state.texts.tolist() == [[None], [None]]


def test_the_newest_state_of_a_key_was_known_by_then(tmp_path: Path) -> None:
    rows = [("a", 1, 1, 1.0), ("a", 2, 2, 2.0), ("a", 3, 9, 3.0), ("b", 4, 4, 4.0), ("c", 1, 8, 5.0), ("d", 7, 7, 6.0)]
    path, until = written(tmp_path, "customer_id", rows), datetime.fromtimestamp(5 * 86_400, UTC)
    found = newest_of_keys(path, "customer_id", pa.chunked_array([["d", "c", "a"]]), until, ["customer_id", "share"])
    assert found.to_pylist() == [{"customer_id": "a", "share": 2.0}]
