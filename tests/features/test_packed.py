"""The packed online store in worlds of a few rows: what is newest, who is unknown, what is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import ArtefactError, NotBuilt
from features.packed import OnlineStates, define, forget
from features.packing import key_column
from features.schema import Column, View

PROFILE = View(
    "profile",
    "customer",
    timedelta(days=30),
    (Column("income"), Column("job", "text"), Column("age"), Column("city", "text")),
)
CONSENT = View("consent", "customer", timedelta(days=30), (Column("opted_out"),))
MARKET = View("market", "market", timedelta(days=30), (Column("share"), Column("mood", "text")))
VIEWS = (PROFILE, CONSENT, MARKET)


def day(number: float) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)


def states(view: View, *rows: tuple[Any, ...]) -> pa.Table:
    """Rows of (key, event day, created day, then the view's columns)."""
    kinds = {"number": pa.float64(), "text": pa.string()}
    columns = {
        key_column(view): pa.array([row[0] for row in rows], pa.string()),
        EVENT_TIMESTAMP: pa.array([day(row[1]) for row in rows], pa.timestamp("us", "UTC")),
        CREATED_TIMESTAMP: pa.array([day(row[2]) for row in rows], pa.timestamp("us", "UTC")),
    }
    for index, column in enumerate(view.columns, start=3):
        columns[column.name] = pa.array([row[index] for row in rows], kinds[column.kind])
    return pa.table(columns)


@pytest.fixture
def online(tmp_path: Path) -> OnlineStates:
    define(tmp_path / "online.db", VIEWS)
    return OnlineStates(tmp_path / "online.db", VIEWS)


def test_a_state_comes_back_as_it_was_written(online: OnlineStates) -> None:
    online.write(
        PROFILE, states(PROFILE, ("a", 1, 2, 2.0**53 - 1, "Zoë 王", None, ""), ("b", 3, 3, -0.5, None, 24.0, "x"))
    )
    state = online.read(["b", "a"])["profile"]
    assert state.at.tolist() == [day(3).timestamp(), day(1).timestamp()]
    np.testing.assert_array_equal(state.numbers, [[-0.5, 24.0], [9007199254740991.0, np.nan]])
    assert state.texts.tolist() == [[None, "x"], ["Zoë 王", ""]]
    assert (state.numbers.dtype, state.texts.dtype) == (np.float64, np.object_)


def test_integers_beyond_float32_stay_exact(online: OnlineStates) -> None:
    table = states(CONSENT, ("a", 1, 1, None))
    exact = table.set_column(3, "opted_out", pa.array([2**24 + 1], pa.int64()))
    online.write(CONSENT, exact)
    assert online.read(["a"])["consent"].numbers.tolist() == [[16777217.0]]


def test_an_unknown_customer_is_unknown_in_every_customer_view(online: OnlineStates) -> None:
    online.write(PROFILE, states(PROFILE, ("a", 1, 1, 1.0, "x", 2.0, "y")))
    read = online.read(["nobody", "a"])
    assert np.isnan(read["profile"].at[0])
    assert np.isnan(read["profile"].numbers[0]).all()
    assert read["profile"].texts[0].tolist() == [None, None]
    assert read["profile"].numbers[1].tolist() == [1.0, 2.0]
    assert np.isnan(read["consent"].at).all()


def test_customers_may_be_asked_in_any_order_any_number_of_times(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(5)]))
    asked = ["c3", "c0", "?", "c3", "c4"]
    assert online.read(asked)["consent"].numbers[:, 0].tolist()[:2] == [3.0, 0.0]
    np.testing.assert_array_equal(online.read(asked)["consent"].numbers[:, 0], [3.0, 0.0, np.nan, 3.0, 4.0])
    assert [len(state.at) for state in online.read([]).values()] == [0, 0, 0]


def test_more_customers_than_one_query_takes_are_read_in_order(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(20_000)]))
    asked = np.random.default_rng(1).permutation(20_000)
    assert online.read([f"c{i}" for i in asked])["consent"].numbers[:, 0].tolist() == asked.tolist()


def test_the_market_is_the_same_for_everybody(online: OnlineStates) -> None:
    online.write(MARKET, states(MARKET, ("all", 1, 1, 0.25, "calm")))
    state = online.read(["a", "b", "a"])["market"]
    assert state.numbers.tolist() == [[0.25]] * 3
    assert state.texts.tolist() == [["calm"]] * 3
    assert state.at.tolist() == [day(1).timestamp()] * 3


def test_a_customer_called_all_is_not_the_market(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("all", 1, 1, 1.0)))
    online.write(MARKET, states(MARKET, ("all", 2, 2, 0.5, None)))
    read = online.read(["b", "all"])
    np.testing.assert_array_equal(read["consent"].numbers[:, 0], [np.nan, 1.0])
    assert read["market"].numbers[:, 0].tolist() == [0.5, 0.5]


def test_a_late_event_never_undoes_a_newer_one(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 4, 9, 0.0)))
    assert online.read(["a"])["consent"].numbers.tolist() == [[1.0]]


def test_of_equal_events_the_one_known_last_wins(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 6, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 2.0)))
    assert online.read(["a"])["consent"].numbers.tolist() == [[1.0]]
    online.write(CONSENT, states(CONSENT, ("a", 5, 7, 3.0)))
    assert online.read(["a"])["consent"].numbers.tolist() == [[3.0]]


def test_the_same_state_computed_again_replaces_itself(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 1.0)))
    online.write(CONSENT, states(CONSENT, ("a", 5, 5, 2.0)))
    assert online.read(["a"])["consent"].numbers.tolist() == [[2.0]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12, unique=True
    ),
    st.integers(1, 4),
)
def test_whatever_the_order_of_writes_the_newest_state_stays(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]], batch: int
) -> None:
    path = tmp_path_factory.mktemp("guard") / "online.db"
    define(path, [CONSENT])
    online = OnlineStates(path, [CONSENT])
    for start in range(0, len(rows), batch):
        written = [
            (key, event, created, float(10 * event + created)) for key, event, created in rows[start : start + batch]
        ]
        online.write(CONSENT, states(CONSENT, *written))
    for key in {key for key, _, _ in rows}:
        event, created = max((event, created) for other, event, created in rows if other == key)
        assert online.read([key])["consent"].numbers.tolist() == [[10.0 * event + created]]


def test_a_write_is_kept_whole_or_not_at_all(online: OnlineStates) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0), (None, 1, 1, 1.0)))
    assert np.isnan(online.read(["a"])["consent"].at).all()


def test_reads_go_on_while_another_connection_writes(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    writer = sqlite3.connect(online.path)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE states SET event_us = 0")
    read: list[float] = []
    threads = [threading.Thread(target=lambda: read.extend(online.read(["a"])["consent"].at)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.rollback()
    writer.close()
    assert read == [day(1).timestamp()] * 4


def test_a_reader_sees_what_was_written_after_it_opened(online: OnlineStates) -> None:
    assert np.isnan(online.read(["a"])["consent"].at[0])
    OnlineStates(online.path, VIEWS).write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    assert online.read(["a"])["consent"].numbers.tolist() == [[1.0]]


@pytest.mark.parametrize(
    "other",
    [
        View("consent", "customer", CONSENT.ttl, (Column("opted_in"),)),
        View("consent", "customer", CONSENT.ttl, (Column("opted_out", "text"),)),
        View("consent", "customer", CONSENT.ttl, (Column("opted_out"), Column("more"))),
        View("consent", "market", CONSENT.ttl, (Column("opted_out"),)),
        View("absent", "customer", CONSENT.ttl, (Column("opted_out"),)),
    ],
)
def test_a_file_of_other_columns_is_refused_when_it_is_opened(online: OnlineStates, other: View) -> None:
    with pytest.raises(ArtefactError, match="build the features again"):
        OnlineStates(online.path, [PROFILE, other])


def test_swapped_columns_are_refused(online: OnlineStates) -> None:
    swapped = View(
        "profile", "customer", PROFILE.ttl, (PROFILE.columns[2], *PROFILE.columns[1::-1], PROFILE.columns[3])
    )
    assert set(swapped.columns) == set(PROFILE.columns)
    with pytest.raises(ArtefactError, match="profile"):
        OnlineStates(online.path, [swapped])


def test_a_view_may_be_asked_alone(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    read = OnlineStates(online.path, [CONSENT]).read(["a"])
    assert list(read) == ["consent"]


def test_no_file_and_a_file_of_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="nextbest features build"):
        OnlineStates(tmp_path / "online.db", VIEWS)
    (tmp_path / "online.db").write_text("not a database, long enough to be looked at " * 10)
    with pytest.raises(ArtefactError, match="not an online store"):
        OnlineStates(tmp_path / "online.db", VIEWS)


def test_a_damaged_row_is_an_error_not_a_shifted_one(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    with sqlite3.connect(online.path) as connection:
        connection.execute("UPDATE states SET numbers = zeroblob(16)")
    connection.close()
    with pytest.raises(ArtefactError, match="damaged"):
        online.read(["a"])


def test_defining_a_view_with_other_columns_drops_its_rows_and_no_others(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    online.write(MARKET, states(MARKET, ("all", 1, 1, 0.5, None)))
    wider = View("consent", "customer", CONSENT.ttl, (Column("opted_out"), Column("more")))
    define(online.path, [wider, MARKET])
    read = OnlineStates(online.path, [wider, MARKET]).read(["a"])
    assert np.isnan(read["consent"].at).all()
    assert read["market"].numbers.tolist() == [[0.5]]


def test_a_forgotten_view_is_gone(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, ("a", 1, 1, 1.0)))
    forget(online.path, ["consent"])
    with pytest.raises(ArtefactError, match="nothing"):
        OnlineStates(online.path, [CONSENT])
    OnlineStates(online.path, [PROFILE])


def test_serving_reads_without_feast_and_pandas() -> None:
    script = "import features.packed, sys; print([name for name in ('feast', 'pandas', 'ibis') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
