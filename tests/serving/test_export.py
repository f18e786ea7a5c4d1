"""The ledger's timeline as a table, read beside the process that writes it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from features.served import SERVED_SCHEMA
from serving.errors import LedgerUnavailable
from serving.events import TimelineEvent
from serving.export import served_events
from serving.ledger import Ledger, SqliteLedger
from serving.postgres import PostgresLedger

AT = 1_717_243_200_123_456
EVENTS = (
    TimelineEvent("e1", "anna", AT, "decided", "sms", "marketing", "loan", "c1", "d1", None, 0.1, None, AT + 7),
    TimelineEvent(
        "e2", "zoë", AT - 1, "converted", None, None, "card", None, None, None, None, 12.5, AT + 86_400_000_000
    ),
    TimelineEvent("e3", "ben", AT, "opted_out", created_us=AT),
)
Place = tuple[str, Path]
"""URL and path, as `served_events` takes them."""


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ledger, Place]]:
    """A ledger, still open while the test reads it."""
    path = tmp_path / "a home?" / "ledger.db"
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    ledger: Ledger = PostgresLedger(url) if url else SqliteLedger(path)
    yield ledger, (url, path)
    ledger.close()


def rows(table: Any) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: str(row["event_id"]))


def test_every_event_comes_out_as_it_went_in_while_the_ledger_is_open(opened: tuple[Ledger, Place]) -> None:
    ledger, place = opened
    assert set(ledger.append(EVENTS)) == {"accepted"}
    table = served_events(*place)
    assert table is not None
    assert table.schema == SERVED_SCHEMA
    first, second, third = rows(table)
    assert first == {
        "event_id": "e1",
        "customer_id": "anna",
        "event_timestamp": datetime(2024, 6, 1, 12, 0, 0, 123_456, UTC),
        "kind": "decided",
        "channel": "sms",
        "purpose": "marketing",
        "product_id": "loan",
        "content_id": "c1",
        "decision_id": "d1",
        "message_id": None,
        "propensity": 0.1,
        "value": None,
        "created_timestamp": datetime(2024, 6, 1, 12, 0, 0, 123_463, UTC),
    }
    assert (second["customer_id"], second["value"], second["created_timestamp"].day) == ("zoë", 12.5, 2)
    assert (third["kind"], third["channel"], third["purpose"]) == ("opted_out", None, None)
    ledger.append([TimelineEvent("e4", "anna", AT, "visited", "app", created_us=AT)])
    assert len(served_events(*place)) == 4, "what was committed since is there, without closing anything"


def test_an_empty_ledger_is_an_empty_table(opened: tuple[Ledger, Place]) -> None:
    table = served_events(*opened[1])
    assert table is not None
    assert (table.num_rows, table.schema) == (0, SERVED_SCHEMA)


def test_more_events_than_one_block_holds(opened: tuple[Ledger, Place]) -> None:
    ledger, place = opened
    many = [
        TimelineEvent(f"n{number:04}", "anna", AT + number, "visited", "app", created_us=AT) for number in range(500)
    ]
    ledger.append(many)
    table = served_events(*place, rows_at_once=7)
    assert [row["event_id"] for row in rows(table)] == [event.event_id for event in many]


def test_where_there_is_no_ledger_there_is_nothing_and_none_is_made(tmp_path: Path) -> None:
    assert served_events("", tmp_path / "home" / "ledger.db") is None
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_ledger_has_nothing(postgres_url: str, tmp_path: Path) -> None:
    assert served_events(postgres_url, tmp_path) is None


def test_a_ledger_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, however long it may be" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        served_events("", tmp_path / "ledger.db")
    with pytest.raises(LedgerUnavailable, match="cannot be read"):
        served_events(f"postgresql://nobody@/none?host={tmp_path}", tmp_path)


def test_reading_takes_nothing_from_the_writer(tmp_path: Path) -> None:
    """The write-ahead log stays, and a writer that was killed leaves all that it had acknowledged."""
    path = tmp_path / "ledger.db"
    code = (
        "import sys, os, signal; from pathlib import Path; from serving.ledger import SqliteLedger\n"
        "from serving.events import TimelineEvent\n"
        "ledger = SqliteLedger(Path(sys.argv[1]))\n"
        "ledger.append([TimelineEvent('e1', 'anna', 1, 'visited', 'app', created_us=1)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=Path(__file__).resolve().parents[2])
    log = path.with_name("ledger.db-wal")
    before = log.read_bytes()
    assert before
    for _ in range(2):
        assert len(served_events("", path)) == 1
    assert log.read_bytes() == before
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
