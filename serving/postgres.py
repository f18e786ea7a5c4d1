"""The ledger in PostgreSQL: for more than one process that decides, on one machine or several.

The same tables as in `serving.ledger`, in a schema of their own. Each decision is one READ COMMITTED transaction that
first takes a lock of its customer (pg_advisory_xact_lock) and then counts, reserves and writes:

- the count starts after the lock is held and sees all that earlier holders committed, so no cap is overrun;
- customers do not wait for each other, and nothing is ever aborted and tried again, as SERIALIZABLE would for any two
  customers whose contacts lie on one page of an index;
- a transaction holds one such lock, taken first, so there is no circle in which transactions could wait.

An answer leaves after COMMIT with `synchronous_commit`; the server gathers the commits of all its clients into one
write to disk. A server that runs without fsync is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from serving.caps import Cap, CapReached, Contact, check
from serving.decision import Decision
from serving.entries import Entry, answer_of, chunks, unpacked
from serving.errors import KeyReused, LedgerUnavailable

SCHEMA = "nextbest"
_LAYOUT_LOCK, _CUSTOMER_LOCK = 0x6E626C00, 0x6E626C01
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
_LAYOUTS = (_TABLES,)
"""What each version of the layout added to the one before."""

_LIVE = """SELECT * FROM contacts
WHERE customer_id = $1 AND at_us > $2 AND (expires_us IS NULL OR expires_us > $3) ORDER BY at_us, decision_id"""
_SEED = """INSERT INTO contacts VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, expires_us = NULL
WHERE contacts.expires_us IS NOT NULL AND excluded.expires_us IS NULL"""
_RECALL = "SELECT request_hash, answer FROM idempotency JOIN decisions USING (decision_id) WHERE key = $1"

Result = TypeVar("Result")
Work = Callable[[asyncpg.Connection], Awaitable[Result]]
_PROMISED = (KeyReused, CapReached, LedgerUnavailable)


class PostgresLedger:
    """A ledger in the PostgreSQL database at `url` (postgresql://user@host/database), shared with other processes.

    connections: most that this process opens; further callers wait for one. patience: seconds that a call may take.
    """

    def __init__(self, url: str, connections: int = 8, patience: float = 10.0) -> None:
        self._patience = patience
        self._accept = threading.Lock()
        self._closed = False
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ledger-postgres", daemon=True)
        self._thread.start()
        try:
            self._pool: asyncpg.Pool = self._on_loop(_connect(url, connections, patience)).result()
        except Exception as error:
            self._end_loop()
            raise LedgerUnavailable(f"the PostgreSQL ledger cannot be opened: {error}") from error

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

        async def work(connection: asyncpg.Connection) -> bytes:
            # A higher level would count in a snapshot from before it held the lock.
            async with connection.transaction(isolation="read_committed"):
                await _lock_customer(connection, entry.customer_id)
                if key and not await _claim(connection, key, request_hash, decision.decision_id):
                    known = answer_of(await connection.fetchrow(_RECALL, key), request_hash)
                    assert known is not None  # the claim waited until whoever has the key had committed
                    return known
                await _reserve(connection, entry)
                await _insert(connection, "decisions", entry.decision)
                await _insert(connection, "timeline", entry.event)
                return answer

        return self._do(work)

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return answer_of(self._do(lambda connection: connection.fetchrow(_RECALL, key)), request_hash)

    def get(self, decision_id: str) -> bytes | None:
        query = "SELECT record FROM decisions WHERE decision_id = $1"
        record = self._do(lambda connection: connection.fetchval(query, decision_id))
        return None if record is None else unpacked(record)

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        return self._do(lambda connection: _live(connection, customer_id, since_us, now_us))

    def seed(self, contacts: Iterable[Contact]) -> None:
        for rows in chunks(contacts):

            async def work(connection: asyncpg.Connection, rows: list[tuple[Any, ...]] = rows) -> None:
                await connection.executemany(_SEED, rows)

            self._do(work)

    @property
    def open(self) -> bool:
        return not self._closed

    def close(self) -> None:
        with self._accept:
            first, self._closed = not self._closed, True
        if first:
            concurrent.futures.wait(self._running.copy())
            self._on_loop(self._pool.close()).result()
            self._end_loop()

    def _do(self, work: Work[Result]) -> Result:
        """Do `work` on a connection of the pool and wait for it; LedgerUnavailable for whatever the server refuses."""

        async def in_time() -> Result:
            async with asyncio.timeout(self._patience), self._pool.acquire() as connection:
                return await work(connection)

        with self._accept:  # close() waits for what is running; after it, nothing may start
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            future = self._on_loop(in_time())
            self._running.add(future)
        try:
            return future.result()
        except _PROMISED:
            raise
        except TimeoutError:
            # It may yet be written, which is safe: it was not answered.
            raise LedgerUnavailable(f"PostgreSQL did not answer within {self._patience:g} s") from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise LedgerUnavailable(f"the ledger could not write: {error}") from error
        finally:
            self._running.discard(future)

    def _on_loop(self, coroutine: Coroutine[Any, Any, Result]) -> concurrent.futures.Future[Result]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _connect(url: str, connections: int, patience: float) -> asyncpg.Pool:
    """The pool, its layout there and its server durable; raises LedgerUnavailable, or what the driver says."""
    pool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=connections,
        timeout=patience,
        # What the server's or the role's defaults say must not weaken what the module promises.
        server_settings={
            "application_name": "nextbest",
            "search_path": SCHEMA,
            "synchronous_commit": "on",
            "idle_in_transaction_session_timeout": "60s",  # a host that vanished gives its customers free
        },
    )
    try:
        async with pool.acquire() as connection:
            if await connection.fetchval("SHOW fsync") != "on":
                raise LedgerUnavailable("its server runs with fsync = off and forgets decisions when power fails")
            await _lay_out(connection)
    except BaseException:
        await pool.close()
        raise
    return pool


async def _lay_out(connection: asyncpg.Connection) -> None:
    """Bring the tables to this version; of several processes that start at once, one does it and the others wait."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", _LAYOUT_LOCK)
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


async def _lock_customer(connection: asyncpg.Connection, customer_id: str) -> None:
    """Wait until no other transaction decides for this customer, or, harmlessly, for another with its hash."""
    signed = zlib.crc32(customer_id.encode()) - 2**31
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _CUSTOMER_LOCK, signed)


async def _claim(connection: asyncpg.Connection, key: str, request_hash: str, decision_id: str) -> bool:
    """Take the key for this decision; False where another has it. Waits while another transaction is taking it."""
    claim = "INSERT INTO idempotency VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    return str(await connection.execute(claim, key, request_hash, decision_id)) == "INSERT 0 1"


async def _reserve(connection: asyncpg.Connection, entry: Entry) -> None:
    """Count and insert under the customer's lock: apart, two decisions would both find the last place free."""
    if entry.contact:
        check(entry.contact, entry.caps, await _live(connection, entry.customer_id, entry.since_us, entry.now_us))
        await _insert(connection, "contacts", astuple(entry.contact))


async def _live(connection: asyncpg.Connection, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
    return tuple(Contact(*row) for row in await connection.fetch(_LIVE, customer_id, since_us, now_us))


async def _insert(connection: asyncpg.Connection, table: str, row: Sequence[object]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} VALUES ({places})", *row)
