"""The ledger: every decision, durable before its answer is given.

One process, one writer thread (serving.group_commit). Calls return, or raise LedgerUnavailable, after the commit; an
acknowledged decision survives a kill.

    decisions     the record (JSON, deflated by zlib) and the answer, by decision id
    idempotency   which answer a key was given, and for which request
    timeline      the decision as an event, in the columns of the bank data directory: what training reads
"""

from __future__ import annotations

import fcntl
import sqlite3
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from features.columns import Kind
from serving.decision import Decision
from serving.errors import KeyReused, LedgerUnavailable
from serving.group_commit import Writer

LAYOUT_VERSION = 1

_LAYOUT = """
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


class Ledger(Protocol):
    """The seam between the decision and what remembers it. Both calls may be made from many threads."""

    def record(
        self, decision: Decision, recorded_at: datetime, answer: bytes, key: str | None = None, request_hash: str = ""
    ) -> bytes:
        """Make the decision durable and give the answer to send.

        With a key that is known for the same request, nothing is written and the first answer comes back, byte for
        byte. Raises KeyReused where the key named another request, LedgerUnavailable where nothing can be promised.
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
        self, decision: Decision, recorded_at: datetime, answer: bytes, key: str | None = None, request_hash: str = ""
    ) -> bytes:
        # Hundreds of candidates are much alike: a tenth of the bytes reaches the disk.
        record = zlib.compress(orjson.dumps({**decision.record(), "recorded_at": recorded_at}), 1)
        event = _decided(decision, recorded_at)

        def work(connection: sqlite3.Connection) -> bytes:
            known = key and _recall(connection, key, request_hash)
            if known:
                return known
            row = (decision.decision_id, decision.ask.customer_id, _micros(recorded_at), record, answer)
            connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", row)
            connection.execute(f"INSERT INTO timeline VALUES ({', '.join('?' * len(event))})", event)
            if key:
                connection.execute("INSERT INTO idempotency VALUES (?, ?, ?)", (key, request_hash, row[0]))
            return answer

        return self._writer.submit(work)

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return self._writer.submit(lambda connection: _recall(connection, key, request_hash))

    def get(self, decision_id: str) -> bytes | None:
        row = self._writer.submit(
            lambda connection: connection.execute(
                "SELECT record FROM decisions WHERE decision_id = ?", (decision_id,)
            ).fetchone()
        )
        return zlib.decompress(row[0]) if row else None

    @property
    def open(self) -> bool:
        return self._writer.open

    def close(self) -> None:
        self._writer.close()
        self._lock_file.close()


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
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_LAYOUT} PRAGMA user_version = {LAYOUT_VERSION}; COMMIT;")
    elif version != LAYOUT_VERSION:
        connection.close()
        raise LedgerUnavailable(f"its layout is {version}, this version of nextbest reads {LAYOUT_VERSION}")
    return connection


def _recall(connection: sqlite3.Connection, key: str, request_hash: str) -> bytes | None:
    row = connection.execute(
        "SELECT request_hash, answer FROM idempotency JOIN decisions USING (decision_id) WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    if row[0] != request_hash:
        raise KeyReused("this Idempotency-Key came with another request before; use a new key for a new request")
    return bytes(row[1])


def _decided(decision: Decision, recorded_at: datetime) -> tuple[Any, ...]:
    """The row of table `timeline`: channel, product and content are null where the choice was not to contact."""
    action = decision.action
    return (
        f"decided:{decision.decision_id}",
        decision.ask.customer_id,
        _micros(decision.ask.as_of),
        Kind.DECIDED.value,
        action and action.channel,
        decision.ask.purpose,
        action and action.product_id,
        action and action.content_id,
        decision.decision_id,
        None,
        decision.propensity,
        None,
        _micros(recorded_at),
    )


def _micros(time: datetime) -> int:
    """Microseconds since 1970 UTC, exactly: a float of seconds cannot hold them."""
    since = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
