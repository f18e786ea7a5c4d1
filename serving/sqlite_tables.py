"""The layout of the SQLite ledger, and bringing a file to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from serving.errors import LedgerUnavailable

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
_EVENTS = """
CREATE TABLE live (customer_id TEXT PRIMARY KEY, consent_version INTEGER NOT NULL, state BLOB) STRICT;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE INDEX timeline_of_customer ON timeline (customer_id, event_timestamp, event_id);
CREATE INDEX responses_of_customer ON timeline (customer_id, event_timestamp)
WHERE kind IN ('complained', 'failed', 'opted_out');
"""
_OPENING_SECONDS = 5.0
_LAYOUTS = (_DECISIONS, _CONTACTS, _EVENTS)
"""What each version of the layout added to the one before."""


def connect(path: Path) -> sqlite3.Connection:
    """The connection that writes, to a file of this layout; LedgerUnavailable where it is of a later one.

    It waits for nobody who has the file locked, and its commits do not wait for the disk: see `serving.disk`. Threads
    may use it one at a time.
    """
    connection = sqlite3.connect(path, timeout=_OPENING_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_LAYOUTS):
        connection.close()
        raise LedgerUnavailable(f"its layout is {version}, this version of nextbest reads up to {len(_LAYOUTS)}")
    missing = "".join(_LAYOUTS[version:])
    if missing:
        connection.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {len(_LAYOUTS)}; COMMIT;")
    connection.execute("PRAGMA busy_timeout = 0")
    return connection
