"""Nobody is contacted more often than the caps allow, however many decide at once, and no decision fails for a lock.

Small on every run; at full size by `make proof`. The counter-example counts and reserves in two transactions: it must
overrun, else the test would prove nothing.

All workers go through the same customers in the same order, so that they meet. Each asks for a contact, and where a cap
is reached it records a decision without one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.caps import Cap, CapReached, Contact, check
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.entries import Entry
from serving.errors import LedgerUnavailable
from serving.ledger import Ledger, SqliteLedger
from serving.postgres import PostgresLedger

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
DAY = 24 * HOUR
CHANNELS = ("push", "email", "sms")
LIMITS: tuple[tuple[str, Any, str | None, int, int], ...] = (
    ("three-in-three-days", "overall", None, 3 * DAY, 3),
    ("push-once-a-day", "channel", "push", DAY, 1),
    ("card-twice-in-five-days", "product", "card", 5 * DAY, 2),
)
"""Rule, scope, value, length of the rolling window in microseconds, most."""


@dataclass(frozen=True)
class Size:
    workers: int
    customers: int
    decisions: int


SMALL = Size(workers=4, customers=10, decisions=800)
SIZES = [
    pytest.param(SMALL, id="small"),
    pytest.param(
        Size(workers=8, customers=1_000, decisions=100_000),
        id="full",
        marks=(pytest.mark.proof, pytest.mark.timeout(3600)),
    ),
]


@dataclass(frozen=True)
class Split:
    """The counter-example: it counts, and then, in another transaction, reserves."""

    ledger: Ledger

    def record(self, entry: Entry) -> bytes:
        if entry.contact:
            counted = self.ledger.contacts(entry.customer_id, entry.since_us, entry.now_us)
            check(entry.contact, entry.caps, counted)
            time.sleep(0.02)  # on a busy machine the others would seldom get there in between
        return self.ledger.record(replace(entry, caps=()))


def work(ledger: Ledger | Split, worker: int, size: Size) -> dict[str, int]:
    """One worker's share of the decisions: how many were contacts, how many were capped, how many failed."""
    outcomes: Counter[str] = Counter()
    for turn in range(size.decisions // size.workers):
        customer, lap = f"c{turn % size.customers}", turn // size.customers
        now = START + timedelta(hours=18 * lap, seconds=worker)
        at_us, name = _micros(now), f"{worker}-{turn}"
        channel, product = CHANNELS[(worker + lap) % 3], ("card", "loan")[(worker + turn) % 2]
        contact = Contact(customer, at_us, channel, product, None, "marketing", name, None)
        caps = [Cap(rule, scope, value, at_us - window, most) for rule, scope, value, window, most in LIMITS]
        try:
            try:
                action = Action(product, channel, None, None)
                ledger.record(Entry.of(_decision(name, customer, now, action), now, b"yes", contact=contact, caps=caps))
                outcomes["contacts"] += 1
            except CapReached:
                ledger.record(Entry.of(_decision(name, customer, now, None), now, b"no", contact=None, caps=()))
                outcomes["capped"] += 1
        except LedgerUnavailable as error:
            print(error, file=sys.stderr)
            outcomes["failed"] += 1
    return dict(outcomes)


def overruns(ledger: Ledger, size: Size) -> int:
    """Customers with too many contacts in some window: counted here again, by other code than the ledger's."""
    over = set()
    for number in range(size.customers):
        customer = f"c{number}"
        contacts = ledger.contacts(customer, 0, 0)
        for _, scope, value, window, most in LIMITS:
            covered = {"channel": lambda c: c.channel, "product": lambda c: c.product_id, "overall": lambda c: None}[
                scope
            ]
            times = sorted(contact.at_us for contact in contacts if covered(contact) == value)
            # `most` + 1 contacts within less than a window are one too many.
            if any(last - first < window for first, last in zip(times, times[most:], strict=False)):
                over.add(customer)
    return len(over)


def in_threads(ledger: Ledger | Split, size: Size) -> Counter[str]:
    with ThreadPoolExecutor(size.workers) as pool:
        done = pool.map(lambda worker: work(ledger, worker, size), range(size.workers))
        return sum((Counter(outcomes) for outcomes in done), Counter())


def in_processes(place: str, size: Size, split: bool) -> Counter[str]:
    """Each worker is a process of its own; they begin together. place: URL or file of the ledger."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    arguments = [place, str(int(split)), str(size.workers), str(size.customers), str(size.decisions)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(worker), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for worker in range(size.workers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        told = [process.stdout.read() for process in processes if process.stdout]
        assert [process.wait() for process in processes] == [0] * size.workers
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return sum((Counter(json.loads(outcomes)) for outcomes in told), Counter())


@pytest.mark.parametrize("size", SIZES)
def test_processes_on_postgres_overrun_no_cap_and_meet_no_lock_error(
    size: Size, postgres_server: Any, postgres_url: str
) -> None:
    started = time.monotonic()
    outcomes = in_processes(postgres_url, size, split=False)
    seconds = time.monotonic() - started
    ledger = PostgresLedger(postgres_url)
    over = overruns(ledger, size)
    ledger.close()
    report("PostgreSQL", size, outcomes, over, seconds)
    recorded = postgres_server.ask(postgres_url, "SELECT count(*) FROM nextbest.decisions")
    trouble = "SELECT deadlocks, conflicts FROM pg_stat_database WHERE datname = current_database()"
    assert (int(recorded), over, outcomes["failed"]) == (size.decisions, 0, 0)
    assert postgres_server.ask(postgres_url, trouble) == "0|0"
    assert outcomes["capped"] > outcomes["contacts"] > 0, "the caps were put to the test"


@pytest.mark.parametrize("size", SIZES)
def test_processes_on_sqlite_overrun_no_cap_and_meet_no_lock_error(size: Size, tmp_path: Path) -> None:
    started = time.monotonic()
    outcomes = in_processes(str(tmp_path / "ledger.db"), size, split=False)
    seconds = time.monotonic() - started
    ledger = SqliteLedger(tmp_path / "ledger.db")
    over = overruns(ledger, size)
    ledger.close()
    report("SQLite, processes", size, outcomes, over, seconds)
    assert (outcomes["capped"] + outcomes["contacts"], over, outcomes["failed"]) == (size.decisions, 0, 0)
    assert outcomes["capped"] > outcomes["contacts"] > 0, "the caps were put to the test"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("size", SIZES)
def test_threads_on_sqlite_overrun_no_cap_and_meet_no_lock_error(size: Size, tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    started = time.monotonic()
    outcomes = in_threads(ledger, size)
    seconds = time.monotonic() - started
    over = overruns(ledger, size)
    ledger.close()
    report("SQLite", size, outcomes, over, seconds)
    assert (outcomes["capped"] + outcomes["contacts"], over, outcomes["failed"]) == (size.decisions, 0, 0)
    assert outcomes["capped"] > outcomes["contacts"] > 0, "the caps were put to the test"


def test_counting_apart_from_reserving_overruns_caps_on_postgres(postgres_url: str) -> None:
    in_processes(postgres_url, SMALL, split=True)
    ledger = PostgresLedger(postgres_url)
    over = overruns(ledger, SMALL)
    ledger.close()
    assert over > 0


def test_counting_apart_from_reserving_overruns_caps_on_sqlite(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    in_threads(Split(ledger), SMALL)
    over = overruns(ledger, SMALL)
    ledger.close()
    assert over > 0


def report(what: str, size: Size, outcomes: Counter[str], over: int, seconds: float) -> None:
    print(f"{what}: {size}, {dict(outcomes)}, {over} customers over a cap, {seconds:.0f} s")


def _decision(name: str, customer: str, now: datetime, action: Action | None) -> Decision:
    candidates, versions = (Candidate(action, 1.0),), Versions({}, "p", "f", "c")
    return Decision(name, Ask(customer, now), action, 1.0, 1.0, candidates, (1.0,), (), (), (), 0, (), versions)


def _micros(time: datetime) -> int:
    return round(time.timestamp()) * 1_000_000


def _main(worker: int, place: str, split: bool, size: Size) -> None:
    ledger: Ledger = PostgresLedger(place) if "://" in place else SqliteLedger(Path(place))
    print("ready", flush=True)
    sys.stdin.read()  # until all are ready
    print(json.dumps(work(Split(ledger) if split else ledger, worker, size)))
    ledger.close()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3] == "1", Size(*map(int, sys.argv[4:])))
