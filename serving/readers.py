"""Reading the SQLite ledger beside its writer: every read sees one snapshot with all that was committed before it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from serving.errors import LedgerUnavailable

Result = TypeVar("Result")
_BUSY_SECONDS = 10.0


class Readers:
    """Read-only connections to one file, as many as are ever used at once; the latest used is used again first."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.resolve().as_uri()}?mode=ro"
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of `work` on one snapshot; LedgerUnavailable where the file cannot be read, or after close()."""

        def on_one_snapshot(connection: sqlite3.Connection) -> Result:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.rollback()

        return self.ask(on_one_snapshot)

    def ask(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """As `read`, for work that is one statement: it has a snapshot of its own."""
        connection: sqlite3.Connection | None = None
        try:
            connection = self._taken()
            return work(connection)
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def _taken(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            if self._idle:
                return self._idle.pop()
        return sqlite3.connect(
            self._uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)
