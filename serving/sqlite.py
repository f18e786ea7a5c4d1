"""The ledger in one SQLite file, for the processes of one machine.

One connection per process (`serving.group_commit`) makes every change of it: calls return, or raise LedgerUnavailable,
when the change is on disk, so what was acknowledged survives a kill. The writers of several processes take turns
(`serving.turns`), and a transaction begins with all that the others have committed, so caps, keys, consent and live
states are as in one process. Reads go through connections of their own, which see every commit and wait for none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from features.schema import Bool
from serving.caps import Contact
from serving.disk import Log
from serving.entries import Entry, Recorder, Soon, answer_of, chunks
from serving.errors import LedgerUnavailable
from serving.events import Fold, Outcome, TimelineEvent, unfolded
from serving.group_commit import Writer
from serving.history import Known
from serving.packed_record import unpacked
from serving.readers import Readers
from serving.sqlite_decisions import Result, write
from serving.sqlite_events import append, contacts, events, known, rebase
from serving.sqlite_tables import connect
from serving.turns import Turns

# What was sent takes the place of its reservation; anything else that is known stays as it is.
_SEED = """INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (decision_id) DO UPDATE
SET at_us = excluded.at_us, channel = excluded.channel, expires_us = NULL
WHERE contacts.expires_us > 0 AND excluded.expires_us IS NULL"""


class SqliteLedger(Recorder):
    """A ledger in one SQLite file on a disk of this machine, shared with its other processes.

    fold: makes live states. groups: of products. capacity: changes that may wait; one more raises LedgerUnavailable at
    once. patience: seconds that a caller waits for the disk. log: the write-ahead log of the file.
    """

    def __init__(
        self,
        path: Path,
        fold: Fold = unfolded,
        groups: Mapping[str, str | None] | None = None,
        capacity: int = 1024,
        patience: float = 10.0,
        log: Callable[[Path], Log] = Log,
    ) -> None:
        self._fold, self._groups = fold, groups or {}
        self._key: str | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._turns = Turns(path)
        self._log = log(path)
        try:
            self._writer = Writer(lambda: connect(path), self._write, self._turns, self._log.sync, capacity, patience)
        except (sqlite3.Error, LedgerUnavailable, OSError) as error:
            self._turns.close()
            raise LedgerUnavailable(f"the ledger {path} cannot be opened: {error}") from error
        self._readers = Readers(path)

    def _waited(self, begun: Future[bytes]) -> bytes:
        return self._writer.wait(begun)

    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        return self._writer.begin_item(entry, soon)

    def _write(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> Sequence[Result]:
        return write(connection, entries, self._fold, self._key)

    def append(self, events: Sequence[TimelineEvent]) -> tuple[Outcome, ...]:
        return self._writer.submit(lambda connection: append(connection, events, self._fold, self._groups, self._key))

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        return self._readers.ask(
            lambda connection: known(connection, customer_id, since_us, now_us, self._groups, self._key)
        )

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        return self._readers.read(lambda connection: contacts(connection, customer_id, since_us, now_us))

    def timeline(
        self,
        customer_id: str,
        as_of_us: int,
        before: tuple[int, str] | None,
        limit: int,
        kinds: Collection[str] | None = None,
    ) -> tuple[TimelineEvent, ...]:
        return self._readers.read(lambda connection: events(connection, customer_id, as_of_us, before, limit, kinds))

    def rebase(self, key: str, imported: Callable[[Sequence[str]], Bool]) -> None:
        # No caller's patience holds for it: it is done once, before the first answer, over all events there are.
        self._writer.submit(lambda connection: rebase(connection, key, imported, self._fold), patient=True)
        self._key = key

    def seed(self, contacts: Iterable[Contact]) -> None:
        for rows in chunks(contacts):
            self._writer.submit(partial(_seed, rows=rows))

    def recall(self, key: str, request_hash: str) -> bytes | None:
        answer = self._readers.read(lambda connection: _recall(connection, key, request_hash))
        if answer is not None:
            self._synced()  # who wrote it may still be waiting for the disk
        return answer

    def get(self, decision_id: str) -> bytes | None:
        query = "SELECT record FROM decisions WHERE decision_id = ?"
        row = self._readers.read(lambda connection: connection.execute(query, (decision_id,)).fetchone())
        return unpacked(row[0]) if row else None

    @property
    def open(self) -> bool:
        return self._writer.open

    def close(self) -> None:
        self._readers.close()  # first: the last to leave brings the write-ahead log home, and readers cannot
        self._writer.close()
        self._log.close()
        self._turns.close()

    def _synced(self) -> None:
        try:
            self._log.sync()
        except OSError as error:
            raise LedgerUnavailable(f"the disk did not keep what was written: {error}") from error


def _seed(connection: sqlite3.Connection, rows: Sequence[Sequence[object]]) -> None:
    connection.executemany(_SEED, rows)


def _recall(connection: sqlite3.Connection, key: str, request_hash: str) -> bytes | None:
    row = connection.execute(
        "SELECT request_hash, answer FROM idempotency JOIN decisions USING (decision_id) WHERE key = ?", (key,)
    ).fetchone()
    return answer_of(row, request_hash)
