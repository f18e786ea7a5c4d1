"""A load generator for HTTP/1.1 with connections kept open, run as a process of its own.

    python load.py < order.json > answer.json

Closed loop: every connection asks again as soon as it is answered; latency is from the first byte sent to the last
byte received. Open loop: the times of all requests are fixed beforehand, whatever the server does; a request whose
time has come and that finds no free connection waits here, and its latency counts from the moment for which it was
meant. So a server that stalls cannot stop the clock for those who would have asked meanwhile (Tene 2013,
"How NOT to measure latency": coordinated omission).
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

_CHUNKED_END = b"0\r\n\r\n"
_AT_ONCE = 65_536


@dataclass(frozen=True)
class Order:
    """What to ask. bodies: sent in turn, JSON; arrivals: seconds from the start (open loop), None: closed loop.

    warm_seconds: asked in a closed loop before anything is measured. processes: roots of the server's process trees,
    whose CPU time is read when the measurement begins and ends.
    """

    host: str
    port: int
    path: str
    bodies: list[str]
    connections: int
    seconds: float
    warm_seconds: float = 0.0
    arrivals: list[float] | None = None
    processes: list[int] = field(default_factory=list)
    drain_seconds: float = 20.0
    """How long answers are waited for after the last request was due."""


@dataclass
class Measured:
    """What came back. latencies: microseconds of the answers with status 200, in their order.

    refused: latencies of answers with status 503. failed: by status, or "lost" (connection broken) or "unanswered".
    seconds: from the first request to the last answer. server_cpu, client_cpu: seconds of CPU in that time.
    late: microseconds by which the worst request left later than it was meant to, though a connection was free.
    """

    latencies: list[int]
    refused: list[int]
    failed: dict[str, int]
    seconds: float
    server_cpu: float
    client_cpu: float
    late: int = 0
    sample: str = ""


class _Connection:
    """A connection and the answer that it waits for."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self.since = 0.0
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(self._address, timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._got = b""

    def ask(self, request: bytes, since: float) -> None:
        """since: perf_counter from which the latency counts."""
        self.since = since
        self._got = b""
        self.socket.sendall(request)

    def answered(self) -> tuple[int, bytes] | None:
        """Status and body when the answer is whole; None: more must come. ConnectionError where it never will."""
        try:
            part = self.socket.recv(_AT_ONCE)
        except BlockingIOError:
            return None
        if not part:
            raise ConnectionError("closed")
        self._got += part
        return whole_answer(self._got)


def whole_answer(got: bytes) -> tuple[int, bytes] | None:
    """Status and body of the HTTP answer in `got`; None where it is not complete yet."""
    head, found, body = got.partition(b"\r\n\r\n")
    if not found:
        return None
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0])
        return (int(head[9:12]), body) if len(body) >= length else None
    if b"transfer-encoding: chunked" in lower:
        return (int(head[9:12]), body) if body.endswith(_CHUNKED_END) else None
    return int(head[9:12]), body


class Load:
    """The connections, what is asked over them, and what came back."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests = _requests(order)
        self._poll = select.epoll()
        self._all = [_Connection(order.host, order.port) for _ in range(order.connections)]
        self._by_number = {connection.socket.fileno(): connection for connection in self._all}
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)
        self._forget()

    def _forget(self) -> None:
        self._good, self._refused = array("q"), array("q")
        self._failed: dict[str, int] = {}
        self._late, self._sample = 0.0, b""

    def run(self) -> Measured:
        """Warm up, then measure."""
        if self._order.warm_seconds:
            self._closed(self._order.warm_seconds)
            self._forget()
        cpu, mine, began = cpu_of(self._order.processes), time.process_time(), time.perf_counter()
        if self._order.arrivals is None:
            self._closed(self._order.seconds)
        else:
            self._open(self._order.arrivals)
        seconds = time.perf_counter() - began
        return Measured(
            self._good.tolist(),
            self._refused.tolist(),
            self._failed,
            seconds,
            cpu_of(self._order.processes) - cpu,
            time.process_time() - mine,
            round(self._late * 1e6),
            self._sample.decode(errors="replace"),
        )

    def _closed(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        for connection in self._all:
            connection.ask(next(self._requests), time.perf_counter())
        busy, until = len(self._all), end + self._order.drain_seconds
        while busy and time.perf_counter() < until:
            for connection in self._ready(1.0):
                if not self._take(connection):
                    continue
                now = time.perf_counter()
                if now < end:
                    connection.ask(next(self._requests), now)
                else:
                    busy -= 1
        self._give_up(busy)

    def _open(self, arrivals: Sequence[float]) -> None:
        began = time.perf_counter()
        due = deque(began + arrival for arrival in arrivals)
        free, waiting = deque(self._all), deque[float]()
        until = began + (arrivals[-1] if arrivals else 0.0) + self._order.drain_seconds
        while True:
            now = time.perf_counter()
            while due and due[0] <= now:
                if len(free) > len(waiting):  # otherwise the server keeps it waiting, not this process
                    self._late = max(self._late, now - due[0])
                waiting.append(due.popleft())
            while waiting and free:
                free.popleft().ask(next(self._requests), waiting.popleft())
            if now > until or (not due and not waiting and len(free) == len(self._all)):
                break
            pause = min(due[0] - now, 1.0) if due else 0.05
            for connection in self._ready(max(pause, 0.0)):
                if self._take(connection):
                    free.append(connection)
        self._give_up(len(self._all) - len(free) + len(waiting) + len(due))

    def _ready(self, seconds: float) -> Iterator[_Connection]:
        """Connections on which something arrived; epoll alone counts in whole milliseconds."""
        if select.select([self._poll.fileno()], [], [], seconds)[0]:
            for number, _ in self._poll.poll(0):
                yield self._by_number[number]

    def _take(self, connection: _Connection) -> bool:
        """Count the answer on this connection; False: it is not complete yet."""
        try:
            answer = connection.answered()
        except ConnectionError:
            self._failed["lost"] = self._failed.get("lost", 0) + 1
            self._renew(connection)
            return True
        if answer is None:
            return False
        status, body = answer
        took = round((time.perf_counter() - connection.since) * 1e6)
        if status == 200:
            self._good.append(took)
            self._sample = body
        elif status == 503:
            self._refused.append(took)
        else:
            self._failed[str(status)] = self._failed.get(str(status), 0) + 1
            self._sample = self._sample or body
        return True

    def _renew(self, connection: _Connection) -> None:
        number = connection.socket.fileno()
        self._poll.unregister(number)
        del self._by_number[number]
        connection.socket.close()
        connection.open()
        self._by_number[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)

    def _give_up(self, count: int) -> None:
        if count:
            self._failed["unanswered"] = self._failed.get("unanswered", 0) + count


def cpu_of(roots: Sequence[int]) -> float:
    """CPU seconds, user and system, of these processes and of all below them."""
    total = 0.0
    for process in _trees(roots):
        try:
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system = int(after_name[11]), int(after_name[12])  # fields 14 and 15, counted from 1
        total += (user + system) / 100  # USER_HZ is 100 on Linux
    return total


def _trees(roots: Sequence[int]) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(after_name[1]), []).append(int(entry.name))
    found = list(roots)
    for process in found:  # it grows while it is walked
        found += parents.get(process, [])
    return found


def _requests(order: Order) -> Iterator[bytes]:
    made = []
    for body in order.bodies:
        raw = body.encode()
        head = (
            f"POST {order.path} HTTP/1.1\r\nHost: {order.host}:{order.port}\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        made.append(head.encode() + raw)
    return cycle(made)


def main() -> None:
    raw: dict[str, Any] = json.load(sys.stdin)
    measured = Load(Order(**raw)).run()
    json.dump(asdict(measured), sys.stdout)


if __name__ == "__main__":
    main()
