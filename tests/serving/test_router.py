"""The reference router against a service that keeps the contract, with real deliveries: SMTP and a webhook.

The service is a fake through the transport: decisions are given, events are kept with the statuses of /v1/events, and
timelines are read in pages of two, newest first.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from aiosmtpd.controller import Controller
from starlette.testclient import TestClient

from features.errors import InputError
from serving.api import create_app
from serving.launch import free_port
from serving.ledger import SqliteLedger
from serving.opening import Opening, Serving
from serving.router.client import TRIES, Client, Refused, Unreachable
from serving.router.deliver import AppriseDelivery, DeliveryFailed, Message
from serving.router.journey import Done, Wait
from serving.router.routing import Job, Router, read_jobs
from serving.router.targets import Target, read_addresses, read_targets

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hop(channel: str, after: float, until: float) -> dict[str, Any]:
    times = {"send_at": (NOON + after * HOUR).isoformat(), "deadline": (NOON + until * HOUR).isoformat()}
    return {"channel": channel, "content_id": f"of-{channel}", "text": f"<b>{channel}</b> for you", **times}


CHAIN = (hop("push", 0, 2), hop("email", 3, 5))


@dataclass
class FakeService:
    """Answers every decision with `chain`; `down` and `lost`: so many calls get 503, or work and get no answer."""

    chain: tuple[dict[str, Any], ...] = CHAIN
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    down: int = 0
    lost: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path}")
        if self.down:
            self.down -= 1
            return httpx.Response(503, json={"detail": "not ready"})
        body = json.loads(request.content) if request.content else {}
        if request.url.path in ("/v1/decide", "/v1/route"):
            answer = self.decided(body, request.headers["idempotency-key"])
        elif request.url.path == "/v1/events":
            answer = httpx.Response(202, json={"results": [self.taken(event) for event in body["events"]]})
        else:
            answer = self.page(request)
        if self.lost:
            self.lost -= 1
            raise httpx.ReadTimeout("the answer got lost")
        return answer

    def decided(self, body: dict[str, Any], key: str) -> httpx.Response:
        if body["customer_id"] == "wrong":
            return httpx.Response(422, json={"detail": "no such thing", "errors": [{"pointer": "/x", "detail": "y"}]})
        new = {
            "decision_id": f"{len(self.answers):032x}",
            "customer_id": body["customer_id"],
            "purpose": body.get("purpose", "marketing"),
            "as_of": NOON.isoformat(),
            "action": {"product_id": "card"},
            "chain": list(self.chain),
        }
        return httpx.Response(200, json=self.answers.setdefault(key, new))

    def taken(self, event: dict[str, Any]) -> dict[str, Any]:
        known = self.events.setdefault(event["event_id"], event)
        status = "accepted" if known is event else "duplicate" if known == event else "conflict"
        if event["channel"] == "fax":
            return {"event_id": event["event_id"], "status": "rejected", "reason": "unknown channel"}
        return {"event_id": event["event_id"], "status": status}

    def page(self, request: httpx.Request) -> httpx.Response:
        customer = request.url.path.split("/")[3]
        mine = [event for event in self.events.values() if event["customer_id"] == customer]
        mine.sort(key=lambda event: (event["event_timestamp"], event["event_id"]), reverse=True)
        start = int(parse_qs(request.url.query.decode()).get("before", ["0"])[0])
        following = str(start + 2) if start + 2 < len(mine) else None
        shown = [{name: value for name, value in one.items() if value is not None} for one in mine[start : start + 2]]
        return httpx.Response(200, json={"events": shown, "next": following})

    def client(self) -> Client:
        return Client("http://service", httpx.MockTransport(self), pause=lambda seconds: None)

    @property
    def told(self) -> list[str]:
        """The events in the order in which they came: channel and kind."""
        return [f"{event['channel']} {event['kind']}" for event in self.events.values()]


@dataclass
class FakeDelivery:
    """Takes every message except those of channels in `fails`; those in `arrives` arrive at once."""

    fails: frozenset[str] = frozenset()
    arrives: frozenset[str] = frozenset()
    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> bool:
        self.sent.append(message)
        if message.channel in self.fails:
            raise DeliveryFailed("gone")
        return message.channel in self.arrives


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def clock() -> Clock:
    return Clock()


JOB = Job("1", {"customer_id": "anna"})


def test_a_message_that_arrives_is_sent_once_and_told_of(service: FakeService, clock: Clock) -> None:
    delivery = FakeDelivery(arrives=frozenset({"push"}))
    router = Router(service.client(), delivery, {}, clock)
    assert router.advance(JOB) == router.advance(JOB) == Done("arrived")
    assert [(one.channel, one.text) for one in delivery.sent] == [("push", "<b>push</b> for you")]
    assert service.told == ["push sent", "push delivered"]
    sent = service.events[f"{0:032x}.1:sent"]
    assert (sent["content_id"], sent["product_id"], sent["decision_id"]) == ("of-push", "card", f"{0:032x}")


def test_a_failed_hop_gives_way_to_the_next_one_at_its_own_time(service: FakeService, clock: Clock) -> None:
    delivery = FakeDelivery(fails=frozenset({"push"}), arrives=frozenset({"email"}))
    router = Router(service.client(), delivery, {}, clock)
    assert router.advance(JOB) == Wait(NOON + 3 * HOUR)
    clock.now = NOON + 3 * HOUR
    assert router.advance(JOB) == Done("arrived")
    assert service.told == ["push sent", "push failed", "email sent", "email delivered"]


def test_a_hop_that_nobody_hears_of_is_waited_for_until_its_deadline(service: FakeService, clock: Clock) -> None:
    router = Router(service.client(), FakeDelivery(), {}, clock)
    assert router.advance(JOB) == Wait(NOON + 2 * HOUR)
    clock.now = NOON + 2 * HOUR
    assert router.advance(JOB) == Wait(NOON + 3 * HOUR)
    clock.now = NOON + 4 * HOUR
    assert router.advance(JOB) == Wait(NOON + 5 * HOUR)
    assert service.told == ["push sent", "email sent"]


def test_a_receipt_that_somebody_else_posts_ends_the_journey(service: FakeService, clock: Clock) -> None:
    router = Router(service.client(), FakeDelivery(), {}, clock)
    router.advance(JOB)
    receipt = {**service.events[f"{0:032x}.1:sent"], "event_id": "provider-7", "kind": "delivered"}
    service.client().report([receipt])
    assert router.advance(JOB) == Done("arrived")


def test_a_timeline_is_read_over_all_its_pages_back_to_the_decision(service: FakeService) -> None:
    for hour in range(-2, 5):
        event = {"event_id": str(hour), "customer_id": "anna", "channel": None, "kind": "visited"}
        service.events[str(hour)] = {**event, "event_timestamp": (NOON + hour * HOUR).isoformat()}
    found = service.client().timeline("anna", NOON)
    assert [event["event_id"] for event in found] == ["4", "3", "2", "1", "0"]


def test_a_router_that_died_after_saying_sent_never_sends_again(service: FakeService, clock: Clock) -> None:
    class Dies(FakeDelivery):
        def send(self, message: Message) -> bool:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Router(service.client(), Dies(), {}, clock).advance(JOB)
    delivery = FakeDelivery()
    again = Router(service.client(), delivery, {}, clock)
    assert again.advance(JOB) == Wait(NOON + 2 * HOUR)
    assert delivery.sent == []
    clock.now = NOON + 3 * HOUR
    again.advance(JOB)
    assert [one.channel for one in delivery.sent] == ["email"]


def test_of_two_routers_with_the_same_job_only_one_sends(service: FakeService) -> None:
    deliveries = FakeDelivery(), FakeDelivery()
    nobody_told = FakeService(answers=service.answers, events=service.events)
    nobody_told.page = lambda request: httpx.Response(200, json={"events": [], "next": None})  # type: ignore[method-assign]
    for place, delivery in enumerate(deliveries):
        late = Clock(NOON + timedelta(microseconds=place))
        client = Client("http://service", httpx.MockTransport(nobody_told), pause=lambda seconds: None)
        router = Router(client, delivery, {}, late)
        if place:
            assert router.advance(JOB) == Wait(NOON + 2 * HOUR)
        else:
            nobody_told.page, unseen = service.page, nobody_told.page  # type: ignore[method-assign]
            router.advance(JOB)
            nobody_told.page = unseen  # type: ignore[method-assign]
    assert [len(delivery.sent) for delivery in deliveries] == [1, 0]


def test_a_timeline_that_lags_does_not_make_a_router_send_twice(service: FakeService, clock: Clock) -> None:
    service.page = lambda request: httpx.Response(200, json={"events": [], "next": None})  # type: ignore[method-assign]
    delivery = FakeDelivery()
    assert Router(service.client(), delivery, {}, clock).advance(JOB) == Wait(NOON + 2 * HOUR)
    assert len(delivery.sent) == 1


def test_a_lost_answer_is_asked_for_again_and_nothing_happens_twice(service: FakeService, clock: Clock) -> None:
    service.lost, service.down = 1, 2
    delivery = FakeDelivery(arrives=frozenset({"push"}))
    assert Router(service.client(), delivery, {}, clock).advance(JOB) == Done("arrived")
    assert len(service.answers) == len(delivery.sent) == 1


def test_a_given_message_goes_to_route_and_a_refused_job_stops_no_other(service: FakeService, clock: Clock) -> None:
    jobs = [
        Job("1", {"customer_id": "wrong"}),
        Job("2", {"customer_id": "anna", "content_id": "statement", "purpose": "service"}),
    ]
    router = Router(service.client(), FakeDelivery(arrives=frozenset({"push"})), {}, clock)
    found = router.advance_all(jobs)
    assert found["1"] == Done("invalid", "POST /v1/decide was refused: 422 no such thing; /x y")
    assert found["2"] == Done("arrived")
    assert "POST /v1/route" in service.calls


def test_a_job_whose_receipt_is_rejected_is_not_sent(service: FakeService, clock: Clock) -> None:
    service.chain = (hop("fax", 0, 2),)
    delivery = FakeDelivery()
    assert Router(service.client(), delivery, {}, clock).advance(JOB).word == "invalid"
    assert delivery.sent == []


def test_run_goes_on_until_every_journey_has_ended(service: FakeService, clock: Clock) -> None:
    def pause(seconds: float) -> None:
        clock.now += timedelta(seconds=seconds)

    delivery = FakeDelivery(fails=frozenset({"push", "email"}))
    jobs = [Job(str(place), {"customer_id": f"c{place}"}) for place in range(5)]
    found = Router(service.client(), delivery, {}, clock).run(jobs, pause, 1800.0)
    assert found == {job.id: Done("failed") for job in jobs}
    assert len(delivery.sent) == 10


def test_a_service_that_stays_away_is_an_error(service: FakeService) -> None:
    service.down = TRIES
    with pytest.raises(Unreachable, match="503 not ready"):
        service.client().decide({"customer_id": "anna"}, "1")


def test_a_rejected_event_is_an_error(service: FakeService) -> None:
    with pytest.raises(Refused, match="unknown channel"):
        service.client().report([{"event_id": "e", "customer_id": "anna", "channel": "fax"}])


# The real service


class Through(httpx.BaseTransport):
    """Carries requests to an app in this process."""

    def __init__(self, app: TestClient) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._app.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(answer.status_code, headers={"content-type": "application/json"}, content=answer.content)


def test_a_chain_is_walked_with_the_real_service_and_stands_on_its_timeline(world: Any, tmp_path: Path) -> None:
    clock, numbers = Clock(), count()
    ledger = SqliteLedger(tmp_path / "ledger.db")
    opening = Opening(lambda: Serving(world.decider, ledger))
    app = create_app(opening, clock, lambda: f"{next(numbers):032x}")
    with TestClient(app) as served:
        while served.get("/readyz").status_code != 200:
            time.sleep(0.01)
        client = Client("http://testserver", Through(served))
        delivery = FakeDelivery(fails=frozenset({"push", "email"}))
        router = Router(client, delivery, {}, clock)
        job = Job("anna-1", {"customer_id": "anna", "product_id": "card", "purpose": "service"})
        waiting = router.advance(job)
        assert isinstance(waiting, Wait)
        clock.now = waiting.until
        delivery.fails = frozenset()
        assert isinstance(router.advance(job), Wait)
        second = delivery.sent[1]
        receipt = {"event_id": "provider-1", "customer_id": "anna", "event_timestamp": clock.now.isoformat()}
        receipt |= {"kind": "delivered", "channel": second.channel, "message_id": second.message_id}
        assert client.report([receipt]) == ["accepted"]
        assert router.advance(job) == Done("arrived")
        told = [(event["kind"], event.get("channel")) for event in client.timeline("anna", NOON)][::-1]
    first = delivery.sent[0].channel
    assert {first, second.channel} == {"push", "email"}
    assert delivery.sent[0].text
    assert second.text
    assert set(told[:3]) == {("decided", first), ("sent", first), ("failed", first)}  # all at one instant
    assert set(told[3:]) == {("sent", second.channel), ("delivered", second.channel)}


# Real deliveries


@dataclass
class Mailbox:
    """Handler of a local SMTP server; refuses recipients in `unknown`."""

    mails: list[tuple[list[str], str, str]] = field(default_factory=list)
    unknown: frozenset[str] = frozenset({"gone@example.com"})

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content)
        html = next(part for part in mail.walk() if part.get_content_type() == "text/html")
        body = html.get_payload(decode=True).decode()
        self.mails.append((list(envelope.rcpt_tos), str(mail["subject"]), body))
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield box, controller.port
    controller.stop()


@pytest.fixture
def webhook() -> Iterator[tuple[list[dict[str, Any]], int]]:
    """A local receiver that takes everything but what goes to /broken."""
    taken: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            broken = self.path.startswith("/broken")
            if not broken:
                taken.append({"path": self.path, "message_id": self.headers["X-Message-Id"], **body})
            self.send_response(500 if broken else 200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield taken, server.server_port
        server.shutdown()


def targets(smtp: int, http: int, push: str = "push") -> dict[str, Target]:
    mail = f"mailto://127.0.0.1:{smtp}?from=offers@bank.example&to={{address}}&rto=5"
    hook = f"json://127.0.0.1:{http}/{push}/{{customer_id}}?+X-Message-Id={{message_id}}&rto=5"
    return {
        "email": Target(mail, "News from your bank", "html", "when_accepted"),
        "push": Target(hook, "", "text", "when_accepted"),
    }


def test_a_decision_is_delivered_to_a_webhook_and_by_mail_where_that_fails(
    service: FakeService, clock: Clock, mailbox: tuple[Mailbox, int], webhook: tuple[list[dict[str, Any]], int]
) -> None:
    (box, smtp), (taken, http) = mailbox, webhook
    addresses = {("anna", "email"): "anna@example.com"}
    good = Router(service.client(), AppriseDelivery(targets(smtp, http)), addresses, clock)
    assert good.advance(JOB) == Done("arrived")
    assert [(one["path"], one["message_id"]) for one in taken] == [("/push/anna", f"{0:032x}.1")]
    assert "push" in taken[0]["message"]
    assert box.mails == []

    broken = Router(service.client(), AppriseDelivery(targets(smtp, http, "broken")), addresses, clock)
    second = Job("2", {"customer_id": "anna"})
    assert broken.advance(second) == Wait(NOON + 3 * HOUR)
    clock.now = NOON + 3 * HOUR
    assert broken.advance(second) == Done("arrived")
    ((to, subject, body),) = box.mails
    assert (to, subject) == (["anna@example.com"], "News from your bank")
    assert "<b>email</b> for you" in body
    assert service.told[2:] == ["push sent", "push failed", "email sent", "email delivered"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("gone@example.com", "did not take the message"),
        ("anna@example.com,bert@example.com", "2 recipients"),
        (None, "no address"),
        ("anna@example.com&to=bert@example.com&from=evil@example.com", "."),
    ],
)
def test_what_cannot_reach_exactly_one_person_fails(
    mailbox: tuple[Mailbox, int], address: str | None, why: str
) -> None:
    box, smtp = mailbox
    delivery = AppriseDelivery(targets(smtp, 9))
    with pytest.raises(DeliveryFailed, match=why):
        delivery.send(Message("m", "anna", "email", address, "hi"))
    assert box.mails == []


def test_a_channel_without_a_target_a_server_that_is_away_and_an_empty_text_fail() -> None:
    delivery = AppriseDelivery(targets(free_port(), free_port()))
    for channel, text, why in (
        ("fax", "hi", "no target"),
        ("push", "hi", "did not take"),
        ("push", "", "nothing to say"),
    ):
        with pytest.raises(DeliveryFailed, match=why):
            delivery.send(Message("m", "anna", channel, None, text))


# Files


def test_targets_are_read_with_the_environment_in_place(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[channels.email]\nurl = "mailto://{SMTP_USER}@smtp?to={address}"\nformat = "html"\n')
    read = read_targets(file, {"SMTP_USER": "a/b"})
    assert read == {"email": Target("mailto://a%2Fb@smtp?to={address}", format="html")}
    assert read["email"].filled({"address": "x@y&to=z"}) == "mailto://a%2Fb@smtp?to=x%40y%26to%3Dz"


def test_every_problem_of_a_targets_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[channels.a]\nurl = "json://{SECRET}/{phone}"\nformat = "pdf"\ncolour = "red"\n[channels.b]\n')
    with pytest.raises(InputError) as error:
        read_targets(file, {})
    for part in ("SECRET", "phone", "pdf", "colour", "channel b needs a url"):
        assert part in str(error.value)


def test_addresses_and_jobs_are_read_and_wrong_ones_named(tmp_path: Path) -> None:
    addresses, jobs = tmp_path / "addresses.csv", tmp_path / "jobs.jsonl"
    addresses.write_text("customer_id,channel,address\nanna,email,anna@example.com\nbert,email,\n")
    assert read_addresses(addresses) == {("anna", "email"): "anna@example.com"}
    jobs.write_text('{"id": "1", "customer_id": "anna"}\n\n{"id": "2", "customer_id": "b", "content_id": "x"}\n')
    assert [(job.id, job.given) for job in read_jobs(jobs)] == [("1", False), ("2", True)]
    jobs.write_text('{"id": "1", "customer_id": "anna"}\n{"id": "1", "customer_id": "b"}\n')
    with pytest.raises(InputError, match="comes twice"):
        read_jobs(jobs)
    jobs.write_text('{"customer_id": "anna"}\n')
    with pytest.raises(InputError, match="line 1"):
        read_jobs(jobs)
    addresses.write_text("customer,address\n")
    with pytest.raises(InputError, match="columns"):
        read_addresses(addresses)
