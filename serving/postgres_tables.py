"""The layout of the ledger in PostgreSQL, and bringing a database to it."""

from __future__ import annotations

import asyncpg

from serving.errors import LedgerUnavailable

SCHEMA = "nextbest"
LAYOUT_LOCK, CUSTOMER_LOCK, LIVE_LOCK = 0x6E626C00, 0x6E626C01, 0x6E626C02
"""The first halves of our advisory locks' keys: numbers that no other user of the database will hit upon."""
_TABLES = """
CREATE TABLE decisions (
    decision_id text PRIMARY KEY, customer_id text NOT NULL, recorded_us bigint NOT NULL,
    record bytea NOT NULL, answer bytea NOT NULL
);
CREATE INDEX decisions_of_customer ON decisions (customer_id, recorded_us);
CREATE TABLE idempotency (
    key text PRIMARY KEY, request_hash text NOT NULL,
    decision_id text NOT NULL REFERENCES decisions DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE timeline (
    event_id text PRIMARY KEY, customer_id text NOT NULL, event_timestamp bigint NOT NULL, kind text NOT NULL,
    channel text, purpose text, product_id text, content_id text, decision_id text, message_id text,
    propensity double precision, value double precision, created_timestamp bigint NOT NULL
);
CREATE TABLE contacts (
    customer_id text NOT NULL, at_us bigint NOT NULL, channel text NOT NULL, product_id text, product_group text,
    purpose text NOT NULL, decision_id text PRIMARY KEY, expires_us bigint
);
CREATE INDEX contacts_of_customer ON contacts (customer_id, at_us);
"""
# Bytes in order (C), as everywhere else here, whatever language the database sorts in.
_EVENTS = """
CREATE TABLE live (customer_id text PRIMARY KEY, consent_version bigint NOT NULL, state bytea);
CREATE TABLE facts (name text PRIMARY KEY, value text NOT NULL);
CREATE INDEX timeline_of_customer ON timeline (customer_id, event_timestamp, event_id COLLATE "C");
CREATE INDEX responses_of_customer ON timeline (customer_id, event_timestamp)
WHERE kind IN ('complained', 'failed', 'opted_out');
"""
_LAYOUTS = (_TABLES, _EVENTS)
"""What each version of the layout added to the one before."""


async def lay_out(connection: asyncpg.Connection) -> None:
    """Bring the tables to this version; of several processes that start at once, one does it and the others wait."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LAYOUT_LOCK)
        if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.layout") is None:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute("CREATE TABLE layout (version integer NOT NULL)")
            await connection.execute("INSERT INTO layout VALUES (0)")
        version = await connection.fetchval("SELECT version FROM layout")
        if version > len(_LAYOUTS):
            raise LedgerUnavailable(f"its layout is {version}, this version of nextbest reads up to {len(_LAYOUTS)}")
        for step in _LAYOUTS[version:]:
            await connection.execute(step)
        await connection.execute("UPDATE layout SET version = $1", len(_LAYOUTS))
