"""Group commit on SQLite: one writer thread, one connection, one transaction for everyone who waits.

Whatever waits when the writer is free shares one transaction and so one fsync; `synchronous=FULL` makes the commit wait
for the disk. A call returns, or raises, after the commit. Writers of several processes take turns (`serving.turns`).
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from serving.caps import NotReserved
from serving.errors import KeyReused, LedgerUnavailable

GROUP = 256
"""Most requests in one transaction: bounds how long the first of them waits."""
PROMISED = (KeyReused, NotReserved, LedgerUnavailable)
"""What a piece of work may raise; whatever else it raises fails its whole group."""

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
Together = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class _Request:
    """Something to do by itself, or an item to do with others of its kind."""

    done: Future[Any]
    work: Work[Any] | None
    item: Any = None


class Writer:
    """The thread that owns the connection; `connect` is called on it. Raises what `connect` raises.

    together: does items that stand next to each other, inside a transaction: results and, of PROMISED, errors; what it
    has an error for must not have been written. turn: entered around everything that may write to the file, opening and
    closing too. capacity: requests that may wait; one more raises LedgerUnavailable at once. patience: seconds that a
    caller waits.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        together: Together,
        turn: AbstractContextManager[None],
        capacity: int,
        patience: float,
    ) -> None:
        self._together = together
        self._turn = turn
        self._patience = patience
        self._capacity = capacity
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._accept = threading.Lock()
        self._closed = False
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(connect, started), name="ledger-writer", daemon=True)
        self._thread.start()
        started.result()

    @property
    def open(self) -> bool:
        return not self._closed and self._thread.is_alive()

    def begin(self, work: Work[Result]) -> Future[Result]:
        """Do `work` inside a transaction; the future has its result once that is on disk.

        Others share the transaction; where `work` raises one of PROMISED, what it wrote is undone and theirs is not.
        """
        return self._put(_Request(Future(), work))

    def begin_item(self, item: object) -> Future[Any]:
        """As `begin`, with what `together` makes of the item."""
        return self._put(_Request(Future(), None, item))

    def _put(self, request: _Request) -> Future[Any]:
        with self._accept:  # after close() has put its end mark, nothing may follow it
            if not self.open:
                raise LedgerUnavailable("the ledger is closed")
            if self._waiting.qsize() >= self._capacity:
                raise LedgerUnavailable("the ledger cannot keep up: too many decisions wait for the disk")
            self._waiting.put(request)
        return request.done

    def wait(self, done: Future[Result], patient: bool = False) -> Result:
        """The result of what was begun; LedgerUnavailable where the disk takes longer than a caller waits."""
        try:
            return done.result(None if patient else self._patience)
        except TimeoutError:
            # Withdrawn if the writer has not taken it; else it may yet be written, which is safe: it was not answered.
            done.cancel()
            raise LedgerUnavailable(f"the disk did not answer within {self._patience:g} s") from None

    def submit(self, work: Work[Result], patient: bool = False) -> Result:
        """Do `work` inside a transaction and wait for it; patient: as long as it takes."""
        return self.wait(self.begin(work), patient)

    def close(self) -> None:
        """Finish what was accepted, then accept nothing more. May be called twice."""
        with self._accept:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _run(self, connect: Callable[[], sqlite3.Connection], started: Future[None]) -> None:
        try:
            with self._turn:
                connection = connect()
        except Exception as error:
            started.set_exception(error)
            return
        started.set_result(None)
        ended = False
        while not ended:
            group, ended = self._next_group()
            _tell(group, self._committed(connection, group))
        with self._turn:  # the last to close brings the write-ahead log home
            connection.close()

    def _committed(self, connection: sqlite3.Connection, group: list[_Request]) -> list[Any]:
        """Do the work of all in one transaction: what to tell each, results and errors."""
        if not group:
            return []
        try:
            with self._turn:
                return self._outcomes(connection, group)
        except Exception as error:
            return [LedgerUnavailable(f"the ledger could not write: {error}")] * len(group)

    def _outcomes(self, connection: sqlite3.Connection, group: list[_Request]) -> list[Any]:
        """As `_committed`; where it raises, nothing was written."""
        outcomes: list[Any] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, requests in groupby(group, lambda request: request.work):
                if work is None:
                    outcomes += self._together(connection, [request.item for request in requests])
                else:
                    outcomes += [_done(connection, work) for _ in requests]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return outcomes

    def _next_group(self) -> tuple[list[_Request], bool]:
        """Everything that waits, at least one request, and whether the end mark was among it."""
        group: list[_Request] = []
        item = self._waiting.get()
        while item is not None:
            if item.done.set_running_or_notify_cancel():
                group.append(item)
            if len(group) >= GROUP:
                return group, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


def _tell(group: list[_Request], outcomes: list[Any]) -> None:
    """Only now: nobody is told before the commit."""
    for request, outcome in zip(group, outcomes, strict=True):
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                request.done.set_exception(outcome)
            else:
                request.done.set_result(outcome)


def _done(connection: sqlite3.Connection, work: Work[Any]) -> Any:
    """The result of `work`, or which of PROMISED it raised; then nothing that it wrote is left."""
    connection.execute("SAVEPOINT request")
    try:
        outcome = work(connection)
    except PROMISED as error:
        connection.execute("ROLLBACK TO request")
        outcome = error
    connection.execute("RELEASE request")
    return outcome
