"""The rule of what was known when, against the rule written out: all candidates of a question, the newest of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.asof import Asked, Source, newest_known, newest_of_keys, rows_that_count
from features.fetch import fetch
from features.row_groups import in_threads

DAY = 86_400_000_000
TTL = 6
Row = tuple[str | None, int | None, int | None]

states = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "ü", None]), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)
    ),
    max_size=25,
)
questions = st.lists(st.tuples(st.sampled_from(["a", "b", "ü", "nobody", None]), st.integers(-1, 20)), max_size=12)


def written(path: Path, rows: list[Row], group: int = 100) -> Path:
    """A file of states: key, event day, day on which it became known; their number in the column `n`."""
    time = pa.timestamp("us", "UTC")
    columns = {
        "customer_id": pa.array([row[0] for row in rows], pa.string()),
        "event_timestamp": pa.array([None if row[1] is None else row[1] * DAY for row in rows], time),
        "created_timestamp": pa.array([None if row[2] is None else row[2] * DAY for row in rows], time),
        "n": pa.array(range(len(rows)), pa.float64()),
        "word": pa.array([f"w{index % 3}" if index % 4 else None for index in range(len(rows))], pa.string()),
    }
    pq.write_table(pa.table(columns), path / "view.parquet", row_group_size=group)
    return path / "view.parquet"


def asked(pairs: list[tuple[str | None, int]]) -> Asked:
    keys = pa.chunked_array([pa.array([key for key, _ in pairs], pa.string())])
    return Asked.of(keys, np.array([at * DAY for _, at in pairs], np.int64))


def answers(source: Source, pairs: list[tuple[str | None, int]]) -> list[int]:
    """Row per question, in the order in which they were asked; -1 none."""
    row, _ = rows_that_count(source, asked(pairs))
    told = np.full(len(pairs), -1)
    told[asked(pairs).place] = row
    return told.tolist()


def the_rule(rows: list[Row], key: str | None, at: int, known_only: bool) -> int:
    """The rule, written out; of equal states the last row."""
    candidates = [
        (event, -1 if created is None else created, index)
        for index, (whose, event, created) in enumerate(rows)
        if key is not None and whose == key and event is not None and event <= at
        if not known_only or (created is not None and created <= at)
    ]
    event, _, index = max(candidates, default=(0, 0, -1))
    return index if at - event <= TTL else -1


@settings(deadline=None, max_examples=60)
@given(states, questions, st.sampled_from([1, 2, 3, 100]), st.booleans(), st.booleans())
def test_the_row_that_counts_is_the_one_of_the_rule_in_any_order_and_any_row_groups(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    pairs: list[tuple[str | None, int]],
    group: int,
    in_order: bool,
    known_only: bool,
) -> None:
    if in_order:
        rows = sorted(rows, key=lambda row: tuple((value is not None, value) for value in row))
    path = written(tmp_path_factory.mktemp("rule"), rows, group)
    source = Source(path, "customer_id", ttl=timedelta(days=TTL), known_only=known_only)
    assert answers(source, pairs) == [the_rule(rows, key, at, known_only) for key, at in pairs]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), max_size=15),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 10)), max_size=8),
    st.sampled_from([1, 9 * 10**17]),
)
def test_the_newest_known_state_is_the_one_of_the_rule_however_long_the_time(
    rows: list[tuple[int, int, int]], pairs: list[tuple[int, int]], tick: int
) -> None:
    key, event, created = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    asked_key, at = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    found = newest_known(key, event * tick, created * tick, asked_key, at * tick)
    for (whose, time), row in zip(pairs, found.tolist(), strict=True):
        candidates = [(*state[1:], index) for index, state in enumerate(rows) if state[0] == whose]
        known = [state for state in candidates if max(state[:2]) <= time]
        assert row == max(known, default=(0, 0, -1))[2]


def test_a_state_holds_from_its_moment_to_the_end_of_its_ttl(tmp_path: Path) -> None:
    source = Source(written(tmp_path, [("a", 0, 0), ("a", 5, 5)]), "customer_id", ttl=timedelta(days=10))
    at = np.array([-1, 0, 5 * DAY - 1, 5 * DAY, 15 * DAY, 15 * DAY + 1], np.int64)
    row, event = rows_that_count(source, Asked.of(pa.chunked_array([["a"] * 6]), at))
    assert row.tolist() == [-1, 0, 0, 1, 1, -1]
    assert event[1:5].tolist() == [0, 0, 5 * DAY, 5 * DAY]


def test_a_source_without_created_times_counts_by_its_events_alone(tmp_path: Path) -> None:
    source = Source(written(tmp_path, [("a", 1, 9), ("a", 3, 9)]), "customer_id", created=None)
    assert answers(source, [("a", 0), ("a", 2), ("a", 30)]) == [-1, 0, 1]


def test_keys_may_be_numbers(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path, [("7", 1, 1), ("12", 2, 2), ("12", 3, 3)], group=2))
    table = table.set_column(0, "customer_id", table.column(0).cast(pa.int32()))
    pq.write_table(table, tmp_path / "numbers.parquet", row_group_size=2)
    questions = Asked.of(pa.chunked_array([[12, 7, 8]]), np.full(3, 9 * DAY))
    row, _ = rows_that_count(Source(tmp_path / "numbers.parquet", "customer_id"), questions)
    assert row[np.argsort(questions.place)].tolist() == [2, 0, -1]


def test_rows_are_fetched_by_number_as_often_as_they_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, [("a", index, index) for index in range(10)], group=3)
    rows = np.array([8, 0, 8, 3, 3, 9])
    found = {}
    for which, table in fetch(path, rows, ["word", "n"], ["word"]):
        assert table.column_names == ["word", "n"]
        found |= dict(zip(which.tolist(), table.column("n").to_pylist(), strict=True))
    assert [found[index] for index in range(6)] == rows.tolist()


def spoilt(path: Path, group: int, name: str) -> None:
    """Overwrite one column of one row group, so that whoever reads it fails or reads nonsense."""
    metadata = pq.read_metadata(path)
    column = metadata.row_group(group).column(metadata.schema.names.index(name))
    first = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\xff" * column.total_compressed_size)


def test_only_columns_that_are_asked_for_are_read_and_only_row_groups_with_their_keys(tmp_path: Path) -> None:
    path = written(tmp_path, [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), ("b", 3, 3)], group=2)
    spoilt(path, 1, "word")
    for name in ("customer_id", "event_timestamp", "created_timestamp", "n", "word"):
        spoilt(path, 0, name)
    source = Source(path, "customer_id")
    row, _ = rows_that_count(source, asked([("b", 2), ("b", 9), ("nobody", 9)]))
    assert row.tolist() == [2, 3, -1]
    [(which, table)] = fetch(path, row[row >= 0], ["n"])
    assert (which.tolist(), table.column("n").to_pylist()) == ([0, 1], [2.0, 3.0])
    with pytest.raises(OSError, match="deserialize"):
        rows_that_count(source, asked([("a", 9)]))


def test_the_newest_state_of_a_key_was_known_by_then(tmp_path: Path) -> None:
    rows: list[Row] = [("a", 1, 1), ("a", 2, 2), ("a", 3, 9), ("b", 4, 4), ("c", 1, 8), ("d", 7, 7)]
    path, until = written(tmp_path, rows), datetime.fromtimestamp(5 * 86_400, UTC)
    found = newest_of_keys(path, "customer_id", pa.chunked_array([["d", "c", "a"]]), until, ["customer_id", "n"])
    assert found.to_pylist() == [{"customer_id": "a", "n": 1.0}]
    nobody = newest_of_keys(path, "customer_id", pa.chunked_array([["d"]]), until, ["n", "customer_id"])
    assert nobody.num_rows == 0
    assert nobody.column_names == ["n", "customer_id"]


def test_work_in_threads_comes_back_in_order_and_its_errors_are_raised() -> None:
    assert list(in_threads(lambda number: number * 2, range(50), 3)) == list(range(0, 100, 2))
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // number, [1, 0, 1]))


def test_no_more_work_is_begun_than_can_be_held() -> None:
    begun: list[int] = []
    results = in_threads(begun.append, range(50), workers=2)
    for taken in range(1, 20):
        next(results)
        assert len(begun) <= taken + 2
