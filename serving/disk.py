"""The thread that waits for the disk, so that for a commit neither a connection nor an event loop does.

SQLite in WAL mode can commit without waiting for the disk (`synchronous=NORMAL`): the commit is in the write-ahead log,
others see it, a kill cannot undo it, but power that fails can. One sync of that file makes everything durable that was
committed before it began, by whatever process, for all of them append to this one file. What a later transaction rests
on is therefore always durable where that transaction is (https://sqlite.org/wal.html, "Performance Considerations").

Checkpoints still sync where they happen, which is after every 1,000 pages in whatever thread has just committed.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from serving.errors import LedgerUnavailable

Item = TypeVar("Item")
Tell = Callable[[LedgerUnavailable | None], None]
"""Called once: with None when all is durable, else with why it is not."""
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no other


class Log:
    """The write-ahead log of the SQLite file at `path`, beside a connection that keeps it from being deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + "-wal")
        self._opening = threading.Lock()
        self._file: int | None = None

    def sync(self) -> None:
        """Return when the disk has everything that was committed before the call; OSError where it has not."""
        with self._opening:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            file = self._file
        _sync(file)

    def close(self) -> None:
        """May be called twice."""
        with self._opening:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)


class Disk:
    """A thread that syncs for everybody who came until it began. sync: as `Log.sync`.

    After a sync that failed nothing is promised any more: the kernel may call pages clean that it never wrote, so that
    a later sync that succeeds says nothing (https://lwn.net/Articles/752063/).
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._waiting: queue.SimpleQueue[Tell | None] = queue.SimpleQueue()
        self.failure: LedgerUnavailable | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-disk", daemon=True)
        self._thread.start()

    def when_synced(self, tell: Tell) -> None:
        """Call `tell` in the disk's thread when what was committed until now is durable; first come, first told."""
        self._waiting.put(tell)

    def close(self) -> None:
        """Tell all who came. Nobody may come any more."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            everybody, ended = waiting(self._waiting)
            if everybody and self.failure is None:
                try:
                    self._sync()
                except OSError as error:
                    self.failure = LedgerUnavailable(
                        f"the disk must keep what is written, however: {error}; start this one again"
                    )
            for tell in everybody:
                tell(self.failure)


def waiting(line: queue.SimpleQueue[Item | None], most: int = 1 << 30) -> tuple[list[Item], bool]:
    """Everything that waits in line, at least one item and at most so many; and whether None, the end, was reached."""
    found: list[Item] = []
    item = line.get()
    while item is not None:
        found.append(item)
        if len(found) >= most:
            return found, False
        try:
            item = line.get_nowait()
        except queue.Empty:
            return found, False
    return found, True
