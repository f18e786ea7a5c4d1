"""Group commit on SQLite: one writer thread, one connection, one transaction for everyone who waits.

Whatever waits when the writer is free shares one transaction and so one fsync; `synchronous=FULL` makes the commit wait
for the disk. A call returns, or raises, after the commit. Writers of several processes take turns (`serving.turns`).
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from serving.caps import NotReserved
from serving.errors import KeyReused, LedgerUnavailable

GROUP = 256
"""Most requests in one transaction: bounds how long the first of them waits."""
PROMISED = (KeyReused, NotReserved, LedgerUnavailable)
"""What a piece of work may raise; whatever else it raises fails its whole group."""

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


@dataclass(frozen=True)
class _Request:
    work: Work[Any]
    done: Future[Any]
    checks_first: bool


class Writer:
    """The thread that owns the connection; `connect` is called on it. Raises what `connect` raises.

    turn: entered around everything that may write to the file, opening and closing too. capacity: requests that may
    wait; one more raises LedgerUnavailable at once. patience: seconds that a caller waits.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        turn: AbstractContextManager[None],
        capacity: int,
        patience: float,
    ) -> None:
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

    def begin(self, work: Work[Result], checks_first: bool = False) -> Future[Result]:
        """Do `work` inside a transaction; the future has its result once that is on disk.

        Others share the transaction; where `work` raises one of PROMISED, what it wrote is undone and theirs is not.
        checks_first: `work` raises none of them after it has begun to write, so that there is never anything to undo.
        """
        request = _Request(work, Future(), checks_first)
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
                return _outcomes(connection, group)
        except Exception as error:
            return [LedgerUnavailable(f"the ledger could not write: {error}")] * len(group)

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


def _outcomes(connection: sqlite3.Connection, group: list[_Request]) -> list[Any]:
    """As `_committed`; where it raises, nothing was written."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [(_done if one.checks_first else _done_apart)(connection, one.work) for one in group]
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _tell(group: list[_Request], outcomes: list[Any]) -> None:
    """Only now: nobody is told before the commit."""
    for request, outcome in zip(group, outcomes, strict=True):
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                request.done.set_exception(outcome)
            else:
                request.done.set_result(outcome)


def _done(connection: sqlite3.Connection, work: Work[Any]) -> Any:
    """The result of `work`, or which of PROMISED it raised."""
    try:
        return work(connection)
    except PROMISED as error:
        return error


def _done_apart(connection: sqlite3.Connection, work: Work[Any]) -> Any:
    """As `_done`; where it raised, nothing that it wrote is left."""
    connection.execute("SAVEPOINT request")
    outcome = _done(connection, work)
    if isinstance(outcome, Exception):
        connection.execute("ROLLBACK TO request")
    connection.execute("RELEASE request")
    return outcome
