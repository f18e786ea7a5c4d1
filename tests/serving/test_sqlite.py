"""What is SQLite's alone: several processes on one file, one of them dying, and the files of earlier versions.

What every ledger promises is in tests/conformance.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from serving.caps import Cap, CapReached, ConsentChanged, Contact
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.disk import Log
from serving.entries import Entry
from serving.errors import KeyReused, LedgerUnavailable
from serving.events import TimelineEvent
from serving.readers import Readers
from serving.sqlite import SqliteLedger
from serving.sqlite_decisions import TOGETHER, write
from serving.sqlite_tables import connect

NOW = datetime(2024, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
ONCE = Cap("once", "overall", None, 0, 1)
THREADS = 3


def ids(state: bytes | None, events: Sequence[Any]) -> bytes:
    """A fold that keeps the events' ids; it breaks over one that is called broken."""
    if any("broken" in one.event_id for one in events):
        raise ValueError("no fold for this")
    return b" ".join(sorted([*(state or b"").split(), *(one.event_id.encode() for one in events)]))


def opened(folder: Path) -> SqliteLedger:
    return SqliteLedger(folder / "ledger.db", ids)


def decision(name: str, customer: str = "anna") -> Decision:
    candidates, versions = (Candidate(None, 1.0),), Versions({}, "p", "f", "c")
    return Decision(name, Ask(customer, NOW), None, 0.25, 1.0, candidates, (0.25,), (), (), (), 0, (), versions)


def reserve(ledger: SqliteLedger, name: str, customer: str = "anna", version: int | None = None) -> bytes:
    contact = Contact(customer, 1, "push", "card", None, "marketing", name, None)
    return ledger.record(
        Entry.of(decision(name, customer), NOW, b"a", contact=contact, caps=[ONCE], consent_version=version)
    )


def event(event_id: str, customer: str = "anna", kind: str = "clicked") -> TimelineEvent:
    return TimelineEvent(event_id, customer, 1, kind, created_us=1)


def nothing_imported(event_ids: Sequence[str]) -> Any:
    return np.zeros(len(event_ids), dtype=bool)


class Other:
    """Another process; `go_to` opens the ledger there, and the functions below that are given it can be asked for."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        program = (
            "import sys; from pathlib import Path; from test_sqlite import *\n"
            "ledger = None\n"
            "for line in sys.stdin:\n"
            "    name, *words = json.loads(line)\n"
            "    if name == 'go_to': ledger = opened(Path(*words))\n"
            "    else: print(json.dumps(globals()[name](ledger, *words)), flush=True)"
        )
        path = os.pathsep.join([str(here.parents[2]), str(here.parent)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def at(self, folder: Path) -> Other:
        self.begin("go_to", str(folder))
        self.ask("is_open")
        return self

    def begin(self, name: str, *words: object) -> None:
        self._stream(self.process.stdin).write(json.dumps([name, *words]) + "\n")
        self._stream(self.process.stdin).flush()

    def line(self) -> str:
        return self._stream(self.process.stdout).readline()

    def ask(self, name: str, *words: object) -> Any:
        self.begin(name, *words)
        return json.loads(self.line())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            self._stream(stream).close()

    @staticmethod
    def _stream(given: IO[str] | None) -> IO[str]:
        assert given is not None
        return given


@pytest.fixture(scope="module")
def process() -> Iterator[Other]:
    """One for all tests that leave it alive: it takes longest to start."""
    other = Other()
    yield other
    other.kill()


@pytest.fixture
def second(process: Other, tmp_path: Path) -> Iterator[Other]:
    """Another process that has the ledger in tmp_path open."""
    yield process.at(tmp_path)
    process.ask("leave")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Other]:
    """One that a test may kill."""
    other = Other()
    yield other.at(tmp_path)
    other.kill()


def is_open(ledger: SqliteLedger) -> bool:
    return ledger.open


def leave(ledger: SqliteLedger) -> None:
    ledger.close()


def fill(ledger: SqliteLedger, process: str, first: int, customers: int) -> dict[str, list[str]]:
    """In a few threads, contact every customer twice if there is room, else decide against it; answered names."""

    def one(number: int) -> tuple[str, str]:
        name = f"{process}-{number}"
        try:
            reserve(ledger, name, f"c{(first + number) % customers}")
        except CapReached:
            ledger.record(Entry.of(decision(f"{name}-no"), NOW, b"a"))
            return "capped", f"{name}-no"
        return "contacts", name

    answered: dict[str, list[str]] = {"contacts": [], "capped": []}
    with ThreadPoolExecutor(THREADS) as pool:
        for outcome, name in pool.map(one, range(2 * customers)):
            answered[outcome].append(name)
    return answered


def tell(ledger: SqliteLedger, event_id: str, kind: str) -> Sequence[str]:
    return ledger.append([event(event_id, kind=kind)])


def race(ledger: SqliteLedger, process: str, keys: int) -> list[str]:
    """The answers to so many keys, each asked for with a decision of this process."""
    return [
        ledger.record(Entry.of(decision(f"{process}-{key}"), NOW, process.encode(), f"key {key}", "hash")).decode()
        for key in range(keys)
    ]


def take_up(ledger: SqliteLedger, key: str, imports: Sequence[str] = ()) -> bool:
    ledger.rebase(key, lambda event_ids: np.isin(event_ids, imports))
    return True


def stop_in_the_middle(ledger: SqliteLedger) -> None:
    """Never comes back: it stays in a transaction that has written already."""

    def imported(event_ids: Sequence[str]) -> Any:
        print("in the middle", flush=True)
        signal.pause()

    ledger.rebase("another", imported)


def test_two_processes_that_write_at_once_lose_nothing_and_never_exceed_a_cap(tmp_path: Path, second: Other) -> None:
    ledger = opened(tmp_path)
    second.begin("fill", "second", 20, 40)  # from the other half on: who begins later is not late everywhere
    answered = fill(ledger, "first", 0, 40)
    theirs = json.loads(second.line())
    assert len(answered["contacts"]) + len(theirs["contacts"]) == 40, "one each"
    assert min(len(answered["contacts"]), len(theirs["contacts"])) > 0, "both were at it"
    for names in (*answered.values(), *theirs.values()):
        assert [name for name in names if ledger.get(name) is None] == []
    assert [len(ledger.contacts(f"c{number}", 0, 0)) for number in range(40)] == [1] * 40
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (160,)


def test_consent_that_is_withdrawn_through_one_process_counts_in_the_other_at_once(
    tmp_path: Path, second: Other
) -> None:
    with closing(opened(tmp_path)) as ledger:
        for number in range(20):
            before = ledger.known("anna", None, 9)
            assert second.ask("tell", f"out{number}", "opted_out") == ["accepted"]
            with pytest.raises(ConsentChanged):
                reserve(ledger, f"{number}", version=before.consent_version)
            after = ledger.known("anna", None, 9)
            assert (len(after.responses), len((after.live or b"").split())) == (number + 1, number + 1)
        assert reserve(ledger, "informed", version=after.consent_version) == b"a"


def test_one_key_in_two_processes_at_once_has_one_answer(tmp_path: Path, second: Other) -> None:
    with closing(opened(tmp_path)) as ledger:
        second.begin("race", "second", 100)
        answers = race(ledger, "first", 100)
        assert json.loads(second.line()) == answers
        made = [name for key in range(100) for name in ("first", "second") if ledger.get(f"{name}-{key}")]
        assert made == answers


def test_a_process_that_is_killed_in_a_transaction_keeps_nobody_waiting_and_takes_nothing_along(
    tmp_path: Path, victim: Other, second: Other
) -> None:
    with closing(opened(tmp_path)) as ledger:
        assert victim.ask("tell", "e1", "clicked") == ["accepted"]
        victim.begin("stop_in_the_middle")
        assert victim.line() == "in the middle\n"
        begun = ledger.recording(Entry.of(decision("waits"), NOW, b"a"))
        assert not begun.done()
        victim.process.send_signal(signal.SIGKILL)
        assert begun.result(30) == b"a"
        assert ledger.known("anna", None, 9).live == b"e1", "what it had begun is undone"
        assert second.ask("tell", "e2", "clicked") == ["accepted"]
        assert ledger.known("anna", None, 9).live == b"e1 e2"


def test_who_has_opened_older_features_decides_no_more_once_another_has_opened_newer_ones(
    tmp_path: Path, second: Other
) -> None:
    """An opt-out that the newer features have imported is in no live state any more, and older ones never had it."""
    with closing(opened(tmp_path)) as older:
        older.rebase("older", nothing_imported)
        known = older.known("anna", None, 0)
        older.append([event("out", kind="opted_out")])
        assert second.ask("take_up", "newer", ["out"])
        for call in (
            lambda: older.known("anna", None, 0),
            lambda: older.append([event("e1")]),
            lambda: older.record(Entry.of(decision("1"), NOW, b"a", consent_version=known.consent_version)),
        ):
            with pytest.raises(LedgerUnavailable, match="start this one again"):
                call()
        assert older.get("1") is None
        assert second.ask("tell", "e1", "clicked") == ["accepted"]
        assert second.ask("tell", "out", "opted_out") == ["duplicate"]


def test_who_opens_writes_or_closes_waits_for_its_turn(tmp_path: Path) -> None:
    """So that no two connections ever write or checkpoint at one moment; readers go on meanwhile."""
    opened(tmp_path).close()
    with ThreadPoolExecutor(1) as pool, (tmp_path / "ledger.db.turn").open("ab") as another:

        def in_turn(work: Callable[[], Any]) -> Any:
            fcntl.flock(another, fcntl.LOCK_EX)
            begun = pool.submit(work)
            with pytest.raises(TimeoutError):
                begun.result(0.1)
            fcntl.flock(another, fcntl.LOCK_UN)
            return begun.result(30)

        ledger = in_turn(lambda: opened(tmp_path))
        assert in_turn(lambda: ledger.append([event("e1")])) == ("accepted",)
        fcntl.flock(another, fcntl.LOCK_EX)
        assert ledger.known("anna", None, 9).live == b"e1"
        in_turn(ledger.close)


def entry(name: str, customer: str, key: str = "", request_hash: str = "hash", capped: bool = True) -> Entry:
    contact = Contact(customer, 1, "push", "card", None, "marketing", name, None)
    made = replace(decision(name, customer), action=Action("card", "push", None, None))
    caps = [ONCE] if capped else []
    return Entry.of(made, NOW, name.encode(), key, request_hash, contact=contact, caps=caps)


def test_decisions_of_one_group_know_of_those_before_them_and_what_is_refused_is_not_written(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "ledger.db")) as connection:
        given = [
            entry("1", "anna", "key"),
            entry("2", "anna"),  # there is one contact already
            entry("3", "bert", "key"),  # the key of another decision, and it must not be made
            entry("4", "bert", "key", "other hash"),
            entry("5", "bert", "another"),  # so there is room for it
            entry("broken", "carl"),
            entry("6", "carl"),
            *(entry(f"more{number}", "dora", capped=False) for number in range(3 * TOGETHER)),
            entry("7", "anna"),  # in another block
            entry("8", "anna", capped=False),
        ]
        outcomes = write(connection, given, ids, None)
        refused = {given[at].decision[0]: type(one) for at, one in enumerate(outcomes) if isinstance(one, Exception)}
        assert refused == {"2": CapReached, "4": KeyReused, "broken": LedgerUnavailable, "7": CapReached}
        answers = {given[at].decision[0]: one for at, one in enumerate(outcomes) if not isinstance(one, Exception)}
        assert answers.pop("3") == b"1"
        assert answers == {name: name.encode() for name in answers}
        written = {name for (name,) in connection.execute("SELECT decision_id FROM decisions")}
        assert written == set(answers)
        assert written == {name for (name,) in connection.execute("SELECT decision_id FROM contacts")}
        assert written == {name for (name,) in connection.execute("SELECT decision_id FROM timeline")}
        assert connection.execute("SELECT key, decision_id FROM idempotency ORDER BY key").fetchall() == [
            ("another", "5"),
            ("key", "1"),
        ]
        states = dict(connection.execute("SELECT customer_id, state FROM live"))
        assert states["anna"] == b"decided:1 decided:8"
        assert len(states["dora"].split()) == 3 * TOGETHER


def test_a_known_answer_is_given_again_only_when_the_disk_has_it(tmp_path: Path) -> None:
    """Whoever wrote it, in another process perhaps, may still be waiting for the disk."""
    synced: list[Path] = []

    class Told(Log):
        def sync(self) -> None:
            super().sync()
            synced.append(tmp_path)

    with closing(SqliteLedger(tmp_path / "ledger.db", ids, log=Told)) as ledger:
        ledger.record(Entry.of(decision("1"), NOW, b"first", "key", "hash"))
        synced.clear()
        assert ledger.recall("new", "hash") is None
        assert not synced
        assert ledger.recall("key", "hash") == b"first"
        assert len(synced) == 1


def test_an_earlier_version_that_shares_with_nobody_is_named(tmp_path: Path) -> None:
    with (tmp_path / "ledger.db.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LedgerUnavailable, match="earlier version"):
            opened(tmp_path)
    with closing(opened(tmp_path)), (tmp_path / "ledger.db.lock").open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # what an earlier version begins with


def test_readers_never_bring_the_write_ahead_log_home_not_even_as_the_last_to_close(
    tmp_path: Path, victim: Other
) -> None:
    """A checkpoint out of turn could meet a commit."""
    assert victim.ask("tell", "e1", "clicked") == ["accepted"]
    victim.process.kill()
    victim.process.wait()
    files = [tmp_path / "ledger.db", tmp_path / "ledger.db-wal"]
    before = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    with closing(Readers(tmp_path / "ledger.db")) as readers:
        assert readers.ask(lambda connection: connection.execute("SELECT count(*) FROM timeline").fetchone()) == (1,)
        with pytest.raises(LedgerUnavailable):
            readers.ask(lambda connection: connection.execute("PRAGMA wal_checkpoint").fetchone())
    assert [hashlib.sha256(file.read_bytes()).digest() for file in files] == before
