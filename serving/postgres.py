"""The ledger in PostgreSQL: for more than one process that decides, on one machine or several.

The same tables as in `serving.ledger`, in a schema of their own. Each decision is one READ COMMITTED transaction that
first takes a lock of its customer (pg_advisory_xact_lock) and then counts, reserves and writes; events are written
likewise, with the locks of all their customers:

- what is read after the lock is held has all that earlier holders committed, so no cap is overrun, no contact is made
  after an opt-out, and no event is missing from a live state;
- customers do not wait for each other, and nothing is ever aborted and tried again, as SERIALIZABLE would for any two
  customers whose contacts lie on one page of an index;
- the locks of a transaction are taken first and in one order, and so are event ids, so there is no circle in which
  transactions could wait.

An answer leaves after COMMIT with `synchronous_commit`; the server gathers the commits of all its clients into one
write to disk. A server that runs without fsync is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import asyncpg

from features.schema import Bool
from serving.caps import Contact
from serving.entries import Entry, Recorder, Soon, answer_of, chunks
from serving.errors import LedgerUnavailable
from serving.events import Fold, Outcome, TimelineEvent, folded, unfolded
from serving.history import Known
from serving.packed_record import unpacked
from serving.postgres_events import (
    append,
    contacts,
    known,
    locked,
    rebase,
    seed,
    timeline,
    together,
    write,
)
from serving.postgres_tables import SCHEMA, lay_out

_RECALL = "SELECT request_hash, answer FROM idempotency JOIN decisions USING (decision_id) WHERE key = $1"

Result = TypeVar("Result")
Work = Callable[[asyncpg.Connection], Awaitable[Result]]


class PostgresLedger(Recorder):
    """A ledger in the PostgreSQL database at `url` (postgresql://user@host/database), shared with other processes.

    fold: makes live states. groups: of products. connections: most that this process opens; further callers wait for
    one. patience: seconds that a call may take.
    """

    def __init__(
        self,
        url: str,
        fold: Fold = unfolded,
        groups: Mapping[str, str | None] | None = None,
        connections: int = 8,
        patience: float = 10.0,
    ) -> None:
        self._fold, self._groups = fold, groups or {}
        self._key: str | None = None
        self._patience = patience
        self._accept = threading.Lock()
        self._closed = False
        self._running: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ledger-postgres", daemon=True)
        self._thread.start()
        try:
            self._pool: asyncpg.Pool = self._on_loop(_connect(url, connections, patience)).result()
        except Exception as error:
            self._end_loop()
            raise LedgerUnavailable(f"the PostgreSQL ledger cannot be opened: {error}") from error

    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        async def work(connection: asyncpg.Connection) -> bytes:
            async with locked(connection, entry.customer_id):
                if entry.key and not await _claim(connection, entry):
                    row = await connection.fetchrow(_RECALL, entry.key)
                    first = answer_of(row, entry.request_hash)
                    assert first is not None  # the claim waited until whoever has the key had committed
                    return first
                present = await known(
                    connection, entry.customer_id, entry.since_us, entry.now_us, self._groups, self._key
                )
                entry.admit(present)
                await write(connection, entry, folded(self._fold, present.live, [entry.event]))
                return entry.answer

        return self._begin(work)

    def append(self, events: Sequence[TimelineEvent]) -> tuple[Outcome, ...]:
        outcomes: dict[int, Outcome] = {}
        for places in together(events):
            given = [events[place] for place in places]

            async def work(connection: asyncpg.Connection, given: list[TimelineEvent] = given) -> list[Outcome]:
                async with connection.transaction(isolation="read_committed"):
                    return await append(connection, given, self._fold, self._groups, self._key)

            outcomes |= zip(places, self._do(work), strict=True)
        return tuple(outcomes[place] for place in range(len(events)))

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        return self._do(lambda connection: known(connection, customer_id, since_us, now_us, self._groups, self._key))

    def timeline(
        self,
        customer_id: str,
        as_of_us: int,
        before: tuple[int, str] | None,
        limit: int,
        kinds: Collection[str] | None = None,
    ) -> tuple[TimelineEvent, ...]:
        return self._do(lambda connection: timeline(connection, customer_id, as_of_us, before, limit, kinds))

    def rebase(self, key: str, imported: Callable[[Sequence[str]], Bool]) -> None:
        # No call's patience holds for it: it is done once, before the first answer, over all events there are.
        self._do(lambda connection: rebase(connection, key, imported, self._fold), patient=True)
        self._key = key

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return answer_of(self._do(lambda connection: connection.fetchrow(_RECALL, key)), request_hash)

    def get(self, decision_id: str) -> bytes | None:
        query = "SELECT record FROM decisions WHERE decision_id = $1"
        record = self._do(lambda connection: connection.fetchval(query, decision_id))
        return None if record is None else unpacked(record)

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        return self._do(lambda connection: contacts(connection, customer_id, since_us, now_us))

    def seed(self, contacts: Iterable[Contact]) -> None:
        for rows in chunks(contacts):

            async def work(connection: asyncpg.Connection, rows: list[Contact] = rows) -> None:
                await seed(connection, rows)

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

    def _do(self, work: Work[Result], patient: bool = False) -> Result:
        """Do `work` on a connection of the pool and wait for it; LedgerUnavailable for whatever the server refuses."""
        return self._begin(work, patient).result()

    def _begin(self, work: Work[Result], patient: bool = False) -> Future[Result]:
        """As `_do`, without waiting."""

        async def in_time() -> Result:
            try:
                async with asyncio.timeout(None if patient else self._patience), self._pool.acquire() as connection:
                    return await work(connection)
            except TimeoutError:
                # It may yet be written, which is safe: it was not answered.
                raise LedgerUnavailable(f"PostgreSQL did not answer within {self._patience:g} s") from None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise LedgerUnavailable(f"the ledger could not write: {error}") from error

        with self._accept:  # close() waits for what is running; after it, nothing may start
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            future = self._on_loop(in_time())
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def _on_loop(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
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
        reset=_left_alone,
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
            await lay_out(connection)
    except BaseException:
        await pool.close()
        raise
    return pool


async def _left_alone(connection: asyncpg.Connection) -> None:
    """Make a connection ready for its next use. Nothing of ours outlives a transaction: the driver's own way of
    resetting whatever there might be is one journey more for every call."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def _claim(connection: asyncpg.Connection, entry: Entry) -> bool:
    """Take the key for this decision; False where another has it. Waits while another transaction is taking it."""
    claim = "INSERT INTO idempotency VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
    return str(await connection.execute(claim, entry.key, entry.request_hash, entry.decision[0])) == "INSERT 0 1"
