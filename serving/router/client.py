"""The calls of a routing service: decide, route, events, timeline.

Every call can be made again without harm: a decision has an idempotency key, an event its id. So what did not get
through, or found the service not ready, is tried again, and only then reported as unreachable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from features.errors import NextbestError

TRIES = 5
FIRST_PAUSE = 0.2
"""Seconds before the second try; each further pause is twice as long."""
AT_ONCE = 500
"""Events of one call."""
_AGAIN = frozenset({408, 429, 502, 503, 504})


class Refused(NextbestError):
    """The service answered that the request is wrong; the text is its reason. Asking again would not help."""


class Unreachable(NextbestError):
    """The service did not answer, or was not ready, at every try."""


class Client:
    """One service. Leaving its context closes the connections; several threads may share it."""

    def __init__(
        self,
        url: str,
        transport: httpx.BaseTransport | None = None,
        seconds: float = 30.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """url: like http://127.0.0.1:3000. seconds: that one try may take. transport: None, the network."""
        # trust_env: no proxy from the environment stands between a bank's own services.
        self._http = httpx.Client(base_url=url, transport=transport, timeout=seconds, trust_env=False)
        self._pause = pause

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def decide(self, asked: Mapping[str, Any], key: str) -> dict[str, Any]:
        """POST /v1/decide; the same key always gets the same answer."""
        return self._call("POST", "/v1/decide", asked, key)

    def route(self, asked: Mapping[str, Any], key: str) -> dict[str, Any]:
        """POST /v1/route; the same key always gets the same answer."""
        return self._call("POST", "/v1/route", asked, key)

    def report(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """POST /v1/events: the status of each event, in order; Refused where one was rejected."""
        statuses: list[str] = []
        for start in range(0, len(events), AT_ONCE):
            some = events[start : start + AT_ONCE]
            results = self._call("POST", "/v1/events", {"events": list(some)})["results"]
            wrong = [result for result in results if result["status"] == "rejected"]
            if wrong:
                raise Refused(f"event {wrong[0]['event_id']} was rejected: {wrong[0].get('reason')}")
            statuses += [str(result["status"]) for result in results]
        return statuses

    def timeline(self, customer_id: str, since: datetime) -> Iterator[dict[str, Any]]:
        """The events of a customer from `since` on, newest first, however many pages they fill."""
        path = f"/v1/customers/{quote(customer_id, safe='')}/timeline"
        before: str | None = None
        while True:
            page = self._call("GET", path if before is None else f"{path}?before={quote(before, safe='')}")
            for event in page["events"]:
                if datetime.fromisoformat(event["event_timestamp"]) < since:
                    return
                yield event
            before = page["next"]
            if before is None:
                return

    def record(self, decision_id: str) -> dict[str, Any]:
        """GET /v1/decisions/{id}: everything behind a decision."""
        return self._call("GET", f"/v1/decisions/{quote(decision_id, safe='')}")

    def _call(self, method: str, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                self._pause(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                response = self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if response.status_code in _AGAIN:
                trouble = _said(response)
                continue
            if response.is_success:
                answer: dict[str, Any] = response.json()
                return answer
            raise Refused(f"{method} {path.partition('?')[0]} was refused: {_said(response)}")
        raise Unreachable(
            f"{method} {path.partition('?')[0]} failed {TRIES} times, at last with {trouble}; is it running?"
        )


def _said(response: httpx.Response) -> str:
    """A problem document's detail, where it is one."""
    try:
        problem = response.json()
        details = [f"{one['pointer']} {one['detail']}" for one in problem.get("errors", ())]
        return "; ".join([f"{response.status_code} {problem['detail']}", *details])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status {response.status_code}"
