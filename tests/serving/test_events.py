"""POST /v1/events and GET /v1/customers/{id}/timeline: what is taken, what it changes, and how it is read again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from features.customer_events import CustomerEvents
from features.live import Live
from serving.api import create_app
from serving.caps import ConsentChanged
from serving.contract_events import EventsAnswer, TimelineAnswer
from serving.decide import Decider
from serving.decision import Ask, Decision
from serving.events import TimelineEvent
from serving.history import Remembered, groups_of
from serving.ledger import Ledger, SqliteLedger
from serving.opening import Opening, Serving
from serving.policy import Policy

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CLOCK = datetime.fromisoformat("2024-06-01T12:00:00+00:00")
CERTAIN = Policy(temperature=1e-6, epsilon=0.0)
CLICK = {"event_id": "e1", "customer_id": "anna", "event_timestamp": "2024-06-01T11:00:00Z", "kind": "clicked"}
OUT = {**CLICK, "event_id": "out", "kind": "opted_out"}


@dataclass
class Times:
    now: datetime = CLOCK

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Times:
    return Times()


@pytest.fixture
def ledger(world: World, tmp_path: Path) -> Iterator[Ledger]:
    catalog = world.decider.catalog
    ledger = SqliteLedger(tmp_path / "ledger.db", Live(catalog).add, groups_of(catalog))
    yield ledger
    ledger.close()


def decider_over(world: World, ledger: Ledger) -> Decider:
    live = Live(world.decider.catalog)
    return replace(world.decider, history=Remembered(ledger, {}), merge=live.merged, policy=CERTAIN)


def client_over(serving: Serving, clock: Callable[[], datetime]) -> TestClient:
    numbers = iter(range(10**9))
    opening = Opening(lambda: serving, retry_seconds=0.01)
    return TestClient(create_app(opening, clock, lambda: f"{next(numbers):032x}"), raise_server_exceptions=False)


@pytest.fixture
def client(world: World, ledger: Ledger, clock: Times) -> Iterator[TestClient]:
    imported = CustomerEvents(world.home.build().bank_folder)
    serving = Serving(decider_over(world, ledger), ledger, imported=imported)
    with client_over(serving, clock) as made:
        while made.get("/readyz").status_code != 200:
            time.sleep(0.01)
        yield made


def post(client: TestClient, *events: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/events", json={"events": list(events)})
    assert response.status_code == 202, response.text
    EventsAnswer.model_validate(response.json())
    return response.json()["results"]


def statuses(client: TestClient, *events: Any) -> list[str]:
    return [result["status"] for result in post(client, *events)]


def timeline(client: TestClient, customer: str = "anna", **asked: Any) -> dict[str, Any]:
    response = client.get(f"/v1/customers/{customer}/timeline", params=asked)
    assert response.status_code == 200, response.text
    TimelineAnswer.model_validate(response.json())
    return response.json()


def test_each_item_has_a_status_of_its_own(client: TestClient) -> None:
    assert post(
        client,
        CLICK,
        CLICK,
        {**CLICK, "kind": "opened"},
        {**CLICK, "event_id": "e2", "channel": "pigeon"},
        {**CLICK, "event_id": "out-1"},
        {**OUT, "customer_id": "new customer"},
    ) == [
        {"event_id": "e1", "status": "accepted"},
        {"event_id": "e1", "status": "duplicate"},
        {"event_id": "e1", "status": "conflict"},
        {"event_id": "e2", "status": "rejected", "reason": "channel: not in the catalogue"},
        {"event_id": "out-1", "status": "duplicate"},  # the features were built from it
        {"event_id": "out", "status": "accepted"},
    ]
    assert statuses(client, CLICK) == ["duplicate"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "winked"}, "kind: "),
        ({"kind": None}, "event: "),
        ({"status": "DELIVRD"}, "event: "),
        ({"kind": None, "status": "DELIVRD"}, "event: "),
        ({"kind": None, "status": "queued", "channel": "push"}, "status: a state on the way"),
        ({"kind": None, "status": "wat", "channel": "push"}, "status: not a delivery state"),
        ({"product_id": "yacht"}, "product_id: "),
        ({"content_id": "poem"}, "content_id: "),
        ({"purpose": "fun"}, "purpose: "),
        ({"event_timestamp": "2024-06-01T11:00:00"}, "event_timestamp: "),
        ({"event_timestamp": 1717239600}, "event_timestamp: "),
        ({"event_timestamp": "2024-06-01T12:05:00.000001Z"}, "event_timestamp: more than 5 minutes ahead"),
        ({"event_timestamp": "1823-01-01T00:00:00Z"}, "event_timestamp: "),
        ({"event_id": ""}, "event_id: "),
        ({"event_id": None}, "event_id: "),
        ({"customer_id": "nan"}, "customer_id: "),
        ({"message_id": "a\nb"}, "message_id: "),
        ({"propensity": 0}, "propensity: "),
        ({"propensity": 1.5}, "propensity: "),
        ({"value": "12"}, "value: "),
        ({"secret": "1234"}, "event: "),
    ],
)
def test_an_item_that_breaks_the_contract_is_rejected_with_the_rule_and_the_others_are_not(
    client: TestClient, change: dict[str, Any], reason: str
) -> None:
    wrong = {name: value for name, value in {**CLICK, **change}.items() if value is not None}
    first, second = post(client, wrong, {**CLICK, "event_id": "good"})
    assert (first["status"], second["status"]) == ("rejected", "accepted")
    assert first["reason"].startswith(reason)
    assert "1234" not in first["reason"]
    assert first["event_id"] == wrong.get("event_id")


@pytest.mark.parametrize("item", [None, 5, "event", [], {}, {"event_id": 7}, {"event_id": "x" * 300}])
def test_an_item_without_a_readable_id_is_rejected_without_one(client: TestClient, item: Any) -> None:
    assert post(client, item)[0] | {"reason": ""} == {"event_id": None, "status": "rejected", "reason": ""}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"events": []}', 422),
        (json.dumps({"events": [CLICK] * 501}).encode(), 422),
        (b'{"events": {}}', 422),
        (b'{"events": [{}], "more": 1}', 422),
        (b"[]", 422),
        (b'{"events": [{"value": NaN}]}', 400),
        (b"no", 400),
        (b" " * (1024 * 1024 + 1), 413),
    ],
)
def test_a_body_that_is_no_list_of_1_to_500_is_a_problem_document(client: TestClient, body: bytes, status: int) -> None:
    response = client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_500_events_are_taken_at_once(client: TestClient) -> None:
    events = [{**CLICK, "event_id": f"{n:0250}", "customer_id": f"c{n % 7}"} for n in range(500)]
    assert set(statuses(client, *events)) == {"accepted"}
    assert len(timeline(client, "c3", limit=500)["events"]) == 71


def test_a_clock_a_little_ahead_of_ours_means_now_also_when_the_event_comes_again(
    client: TestClient, clock: Times
) -> None:
    ahead = {**CLICK, "event_timestamp": "2024-06-01T12:05:00Z"}
    assert statuses(client, ahead) == ["accepted"]
    assert timeline(client)["events"][0]["event_timestamp"] == "2024-06-01T12:00:00Z"
    clock.now += timedelta(minutes=10)
    assert statuses(client, ahead) == ["duplicate"]


def test_events_are_durable_before_they_are_answered_and_503_where_that_cannot_be(
    world: World, ledger: Ledger, clock: Times
) -> None:
    serving = Serving(decider_over(world, ledger), ledger)
    with client_over(serving, clock) as made:
        while made.get("/readyz").status_code != 200:
            time.sleep(0.01)
        ledger.close()
        response = made.post("/v1/events", json={"events": [CLICK]})
    assert response.status_code == 503
    assert response.json()["type"] == "urn:nextbest:ledger-unavailable"


@pytest.mark.parametrize(
    ("said", "contacted"),
    [
        ({}, False),
        ({"purpose": "marketing"}, False),
        ({"channel": "email"}, True),
        ({"purpose": "service"}, True),
        ({"customer_id": "held"}, True),
    ],
)
def test_an_opt_out_holds_for_the_very_next_decision(client: TestClient, said: dict[str, str], contacted: bool) -> None:
    before = client.post("/v1/decide", json={"customer_id": "anna"}).json()
    assert before["action"]["channel"] == "push"
    assert statuses(client, {**OUT, **said}) == ["accepted"]
    after = client.post("/v1/decide", json={"customer_id": "anna"}).json()
    assert (after["action"] is not None) is contacted
    if "channel" in said:
        assert [gone["ids"] for gone in after["removed"] if gone["rule"] == "no_consent"] == [["email"]]


def test_an_opt_in_takes_back_an_imported_opt_out_and_the_decision_still_replays(client: TestClient) -> None:
    assert client.post("/v1/decide", json={"customer_id": "silent"}).json()["action"] is None
    assert statuses(client, {**OUT, "customer_id": "silent", "kind": "opted_in"}) == ["accepted"]
    made = client.post("/v1/decide", json={"customer_id": "silent"}).json()
    assert made["action"] is not None
    assert statuses(client, {**OUT, "event_id": "again", "customer_id": "silent"}) == ["accepted"]
    replayed = client.get(f"/v1/decisions/{made['decision_id']}", params={"replay": "true"}).json()
    assert replayed["replay"] == {"replayed": True, "equal": True, "different": [], "reason": None}


def test_a_late_opt_out_does_not_undo_a_later_opt_in(client: TestClient) -> None:
    later = {**OUT, "event_id": "in", "kind": "opted_in"}
    earlier = {**OUT, "event_timestamp": "2024-06-01T10:00:00Z"}
    assert statuses(client, later, earlier) == ["accepted", "accepted"]
    assert client.post("/v1/decide", json={"customer_id": "anna"}).json()["action"] is not None
    assert timeline(client)["consent"]["push"] == {"marketing": True, "service": True}
    assert not timeline(client, as_of="2024-06-01T10:30:00Z")["consent"]["push"]["marketing"]


@dataclass
class Opposed:
    """A decider whose customer says no while it decides, so many times."""

    decider: Decider
    ledger: Ledger
    times: int

    def decide(self, ask: Ask, decision_id: str) -> Decision:
        decision = self.decider.decide(ask, decision_id)
        if self.times:
            self.times -= 1
            event = TimelineEvent(f"meanwhile {self.times}", "anna", 1, "opted_out", "branch")
            assert self.ledger.append([event]) == ("accepted",)
        return decision


@pytest.mark.parametrize(("times", "contacted"), [(0, True), (1, True), (3, True), (4, False)])
def test_consent_that_changes_between_reading_and_recording_leads_to_a_new_decision(
    world: World, ledger: Ledger, clock: Times, times: int, contacted: bool
) -> None:
    opposed = Opposed(decider_over(world, ledger), ledger, times)
    serving = Serving(opposed, ledger)  # type: ignore[arg-type]  # only decide is called
    with client_over(serving, clock) as made:
        time.sleep(0.05)
        body = made.post("/v1/decide", json={"customer_id": "anna"}).json()
    assert body["decision_id"] == f"{times:032x}", "every try decides anew, the last one not to contact"
    assert (body["action"] is not None) is contacted
    if not contacted:
        assert [reason["rule"] for reason in body["reasons"]] == [ConsentChanged().rule]


def test_a_complaint_and_a_receipt_are_known_to_the_next_decision(client: TestClient, ledger: Ledger) -> None:
    made = client.post("/v1/decide", json={"customer_id": "anna"}).json()
    receipt = {**CLICK, "decision_id": made["decision_id"], "message_id": "m1", "channel": "push"}
    del receipt["kind"]
    assert statuses(client, {**receipt, "status": "Undelivered"}) == ["accepted"]
    now_us = int(CLOCK.timestamp()) * 1_000_000
    assert ledger.known("anna", 0, now_us).contacts == (), "it failed, so it used nothing up"
    record = client.get(
        f"/v1/decisions/{client.post('/v1/decide', json={'customer_id': 'anna'}).json()['decision_id']}"
    )
    assert [response["kind"] for response in record.json()["past"]["responses"]] == ["failed"]


def test_the_timeline_shows_imported_events_decisions_and_new_events_in_one_order(client: TestClient) -> None:
    made = client.post("/v1/decide", json={"customer_id": "refuser"}).json()
    assert statuses(client, {**CLICK, "customer_id": "refuser", "channel": "push"}) == ["accepted"]
    page = timeline(client, "refuser")
    assert [(event["event_id"], event["direction"]) for event in page["events"]] == [
        (f"decided:{made['decision_id']}", "downlink"),
        ("e1", "uplink"),
        ("out-1", "uplink"),
    ]
    assert page["events"][0]["decision_id"] == made["decision_id"]
    assert page["events"][2] == {
        "event_id": "out-1",
        "customer_id": "refuser",
        "event_timestamp": "2024-01-03T00:00:00Z",
        "kind": "opted_out",
        "direction": "uplink",
        "channel": "email",
    }
    assert page["consent"] == {
        "push": {"marketing": True, "service": True},
        "email": {"marketing": False, "service": False},
        "branch": {"marketing": True, "service": True},
    }
    assert page["next"] is None
    before = timeline(client, "refuser", as_of="2024-01-02T00:00:00Z")
    assert (before["events"], before["consent"]["email"]["marketing"]) == ([], True)


def test_pages_follow_each_other_without_a_gap_or_a_repetition(client: TestClient) -> None:
    events = [{**CLICK, "event_id": f"e{n:02}", "customer_id": "refuser"} for n in range(7)]
    post(client, *events)
    seen, before = [], {}
    while True:
        page = timeline(client, "refuser", limit=3, **before)
        seen += [event["event_id"] for event in page["events"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == [*(f"e{n:02}" for n in range(6, -1, -1)), "out-1"]


def test_a_customer_that_nobody_knows_has_an_empty_timeline(client: TestClient) -> None:
    assert timeline(client, "nobody")["events"] == []
    assert timeline(client, "a%2Fb")["customer_id"] == "a/b"


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "many"},
        {"limit": "-1"},
        {"as_of": "yesterday"},
        {"as_of": "2024-06-01"},
        {"before": "nonsense"},
        {"before": "WzFd"},
        {"before": "x" * 2000},
        {"limit": ["1", "2"]},
    ],
)
def test_a_wrong_parameter_is_a_problem_document(client: TestClient, asked: dict[str, Any]) -> None:
    response = client.get("/v1/customers/anna/timeline", params=asked)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_metrics_count_events_by_status_and_how_soon_they_were_known(client: TestClient) -> None:
    post(client, CLICK, CLICK, {**CLICK, "event_id": ""})
    text = client.get("/metrics").text
    for status in ("accepted", "duplicate", "rejected"):
        assert f'nextbest_events_total{{status="{status}"}} 1.0' in text
    assert "nextbest_event_freshness_seconds_count 1.0" in text
    assert 'nextbest_latency_seconds_count{call="events",status="202"} 1.0' in text


def test_decisions_and_opt_outs_at_once_never_contact_after_the_acknowledgement(client: TestClient) -> None:
    def pair(number: int) -> bool:
        out = {**OUT, "event_id": f"o{number}", "purpose": "marketing"}
        assert statuses(client, out)[0] == "accepted"
        return client.post("/v1/decide", json={"customer_id": "anna"}).json()["action"] is None

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(pair, range(40)))
