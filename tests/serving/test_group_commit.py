"""Who writes to the SQLite ledger, who waits for its turn, and who waits for the disk."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serving.desk import ROUND, Desk
from serving.disk import Disk, Log
from serving.errors import LedgerUnavailable
from serving.group_commit import Writer
from serving.problems import Problem
from serving.sqlite_tables import connect
from serving.turns import Turns


class Syncs:
    """A disk that is done when the test says so, or breaks."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.error: OSError | None = None

    def __call__(self) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=20)
        if self.error:
            raise self.error


class Here:
    """A ledger's writer, the statements that it runs, and an event loop in this thread."""

    def __init__(self, path: Path, sync: Callable[[], None]) -> None:
        self.path = path
        self.statements: list[tuple[str, str]] = []
        self.rounds: list[Callable[[], None]] = []
        self.writer = Writer(self._connect, together, Turns(path), sync, capacity=99, patience=20.0)

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.path)
        connection.set_trace_callback(
            lambda text: self.statements.append((threading.current_thread().name, text.split()[0]))
        )
        return connection

    def begin(self, *names: str) -> list[Future[Any]]:
        return [self.writer.begin_item(name, self.rounds.append) for name in names]

    def end_round(self) -> None:
        work, self.rounds = self.rounds, []
        for one in work:
            one()

    def written_by(self) -> set[str]:
        """The names of threads that inserted."""
        return {thread for thread, statement in self.statements if statement == "INSERT"}

    def committed(self) -> int:
        return sum(statement == "COMMIT" for _, statement in self.statements)


def together(connection: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
    for item in items:
        connection.execute("INSERT INTO facts VALUES (?, 'told')", (item,))
    return items


def nothing() -> None:
    """A disk that has everything at once."""


def names_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM facts ORDER BY name")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def here(path: Path) -> Iterator[Here]:
    made = Here(path, nothing)
    yield made
    made.writer.close()


MINE = threading.current_thread().name
THREAD = "ledger-writer"


def test_what_an_event_loop_has_at_hand_it_writes_itself_in_one_transaction(here: Here, path: Path) -> None:
    begun = here.begin("a", "b", "c")
    assert here.committed() == 0, "not before all that is at hand has been begun"
    here.end_round()
    assert [done.result(20) for done in begun] == ["a", "b", "c"]
    assert (here.written_by(), here.committed()) == ({MINE}, 1)
    assert names_in(path) == ["a", "b", "c"]


def test_nobody_is_told_before_the_disk_has_it_and_others_write_meanwhile(path: Path) -> None:
    disk = Syncs()
    here = Here(path, disk)
    (first,) = here.begin("first")
    here.end_round()
    assert disk.begun.acquire(timeout=20)
    second, third = (*here.begin("second"), here.writer.begin_item("third"))
    here.end_round()
    assert names_in(path)[:2] == ["first", "second"], "written, and not yet acknowledged"
    assert not any(done.done() for done in (first, second, third))
    disk.go.release()
    assert first.result(20) == "first"
    disk.go.release(9)
    assert (second.result(20), third.result(20)) == ("second", "third")
    here.writer.close()


def test_one_sync_is_enough_for_all_that_was_committed_while_another_was_on() -> None:
    sync = Syncs()
    disk, told = Disk(sync), list[tuple[str, object]]()

    def tell(name: str, failure: LedgerUnavailable | None) -> None:
        told.append((name, failure))

    disk.when_synced(partial(tell, "first"))
    assert sync.begun.acquire(timeout=20)
    for name in ("a", "b", "c"):
        disk.when_synced(partial(tell, name))
    sync.go.release(9)
    disk.close()
    assert told == [("first", None), ("a", None), ("b", None), ("c", None)]
    assert sync.begun.acquire(timeout=20)
    assert not sync.begun.acquire(timeout=0)


@pytest.mark.parametrize("who", ["another process", "a transaction without a turn"])
def test_an_event_loop_waits_for_nobody_who_is_writing_but_leaves_it_to_the_thread(
    here: Here, path: Path, who: str
) -> None:
    with path.with_name("ledger.db.turn").open("ab") as turn, closing(sqlite3.connect(path)) as other:
        if who == "another process":
            fcntl.flock(turn, fcntl.LOCK_EX)
        else:
            other.execute("BEGIN IMMEDIATE")
        (begun,) = here.begin("a")
        here.end_round()  # comes back
        assert not begun.done()
        if who == "another process":
            fcntl.flock(turn, fcntl.LOCK_UN)
        else:
            other.rollback()
        assert begun.result(20) == "a"
    assert here.written_by() == {THREAD}


def test_an_event_loop_does_not_enter_the_transaction_of_its_own_process(here: Here) -> None:
    inside, gate = threading.Event(), threading.Event()

    def long(_: sqlite3.Connection) -> None:
        inside.set()
        assert gate.wait(20)

    long_one = here.writer.begin(long)
    assert inside.wait(20)
    (begun,) = here.begin("a")
    here.end_round()
    gate.set()
    assert (long_one.result(20), begun.result(20)) == (None, "a")
    assert (here.written_by(), here.committed()) == ({THREAD}, 2)


def test_a_disk_that_did_not_keep_something_is_never_believed_again(path: Path) -> None:
    disk = Syncs()
    here = Here(path, disk)
    disk.error = OSError("it is broken")
    disk.go.release(9)
    (lost,) = here.begin("lost")
    here.end_round()
    with pytest.raises(LedgerUnavailable, match="it is broken; start this one again"):
        lost.result(20)
    disk.error = None
    assert not here.writer.open
    for begin in (lambda: here.begin("later"), lambda: here.writer.submit(lambda connection: None)):
        with pytest.raises(LedgerUnavailable, match="start this one again"):
            begin()
    here.writer.close()


def test_closing_finishes_what_an_event_loop_had_begun_and_not_written(path: Path) -> None:
    here = Here(path, nothing)
    (begun,) = here.begin("a")
    here.writer.close()
    assert begun.result(0) == "a"
    here.end_round()  # too late, and harmless
    with pytest.raises(LedgerUnavailable, match="closed"):
        here.begin("b")
    assert names_in(path) == ["a"]


def test_what_was_withdrawn_before_its_round_ended_is_not_written(here: Here, path: Path) -> None:
    gone, kept = here.begin("gone", "kept")
    assert gone.cancel()
    here.end_round()
    assert kept.result(20) == "kept"
    assert names_in(path) == ["kept"]


def test_a_commit_does_not_wait_for_the_disk_and_the_log_that_is_synced_is_the_files_own(path: Path) -> None:
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL: only checkpoints sync"
        log = Log(path)
        log.sync()
        connection.execute("INSERT INTO facts VALUES ('a', 'b')")
        log.sync()
        log.close()
        log.close()
    gone = Log(path.with_name("other.db"))
    with pytest.raises(OSError, match=r"other\.db-wal"):
        gone.sync()


def test_threads_of_one_process_take_turns_too(path: Path) -> None:
    turns = Turns(path)
    with turns, ThreadPoolExecutor(1) as another:
        assert not another.submit(turns.at_once).result(20)
    assert turns.at_once()
    with path.with_name("ledger.db.turn").open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    turns.leave()
    turns.close()


def test_a_desk_that_works_on_the_event_loop_looks_up_after_every_round(path: Path) -> None:
    """Whoever is too many is told so before all the others have been worked for."""
    seen: list[str] = []

    def job(name: str) -> Future[str]:
        seen.append(name)
        done: Future[str] = Future()
        done.set_result(name)
        return done

    async def call(desk: Desk, name: str) -> str:
        try:
            with desk.place():
                return await desk.durable(partial(job, name), here=True)
        except Problem:
            seen.append("refused")
            return "refused"

    async def crowd() -> list[str]:
        desk = Desk(1, 3 * ROUND - 1)
        calls = [asyncio.create_task(call(desk, "a")) for _ in range(3 * ROUND)]
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(call(desk, "late")))
        answers = await asyncio.gather(*calls)
        desk.close()
        return answers

    assert asyncio.run(crowd()) == ["a"] * 3 * ROUND + ["refused"]
    assert seen.index("refused") <= ROUND
