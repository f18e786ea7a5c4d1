"""The desk: what every HTTP call works with, and how much is worked on at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from fastapi import Request

from serving.metrics import Meters
from serving.opening import Opening
from serving.problems import Problem

Result = TypeVar("Result")


ROUND = 2
"""Errands that the event loop does before it looks who else came: bounds how long it does not look."""


class Desk:
    """Bounds what is worked on at once. More would only make everyone wait longer; beyond the queue, 503.

    in_flight: threads that work. waiting: requests beyond so many that may be here, in the queue or until the disk has
    what was decided.
    """

    def __init__(self, in_flight: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(in_flight, "desk")
        self._most = in_flight + waiting
        self._present = 0
        self._done = _Done()
        self._here: deque[Callable[[], None]] = deque()
        self._after: list[Callable[[], None]] = []

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place at the desk for one request; Problem 503 where too many wait already."""
        if self._present >= self._most:
            raise Problem(503, "overloaded", "too many requests wait; try again")
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    async def work(self, job: Callable[[], Result]) -> Result:
        """Run blocking `job` in a thread; Problem 503 where too many wait already."""
        with self.place():
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    async def durable(self, job: Callable[[], Future[Result]], here: bool = False) -> Result:
        """Do `job`, then wait for what it began without a thread; for who has a place.

        here: on the event loop, for a job that waits for nobody; to hand it to a thread, which then wants the same
        interpreter, takes a quarter of a decision's time. Otherwise in a thread, which does not wait for the disk: it
        would keep others from deciding. The event loop is woken once for all that is done meanwhile. Where the caller
        is cancelled, what was begun is withdrawn, and what was not is left alone.
        """
        loop = asyncio.get_running_loop()
        errand: _Errand[Result] = _Errand(loop.create_future(), self._done.on(loop))
        if here:
            self._here.append(partial(errand.run, job))
            if len(self._here) == 1:
                loop.call_soon(self._round, loop)
        else:
            self._threads.submit(errand.run, job)
        return await errand.outcome()

    def soon(self, work: Callable[[], None]) -> None:
        """Do `work` on the event loop at the end of its round, for jobs that are done here."""
        self._after.append(work)

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(len(self._here), ROUND)):
            self._here.popleft()()
        work, self._after = self._after, []
        for one in work:
            one()
        if self._here:
            loop.call_soon(self._round, loop)

    def close(self) -> None:
        """Let the threads end after what they are at."""
        self._threads.shutdown(wait=False)


class _Errand(Generic[Result]):
    """From the event loop to a thread, on to what the thread began, and back. May be used once."""

    def __init__(self, back: asyncio.Future[Result], done: Callable[[Callable[[], None]], None]) -> None:
        self._back = back
        self._done = done
        self._begun: Future[Result] | None = None

    def run(self, job: Callable[[], Future[Result]]) -> None:
        """In a thread, or on the event loop."""
        if self._back.done():
            return  # nobody waits for it any more
        try:
            self._begun = job()
        except Exception as error:
            self._begun = Future()
            self._begun.set_exception(error)
        self._begun.add_done_callback(lambda begun: self._done(lambda: self._take(begun)))

    async def outcome(self) -> Result:
        try:
            return await self._back
        except asyncio.CancelledError:
            if self._begun:
                self._begun.cancel()
            raise

    def _take(self, begun: Future[Result]) -> None:
        if self._back.done() or begun.cancelled():
            return
        error = begun.exception()
        if error:
            self._back.set_exception(error)
        else:
            self._back.set_result(begun.result())


class _Done:
    """What other threads have done, brought to the event loop: it is woken once for all that is done meanwhile."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._awake = False

    def on(self, loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], None]:
        """What is to be called, in any thread, with what is then called on the loop."""

        def done(take: Callable[[], None]) -> None:
            self._waiting.append(take)
            if not self._awake:
                self._awake = True
                try:
                    loop.call_soon_threadsafe(self._take)
                except RuntimeError:  # the event loop has ended meanwhile, and all that waited with it
                    self._awake = False
                    self._waiting.clear()

        return done

    def _take(self) -> None:
        self._awake = False  # first: what is done from now on wakes the loop again
        while self._waiting:
            self._waiting.popleft()()


@dataclass(frozen=True)
class Office:
    """What the calls are given. clock: the present time with its zone. new_id: 32 hex digits, never twice the same."""

    opening: Opening
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    desk: Desk
    meters: Meters


async def json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json" or request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "not-json-media-type", "send the body as application/json, not encoded further")
    return await request.body()
