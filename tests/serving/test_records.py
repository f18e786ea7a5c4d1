"""Records of decisions, read from either ledger while the process that writes it is open."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.decision import Ask, Candidate, Decision, Versions
from serving.entries import Entry
from serving.errors import LedgerUnavailable
from serving.ledger import Ledger, SqliteLedger
from serving.postgres import PostgresLedger
from serving.records import AT_ONCE, picked_records, recent_records

START = datetime(2024, 5, 1, tzinfo=UTC)
Place = tuple[str, Path]
"""URL and path, as `picked_records` takes them."""


def quiet(number: int) -> Decision:
    """The decision to leave a customer alone."""
    return Decision(
        f"{number:032x}", Ask(f"c{number}", START), None, 1.0, 0.0, (Candidate(None, 0.0),), (1.0,),
        (), (), (), 0, (), Versions({}, "p", "f", "c"),
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Three decisions, one minute after the other."""
    path = tmp_path / "a home?" / "ledger.db"
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    ledger: Ledger = PostgresLedger(url) if url else SqliteLedger(path)
    for number in range(3):
        ledger.record(Entry.of(quiet(number), START + timedelta(minutes=number), b"{}"))
    yield url, path
    ledger.close()


def test_the_newest_records_come_first_and_only_so_many(opened: Place) -> None:
    assert [record["customer_id"] for record in recent_records(*opened, 2)] == ["c2", "c1"]


def test_records_are_found_by_their_decisions_however_many_are_asked_for(opened: Place) -> None:
    asked = [f"{number:032x}" for number in (*range(100, 100 + 2 * AT_ONCE), 2, 0)]
    found = picked_records(*opened, asked, lambda record: record["customer_id"])
    assert sorted(found) == ["c0", "c2"]


def test_where_there_is_no_ledger_there_are_no_records_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert (
        picked_records("", tmp_path / "nowhere.db", ["d"], len) == recent_records("", tmp_path / "nowhere.db", 5) == []
    )
    damaged = tmp_path / "ledger.db"
    damaged.write_bytes(b"not a ledger" * 100)
    with pytest.raises(LedgerUnavailable, match="cannot be read"):
        recent_records("", damaged, 5)
