"""The HTTP contract: what goes in, what comes out, and that every error is a problem document."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from serving.api import create_app
from serving.caps import Cap, CapReached, Contact
from serving.contract import DecisionDocument
from serving.decide import Decider
from serving.decision import Ask, Decision, Ranking
from serving.entries import Entry, Soon
from serving.errors import LedgerUnavailable
from serving.events import Outcome, TimelineEvent
from serving.history import Known
from serving.ledger import Ledger, SqliteLedger
from serving.limits import MAX_BODY, BodyLimit
from serving.opening import Opening, Serving
from serving.policy import Policy

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CLOCK = datetime.fromisoformat("2024-06-01T12:00:00+00:00")
DECIDE = {"customer_id": "anna"}


@dataclass
class FakeLedger:
    """Keeps in memory what it is given, tells `order` when, and fails on demand."""

    fails: bool = False
    full: int = 0
    """So many contacts are refused because a cap was reached meanwhile."""
    order: list[str] = field(default_factory=list)
    open: bool = True

    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        if self.fails:
            raise LedgerUnavailable("/secret/path: disk full")
        done: Future[bytes] = Future()
        if entry.contact and self.full > 0:
            self.full -= 1
            done.set_exception(CapReached(Cap("once-a-week", "overall", None, 0, 1)))
            return done
        self.order.append("recorded")
        done.set_result(entry.answer)
        return done

    def record(self, entry: Entry) -> bytes:
        raise AssertionError("the app waits for no disk in a thread")

    def append(self, events: Sequence[TimelineEvent]) -> tuple[Outcome, ...]:
        if self.fails:
            raise LedgerUnavailable("/secret/path: disk full")
        self.order.append("appended")
        return ("accepted",) * len(events)

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        return ()

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        return Known()

    def timeline(self, *asked: object) -> tuple[TimelineEvent, ...]:
        return ()

    def rebase(self, *asked: object) -> None:
        raise AssertionError("the app does not rebase")

    def seed(self, contacts: Iterable[Contact]) -> None:
        raise AssertionError("the app does not seed")

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return None

    def get(self, decision_id: str) -> bytes | None:
        return None

    def close(self) -> None:
        self.open = False


def app_over(serving: Callable[[], Serving], **options: int) -> FastAPI:
    numbers = iter(range(10**9))
    opening = Opening(serving, retry_seconds=0.01)
    return create_app(opening, lambda: CLOCK, lambda: f"{next(numbers):032x}", **options)


def ready(client: TestClient) -> TestClient:
    for _ in range(500):
        if client.get("/readyz").status_code == 200:
            return client
        time.sleep(0.01)
    raise AssertionError(client.get("/readyz").text)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return SqliteLedger(tmp_path / "ledger.db")


@pytest.fixture
def client(world: World, ledger: Ledger) -> Iterator[TestClient]:
    with TestClient(app_over(lambda: Serving(world.decider, ledger)), raise_server_exceptions=False) as made:
        yield ready(made)


def is_problem(response: Any, status: int) -> bool:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:nextbest:")
    assert "Traceback" not in response.text
    return bool(body["title"])


def test_decide_answers_with_the_action_and_everything_behind_it(client: TestClient) -> None:
    response = client.post("/v1/decide", json={**DECIDE, "as_of": "2024-06-01T14:00:00+02:00"})
    assert response.status_code == 200
    body = response.json()
    assert body["as_of"] == "2024-06-01T12:00:00Z"
    assert set(body) == {
        *("decision_id", "customer_id", "as_of", "purpose", "action", "propensity", "value", "reasons", "removed"),
        *("degraded", "degraded_because", "fallback_channels", "versions", "arm", "arm_propensity", "send_at", "chain"),
    }
    assert 0 < body["propensity"] <= 1
    assert body["degraded"] is False
    assert body["removed"] == [
        {
            "subject": "channel",
            "rule": "inbound_only",
            "reason": "the customer comes by it; we cannot send on it",
            "count": 1,
            "ids": ["branch"],
        }
    ]


def test_a_decision_can_be_read_again(client: TestClient) -> None:
    body = client.post("/v1/decide", json=DECIDE).json()
    record = client.get(f"/v1/decisions/{body['decision_id']}").json()
    assert {name: record[name] for name in body if name != "removed"} == {n: body[n] for n in body if n != "removed"}
    assert sum(candidate["propensity"] for candidate in record["candidates"]) == pytest.approx(1)
    is_problem(client.get("/v1/decisions/" + "0" * 31 + "f"), 404)
    is_problem(client.get("/v1/decisions/..%2f..%2fetc"), 404)


def test_a_decision_replays_over_http_and_its_account_keeps_to_the_openapi_document(client: TestClient) -> None:
    for body in (DECIDE, {"customer_id": "nobody"}, {**DECIDE, "eligible": ["card"]}, {"customer_id": "silent"}):
        made = client.post("/v1/decide", json=body).json()
        path = f"/v1/decisions/{made['decision_id']}"
        plain, replayed = client.get(path).json(), client.get(path, params={"replay": "true"}).json()
        assert "replay" not in plain
        assert replayed["replay"] == {"replayed": True, "equal": True, "different": [], "reason": None}
        for document in (plain, replayed):
            DecisionDocument.model_validate(document)
        assert [entry["view"] for entry in plain["features"]]
    for wrong in ("yes", "1", ""):
        is_problem(client.get(path, params={"replay": wrong}), 422)


def test_route_answers_records_and_keeps_its_key(client: TestClient) -> None:
    body = {"customer_id": "anna", "product_id": "card", "purpose": "mandatory"}
    first = client.post("/v1/route", json=body, headers={"Idempotency-Key": "r1"})
    assert first.status_code == 200
    answer = first.json()
    assert (answer["action"]["product_id"], answer["purpose"], answer["propensity"]) == ("card", "mandatory", 1.0)
    assert answer["action"]["text"] == "Gold card for you"
    assert answer["fallback_channels"] == ["email"]
    again = client.post("/v1/route", json=body, headers={"Idempotency-Key": "r1"})
    assert again.content == first.content
    is_problem(client.post("/v1/route", json={**body, "worth": 1.0}, headers={"Idempotency-Key": "r1"}), 422)
    is_problem(client.post("/v1/decide", json={"customer_id": "anna"}, headers={"Idempotency-Key": "r1"}), 422)
    record = client.get(f"/v1/decisions/{answer['decision_id']}?replay=true").json()
    assert record["replay"]["equal"] is True
    assert record["asked"]["message"] == {"product_id": "card", "content_id": None, "worth": None}
    assert 'call="route"' in client.get("/metrics").text


@pytest.mark.parametrize("change", [{}, {"product_id": None}, {"product_id": "card", "worth": -1}, {"text": "hi"}])
def test_a_route_without_a_message_or_with_a_wrong_one_breaks_the_contract(
    client: TestClient, change: dict[str, Any]
) -> None:
    is_problem(client.post("/v1/route", json={"customer_id": "anna", **change}), 422)


def test_rank_answers_in_order_and_records_nothing(world: World) -> None:
    ledger = FakeLedger()
    with TestClient(app_over(lambda: Serving(world.decider, ledger))) as made:
        body = ready(made).post("/v1/rank", json={"customer_id": "held", "limit": 5}).json()
    assert body["products"] == [{"product_id": "loan", "probability": 0.01, "rank": 1}]
    assert ledger.order == []


def test_the_decision_is_recorded_before_it_is_answered(world: World) -> None:
    ledger = FakeLedger()
    app = app_over(lambda: Serving(world.decider, ledger))

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"] == "/v1/decide":
                ledger.order.append("answered")
            await send(message)

        await app(scope, receive, noted if scope["type"] == "http" else send)

    with TestClient(watched) as made:
        ready(made).post("/v1/decide", json=DECIDE)
    assert ledger.order == ["recorded", "answered"]


@dataclass(frozen=True)
class Contacting:
    """Decides as the decider of the world does, with a contact for every action."""

    decider: Decider

    def decide(self, ask: Ask, decision_id: str) -> Decision:
        decision = self.decider.decide(replace(ask, channels=("push",)), decision_id)
        action = decision.action
        if action is None:
            return decision
        contact = Contact(ask.customer_id, 1, action.channel, action.product_id, None, ask.purpose, decision_id, 2)
        return replace(decision, contact=contact)


@pytest.mark.parametrize(("full", "contacted"), [(0, True), (3, True), (4, False), (9, False)])
def test_a_cap_reached_meanwhile_is_decided_again_three_times_and_then_nobody_is_contacted(
    full: int, contacted: bool, world: World
) -> None:
    ledger = FakeLedger(full=full)
    greedy = replace(world.decider, policy=Policy(temperature=1e-6, epsilon=0.0))
    serving = Serving(Contacting(greedy), ledger)  # type: ignore[arg-type]  # only decide is called
    opening = Opening(lambda: serving, retry_seconds=0.01)
    numbers = iter(range(100))
    app = create_app(opening, lambda: CLOCK, lambda: f"{next(numbers):032x}")
    with TestClient(app) as made:
        until = time.monotonic() + 5
        while opening.reasons and time.monotonic() < until:
            time.sleep(0.01)
        body = made.post("/v1/decide", json=DECIDE).json()
    assert ledger.order == ["recorded"], "one decision, whatever was tried"
    assert (body["action"] is not None) is contacted
    assert body["decision_id"] == f"{min(full, 4):032x}", "every try draws anew"
    if not contacted:
        assert body["propensity"] == 1
        assert [reason["rule"] for reason in body["reasons"]] == ["once-a-week"]


def test_when_the_ledger_fails_nothing_is_answered_and_no_path_leaks(world: World) -> None:
    with TestClient(app_over(lambda: Serving(world.decider, FakeLedger(fails=True)))) as made:
        response = ready(made).post("/v1/decide", json=DECIDE)
    assert is_problem(response, 503)
    assert "secret" not in response.text
    assert "action" not in response.text


@pytest.mark.parametrize(
    "change",
    [
        {"customer_id": ""},
        {"customer_id": "x" * 257},
        {"customer_id": "a\nb"},
        {"customer_id": "a\u2028b"},
        {"customer_id": 7},
        {"customer_id": None},
        {"surprise": 1},
        {"as_of": "2024-06-01T12:00:00"},
        {"as_of": 1717243200},
        {"as_of": "yesterday"},
        {"as_of": "0001-01-01T00:00:00+23:59"},
        {"as_of": "9999-12-31T23:59:59-23:59"},
        {"eligible": "card"},
        {"eligible": ["a"] * 1001},
        {"eligible": [None]},
        {"channels": ["p\x00ush"]},
        {"purpose": "spam"},
        {"language": "../en"},
    ],
)
def test_what_breaks_the_contract_is_refused_without_repeating_it(client: TestClient, change: dict[str, Any]) -> None:
    response = client.post("/v1/decide", json={**DECIDE, **change})
    assert is_problem(response, 422)
    assert "surprise" not in response.text
    assert "spam" not in response.text


@pytest.mark.parametrize("limit", [0, 1001, True, 1.5, "3"])
def test_a_wrong_limit_is_refused(client: TestClient, limit: object) -> None:
    assert is_problem(client.post("/v1/rank", json={"customer_id": "anna", "limit": limit}), 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'{"customer_id": "anna", "as_of": NaN}', 422),
        (b'{"customer_id": "anna", "limit": Infinity}', 422),
        (b'{"customer_id": -Infinity}', 422),
        (b'{"customer_id": "\\ud800"}', 400),
        (b'{"customer_id": "\xff"}', 400),
        (b'{"customer_id":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    ],
)
@pytest.mark.parametrize("path", ["/v1/decide", "/v1/rank"])
def test_what_is_not_finite_json_is_refused(client: TestClient, path: str, body: bytes, status: int) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert is_problem(response, status)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_only_json_is_accepted(client: TestClient, media: str) -> None:
    response = client.post("/v1/decide", content=json.dumps(DECIDE), headers={"content-type": media})
    assert is_problem(response, 415)


def test_an_encoded_body_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert is_problem(client.post("/v1/decide", content=b"\x1f\x8b", headers=headers), 415)


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(client: TestClient) -> None:
    body = json.dumps(DECIDE).encode()
    headers = {"content-type": "application/json"}
    assert client.post("/v1/decide", content=body.ljust(MAX_BODY), headers=headers).status_code == 200
    assert is_problem(client.post("/v1/decide", content=body.ljust(MAX_BODY + 1), headers=headers), 413)


def test_a_chunked_body_without_a_length_is_limited_too(client: TestClient) -> None:
    headers = {"content-type": "application/json"}

    def chunks(count: int) -> Iterator[bytes]:
        yield json.dumps(DECIDE).encode()
        for _ in range(count):
            yield b" " * 1024

    assert client.post("/v1/decide", content=chunks(10), headers=headers).status_code == 200
    assert is_problem(client.post("/v1/decide", content=chunks(100), headers=headers), 413)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/docs.json", "/schema.json", "/v1", "/v1/decide/", "/x%0aforged"]
)
def test_every_other_path_is_a_problem_document(client: TestClient, path: str) -> None:
    assert is_problem(client.get(path), 404)


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/decide"), ("PUT", "/v1/rank"), ("POST", "/livez")])
def test_a_wrong_method_is_a_problem_document_that_names_the_right_one(
    client: TestClient, method: str, path: str
) -> None:
    response = client.request(method, path)
    assert is_problem(response, 405)
    assert response.headers["allow"] in ("GET", "POST")


def test_an_error_of_ours_shows_no_trace(world: World) -> None:
    class Broken:
        degraded: tuple[str, ...] = ()

        def decide(self, ask: Ask, decision_id: str) -> Decision:
            raise ZeroDivisionError("inner secret")

    serving = Serving(Broken(), FakeLedger())  # type: ignore[arg-type]  # a decider with a defect
    with TestClient(app_over(lambda: serving), raise_server_exceptions=False) as made:
        for _ in range(100):
            response = made.post("/v1/decide", json=DECIDE)
            if response.status_code != 503:
                break
            time.sleep(0.01)
    assert is_problem(response, 500)
    assert "secret" not in response.text


def test_the_same_idempotency_key_gives_the_same_bytes(client: TestClient) -> None:
    headers = {"idempotency-key": "order-1"}
    first = client.post("/v1/decide", json=DECIDE, headers=headers)
    again = client.post("/v1/decide", json=DECIDE, headers=headers)
    spaced = client.post(
        "/v1/decide",
        content=b'{ "customer_id" : "anna" }',
        headers={**headers, "content-type": "application/json; charset=utf-8"},
    )
    assert first.content == again.content == spaced.content
    assert client.post("/v1/decide", json=DECIDE).content != first.content


def test_an_idempotency_key_with_another_request_is_refused(client: TestClient) -> None:
    headers = {"idempotency-key": "order-1"}
    client.post("/v1/decide", json=DECIDE, headers=headers)
    assert is_problem(client.post("/v1/decide", json={**DECIDE, "purpose": "service"}, headers=headers), 422)


def test_concurrent_requests_with_one_key_get_one_decision(client: TestClient) -> None:
    def call(_: int) -> bytes:
        return client.post("/v1/decide", json=DECIDE, headers={"idempotency-key": "together"}).content

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(call, range(24)))) == 1
    assert b"nextbest_decisions_total{outcome" in client.get("/metrics").content
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("nextbest_decisions_total")]
    assert sum(float(line.split()[-1]) for line in counted) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä".encode().decode("latin-1")])
def test_a_malformed_idempotency_key_is_refused(client: TestClient, key: str) -> None:
    headers = [("idempotency-key", key.encode("latin-1")), ("content-type", "application/json")]
    assert is_problem(client.post("/v1/decide", content=json.dumps(DECIDE), headers=headers), 422)


def test_until_everything_is_open_the_server_lives_but_is_not_ready(world: World) -> None:
    gate = threading.Event()
    ledger = FakeLedger()

    def slow() -> Serving:
        gate.wait(10)
        return Serving(world.decider, ledger)

    with TestClient(app_over(slow)) as made:
        assert made.get("/livez").status_code == 200
        assert is_problem(made.get("/readyz"), 503)
        assert is_problem(made.post("/v1/decide", json=DECIDE), 503)
        assert is_problem(made.post("/v1/rank", json=DECIDE), 503)
        gate.set()
        ready(made)
    assert not ledger.open, "leaving the app closes the ledger"


def test_a_failed_opening_says_why_and_is_tried_again(world: World) -> None:
    attempts: list[int] = []

    def third_time() -> Serving:
        attempts.append(1)
        if len(attempts) < 3:
            raise LedgerUnavailable("another process has it")
        return Serving(world.decider, FakeLedger())

    with TestClient(app_over(third_time)) as made:
        ready(made)
    assert len(attempts) == 3


def test_readiness_ends_with_the_ledger_and_names_the_models(world: World) -> None:
    ledger = FakeLedger()
    degraded = world.with_models(None)
    with TestClient(app_over(lambda: Serving(degraded, ledger))) as made:
        state = ready(made).get("/readyz").json()
        assert state["models"] == {"next-best-product": [], "channel-choice": [{"name": "champion", "version": "7"}]}
        assert state["degraded"] == ["no usable champion"]
        ledger.open = False
        assert is_problem(made.get("/readyz"), 503)


def test_metrics_count_outcomes_rules_and_dropped_scores(world: World) -> None:
    decider = world.with_models((float("nan"), 0.01), None)
    with TestClient(app_over(lambda: Serving(decider, FakeLedger()))) as made:
        ready(made).post("/v1/decide", json={"customer_id": "silent"})
        made.post("/v1/decide", json={"customer_id": "anna"})
        made.post("/v1/decide", json={})
        text = made.get("/metrics").text
    assert 'nextbest_decisions_total{outcome="no_contact"}' in text
    assert 'nextbest_removed_total{rule="no_consent",subject="channel"} 2.0' in text
    assert "nextbest_dropped_scores_total 1.0" in text or "nextbest_dropped_scores_total 2.0" in text
    assert 'nextbest_degraded_total{call="decide"}' in text
    assert 'nextbest_latency_seconds_count{call="decide",status="200"} 2.0' in text
    assert 'nextbest_latency_seconds_count{call="decide",status="422"} 1.0' in text


def test_overload_is_refused_at_once(world: World) -> None:
    gate = threading.Event()

    @dataclass
    class Slow:
        inner: Any

        def rank(self, ask: Ask, limit: int | None) -> Ranking:
            gate.wait(10)
            ranking: Ranking = self.inner.rank(ask, limit)
            return ranking

    serving = Serving(Slow(world.decider), FakeLedger())  # type: ignore[arg-type]  # only rank is called
    with TestClient(app_over(lambda: serving, in_flight=1, waiting=1)) as made:
        while made.post("/v1/rank", json={}).status_code == 503:
            time.sleep(0.01)
        with ThreadPoolExecutor(6) as pool:
            calls = [pool.submit(made.post, "/v1/rank", json=DECIDE) for _ in range(6)]
            while sum(call.done() for call in calls) < 4:
                time.sleep(0.01)
            gate.set()
            statuses = sorted(call.result().status_code for call in calls)
    assert statuses == [200, 200, 503, 503, 503, 503]


def test_the_openapi_document_describes_every_call(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/v1/decide", "/v1/route", "/v1/rank", "/v1/decisions/{decision_id}", "/livez", "/readyz", "/metrics"),
        *("/v1/events", "/v1/customers/{customer_id}/timeline"),
    }
    route = document["paths"]["/v1/route"]["post"]
    assert route["parameters"] == document["paths"]["/v1/decide"]["post"]["parameters"]
    record = document["paths"]["/v1/decisions/{decision_id}"]["get"]
    assert {parameter["name"] for parameter in record["parameters"]} == {"decision_id", "replay"}
    shown = document["components"]["schemas"]["DecisionDocument"]["properties"]
    assert {"features", "candidates", "removed", "runner_up", "would_change", "replay"} <= shown.keys()
    decide = document["paths"]["/v1/decide"]["post"]
    assert decide["requestBody"]["content"]["application/json"]["schema"]["additionalProperties"] is False
    assert decide["parameters"][0]["name"] == "Idempotency-Key"
    assert {"200", "400", "413", "415", "422", "503"} <= set(decide["responses"])


def test_a_body_that_trickles_in_is_cut_off() -> None:
    async def never_called(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("an unfinished body must not be passed on")

    sent: list[Any] = []

    async def call() -> None:
        async def receive() -> dict[str, Any]:
            await anyio.sleep(0.03)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/decide", "headers": []}
        await BodyLimit(never_called, seconds=0.1)(scope, receive, send)

    anyio.run(call)
    assert sent[0]["status"] == 408


def test_a_body_that_announces_itself_as_too_large_is_refused_unread() -> None:
    sent: list[Any] = []

    async def never(*_: Any) -> Any:
        raise AssertionError("nothing may be read or passed on")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"65537")]}
    anyio.run(lambda: BodyLimit(never)(scope, never, send))
    assert sent[0]["status"] == 413


def test_a_decision_says_degraded_when_it_is(world: World, tmp_path: Path) -> None:
    decider = replace(world.decider, products=world.with_models(None).products)
    with TestClient(app_over(lambda: Serving(decider, SqliteLedger(tmp_path / "ledger.db")))) as made:
        body = ready(made).post("/v1/decide", json=DECIDE).json()
    assert body["degraded"] is True
    assert body["degraded_because"]
