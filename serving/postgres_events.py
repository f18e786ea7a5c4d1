"""What the PostgreSQL ledger does with events and with what it knows of a customer, on a connection in a transaction.

Every statement is a journey to the server, so each does as much as it can.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice

import asyncpg

from features.schema import Bool
from serving.caps import Contact
from serving.entries import Entry
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
from serving.postgres_tables import CUSTOMER_LOCK, LIVE_LOCK
from serving.receipts import concerns_contacts, settled

_TOGETHER = 64
"""Customers whose events share a transaction: each takes a place in the server's table of locks."""
_CONTACTS = """SELECT * FROM contacts
WHERE customer_id = $1 AND at_us > $2 AND (expires_us IS NULL OR expires_us > $3) ORDER BY at_us, decision_id"""
_KNOWN = """SELECT (SELECT value FROM facts WHERE name = 'live') AS key, live.state, live.consent_version,
    ARRAY(SELECT ROW(at_us, channel, product_id, product_group, purpose, decision_id, expires_us) FROM contacts
        WHERE contacts.customer_id = $1 AND at_us > $2 AND (expires_us IS NULL OR expires_us > $3)
        ORDER BY at_us, decision_id) AS contacts,
    ARRAY(SELECT ROW(event_timestamp, kind, channel, product_id, event_id) FROM timeline
        WHERE timeline.customer_id = $1 AND event_timestamp <= $3 AND kind IN ('complained', 'failed', 'opted_out')
        ORDER BY event_timestamp, event_id) AS responses
FROM (SELECT) AS once LEFT JOIN live ON live.customer_id = $1"""
_NEVER = 2**62
"""Microseconds; no contact is later."""
_LIVE = """SELECT (SELECT value FROM facts WHERE name = 'live') AS key, customer_id, live.state
FROM unnest($1::text[]) AS customer_id LEFT JOIN live USING (customer_id)"""
_ADD = """INSERT INTO timeline SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[],
    $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::double precision[], $12::double precision[],
    $13::bigint[])
ON CONFLICT DO NOTHING RETURNING event_id"""
_REMEMBER = """INSERT INTO live VALUES ($1, $2, $3) ON CONFLICT (customer_id)
DO UPDATE SET consent_version = live.consent_version + excluded.consent_version, state = excluded.state"""
_DELIVERIES = """SELECT * FROM timeline WHERE customer_id = ANY($1)
AND (kind IN ('sent', 'delivered', 'failed') OR kind = 'decided' AND channel IS NOT NULL)"""
_SEED = """INSERT INTO contacts VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, product_id = excluded.product_id,
    product_group = excluded.product_group, purpose = excluded.purpose, expires_us = NULL
WHERE contacts.expires_us > 0 AND excluded.expires_us IS NULL"""
# What was sent takes the place of its reservation.
_MAKE = """INSERT INTO contacts VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, product_id = excluded.product_id,
    product_group = excluded.product_group, purpose = excluded.purpose, expires_us = NULL
WHERE contacts.customer_id = excluded.customer_id"""
_RELEASE = """UPDATE contacts SET expires_us = 0 FROM unnest($1::text[], $2::text[]) AS released (name, customer_id)
WHERE contacts.decision_id = released.name AND contacts.customer_id = released.customer_id"""
_UPDATES = {"live": " ON CONFLICT (customer_id) DO UPDATE SET state = excluded.state"}


async def lock_customers(connection: asyncpg.Connection, customer_ids: Collection[str]) -> None:
    """Wait until no other transaction changes these customers, or, harmlessly, others with their hashes.

    First comes a lock that all share: `rebase` takes it alone.
    """
    signed = sorted({_hash(customer_id) for customer_id in customer_ids})
    query = "SELECT pg_advisory_xact_lock_shared($1, 0), pg_advisory_xact_lock($2, hash) FROM unnest($3::int[]) AS hash"
    await connection.fetch(query, LIVE_LOCK, CUSTOMER_LOCK, signed)


@asynccontextmanager
async def locked(connection: asyncpg.Connection, customer_id: str) -> AsyncIterator[None]:
    """A transaction with the locks of one customer (`lock_customers`), begun in a single journey.

    A higher level than READ COMMITTED would read from a snapshot of before it held the lock.
    """
    shared, alone = f"{LIVE_LOCK}, 0", f"{CUSTOMER_LOCK}, {_hash(customer_id)}"
    try:
        await connection.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED; "
            f"SELECT pg_advisory_xact_lock_shared({shared}), pg_advisory_xact_lock({alone})"
        )
        yield
    except BaseException:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


async def known(
    connection: asyncpg.Connection,
    customer_id: str,
    since_us: int | None,
    now_us: int,
    groups: Mapping[str, str | None],
    key: str | None,
) -> Known:
    """What is known of the customer, from one snapshot; see `serving.ledger`."""
    row = await connection.fetchrow(_KNOWN, customer_id, _NEVER if since_us is None else since_us, now_us)
    check_key(row["key"], key)
    return Known(
        tuple(Contact(customer_id, *contact) for contact in row["contacts"]),
        tuple(
            Response(at_us, kind, channel, product, groups.get(product), event_id)
            for at_us, kind, channel, product, event_id in row["responses"]
        ),
        row["state"],
        row["consent_version"] or 0,
    )


async def contacts(connection: asyncpg.Connection, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
    """The contacts that count; see `serving.ledger`."""
    return tuple(Contact(*row) for row in await connection.fetch(_CONTACTS, customer_id, since_us, now_us))


async def seed(connection: asyncpg.Connection, rows: Sequence[Sequence[object]]) -> None:
    """Write contacts that were made elsewhere."""
    await connection.executemany(_SEED, rows)


async def timeline(
    connection: asyncpg.Connection,
    customer_id: str,
    as_of_us: int,
    before: tuple[int, str] | None,
    limit: int,
    kinds: Collection[str] | None,
) -> tuple[TimelineEvent, ...]:
    """A part of the customer's timeline, newest first; see `serving.ledger`."""
    at_us, event_id = before or (None, None)
    rows = await connection.fetch(
        "SELECT * FROM timeline WHERE customer_id = $1 AND event_timestamp <= $2 "
        'AND ($3::bigint IS NULL OR (event_timestamp, event_id COLLATE "C") < ($3, $4)) '
        "AND ($5::text[] IS NULL OR kind = ANY($5)) "
        'ORDER BY event_timestamp DESC, event_id COLLATE "C" DESC LIMIT $6',
        customer_id,
        as_of_us,
        at_us,
        event_id,
        None if kinds is None else list(kinds),
        limit,
    )
    return tuple(TimelineEvent(*row) for row in rows)


async def write(connection: asyncpg.Connection, entry: Entry, state: bytes | None) -> None:
    """Write a decision, its event, its contact and the live state after it, in one statement."""
    parts = {"decisions": entry.decision, "timeline": entry.event.row}
    if entry.contact:
        parts["contacts"] = entry.contact
    if state is not None:
        parts["live"] = (entry.customer_id, 0, state)
    inserts: list[str] = []
    values: list[object] = []
    for table, row in parts.items():
        places = ", ".join(f"${len(values) + place}" for place in range(1, len(row) + 1))
        inserts.append(f"{table}_written AS (INSERT INTO {table} VALUES ({places}){_UPDATES.get(table, '')})")
        values += row
    await connection.execute(f"WITH {', '.join(inserts)} SELECT", *values)


def together(events: Sequence[TimelineEvent]) -> Iterator[list[int]]:
    """Places [k] of events that are written in one transaction: all of a customer's, and few customers'."""
    of_customer: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        of_customer.setdefault(event.customer_id, []).append(place)
    rest = iter(of_customer.values())
    while block := list(islice(rest, _TOGETHER)):
        yield sorted(place for places in block for place in places)


async def append(
    connection: asyncpg.Connection,
    given: Sequence[TimelineEvent],
    fold: Fold,
    groups: Mapping[str, str | None],
    key: str | None,
) -> list[Outcome]:
    """Write the events that are new and let them count; the outcome of each. Inside a transaction."""
    customers = list({event.customer_id for event in given})
    await lock_customers(connection, customers)
    states = await connection.fetch(_LIVE, customers)
    check_key(states[0]["key"], key)
    ids = [event.event_id for event in given]
    rows = await connection.fetch("SELECT * FROM timeline WHERE event_id = ANY($1)", ids)
    outcomes, fresh = sorted_out(given, {row["event_id"]: TimelineEvent(*row) for row in rows})
    if not fresh:
        return outcomes
    # In one order, as everyone does: else two could each wait for an id that the other is writing.
    columns = zip(*(event.row for event in sorted(fresh, key=lambda event: event.event_id)), strict=True)
    added = {row["event_id"] for row in await connection.fetch(_ADD, *columns)}
    # A name that was taken meanwhile is another customer's event: this customer's are behind our lock.
    written = by_customer(event for event in fresh if event.event_id in added)
    before = {row["customer_id"]: row["state"] for row in states}
    changes = []
    for customer_id, theirs in written.items():
        after = folded(fold, before[customer_id], theirs)
        if after is not before[customer_id] or changes_consent(theirs):
            changes.append((customer_id, int(changes_consent(theirs)), after))
    await connection.executemany(_REMEMBER, changes)
    await _settle(connection, written, groups)
    lost = {event.event_id for event in fresh} - added
    return ["conflict" if event.event_id in lost else outcome for event, outcome in zip(given, outcomes, strict=True)]


async def rebase(
    connection: asyncpg.Connection, key: str, imported: Callable[[Sequence[str]], Bool], fold: Fold
) -> None:
    """All live states anew, without imported events, where `key` is not the one that they were computed for."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LIVE_LOCK)
        if await connection.fetchval("SELECT value FROM facts WHERE name = 'live'") == key:
            return
        await connection.execute("UPDATE live SET state = NULL")
        for row in await connection.fetch("SELECT DISTINCT customer_id FROM timeline"):
            rows = await connection.fetch("SELECT * FROM timeline WHERE customer_id = $1", row["customer_id"])
            state = folded(fold, None, left_over([TimelineEvent(*row) for row in rows], imported))
            if state is not None:
                await connection.execute(_REMEMBER, row["customer_id"], 0, state)
        await connection.execute(
            "INSERT INTO facts VALUES ('live', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value", key
        )


async def _settle(
    connection: asyncpg.Connection, written: Mapping[str, list[TimelineEvent]], groups: Mapping[str, str | None]
) -> None:
    """Bring the contacts to what the new events say."""
    concerned = [customer_id for customer_id, theirs in written.items() if concerns_contacts(theirs)]
    if not concerned:
        return
    rows = await connection.fetch(_DELIVERIES, concerned)
    history = by_customer(TimelineEvent(*row) for row in rows)
    found = {who: settled(history[who], written[who], groups) for who in concerned}
    released = [(name, who) for who, one in found.items() for name in one.released]
    await connection.execute(_RELEASE, [name for name, _ in released], [who for _, who in released])
    made = [contact for one in found.values() for contact in one.lasting]
    await connection.executemany(_MAKE, made)


def _hash(customer_id: str) -> int:
    """The second half of the customer's lock, a signed number of 32 bits."""
    return zlib.crc32(customer_id.encode()) - 2**31
