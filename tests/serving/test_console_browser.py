"""The console in a real browser, over a real server: what a person at a bank would see, click and wait for.

Needs Chromium: NEXTBEST_CHROMIUM, or `chromium` on the path. Playwright's own download is not used. With
NEXTBEST_SCREENSHOTS=FOLDER the pictures of the README are taken anew.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from PIL import Image

from features.assemble import row_schema
from features.catalog import Catalog, Channel, Content, Product
from features.home import Home
from features.importing import Bank, make_bank
from features.live import Live
from features.packed import OnlineStates
from features.times import micros
from serving.api import create_app
from serving.content import Contents
from serving.events import TimelineEvent
from serving.history import Remembered
from serving.ledger import SqliteLedger
from serving.opening import Opening, Serving
from serving.value import Worth

if TYPE_CHECKING:
    from conftest import World
    from playwright.sync_api import Browser, BrowserContext, Page
else:
    World = Any

NOW = datetime(2024, 6, 1, 12, 3, tzinfo=UTC)  # 14:03 in Berlin
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PATIENCE = 30_000  # milliseconds: the machine may be busy

CATALOG = Catalog(
    "EUR",
    "Europe/Berlin",
    (
        Product("card", "Gold card", holdable=True, margin=100.0),
        Product("loan", "Car loan", margin=400.0),
        Product("fund", "Savings plan", margin=150.0),
        Product("travel", "Travel insurance", margin=35.0),
        Product("home", "Mortgage", margin=2500.0),
    ),
    (
        Channel("push", "App push", "outbound", 0.1),
        Channel("email", "E-mail", "outbound", 0.2),
        Channel("sms", "SMS", "outbound", 0.4),
        Channel("call", "Call centre", "both", 6.0),
        Channel("branch", "Branch", "inbound"),
    ),
    (
        Content(
            "first-year", "en", "{{ customer.first_name }}, your Gold card waits: no fee in the first year.", "card"
        ),
        Content(
            "fixed-rate", "en", "Your next car, {{ customer.first_name }}: a fixed rate, decided in minutes.", "loan"
        ),
        Content("small-steps", "en", "{{ customer.first_name }}, 25 {{ currency }} a month is a start.", "fund"),
        Content("have-a-look", "en", "{{ product.name }}: have a look at what it could do for you."),
    ),
    (
        {"id": "mortgage-from-45", "kind": "audience", "product": "home", "attribute": "age", "min": 45},
        {"id": "no-cold-calls", "kind": "reach", "channel": "call", "attribute": "phone"},
    ),
)

CONTRASTS = """() => {
  const parsed = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * linear(colour[i] / 255), 0);
  const colour = (element, of) => parsed(getComputedStyle(element)[of]);
  const behind = (element) =>
    element ? over(colour(element, "backgroundColor"), behind(element.parentElement)) : [255, 255, 255, 1];
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !element.checkVisibility() || element.closest(".unseen, .skip, svg")) continue;
    const ground = behind(element);
    const lights = [light(over(colour(element, "color"), ground)), light(ground)];
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    if (ratio < 4.5) poor.push(`${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
"""Texts with less than 4.5:1 against what is behind them (WCAG 2.2, 1.4.3)."""


@dataclass
class Site:
    """A server over a small bank whose clock stands at NOW."""

    url: str
    http: httpx.Client
    ledger: SqliteLedger

    def decide(self, ago: timedelta = timedelta(), **more: object) -> dict[str, Any]:
        body = {"customer_id": "anna", "as_of": (NOW - ago).isoformat(), **more}
        return self.post("/v1/decide", body)

    def happened(self, kind: str, ago: timedelta = timedelta(), customer_id: str = "anna", **more: object) -> None:
        given = {"event_id": uuid.uuid4().hex, "customer_id": customer_id, **more}
        event = {**given, "event_timestamp": (NOW - ago).isoformat(), "kind": kind}
        assert self.post("/v1/events", {"events": [event]})["results"] == [
            {"event_id": given["event_id"], "status": "accepted"}
        ]

    def stored(self, kind: str, customer_id: str, name: str) -> None:
        """An event of a channel, product and content that no catalogue has, as a ledger may hold it from before."""
        event = TimelineEvent(name, customer_id, micros(NOW), kind, name, None, name, name, created_us=micros(NOW))
        assert self.ledger.append([event]) == ("accepted",)

    def sent(self, decision: dict[str, Any], ago: timedelta = timedelta(), kind: str = "sent") -> None:
        """A receipt for the message of a decision."""
        action = decision["action"]
        about = {name: action[name] for name in ("channel", "product_id", "content_id")}
        name = decision["decision_id"]
        self.happened(kind, ago, purpose=decision["purpose"], decision_id=name, message_id=f"m-{name}", **about)

    def post(self, call: str, body: object) -> dict[str, Any]:
        answer = self.http.post(call, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="module")
def site(world: World, build_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    bank = make_bank(CATALOG, world.bank.tables, world.bank.attributes)
    live = Live(bank.catalog)
    ledger = SqliteLedger(tmp_path_factory.mktemp("ledger") / "ledger.db", live.add)
    decider = decider_of(world, bank, build_home(bank))
    serving = Serving(replace(decider, history=Remembered(ledger, {}), merge=live.merged), ledger)
    numbers = itertools.count()  # whoever draws lots by them, draws the same in every run
    app = create_app(Opening(lambda: serving), lambda: NOW, lambda: sha256(b"%d" % next(numbers)).hexdigest()[:32])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        while http.get("/readyz").status_code != 200:
            assert time.monotonic() < until, http.get("/readyz").text
            time.sleep(0.02)
        yield Site(f"http://127.0.0.1:{port}", http, serving.ledger)
    server.should_exit = True
    thread.join(30)


def decider_of(world: World, bank: Bank, home: Home) -> Any:
    build = home.build()
    decider = replace(
        world.decider,
        catalog=bank.catalog,
        customers=OnlineStates(build.online_path, build.views),
        schema=row_schema(bank),
        contents=Contents(bank.catalog),
        worth=Worth.of(bank.catalog),
    )
    there = replace(world, home=home, bank=bank, decider=decider)
    return there.with_models(products=(0.021, 0.012, 0.03, 0.05, 0.001), channels=(0.35, 0.25, 0.3, 0.6, 0.1))


@dataclass
class Visitor:
    """Somebody with a browser, and everything that it asked for or complained about."""

    site: Site
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def page(self, **options: Any) -> Page:
        context = self.browser.new_context(base_url=self.site.url, locale="en-GB", **options)
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        return page


@pytest.fixture
def visitor(site: Site, browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(site, browser)
    yield visitor
    for context in visitor.contexts:
        context.close()
    assert visitor.complaints == []
    assert [url for url in visitor.asked if not url.startswith(f"{site.url}/")] == []


@pytest.fixture(scope="module")
def story(site: Site) -> dict[str, Any]:
    """What happened to anna in May; the latest decision, of which no message was sent yet."""
    day = timedelta(days=1)
    site.happened("visited", 30 * day, channel="branch")
    for kind, ago in (("sent", 12.1), ("delivered", 12.0996), ("opened", 11.9)):
        site.happened(kind, ago * day, channel="email", purpose="service", message_id="m0")
    site.happened("opted_out", 9.3 * day, channel="sms", purpose="marketing")
    failed = routed(site, "travel", "have-a-look", 6.2 * day)
    site.sent(failed, 6.19 * day)
    site.sent(failed, 6.189 * day, "failed")
    site.happened("visited", 3.1 * day, channel="push", product_id="loan")
    site.happened("called", 2.9 * day, channel="call")
    seen = routed(site, "loan", "fixed-rate", 1.1 * day)
    for kind, ago in (("sent", 1.09), ("delivered", 1.0899), ("clicked", 0.9)):
        site.sent(seen, ago * day, kind)
    site.happened("converted", 0.35 * day, product_id="travel", value=35.0)
    for _ in range(50):  # chance decides; this one is to reach the customer
        made = site.decide(0.01 * day)
        if made["action"]:
            return made
    raise AssertionError("fifty decisions, and never a contact")


def routed(site: Site, product: str, content: str, ago: timedelta) -> dict[str, Any]:
    about = {"product_id": product, "content_id": content, "channels": ["push"], "purpose": "service"}
    made = site.post("/v1/route", {"customer_id": "anna", "as_of": (NOW - ago).isoformat(), **about})
    assert made["action"], made["reasons"]
    return made


def test_a_customer_is_found_and_a_message_appears_when_its_event_is_posted(
    visitor: Visitor, story: dict[str, Any]
) -> None:
    page = visitor.page(**DESKTOP)
    page.goto("/console?lang=en")
    page.get_by_role("searchbox").fill("anna")
    page.get_by_role("button", name="Find").click()
    assert page.locator("h1").inner_text() == "anna"
    page.locator(".status.live").wait_for()
    assert page.locator(".event.downlink").count() >= 6
    assert page.locator(".event.uplink").count() >= 6
    before = page.locator(".event").count()
    page.evaluate("window.untouched = true")
    visitor.site.sent(story)
    fresh = page.locator(".event.new")
    fresh.wait_for()
    assert story["action"]["text"] in fresh.inner_text()
    assert "sent" in fresh.inner_text()
    assert page.locator(".event").count() == before + 1
    assert page.locator(".event").first.inner_text() == fresh.inner_text()
    visitor.site.happened("visited", timedelta(days=20), channel="branch")  # late, and so further down
    page.locator(".event.new", has_text="Branch").wait_for()
    times = [event.get_attribute("datetime") for event in page.locator(".event > time").all()]
    assert times == sorted(times, reverse=True)
    assert page.evaluate("window.untouched"), "the page was not loaded again"
    assert page.locator(".status").inner_text() == "Live · new events: 2"


def test_an_opt_out_changes_the_consent_that_is_being_looked_at(visitor: Visitor) -> None:
    page = visitor.page(**DESKTOP)
    page.goto("/console?customer=held&lang=en")
    page.locator(".status.live").wait_for()
    assert page.locator(".chip.no").count() == 0
    visitor.site.happened("opted_out", customer_id="held", channel="email", purpose="marketing")
    page.locator(".chip.no", has_text="E-mail").wait_for()


def test_the_language_is_switched_to_chinese_and_back_without_losing_the_place(
    visitor: Visitor, story: dict[str, Any]
) -> None:
    page = visitor.page(**DESKTOP)
    page.goto(f"/console?customer=anna&decision={story['decision_id']}&lang=en")
    page.get_by_role("link", name="中文").click()
    page.get_by_role("heading", name="时间线").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    assert page.locator("h1").inner_text() == "anna"
    assert "选中的可能性" in page.locator("#decision").inner_text()
    page.get_by_role("link", name="English").click()
    page.get_by_role("heading", name="Timeline").wait_for()
    assert story["decision_id"] in page.url


def test_a_decision_is_opened_with_everything_behind_it(visitor: Visitor, story: dict[str, Any]) -> None:
    page = visitor.page(**DESKTOP)
    page.goto("/console?customer=anna&lang=en")
    page.locator(".event.decision", has_text="Travel insurance by App push").get_by_role("link", name="Why?").click()
    panel = page.locator("#decision")
    panel.get_by_role("heading", name="Travel insurance by App push").wait_for()
    assert "Travel insurance: have a look" in panel.locator(".message").inner_text()
    page.goto(f"/console?customer=anna&decision={story['decision_id']}&lang=en")
    record = visitor.site.http.get(f"/v1/decisions/{story['decision_id']}").json()
    said = panel.inner_text()
    assert story["action"]["text"] in said
    assert all(reason["rule"] in said for reason in story["reasons"])
    assert {"no_consent", "mortgage-from-45", "no-cold-calls"} <= {gone["rule"] for gone in record["removed"]}
    assert all(gone["rule"] in said for gone in record["removed"])
    panel.get_by_text("more", exact=False).first.click()
    assert panel.locator(".choices tbody tr:visible").count() == len(record["candidates"])
    assert panel.locator("tr.picked").count() == 1
    assert "times over, this decision would take this action" in said
    panel.get_by_role("link", name="Decide again and compare").click()
    panel.get_by_text("the same, bit for bit").wait_for()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_on_a_phone_nothing_scrolls_sideways(visitor: Visitor, story: dict[str, Any], language: str) -> None:
    long = "x" * 250
    visitor.site.stored("visited", long, f"{language}{long}")
    page = visitor.page(**PHONE)
    for place in ("", "customer=anna", f"customer=anna&decision={story['decision_id']}", f"customer={long}"):
        page.goto(f"/console?lang={language}&{place}")
        for more in page.locator("summary").all():
            more.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390, place


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(visitor: Visitor, story: dict[str, Any], scheme: str) -> None:
    page = visitor.page(**DESKTOP, color_scheme=scheme, reduced_motion="reduce")
    for place in ("", f"customer=anna&decision={story['decision_id']}&replay=true"):
        page.goto(f"/console?lang=en&{place}")
        assert page.evaluate(CONTRASTS) == []


def test_hostile_ids_run_nothing_in_the_browser(visitor: Visitor) -> None:
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
    visitor.site.stored("visited", hostile, hostile)
    page = visitor.page(**DESKTOP)
    page.goto("/console")
    page.get_by_role("searchbox").fill(hostile)
    page.keyboard.press("Enter")
    page.locator("h1", has_text=hostile).wait_for()
    page.locator(".status.live").wait_for()
    assert page.locator(".event").count() == 1
    visitor.site.stored("called", hostile, hostile + "2")
    page.locator(".event.new", has_text=hostile).wait_for()


def test_a_lost_connection_is_said(visitor: Visitor, story: dict[str, Any]) -> None:
    page = visitor.page(**DESKTOP)
    page.goto("/console?customer=anna&lang=en")
    page.locator(".status.live").wait_for()
    visitor.contexts[0].set_offline(True)
    page.locator(".status.lost", has_text="Connection lost").wait_for()
    assert visitor.complaints, "the browser itself complains of it"
    visitor.complaints.clear()


@pytest.mark.skipif("NEXTBEST_SCREENSHOTS" not in os.environ, reason="NEXTBEST_SCREENSHOTS names no folder for them")
def test_screenshots_are_taken(visitor: Visitor, story: dict[str, Any]) -> None:
    folder = Path(os.environ["NEXTBEST_SCREENSHOTS"])
    for name, language, options, height in (("desktop", "en", DESKTOP, 1200), ("phone", "zh", PHONE, 1400)):
        page = visitor.page(**options, reduced_motion="reduce")
        page.set_viewport_size({"width": options["viewport"]["width"], "height": height})
        page.goto(f"/console?customer=anna&decision={story['decision_id']}&lang={language}")
        page.locator(".status.live").wait_for()
        taken = Image.open(BytesIO(page.screenshot()))
        picture = folder / f"console-{name}.png"
        taken.convert("RGB").quantize(128).save(picture, optimize=True)
        assert picture.stat().st_size < 250_000, "what the README shows loads fast"
