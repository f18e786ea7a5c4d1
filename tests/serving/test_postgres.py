"""What is PostgreSQL's alone: starting together, crashes and outages, and settings of a server that would weaken it.

What every ledger promises is in tests/conformance.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from serving.caps import Cap, CapReached, Contact
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.entries import Entry
from serving.errors import LedgerUnavailable
from serving.events import TimelineEvent
from serving.ledger import SqliteLedger, open_ledger
from serving.postgres import PostgresLedger

NOW = datetime(2024, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
ONCE = Cap("once", "overall", None, 0, 1)


def decision(name: str, customer: str = "anna", action: Action | None = None) -> Decision:
    candidates, versions = (Candidate(action, 1.0),), Versions({}, "p", "f", "c")
    return Decision(name, Ask(customer, NOW), action, 0.25, 1.0, candidates, (0.25,), (), (), (), 0, (), versions)


def reserve(ledger: PostgresLedger, name: str, customer: str = "anna") -> bytes:
    contact = Contact(customer, 1, "push", "card", None, "marketing", name, None)
    return ledger.record(Entry.of(decision(name, customer), NOW, b"a", contact=contact, caps=[ONCE]))


def event(event_id: str, customer: str = "anna", kind: str = "clicked") -> TimelineEvent:
    return TimelineEvent(event_id, customer, 1, kind, created_us=1)


def test_processes_that_start_together_make_the_tables_once(postgres_url: str) -> None:
    def start(number: int) -> bool:
        ledger = PostgresLedger(postgres_url, connections=2)
        ledger.record(Entry.of(decision(str(number)), NOW, b"a"))
        ledger.close()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(start, range(8)))


def test_two_ledgers_on_one_database_share_keys_and_caps(postgres_url: str) -> None:
    one, other = PostgresLedger(postgres_url), PostgresLedger(postgres_url)
    reserve(one, "1")
    with pytest.raises(CapReached):
        reserve(other, "2")
    one.record(Entry.of(decision("3"), NOW, b"first", "key", "hash"))
    assert other.record(Entry.of(decision("4"), NOW, b"second", "key", "hash")) == b"first"
    one.close()
    other.close()


def test_the_decision_is_an_event_on_the_timeline(postgres_url: str, postgres_server: Any) -> None:
    ledger = PostgresLedger(postgres_url)
    ledger.record(Entry.of(decision("1", action=Action("card", "push", "plain", "text")), NOW, b"a"))
    ledger.record(Entry.of(decision("2"), NOW, b"a"))
    ledger.close()
    assert postgres_server.ask(postgres_url, "SELECT * FROM nextbest.timeline ORDER BY event_id").splitlines() == [
        "decided:1|anna|1717243200123456|decided|push|marketing|card|plain|1||0.25||1717243200123456",
        "decided:2|anna|1717243200123456|decided||marketing|||2||0.25||1717243200123456",
    ]


def test_weaker_defaults_of_a_database_change_nothing(postgres_url: str, postgres_server: Any) -> None:
    """A snapshot from before the customer's lock would miss the contact of whoever held it."""
    weaker = "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'"
    postgres_server.ask(postgres_url, weaker.format(database(postgres_url)))
    ledger = PostgresLedger(postgres_url)
    together = threading.Barrier(8)

    def call(name: str) -> bool:
        together.wait()
        try:
            reserve(ledger, name, name.split("-")[0])
        except CapReached:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for lap in range(20):
            assert sum(pool.map(call, [f"c{lap}-{number}" for number in range(8)])) == 1
    ledger.close()


def test_a_server_that_crashes_forgets_nothing_that_was_acknowledged(postgres_url: str, postgres_server: Any) -> None:
    """Even where the database says that commits need not wait for the disk; afterwards the ledger goes on by itself."""
    postgres_server.ask(postgres_url, f"ALTER DATABASE {database(postgres_url)} SET synchronous_commit = off")
    ledger = PostgresLedger(postgres_url)
    acknowledged: list[str] = []
    enough = threading.Event()

    def write(worker: int) -> None:
        for number in range(10**6):
            name = f"{worker}-{number}"
            try:
                ledger.record(Entry.of(decision(name, name), NOW, b"a"))
            except LedgerUnavailable:
                return
            acknowledged.append(name)
            if len(acknowledged) >= 200:
                enough.set()

    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(write, worker) for worker in range(4)]
        assert enough.wait(60)
        postgres_server.stop(signal.SIGQUIT)
        for end in ends:
            end.result()
    with pytest.raises(LedgerUnavailable):
        ledger.record(Entry.of(decision("down"), NOW, b"a"))
    postgres_server.start()
    assert [name for name in acknowledged if ledger.get(name) is None] == []
    assert ledger.record(Entry.of(decision("up"), NOW, b"a")) == b"a"
    ledger.close()


def test_who_waits_too_long_is_told_so_and_the_next_is_served(postgres_url: str, postgres_server: Any) -> None:
    ledger = PostgresLedger(postgres_url, connections=1, patience=0.3)
    ledger.record(Entry.of(decision("0"), NOW, b"a"))
    psql = [postgres_server.programs / "psql", "-XAtq", postgres_url]
    with subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as blocker:
        assert blocker.stdin is not None
        assert blocker.stdout is not None
        blocker.stdin.write("BEGIN; LOCK TABLE nextbest.decisions; SELECT 'held';\n")
        blocker.stdin.flush()
        assert blocker.stdout.readline() == "held\n"
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=r"0\.3 s"):
            ledger.record(Entry.of(decision("1"), NOW, b"a"))
        assert time.monotonic() - started < 3
    assert ledger.record(Entry.of(decision("2"), NOW, b"a")) == b"a"
    assert ledger.get("1") is None
    ledger.close()


def nothing_imported(event_ids: Sequence[str]) -> Any:
    return np.zeros(len(event_ids), dtype=bool)


def test_who_has_opened_older_features_decides_no_more_once_another_has_opened_newer_ones(postgres_url: str) -> None:
    """An opt-out that the newer features have imported is in no live state any more, and older ones never had it."""
    older, newer = PostgresLedger(postgres_url), PostgresLedger(postgres_url)
    older.rebase("older", nothing_imported)
    known = older.known("anna", None, 0)
    older.append([event("out", kind="opted_out")])
    newer.rebase("newer", lambda ids: np.ones(len(ids), dtype=bool))
    for call in (
        lambda: older.known("anna", None, 0),
        lambda: older.append([event("e1")]),
        lambda: older.record(Entry.of(decision("1"), NOW, b"a", consent_version=known.consent_version)),
    ):
        with pytest.raises(LedgerUnavailable, match="start this one again"):
            call()
    assert older.get("1") is None
    assert newer.append([event("e1"), event("out", kind="opted_out")]) == ("accepted", "duplicate")
    older.close()
    newer.close()


def ids(state: bytes | None, events: Sequence[Any]) -> bytes:
    """A fold that keeps the events' ids."""
    return b" ".join(sorted([*(state or b"").split(), *(one.event_id.encode() for one in events)]))


def test_events_that_come_while_live_states_are_made_anew_wait_and_are_added_to_the_new_ones(postgres_url: str) -> None:
    opening, serving = PostgresLedger(postgres_url, ids), PostgresLedger(postgres_url, ids)
    serving.append([event("imported")])
    begun, go_on = threading.Event(), threading.Event()

    def imported(event_ids: Sequence[str]) -> Any:
        begun.set()
        assert go_on.wait(30)
        return np.array([name == "imported" for name in event_ids])

    with ThreadPoolExecutor(2) as pool:
        rebased = pool.submit(opening.rebase, "key", imported)
        assert begun.wait(30)
        appended = pool.submit(serving.append, [event("e1")])
        time.sleep(0.3)
        assert not appended.done()
        go_on.set()
        rebased.result()
        assert appended.result() == ("accepted",)
    assert serving.known("anna", None, 9).live == b"e1"
    opening.close()
    serving.close()


def test_processes_that_start_together_make_live_states_once(postgres_url: str) -> None:
    ledgers = [PostgresLedger(postgres_url, ids) for _ in range(4)]
    ledgers[0].append([event(f"e{number}", f"c{number}") for number in range(50)])
    asked: list[str] = []

    def imported(event_ids: Sequence[str]) -> Any:
        asked.extend(event_ids)
        return nothing_imported(event_ids)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda ledger: ledger.rebase("key", imported), ledgers))
    assert sorted(asked) == sorted(f"e{number}" for number in range(50))
    for ledger in ledgers:
        assert ledger.known("c7", None, 9).live == b"e7"
        ledger.close()


def test_a_ledger_from_before_there_were_events_is_brought_up_to_date(postgres_url: str, postgres_server: Any) -> None:
    PostgresLedger(postgres_url).close()
    older = "DROP TABLE nextbest.live, nextbest.facts; DROP INDEX nextbest.timeline_of_customer; "
    older += "DROP INDEX nextbest.responses_of_customer; UPDATE nextbest.layout SET version = 1"
    postgres_server.ask(postgres_url, older)
    ledger = PostgresLedger(postgres_url)
    assert ledger.append([event("e1")]) == ("accepted",)
    ledger.close()


def test_a_server_without_fsync_is_refused(postgres_url: str, postgres_server: Any) -> None:
    postgres_server.stop()
    postgres_server.start("fsync=off")
    try:
        with pytest.raises(LedgerUnavailable, match="fsync"):
            PostgresLedger(postgres_url)
    finally:
        postgres_server.stop()
        postgres_server.start()


def test_a_ledger_of_an_unknown_layout_is_refused(postgres_url: str, postgres_server: Any) -> None:
    PostgresLedger(postgres_url).close()
    postgres_server.ask(postgres_url, "UPDATE nextbest.layout SET version = 99")
    with pytest.raises(LedgerUnavailable, match="99"):
        PostgresLedger(postgres_url)


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(LedgerUnavailable, match="PostgreSQL") as caught:
        PostgresLedger("postgresql://nextbest:secret@127.0.0.1:1/bank", patience=5)
    assert "secret" not in str(caught.value)


def test_the_url_says_which_ledger_is_opened(postgres_url: str, tmp_path: Path) -> None:
    for url, kind in (("", SqliteLedger), (postgres_url, PostgresLedger)):
        ledger = open_ledger(url, tmp_path / "ledger.db")
        assert isinstance(ledger, kind)
        ledger.close()
    assert (tmp_path / "ledger.db").exists()


def database(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
