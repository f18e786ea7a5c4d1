"""What the SQLite ledger does with events and with what it knows of a customer, on a connection in a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter

from features.schema import Bool
from serving.caps import Contact
from serving.events import (
    Fold,
    Outcome,
    TimelineEvent,
    by_customer,
    changes_consent,
    check_key,
    folded,
    left_over,
    sorted_out,
)
from serving.history import Known, Response
from serving.receipts import concerns_contacts, settled

_CONTACTS = """SELECT * FROM contacts
WHERE customer_id = ? AND at_us > ? AND (expires_us IS NULL OR expires_us > ?) ORDER BY at_us, decision_id"""
_A_CONTACT, _A_RESPONSE, _THE_KEY = 1, 2, 3
# One statement, so that it is one moment that is read, and one journey into SQLite, for which other threads are let go.
_KNOWN = """SELECT 0, state, consent_version, NULL, NULL, NULL, NULL, NULL FROM live WHERE customer_id = ?
UNION ALL SELECT 2, event_timestamp, kind, channel, product_id, event_id, NULL, NULL FROM timeline
WHERE customer_id = ? AND event_timestamp <= ? AND kind IN ('complained', 'failed', 'opted_out')
UNION ALL SELECT 1, at_us, channel, product_id, product_group, purpose, decision_id, expires_us FROM contacts
WHERE customer_id = ? AND at_us > ? AND (expires_us IS NULL OR expires_us > ?)
UNION ALL SELECT 3, value, NULL, NULL, NULL, NULL, NULL, NULL FROM facts WHERE name = 'live'"""
_NEVER = 2**62
"""Microseconds; no contact is later."""
_IN_TIME = attrgetter("at_us", "decision_id")
_KEY = "SELECT value FROM facts WHERE name = 'live'"
_LIVE = "SELECT state, consent_version FROM live WHERE customer_id = ?"
_REMEMBER = """INSERT INTO live (customer_id, consent_version, state) VALUES (?, ?, ?) ON CONFLICT (customer_id)
DO UPDATE SET consent_version = consent_version + excluded.consent_version, state = excluded.state"""
_DELIVERIES = """SELECT * FROM timeline WHERE customer_id = ?
AND (kind IN ('sent', 'delivered', 'failed') OR kind = 'decided' AND channel IS NOT NULL)"""
# What was sent takes the place of its reservation.
_MAKE = """INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, product_id = excluded.product_id,
    product_group = excluded.product_group, purpose = excluded.purpose, expires_us = NULL
WHERE contacts.customer_id = excluded.customer_id"""
_RELEASE = "UPDATE contacts SET expires_us = 0 WHERE decision_id = ? AND customer_id = ?"
_ALL = "SELECT * FROM timeline WHERE customer_id = ?"


def known(
    connection: sqlite3.Connection,
    customer_id: str,
    since_us: int | None,
    now_us: int,
    groups: Mapping[str, str | None],
    key: str | None,
) -> Known:
    """What is known of the customer; see `serving.ledger`."""
    found: list[Contact] = []
    responses: list[Response] = []
    live, version, present = None, 0, None
    since = _NEVER if since_us is None else since_us
    for row in connection.execute(_KNOWN, (customer_id, customer_id, now_us, customer_id, since, now_us)):
        if row[0] == _A_CONTACT:
            found.append(Contact(customer_id, *row[1:]))
        elif row[0] == _A_RESPONSE:
            at_us, kind, channel, product, event_id = row[1:6]
            responses.append(Response(at_us, kind, channel, product, groups.get(product), event_id))
        elif row[0] == _THE_KEY:
            present = row[1]
        else:
            live, version = row[1:3]
    check_key(present, key)
    found.sort(key=_IN_TIME)
    responses.sort(key=lambda response: (response.at_us, response.event_id))
    return Known(tuple(found), tuple(responses), live, version)


def contacts(connection: sqlite3.Connection, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
    """The contacts that count; see `serving.ledger`."""
    return tuple(Contact(*row) for row in connection.execute(_CONTACTS, (customer_id, since_us, now_us)))


def events(
    connection: sqlite3.Connection,
    customer_id: str,
    as_of_us: int,
    before: tuple[int, str] | None,
    limit: int,
    kinds: Collection[str] | None,
) -> tuple[TimelineEvent, ...]:
    """A part of the customer's timeline, newest first; see `serving.ledger`."""
    wanted = f"AND kind IN ({_places(kinds)})" if kinds is not None else ""
    until = "AND (event_timestamp, event_id) < (?, ?)" if before else ""
    rows = connection.execute(
        f"SELECT * FROM timeline WHERE customer_id = ? AND event_timestamp <= ? {until} {wanted} "
        "ORDER BY event_timestamp DESC, event_id DESC LIMIT ?",
        (customer_id, as_of_us, *(before or ()), *(kinds or ()), limit),
    )
    return tuple(TimelineEvent(*row) for row in rows)


def append(
    connection: sqlite3.Connection,
    given: Sequence[TimelineEvent],
    fold: Fold,
    groups: Mapping[str, str | None],
    key: str | None,
) -> tuple[Outcome, ...]:
    """Write the events that are new and let them count; the outcome of each. LedgerUnavailable: nothing was written."""
    check_key(_key(connection), key)
    ids = tuple({event.event_id for event in given})
    rows = connection.execute(f"SELECT * FROM timeline WHERE event_id IN ({_places(ids)})", ids)
    outcomes, fresh = sorted_out(given, {row[0]: TimelineEvent(*row) for row in rows})
    remember(connection, fresh, fold)
    for customer_id, theirs in by_customer(fresh).items():
        if concerns_contacts(theirs):
            history = [TimelineEvent(*row) for row in connection.execute(_DELIVERIES, (customer_id,))]
            found = settled(history, theirs, groups)
            connection.executemany(_RELEASE, [(name, customer_id) for name in found.released])
            connection.executemany(_MAKE, found.lasting)
    return tuple(outcomes)


def remember(connection: sqlite3.Connection, fresh: Sequence[TimelineEvent], fold: Fold) -> None:
    """Write new events, and with them the live states and consent versions of their customers."""
    changes = []
    for customer_id, theirs in by_customer(fresh).items():
        row = connection.execute(_LIVE, (customer_id,)).fetchone()
        before = row[0] if row else None
        after = folded(fold, before, theirs)
        if after is not before or changes_consent(theirs):
            changes.append((customer_id, int(changes_consent(theirs)), after))
    for event in fresh:
        insert(connection, "timeline", event.row)
    connection.executemany(_REMEMBER, changes)


def rebase(connection: sqlite3.Connection, key: str, imported: Callable[[Sequence[str]], Bool], fold: Fold) -> None:
    """All live states anew, without imported events, where `key` is not the one that they were computed for."""
    if _key(connection) == key:
        return
    connection.execute("UPDATE live SET state = NULL")
    for (customer_id,) in connection.execute("SELECT DISTINCT customer_id FROM timeline").fetchall():
        theirs = [TimelineEvent(*row) for row in connection.execute(_ALL, (customer_id,))]
        state = folded(fold, None, left_over(theirs, imported))
        if state is not None:
            connection.execute(_REMEMBER, (customer_id, 0, state))
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('live', ?)", (key,))


def insert(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    """Write one row, all of its columns in order."""
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _key(connection: sqlite3.Connection) -> str | None:
    """What the live states were computed for."""
    row = connection.execute(_KEY).fetchone()
    return row[0] if row else None


def _places(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
