"""What the SQLite ledger does with events and with what it knows of a customer, on a connection in a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple

from features.schema import Bool
from serving.caps import Contact
from serving.events import Fold, Outcome, TimelineEvent, by_customer, changes_consent, folded, left_over, sorted_out
from serving.history import Known, Response
from serving.receipts import concerns_contacts, settled

_CONTACTS = """SELECT * FROM contacts
WHERE customer_id = ? AND at_us > ? AND (expires_us IS NULL OR expires_us > ?) ORDER BY at_us, decision_id"""
_RESPONSES = """SELECT event_timestamp, kind, channel, product_id, event_id FROM timeline
WHERE customer_id = ? AND event_timestamp <= ? AND kind IN ('complained', 'failed', 'opted_out')
ORDER BY event_timestamp, event_id"""
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
) -> Known:
    """What is known of the customer; see `serving.ledger`."""
    live, version = connection.execute(_LIVE, (customer_id,)).fetchone() or (None, 0)
    responses = tuple(
        Response(at_us, kind, channel, product, groups.get(product), event_id)
        for at_us, kind, channel, product, event_id in connection.execute(_RESPONSES, (customer_id, now_us))
    )
    found = () if since_us is None else contacts(connection, customer_id, since_us, now_us)
    return Known(found, responses, live, version)


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
    connection: sqlite3.Connection, given: Sequence[TimelineEvent], fold: Fold, groups: Mapping[str, str | None]
) -> tuple[Outcome, ...]:
    """Write the events that are new and let them count; the outcome of each. LedgerUnavailable: nothing was written."""
    ids = tuple({event.event_id for event in given})
    rows = connection.execute(f"SELECT * FROM timeline WHERE event_id IN ({_places(ids)})", ids)
    outcomes, fresh = sorted_out(given, {row[0]: TimelineEvent(*row) for row in rows})
    remember(connection, fresh, fold)
    for customer_id, theirs in by_customer(fresh).items():
        if concerns_contacts(theirs):
            history = [TimelineEvent(*row) for row in connection.execute(_DELIVERIES, (customer_id,))]
            found = settled(history, theirs, groups)
            connection.executemany(_RELEASE, [(name, customer_id) for name in found.released])
            connection.executemany(_MAKE, [astuple(contact) for contact in found.lasting])
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
    if connection.execute("SELECT value FROM facts WHERE name = 'live'").fetchone() == (key,):
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


def _places(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
