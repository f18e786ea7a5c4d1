"""The router: takes jobs to the service, sends what is decided, and posts receipts back.

    decide or route → read the timeline → next step → post `sent` → deliver → post `delivered` or `failed`

It keeps nothing. The job's id is the idempotency key, so a job that is taken up again gets the same decision, and the
timeline says how far it has come. `sent` is posted before the message leaves: a router that dies in between has at
worst not sent what it said, and the next hop follows at the deadline; the other order would send twice. Of several
routers that take the same job only one has its `sent` accepted; the others find a conflict and leave it alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from features.columns import Kind
from features.errors import InputError
from serving.router.client import Client, Refused
from serving.router.deliver import Delivery, DeliveryFailed, Message
from serving.router.journey import Done, Route, Send, Step, Wait, next_step


@dataclass(frozen=True)
class Job:
    """One thing to do for one customer. asked: the body of the call; a message that is given goes to /v1/route."""

    id: str
    asked: Mapping[str, Any]

    @property
    def given(self) -> bool:
        """Whether the message is given, or still to be decided."""
        return not {"content_id", "product_id"}.isdisjoint(self.asked)


def read_jobs(path: Path) -> list[Job]:
    """Jobs of a file with one JSON object per line: `id`, and the fields of /v1/decide or /v1/route.

    Raises InputError for a line that is none, and for an id that comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    jobs = [_job(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    twice = [name for name, count in Counter(job.id for job in jobs).items() if count > 1]
    if twice:
        raise InputError(f"{path}: the id of a job names it once and for all, however {twice[0]!r} comes twice")
    return jobs


class Router:
    """Takes jobs as far as they go. clock: the present time with its zone."""

    def __init__(
        self,
        client: Client,
        delivery: Delivery,
        addresses: Mapping[tuple[str, str], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._delivery = delivery
        self._addresses = addresses
        self._clock = clock

    def advance(self, job: Job) -> Wait | Done:
        """Do what is due for a job; what it waits for, or how it ended. Raises Unreachable."""
        try:
            return self._advance(job)
        except Refused as error:
            return Done("invalid", str(error))

    def advance_all(self, jobs: Sequence[Job], threads: int = 4) -> dict[str, Wait | Done]:
        """`advance` for each, by its id."""
        with ThreadPoolExecutor(threads) as pool:
            return dict(zip((job.id for job in jobs), pool.map(self.advance, jobs), strict=True))

    def run(
        self, jobs: Sequence[Job], pause: Callable[[float], None], poll_seconds: float, threads: int = 4
    ) -> dict[str, Wait | Done]:
        """Until every journey has ended. The timelines of those that wait are read again every `poll_seconds`."""
        ended: dict[str, Wait | Done] = {}
        left = list(jobs)
        while left:
            for name, step in self.advance_all(left, threads).items():
                if isinstance(step, Done):
                    ended[name] = step
            left = [job for job in left if job.id not in ended]
            if left:
                pause(poll_seconds)
        return ended

    def _advance(self, job: Job) -> Wait | Done:
        call = self._client.route if job.given else self._client.decide
        route = Route.of(call(job.asked, job.id))
        while True:
            step = self._step(route)
            if not isinstance(step, Send):
                return step
            if not self._send(route, step.place):
                return Wait(route.legs[step.place].deadline)

    def _step(self, route: Route) -> Step:
        events = list(self._client.timeline(route.customer_id, route.as_of)) if route.legs else []
        return next_step(route, events, self._clock())

    def _send(self, route: Route, place: int) -> bool:
        """Send one leg and post what became of it; False where another router did."""
        (status,) = self._client.report([route.event(place, Kind.SENT, self._clock())])
        # Not a duplicate either: it may be ours whose answer was lost, or another router's of the same microsecond.
        if status != "accepted":
            return False
        leg = route.legs[place]
        address = self._addresses.get((route.customer_id, leg.channel))
        message = Message(route.message_id(place), route.customer_id, leg.channel, address, leg.text)
        try:
            arrived = self._delivery.send(message)
        except DeliveryFailed:
            self._client.report([route.event(place, Kind.FAILED, self._clock())])
            return True
        if arrived:
            self._client.report([route.event(place, Kind.DELIVERED, self._clock())])
        return True


def _job(path: Path, number: int, line: str) -> Job:
    try:
        given = json.loads(line)
    except ValueError:
        given = None
    if (
        not isinstance(given, dict)
        or not isinstance(given.get("id"), str)
        or not isinstance(given.get("customer_id"), str)
    ):
        raise InputError(f'{path}, line {number}: a job is a JSON object with "id" and "customer_id" as texts')
    return Job(given["id"], {key: value for key, value in given.items() if key != "id"})
