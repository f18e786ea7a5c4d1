"""Turns among all processes that have one SQLite ledger open: who writes has it, and the others wait in the kernel.

SQLite before 3.51.3, and so Python's own, can corrupt a file where one connection checkpoints at the very moment in
which another one commits (https://sqlite.org/wal.html#walresetbug). Every connection that writes does so in its turn
alone, opening and closing included, so there is no such moment. Connections with mode=ro need no turn: they never
checkpoint, not even as the last to close.

    ledger.db.lock   held by each process as long as it has the ledger open, in company
    ledger.db.turn   held alone, for one transaction

A process that dies loses both at once, whatever it was at: the kernel lets go of them.
"""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from types import TracebackType

from serving.errors import LedgerUnavailable


class Turns:
    """One ledger's turns, among the threads of this process and among processes: `with turns:` waits for one.

    Who has it has the connection that writes for itself.

    Raises LedgerUnavailable where an earlier version of nextbest, which takes no turns, has the ledger open.
    """

    def __init__(self, path: Path) -> None:
        self._lock = path.with_name(path.name + ".lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise LedgerUnavailable(
                f"an earlier version of nextbest has the ledger {path} open, and shares it with nobody; stop it first"
            ) from None
        self._turn = path.with_name(path.name + ".turn").open("ab")
        self._here = threading.Lock()  # the kernel's is the process's, whichever thread takes it

    def at_once(self) -> bool:
        """Take a turn if nobody has it; then `leave` gives it back."""
        if not self._here.acquire(blocking=False):
            return False
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._here.release()
            return False
        return True

    def leave(self) -> None:
        """Give the turn back."""
        try:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        finally:
            self._here.release()

    def __enter__(self) -> None:
        self._here.acquire()
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        except BaseException:
            self._here.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def close(self) -> None:
        """Leave the ledger to the others."""
        self._turn.close()
        self._lock.close()
