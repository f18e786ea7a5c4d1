"""Group commit on SQLite: one transaction for everyone who waits, one sync for every transaction since the last.

What an event loop has at hand it writes itself where nobody has the turn at this moment (`serving.turns`): the
statements only reach the system's memory, and to hand them over takes longer than to run them. A writer thread does
what has to wait, for its turn or for another's transaction, and everything that comes from other threads. Both hand
over to the thread that waits for the disk (`serving.disk`), so that others may write meanwhile. A call returns, or
raises, after that.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from serving.caps import NotReserved
from serving.disk import Disk, waiting
from serving.entries import Soon
from serving.errors import KeyReused, LedgerUnavailable
from serving.turns import Turns

GROUP = 256
"""Most requests in one transaction: bounds how long the first of them waits."""
BUSY_SECONDS, _AGAIN_SECONDS = 5.0, 0.005
"""How long, and how often, the writer thread tries where somebody who takes no turns is writing to the file."""
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
    """The one connection that writes, made by `connect` without a busy timeout. Raises what `connect` raises.

    together: does items that stand next to each other, inside a transaction: results and, of PROMISED, errors; what it
    has an error for must not have been written. turn: had around everything that may write to the file, opening and
    closing too. sync: as `serving.disk.Log.sync`. capacity: requests that may wait; one more raises LedgerUnavailable
    at once. patience: seconds that a caller waits.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        together: Together,
        turn: Turns,
        sync: Callable[[], None],
        capacity: int,
        patience: float,
    ) -> None:
        self._together = together
        self._turn = turn
        self._patience = patience
        self._capacity = capacity
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._at_hand: list[_Request] = []
        self._accept = threading.Lock()
        self._closed = False
        with turn:
            self._connection = connect()
        self._disk = Disk(sync)
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        return not self._closed and self._thread.is_alive() and self._disk.failure is None

    def begin(self, work: Work[Result]) -> Future[Result]:
        """Do `work` inside a transaction; the future has its result once that is on disk.

        Others share the transaction; where `work` raises one of PROMISED, what it wrote is undone and theirs is not.
        """
        with self._accept:
            return self._line_up(_Request(Future(), work))

    def begin_item(self, item: object, soon: Soon | None = None) -> Future[Any]:
        """As `begin`, with what `together` makes of the item. soon: of an event loop that may write it itself."""
        request = _Request(Future(), None, item)
        with self._accept:
            if soon is None:
                return self._line_up(request)
            self._require_open()
            self._at_hand.append(request)
            first = len(self._at_hand) == 1
        if first:
            soon(self._write_at_hand)
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
                self._leave_to_thread()
                self._waiting.put(None)
        self._thread.join()

    def _require_open(self) -> None:
        if self._disk.failure is not None:
            raise self._disk.failure
        if not self.open:
            raise LedgerUnavailable("the ledger is closed")

    def _line_up(self, request: _Request) -> Future[Any]:
        self._require_open()  # after close() has put its end mark, nothing may follow it
        if self._waiting.qsize() >= self._capacity:
            raise LedgerUnavailable("the ledger cannot keep up: too many decisions wait for the disk")
        self._waiting.put(request)
        return request.done

    def _leave_to_thread(self) -> None:
        for request in self._at_hand:
            self._waiting.put(request)
        self._at_hand.clear()

    def _write_at_hand(self) -> None:
        """On an event loop, which waits for nobody: what cannot be written at once is left to the thread."""
        with self._accept:
            if self._at_hand and self._turn.at_once():
                try:
                    self._write(self._at_hand, 0.0)
                    self._at_hand.clear()
                except _NotBegun:
                    pass  # the thread has time to try again
                finally:
                    self._turn.leave()
            self._leave_to_thread()

    def _run(self) -> None:
        ended = False
        while not ended:
            group, ended = waiting(self._waiting, GROUP)
            try:
                with self._turn:
                    self._write(group, BUSY_SECONDS)
            except (_NotBegun, OSError) as error:
                _tell(group, [_unwritten(error)] * len(group), None)
        self._disk.close()
        with self._turn:  # the last to close brings the write-ahead log home
            self._connection.close()

    def _write(self, group: Sequence[_Request], busy_seconds: float) -> None:
        """Write for all in one transaction and have them told when it is durable; _NotBegun: nothing has happened."""
        if not group:
            return
        self._begin_transaction(busy_seconds)
        wanted = [request for request in group if request.done.set_running_or_notify_cancel()]
        try:
            outcomes = self._outcomes(wanted)
            self._connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if not isinstance(error, Exception):
                raise
            outcomes = [_unwritten(error)] * len(wanted)
        self._disk.when_synced(partial(_tell, wanted, outcomes))

    def _begin_transaction(self, busy_seconds: float) -> None:
        until = time.monotonic() + busy_seconds
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= until:
                    raise _NotBegun(str(error)) from error
            time.sleep(_AGAIN_SECONDS)

    def _outcomes(self, group: Sequence[_Request]) -> list[Any]:
        """What to tell each, results and errors."""
        outcomes: list[Any] = []
        for work, requests in groupby(group, lambda request: request.work):
            if work is None:
                outcomes += self._together(self._connection, [request.item for request in requests])
            else:
                outcomes += [_done(self._connection, work) for _ in requests]
        return outcomes


class _NotBegun(Exception):
    """No transaction could be begun."""


def _unwritten(error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger could not write: {error}")


def _tell(group: Sequence[_Request], outcomes: Sequence[Any], failure: LedgerUnavailable | None) -> None:
    """Only now: nobody is told before the disk has it. failure: why it has not."""
    for request, outcome in zip(group, outcomes, strict=True):
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, Exception):
                request.done.set_exception(outcome)
            elif failure is not None:
                request.done.set_exception(failure)
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
