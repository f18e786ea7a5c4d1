"""What a server counts about itself, for Prometheus. No label ever holds what a caller sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.decision import Decision, Ranking
from serving.removals import counts

if TYPE_CHECKING:
    from serving.opening import Opening

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096)


class Meters:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "nextbest_decisions", "Decisions recorded, by outcome.", ["outcome"], registry=self._registry
        )
        self._degraded = Counter(
            "nextbest_degraded", "Answers that rest on less than they should.", ["call"], registry=self._registry
        )
        self._dropped = Counter(
            "nextbest_dropped_scores", "Scores that were not finite probabilities.", registry=self._registry
        )
        self._removed = Counter(
            "nextbest_removed", "Candidates removed, by rule.", ["subject", "rule"], registry=self._registry
        )
        self._events = Counter("nextbest_events", "Events received, by status.", ["status"], registry=self._registry)
        self._freshness = Histogram(
            "nextbest_event_freshness_seconds",
            "From the arrival of an accepted event to its commit, after which every decision knows of it.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._latency = Histogram(
            "nextbest_latency_seconds",
            "From the request to the start of the answer, by call and status.",
            ["call", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )

        self._of_call: dict[tuple[str, int], Histogram] = {}
        self._of_rule: dict[tuple[str, str], Counter] = {}

    def received(self, statuses: Iterable[str], seconds: float) -> None:
        """What became of the events of one call, and how long after their arrival every decision knew of them."""
        for status in statuses:
            self._events.labels(status).inc()
            if status == "accepted":
                self._freshness.observe(seconds)

    def follow(self, opening: Opening) -> None:
        """Show which models answer, and what became of those that an alias moved to."""
        self._registry.register(_Models(opening))

    def decided(self, decision: Decision) -> None:
        self._decisions.labels("contact" if decision.action else "no_contact").inc()
        self._answered("route" if decision.ask.message else "decide", decision)

    def ranked(self, ranking: Ranking) -> None:
        self._answered("rank", ranking)

    def took(self, call: str, status: int, seconds: float) -> None:
        found = self._of_call.get((call, status))
        if found is None:  # finding it by its labels takes longer than counting
            found = self._of_call[call, status] = self._latency.labels(call, str(status))
        found.observe(seconds)

    def exposition(self) -> bytes:
        return bytes(generate_latest(self._registry))

    def _answered(self, call: str, answer: Decision | Ranking) -> None:
        if answer.degraded:
            self._degraded.labels(call).inc()
        if answer.dropped:
            self._dropped.inc(answer.dropped)
        for rule, count in counts(answer.removed):
            found = self._of_rule.get(rule)
            if found is None:
                found = self._of_rule[rule] = self._removed.labels(*rule)
            found.inc(count)


@dataclass(frozen=True)
class _Models(Collector):
    """Read at each scrape from what is open then."""

    opening: Opening

    def collect(self) -> Iterator[Metric]:
        versions = GaugeMetricFamily(
            "nextbest_model_version", "1 for each version that answers.", labels=["model", "name", "version"]
        )
        reloads = CounterMetricFamily(
            "nextbest_reloads", "Versions taken up or refused while serving, and failed polls.", labels=["outcome"]
        )
        if not self.opening.reasons:
            serving = self.opening.serving
            for model, sources in serving.models.items():
                for name, version in sources:
                    versions.add_metric([model, name, version], 1.0)
            for outcome, count in serving.reloader.state.counts if serving.reloader else ():
                reloads.add_metric([outcome], count)
        yield versions
        yield reloads


class Timed:
    """ASGI middleware: how long each call of the API took, by the status that it ended with."""

    def __init__(self, app: ASGIApp, meters: Meters, calls: Mapping[str, str]) -> None:
        self._app = app
        self._meters = meters
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._calls.get(scope.get("path", ""))
        if call is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                # Counted before the caller can see the answer: who asks for the metrics next finds it there.
                self._meters.took(call, message["status"], time.perf_counter() - started)
                answered = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if not answered:  # an exception, which becomes a 500 above this layer
                self._meters.took(call, 500, time.perf_counter() - started)
