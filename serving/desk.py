"""The desk: what every HTTP call works with, and how much is worked on at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import anyio
from fastapi import Request

from serving.metrics import Meters
from serving.opening import Opening
from serving.problems import Problem

Result = TypeVar("Result")


class Desk:
    """Bounds what is worked on at once. More would only make everyone wait longer; beyond the queue, 503."""

    def __init__(self, in_flight: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(in_flight)
        self._most = in_flight + waiting
        self._present = 0

    async def work(self, job: Callable[[], Result]) -> Result:
        """Run blocking `job` in a thread; Problem 503 where too many wait already."""
        if self._present >= self._most:
            raise Problem(503, "overloaded", "too many requests wait; try again")
        self._present += 1
        try:
            return await anyio.to_thread.run_sync(job, limiter=self._limiter)
        finally:
            self._present -= 1


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
