"""The packed online store in a file; what it shares with the others is in tests/conformance/test_online_stores.py."""

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

from features import joined_rows
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import ArtefactError, InputError, NotBuilt
from features.packed import OnlineStates, PackedStates, define
from features.packing import key_column
from features.schema import Column, State, View

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


QUERY = "SELECT view_id, key, event_us, numbers, texts FROM states WHERE view_id IN (1, 2, 3) AND key IN (?, ?)"


@pytest.fixture
def online(tmp_path: Path) -> OnlineStates:
    define(tmp_path / "online.db", VIEWS)
    return OnlineStates(tmp_path / "online.db", VIEWS)


def test_more_customers_than_one_query_takes_are_read_in_order(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, float(i)) for i in range(20_000)]))
    asked = np.random.default_rng(1).permutation(20_000)
    assert online.read([f"c{i}" for i in asked])["consent"].numbers[:, 0].tolist() == asked.tolist()


def same(one: State, other: State) -> bool:
    numbers = np.array_equal(one.numbers, other.numbers, equal_nan=True)
    return np.array_equal(one.at, other.at, equal_nan=True) and numbers and one.texts.tolist() == other.texts.tolist()


def test_of_many_customers_each_is_read_as_alone(online: OnlineStates) -> None:
    """Whoever is asked together, twice, unknown, or called as the market is."""
    draw = np.random.default_rng(2)
    known = [*(f"c{i}" for i in range(60)), "all", "späte ' \0 Zahl", ""]
    for view, share in ((PROFILE, 0.7), (CONSENT, 0.5)):
        rows: list[tuple[Any, ...]] = []
        for key in (key for key in known if draw.random() < share):
            word = ("x", "Zoë 王", "", None)[int(draw.integers(4))]
            said = (draw.normal(), word, None, None) if view is PROFILE else (draw.normal(),)
            rows.append((key, 1 + draw.random(), 3, *said))
        online.write(view, states(view, *rows))
    online.write(MARKET, states(MARKET, ("all", 2, 2, 0.5, None)))
    alone = {key: online.read([key]) for key in [*known, "nobody"]}
    for size in (2, 9, 10, 11, 300, 1_000, 1_001, 2_500):
        asked = draw.choice([*known, "nobody"], size).tolist()
        together = online.read(asked)
        assert list(together) == [view.name for view in VIEWS]
        for place in range(size) if size < 1_000 else (0, 1, 998, 999, size - 1):
            for name, state in together.items():
                assert same(state.take(np.array([place])), alone[asked[place]][name]), (size, place, name)


def test_damage_is_found_among_many_customers_too(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, 1.0) for i in range(50)]))
    with sqlite3.connect(online.path) as connection:
        connection.execute("UPDATE states SET numbers = x'00' WHERE key = 'c7'")
    with pytest.raises(ArtefactError, match="build the features again"):
        online.read([f"c{i}" for i in range(50)])


def test_a_row_of_too_few_numbers_is_not_made_good_by_another_of_too_many(online: OnlineStates) -> None:
    online.write(CONSENT, states(CONSENT, *[(f"c{i}", 1, 1, 1.0) for i in range(50)]))
    with sqlite3.connect(online.path) as connection:
        connection.execute("UPDATE states SET numbers = x'' WHERE key = 'c7'")
        connection.execute("UPDATE states SET numbers = zeroblob(16) WHERE key = 'c8'")
    with pytest.raises(ArtefactError, match="2 of them hold 0"):
        online.read([f"c{i}" for i in range(50)])


def test_a_row_without_its_texts_is_damage_and_not_the_next_customers_texts(online: OnlineStates) -> None:
    online.write(PROFILE, states(PROFILE, *[(f"c{i}", 1, 1, 1.0, "job", 2.0, "city") for i in range(50)]))
    for wrong in (None, '["job"]'):
        with sqlite3.connect(online.path) as connection:
            connection.execute("UPDATE states SET texts = ? WHERE key = 'c7'", [wrong])
        with pytest.raises(ArtefactError, match="build the features again"):
            online.read([f"c{i}" for i in range(50)])


def test_where_sqlite_cannot_join_blocks_customers_are_read_row_by_row_to_the_same(online: OnlineStates) -> None:
    online.write(PROFILE, states(PROFILE, *[(f"c{i}", 1, 1, float(i), "job", 2.0, None) for i in range(0, 50, 2)]))
    asked = [f"c{i}" for i in range(50)]
    assert joined_rows.possible()
    one_by_one, together = PackedStates.read(online, asked), online.read(asked)
    assert all(same(one_by_one[name], together[name]) for name in together)


def test_many_customers_are_found_by_their_keys_and_never_by_a_scan(online: OnlineStates) -> None:
    query = joined_rows.query([1, 2], 2)
    with sqlite3.connect(online.path) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", [0, "a", 1, "b"])]
    searches = [line for line in plan if line.startswith("SEARCH")]
    assert len(searches) == 1
    assert "SEARCH states" in searches[0]
    assert "(key=?)" in searches[0]
    assert not any("SCAN states" in line for line in plan)


def test_a_write_is_kept_whole_or_not_at_all(online: OnlineStates) -> None:
    with pytest.raises(InputError, match="1 have no key"):
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


def log_size(online: OnlineStates) -> int:
    """Bytes of the write-ahead log beside the file."""
    return online.path.with_name(f"{online.path.name}-wal").stat().st_size


def many(opted_out: float, at: int) -> pa.Table:
    return states(CONSENT, *[(f"c{i}", at, at, opted_out) for i in range(5_000)])


def test_after_a_load_the_file_is_all_that_lies_on_disk(online: OnlineStates) -> None:
    online.read(["a"])  # a reader keeps the log where it is, as a server does
    online.write(CONSENT, many(0.0, 1))
    assert log_size(online) > 0, "small writes leave it: others share its one sync"
    online.load(CONSENT, [many(1.0, 2)])
    assert log_size(online) == 0
    assert online.read(["c7"])["consent"].numbers.tolist() == [[1.0]]


def test_a_reader_in_the_middle_of_its_answer_goes_on_and_the_next_load_cuts_the_log(online: OnlineStates) -> None:
    online.load(CONSENT, [many(0.0, 1)])
    reader = sqlite3.connect(online.path)
    ask = "SELECT count(*), min(event_us) FROM states"
    reader.execute("BEGIN")
    before = reader.execute(ask).fetchone()
    online.load(CONSENT, [many(1.0, 2)])
    assert log_size(online) > 0
    assert reader.execute(ask).fetchone() == before, "its moment is that of its first question"
    assert online.read(["c7"])["consent"].numbers.tolist() == [[1.0]]
    reader.close()
    online.load(CONSENT, [many(0.0, 3)])
    assert log_size(online) == 0


def test_a_file_whose_rows_lie_by_view_is_read_and_written_as_before(online: OnlineStates) -> None:
    with sqlite3.connect(online.path) as connection:
        [(table,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'states'").fetchall()
        connection.execute("DROP TABLE states")
        connection.execute(table.replace("(key, view_id)", "(view_id, key)"))
    for at in (5, 4):
        online.write(CONSENT, states(CONSENT, ("a", at, at, float(at))))
    assert online.read(["a"])["consent"].numbers.tolist() == [[5.0]]


def test_a_read_searches_by_customer_then_view_and_never_scans(online: OnlineStates) -> None:
    """The rows of a customer lie side by side, so that what a read touches does not grow with the customers."""
    with sqlite3.connect(online.path) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {QUERY}", ["a", "all"]).fetchall()
    assert [step for *_, step in plan] == ["SEARCH states USING PRIMARY KEY (key=? AND view_id=?)"]


def test_no_file_and_a_file_of_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="nextbest features build"):
        OnlineStates(tmp_path / "online.db", VIEWS)
    (tmp_path / "online.db").write_text("not a database, long enough to be looked at " * 10)
    with pytest.raises(ArtefactError, match="not an online store"):
        OnlineStates(tmp_path / "online.db", VIEWS)


def test_serving_reads_without_feast_and_pandas() -> None:
    script = "import features.packed, sys; print([name for name in ('feast', 'pandas', 'ibis') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_joined_rows_belong_to_their_places_in_whatever_order_they_come() -> None:
    places, said = (2, 0, 1), (20.0, 0.0, 10.0)
    belongs = ",".join(str((place << 40) + (7 << 24) + 8) for place in places)
    row = (np.array(said).tobytes(), belongs, "2000000,0,1000000", None)
    state = joined_rows.states({7: CONSENT}, row, 3)["consent"]
    assert state.numbers[:, 0].tolist() == [0.0, 10.0, 20.0]
    assert state.at.tolist() == [0.0, 1.0, 2.0]
