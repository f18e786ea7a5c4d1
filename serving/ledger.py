"""The ledger: every decision, durable before its answer is given.

One process, one writer thread (serving.group_commit). Calls return, or raise LedgerUnavailable, after the commit; an
acknowledged decision survives a kill.

    decisions     the record (JSON, deflated by zlib) and the answer, by decision id
    idempotency   which answer a key was given, and for which request
    timeline      the decision as an event, in the columns of the bank data directory: what training reads
    contacts      who was or will be contacted, and when: what contact caps are counted over

More than one process needs `serving.postgres`.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from serving.caps import Cap, Contact, check
from serving.decision import Decision
from serving.entries import Entry, answer_of, chunks, unpacked
from serving.errors import LedgerUnavailable
from serving.group_commit import Writer

_DECISIONS = """
CREATE TABLE decisions (
    decision_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, recorded_us INTEGER NOT NULL,
    record BLOB NOT NULL, answer BLOB NOT NULL
) STRICT;
CREATE INDEX decisions_of_customer ON decisions (customer_id, recorded_us);
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY, request_hash TEXT NOT NULL, decision_id TEXT NOT NULL REFERENCES decisions
) STRICT;
CREATE TABLE timeline (
    event_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, event_timestamp INTEGER NOT NULL, kind TEXT NOT NULL,
    channel TEXT, purpose TEXT, product_id TEXT, content_id TEXT, decision_id TEXT, message_id TEXT,
    propensity REAL, value REAL, created_timestamp INTEGER NOT NULL
) STRICT;
"""
_CONTACTS = """
CREATE TABLE contacts (
    customer_id TEXT NOT NULL, at_us INTEGER NOT NULL, channel TEXT NOT NULL, product_id TEXT, product_group TEXT,
    purpose TEXT NOT NULL, decision_id TEXT PRIMARY KEY, expires_us INTEGER
) STRICT;
CREATE INDEX contacts_of_customer ON contacts (customer_id, at_us);
"""
_LAYOUTS = (_DECISIONS, _CONTACTS)
"""What each version of the layout added to the one before."""

_LIVE = """SELECT * FROM contacts
WHERE customer_id = ? AND at_us > ? AND (expires_us IS NULL OR expires_us > ?) ORDER BY at_us, decision_id"""
# What was sent takes the place of its reservation; anything else that is known stays as it is.
_SEED = """INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, expires_us = NULL
WHERE contacts.expires_us IS NOT NULL AND excluded.expires_us IS NULL"""


class Ledger(Protocol):
    """The seam between the decision and what remembers it. Every call may be made from many threads."""

    def record(
        self,
        decision: Decision,
        recorded_at: datetime,
        answer: bytes,
        key: str | None = None,
        request_hash: str = "",
        *,
        contact: Contact | None = None,
        caps: Sequence[Cap] = (),
    ) -> bytes:
        """Make the decision durable, with its contact where there is one, and give the answer to send.

        With a key that is known for the same request, nothing is written and the first answer comes back, byte for
        byte. Else the caps are counted and the contact is reserved in the transaction that writes the decision: raises
        CapReached, nothing written, where one has no room for it. Raises KeyReused where the key named another
        request, LedgerUnavailable where nothing can be promised.
        """
        ...

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        """The customer's contacts with at_us > since_us that are sent or still reserved at now_us, in order of time.

        Raises LedgerUnavailable.
        """
        ...

    def seed(self, contacts: Iterable[Contact]) -> None:
        """Make contacts known that were made elsewhere. Seeding again changes nothing.

        One that was sent and names a decision with a reservation makes it lasting. Raises LedgerUnavailable.
        """
        ...

    def recall(self, key: str, request_hash: str) -> bytes | None:
        """The answer that this key was given, None where it is new; raises KeyReused, LedgerUnavailable."""
        ...

    def get(self, decision_id: str) -> bytes | None:
        """The record of a decision (JSON), None where there is none; raises LedgerUnavailable."""
        ...

    @property
    def open(self) -> bool:
        """Whether decisions can be recorded."""
        ...

    def close(self) -> None:
        """Finish what was accepted, then accept nothing more. May be called twice."""
        ...


class SqliteLedger:
    """A ledger in one SQLite file, owned by this process alone while it is open.

    capacity: requests that may wait; one more raises LedgerUnavailable at once. patience: seconds that a caller waits
    for the disk.
    """

    def __init__(self, path: Path, capacity: int = 1024, patience: float = 10.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = _own(path)
        try:
            self._writer = Writer(lambda: _connect(path), capacity, patience)
        except (sqlite3.Error, LedgerUnavailable) as error:
            self._lock_file.close()
            raise LedgerUnavailable(f"the ledger {path} cannot be opened: {error}") from error

    def record(
        self,
        decision: Decision,
        recorded_at: datetime,
        answer: bytes,
        key: str | None = None,
        request_hash: str = "",
        *,
        contact: Contact | None = None,
        caps: Sequence[Cap] = (),
    ) -> bytes:
        entry = Entry.of(decision, recorded_at, answer, contact, caps)

        def work(connection: sqlite3.Connection) -> bytes:
            known = _recall(connection, key, request_hash) if key else None
            if known is not None:
                return known
            _reserve(connection, entry)
            _insert(connection, "decisions", entry.decision)
            _insert(connection, "timeline", entry.event)
            if key:
                _insert(connection, "idempotency", (key, request_hash, decision.decision_id))
            return answer

        return self._writer.submit(work)

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        return self._writer.submit(lambda connection: _live(connection, customer_id, since_us, now_us))

    def seed(self, contacts: Iterable[Contact]) -> None:
        for rows in chunks(contacts):
            self._writer.submit(partial(_seed, rows=rows))

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return self._writer.submit(lambda connection: _recall(connection, key, request_hash))

    def get(self, decision_id: str) -> bytes | None:
        row = self._writer.submit(
            lambda connection: connection.execute(
                "SELECT record FROM decisions WHERE decision_id = ?", (decision_id,)
            ).fetchone()
        )
        return unpacked(row[0]) if row else None

    @property
    def open(self) -> bool:
        return self._writer.open

    def close(self) -> None:
        self._writer.close()
        self._lock_file.close()


def open_ledger(url: str, path: Path) -> Ledger:
    """The PostgreSQL ledger at `url`, or, where that is empty, the file at `path`. Raises LedgerUnavailable."""
    if not url:
        return SqliteLedger(path)
    from serving.postgres import PostgresLedger  # only who uses it needs its driver

    return PostgresLedger(url)


def _own(path: Path) -> IO[bytes]:
    """Lock the ledger for this process: this SQLite's write-ahead log is safe with one writing process only."""
    file = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise LedgerUnavailable(f"another process has the ledger {path} open; stop it first") from None
    return file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_LAYOUTS):
        connection.close()
        raise LedgerUnavailable(f"its layout is {version}, this version of nextbest reads up to {len(_LAYOUTS)}")
    missing = "".join(_LAYOUTS[version:])
    if missing:
        connection.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {len(_LAYOUTS)}; COMMIT;")
    return connection


def _reserve(connection: sqlite3.Connection, entry: Entry) -> None:
    """Count and insert in one transaction: apart, two decisions would both find the last place free."""
    if entry.contact:
        live = _live(connection, entry.customer_id, entry.since_us, entry.now_us)
        check(entry.contact, entry.caps, live)
        _insert(connection, "contacts", astuple(entry.contact))


def _live(connection: sqlite3.Connection, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
    return tuple(Contact(*row) for row in connection.execute(_LIVE, (customer_id, since_us, now_us)))


def _seed(connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
    connection.executemany(_SEED, rows)


def _insert(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _recall(connection: sqlite3.Connection, key: str, request_hash: str) -> bytes | None:
    row = connection.execute(
        "SELECT request_hash, answer FROM idempotency JOIN decisions USING (decision_id) WHERE key = ?", (key,)
    ).fetchone()
    return answer_of(row, request_hash)
