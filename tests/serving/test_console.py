"""The console's pages: what they tell, in which language, to whom they tell nothing, and that nothing given can run."""

from __future__ import annotations

import ast
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient

import serving.console
from features.catalog import Channel, Product
from features.times import micros
from serving.api import create_app
from serving.arms import _WHY as ARM_SENTENCES
from serving.caps import Cap, CapReached, ConsentChanged
from serving.console import looking
from serving.console.formats import amount, odds, percent
from serving.console.names import Names
from serving.console.readable import readable
from serving.console.sentences import translated
from serving.console.words import Words, choose, pairs
from serving.content import Contents
from serving.errors import LedgerUnavailable
from serving.events import TimelineEvent
from serving.explain import unknown_views, unknown_zone
from serving.ledger import SqliteLedger
from serving.opening import Opening, Serving

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

NOW = datetime(2024, 6, 1, 12, 3, tzinfo=UTC)  # 14:03 in Berlin
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"

VOID = {"meta", "link", "input", "img"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Html(HTMLParser):
    """A page as a browser reads it: its elements, and for each the text inside."""

    markup: str
    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().name != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, name: str, **wanted: str) -> list[Element]:
        """Elements of this name whose attributes contain these words; class_ stands for class."""
        return [
            element
            for element in self.elements
            if element.name == name
            and all(value in (element.attributes.get(key.rstrip("_")) or "").split() for key, value in wanted.items())
        ]

    @property
    def text(self) -> str:
        return words_of(next(element.text for element in self.elements if element.name == "html"))

    @property
    def events(self) -> list[str]:
        return [words_of(element.text) for element in self.all("li", class_="event")]

    @property
    def decision(self) -> str:
        return words_of(next(e.text for e in self.all("section") if e.attributes.get("id") == "decision"))


def words_of(text: str) -> str:
    return " ".join(text.split())


@dataclass
class Console:
    """A console over the small bank, with a ledger of its own and a clock that stands still."""

    client: TestClient
    ledger: SqliteLedger

    def get(self, expected: int = 200, **query: str) -> Html:
        answer = self.client.get("/console", params=query)
        assert answer.status_code == expected, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Html(answer.text)

    def decide(self, customer_id: str = "anna", **more: object) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.post("/v1/decide", json={"customer_id": customer_id, **more}).json()
        return answer

    def happened(self, kind: str, ago: timedelta = timedelta(), customer_id: str = "anna", **more: Any) -> None:
        at_us = micros(NOW - ago)
        name = more.pop("event_id", f"{kind}-{customer_id}-{at_us}")
        event = TimelineEvent(name, customer_id, at_us, kind, **more, created_us=micros(NOW))
        assert self.ledger.append([event]) == ("accepted",)


@pytest.fixture
def console(world: World, tmp_path: Path) -> Iterator[Console]:
    yield from opened(world, tmp_path)


def opened(world: World, folder: Path, **parts: Any) -> Iterator[Console]:
    ledger = SqliteLedger(folder / "ledger.db")
    serving = Serving(replace(world.decider, **parts), ledger)
    numbers = iter(range(1, 10**9))
    app = create_app(Opening(lambda: serving), lambda: NOW, lambda: f"{next(numbers):032x}")
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        yield Console(client, ledger)


def test_the_timeline_shows_all_channels_newest_first_in_both_directions_with_decisions_inline(
    console: Console,
) -> None:
    made = console.client.post("/v1/route", json={"customer_id": "anna", "product_id": "card"}).json()
    sent = {"channel": "push", "purpose": "marketing", "product_id": "card", "decision_id": made["decision_id"]}
    console.happened("visited", timedelta(days=3), channel="branch")
    console.happened("sent", timedelta(hours=1), channel="email", purpose="service", content_id="statement")
    console.happened("sent", **sent)
    page = console.get(customer="anna", lang="en")
    latest = sorted(page.events[:2])
    assert latest[0].startswith("14:03 decision Decision")
    assert latest[1] == "14:03 to the customer App push sent Gold card Gold card for you marketing its decision"
    assert page.events[2] == "13:03 to the customer E-mail sent service content statement"
    assert page.events[3] == "14:03 from the customer Branch visit"
    assert [words_of(day.text) for day in page.all("li", class_="day")] == [
        "Saturday, 1 June 2024",
        "Wednesday, 29 May 2024",
    ]
    assert "Times in Europe/Berlin" in page.text


def test_the_decision_asked_for_stands_beside_the_timeline(console: Console) -> None:
    made = console.decide(channels=["push"])
    record = console.client.get(f"/v1/decisions/{made['decision_id']}").json()
    page = console.get(customer="anna", decision=made["decision_id"], lang="en")
    shown = page.decision
    assert "marketing" in shown
    assert "Decided 1 June 2024, 14:03" in shown
    rows = [words_of(row.text) for row in page.all("tr") if "Action" not in row.text]
    assert len(rows) == len(record["candidates"])
    best = max(record["candidates"], key=lambda one: one["value"])
    assert rows[0].startswith("Car loan by App push")
    assert f"{amount(best['value'], 'EUR', Words('en'))} {percent(best['propensity'])}" in rows[0]
    assert sum("chosen" in row for row in rows) == 1
    for removed in record["removed"]:
        assert removed["reason"] in shown
        assert removed["rule"] in shown
    for reason in made["reasons"]:
        assert reason["reason"] in shown
    assert percent(made["propensity"]) in shown
    assert made["versions"]["catalog"] in shown
    assert made["versions"]["policy"] in shown
    if made["action"]:
        assert made["action"]["text"] in shown


def test_the_rendered_message_stands_in_the_decision(console: Console) -> None:
    made = console.client.post("/v1/route", json={"customer_id": "anna", "product_id": "card"}).json()
    page = console.get(customer="anna", decision=made["decision_id"], lang="en")
    message = words_of(page.all("figure", class_="message")[0].text)
    assert message.startswith("Message by App push content plain Gold card for you")
    assert "If it has not arrived by 3 June 2024, 14:03: E-mail" in message
    assert "Gold card by App push" in page.decision


def test_everything_that_the_console_says_is_there_in_chinese(console: Console) -> None:
    made = console.decide(channels=["push"])
    console.happened("opted_out", channel="email", purpose="marketing")
    page = console.get(customer="anna", decision=made["decision_id"], lang="zh")
    assert page.elements[0].attributes["lang"] == "zh-Hans"
    for said in ("时间线", "决策", "选中的可能性", "可行方案", "被排除的", "E-mail 拒绝联系", "2024年6月1日 星期六"):
        assert said in page.text
    assert "期望价值" in page.decision
    assert "inbound_only" in page.decision
    assert "the customer comes by it" not in page.decision


def test_the_language_is_the_one_asked_for_else_the_browsers_else_english(console: Console) -> None:
    assert choose("zh", "en") == "zh"
    assert choose(None, "fr, zh-TW;q=0.8, en;q=0.5") == "zh"
    assert choose("xx", "") == "en"
    assert "客户控制台" in console.client.get("/console", headers={"accept-language": "zh-CN,zh"}).text


def test_an_opt_out_is_seen_at_once_in_the_consent(console: Console) -> None:
    def refused() -> list[str]:
        page = Html(console.client.get("/console/live", params={"customer": "anna", "lang": "en"}).text)
        return [words_of(chip.text) for chip in page.all("span", class_="no")]

    assert refused() == []
    console.happened("opted_out", channel="email", purpose="marketing")
    assert refused() == ["✕ E-mail refused"]


def test_a_decision_id_finds_its_customer(console: Console) -> None:
    made = console.decide("held")
    for query in ({"customer": made["decision_id"]}, {"decision": made["decision_id"]}):
        page = console.get(lang="en", **query)
        assert page.all("h1")[0].text == "held"
        assert made["decision_id"] in page.decision


def test_the_latest_decision_is_shown_where_none_is_asked_for(console: Console) -> None:
    console.decide(as_of="2024-05-01T00:00:00Z")
    latest = console.decide()
    page = console.get(customer="anna", lang="en")
    assert page.decision.startswith("Latest decision")
    assert latest["decision_id"] in page.decision
    assert len(page.all("li", class_="shown")) == 1


def test_a_decision_of_another_customer_is_not_shown(console: Console) -> None:
    made = console.decide("held")
    page = console.get(404, customer="anna", decision=made["decision_id"], lang="en")
    assert f"There is no decision {made['decision_id']}" in page.decision
    assert "Gold card" not in page.decision


def test_deciding_again_is_offered_and_says_whether_it_came_out_the_same(console: Console) -> None:
    made = console.decide(channels=["push"])
    place = {"customer": "anna", "decision": made["decision_id"], "lang": "en"}
    assert "bit for bit" not in console.get(**place).text
    assert "the same, bit for bit" in console.get(**place, replay="true").text


def test_what_is_held_and_known_of_the_customer_stands_at_the_top(console: Console) -> None:
    facts = next(words_of(e.text) for e in console.get(customer="held", lang="en").all("section", class_="facts"))
    assert "Holds Gold card" in facts
    assert "first_name Hedwig age 50" in facts


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"customer": "nobody"}, 404, "Nothing is known of this customer"),
        ({"decision": "0" * 31 + "f"}, 404, "There is no decision 0000"),
        ({"customer": "x" * 257}, 422, "This address asks for something impossible"),
        ({"customer": "an\nna"}, 422, "This address asks for something impossible"),
        ({"customer": "anna", "before": "nonsense"}, 422, "This address asks for something impossible"),
        ({"customer": "anna", "before": "\u00e9"}, 422, "This address asks for something impossible"),
        ({}, 200, "Whom are you looking for?"),
    ],
)
def test_what_cannot_be_shown_is_explained_to_a_person(
    console: Console, query: dict[str, str], status: int, says: str
) -> None:
    page = console.get(status, lang="en", **query)
    assert says in page.text
    assert page.all("form", class_="search"), "one can always search again"


def test_a_server_that_is_not_ready_and_a_ledger_that_fails_answer_with_a_page(world: World, tmp_path: Path) -> None:
    def never() -> Serving:
        raise LedgerUnavailable("/secret/path is locked")

    with TestClient(create_app(Opening(never), lambda: NOW, lambda: "0" * 32)) as client:
        answer = client.get("/console", params={"customer": "anna", "lang": "zh"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "尚未就绪" in answer.text
    assert "secret" not in answer.text
    for console in opened(world, tmp_path):
        console.ledger.close()
        page = console.get(503, customer="anna", lang="en")
        assert "Cannot be read now" in page.text


def test_an_error_of_ours_shows_no_trace(world: World, tmp_path: Path) -> None:
    for console in opened(world, tmp_path, catalog_version=None, catalog=None):
        page = console.get(500, customer="anna", lang="en")
        assert "An error of ours" in page.text
        assert "Traceback" not in page.markup
        assert "NoneType" not in page.markup


def hostile_world(world: World) -> dict[str, Any]:
    catalog = world.decider.catalog
    products = (Product("card", HOSTILE, margin=100.0), Product("loan", HOSTILE, margin=400.0))
    changed = replace(
        catalog,
        products=products,
        channels=(Channel("push", HOSTILE, "outbound", 0.1), *catalog.channels[1:]),
        contents=tuple(
            replace(content, template=f"{{% raw %}}{HOSTILE}{{% endraw %}}") for content in catalog.contents
        ),
    )
    usable = Contents(changed)
    if usable.refused:  # a template may not even say so
        changed = replace(changed, contents=())
        usable = Contents(changed)
    return {"catalog": changed, "contents": usable}


def test_hostile_ids_names_and_texts_are_shown_and_never_run(world: World, tmp_path: Path) -> None:
    for console in opened(world, tmp_path, **hostile_world(world)):
        made = console.client.post("/v1/route", json={"customer_id": "anna", "product_id": "card"}).json()
        fields = dict.fromkeys(("channel", "product_id", "content_id", "message_id"), HOSTILE)
        console.happened("visited", event_id=HOSTILE, customer_id=HOSTILE, **fields)
        console.happened("visited", event_id=HOSTILE + "2", **fields, decision_id=HOSTILE)
        pages = [
            console.get(customer=HOSTILE, lang="en"),
            console.get(customer="anna", decision=made["decision_id"], lang="zh"),
            console.get(404, customer="anna", decision=HOSTILE, lang=HOSTILE),
            console.get(404, customer=HOSTILE + "?", lang="en"),
            Html(console.client.get("/console/live", params={"customer": HOSTILE, "decision": HOSTILE}).text),
        ]
        for page in pages:
            assert HOSTILE in words_of(page.text if page.all("html") else page.all("section")[0].text)
            assert_inert(page)


def assert_inert(page: Html) -> None:
    """Nothing in the page runs or loads but the console's own files."""
    for element in page.elements:
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"], element
        for name in ("src", "href", "action"):
            target = element.attributes.get(name)
            assert target is None or target.startswith(("/console", "/v1/decisions/", "#")), element
        if element.name == "script":
            assert element.text == ""
    assert not {"style", "iframe", "object", "base", "embed"} & {element.name for element in page.elements}
    assert {e.attributes["src"] for e in page.all("img")} == {
        e.attributes["href"] for e in page.all("link", rel="icon")
    }


def test_every_page_forbids_everything_but_its_own_files_and_is_kept_nowhere(console: Console) -> None:
    for path in ("/console", "/console?customer=anna", "/console/live?customer=anna", "/console?customer=nobody"):
        headers = console.client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert set(policy.values()) <= {"'none'", "'self'"}
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers


def test_the_console_is_read_only(console: Console) -> None:
    for path in ("/console", "/console/live", "/console/console.js"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert console.client.request(method, path).status_code == 405


def test_assets_are_kept_only_under_the_version_that_they_have(console: Console) -> None:
    page = console.get()
    addresses = [e.attributes["src"] for e in page.all("script")] + [e.attributes["href"] for e in page.all("link")]
    for address in addresses:
        answer = console.client.get(str(address))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "//" not in answer.text.replace("// ", "").replace("http://www.w3.org/2000/svg", ""), (
            "loads from outside"
        )
    assert console.client.get("/console/console.js").headers["cache-control"] == "no-cache"
    for name in ("pages.py", "layout.html", "..%2fapi.py", "nothing.js"):
        assert console.client.get(f"/console/{name}").status_code == 404


def test_older_events_are_pages_further_and_do_not_pretend_to_be_live(console: Console) -> None:
    for place in range(looking.EVENTS + 3):
        console.happened("visited", timedelta(hours=place), channel="branch")
    first = console.get(customer="anna", lang="en")
    assert len(first.events) == looking.EVENTS
    assert any(e.attributes.get("id") == "status" for e in first.elements)
    (older,) = [e.attributes["href"] for e in first.all("a", rel="next")]
    second = Html(console.client.get(str(older)).text)
    assert len(second.events) == 3
    assert not any(e.attributes.get("id") == "status" for e in second.elements)
    assert not set(keys(first)) & set(keys(second))


def keys(page: Html) -> list[str]:
    return [str(event.attributes["data-key"]) for event in page.all("li", class_="event")]


def test_the_live_part_is_the_same_as_in_the_page_and_knows_what_came_since(console: Console) -> None:
    console.happened("visited", timedelta(hours=1), channel="branch")
    page = console.get(customer="anna", lang="en")
    (status,) = [e for e in page.elements if e.attributes.get("id") == "status"]
    source = str(status.attributes["data-source"])
    assert keys(Html(console.client.get(source).text)) == keys(page)
    console.happened("called", channel="branch")
    fresh = Html(console.client.get(source).text)
    assert len(keys(fresh)) == 2
    assert keys(fresh)[1:] == keys(page)
    assert not fresh.all("html")


def test_a_brief_is_read_once_and_what_is_not_there_yet_is_asked_for_again() -> None:
    @dataclass
    class Counting:
        records: dict[str, bytes]
        asked: int = 0

        def get(self, decision_id: str) -> bytes | None:
            self.asked += 1
            return self.records.get(decision_id)

    ledger = Counting({})
    briefs = looking.Briefs(most=2)
    ids = [f"{place:032x}" for place in range(3)]
    assert briefs.of(ledger, ids[0]) is None  # type: ignore[arg-type]  # a ledger as far as briefs go
    ledger.records = dict.fromkeys(ids, b'{"action":{"text":"hello"}}')
    for _ in range(3):
        found = briefs.of(ledger, ids[0])  # type: ignore[arg-type]
        assert found is not None
        assert found.action == {"text": "hello"}
    assert ledger.asked == 2
    for name in (*ids[1:], ids[0]):
        briefs.of(ledger, name)  # type: ignore[arg-type]
    assert ledger.asked == 5, "the one used longest ago was forgotten"
    assert briefs.of(ledger, "not a decision id") is None  # type: ignore[arg-type]
    assert ledger.asked == 5


def test_both_languages_have_the_same_places_for_values() -> None:
    for english, chinese in pairs():
        assert english, "said"
        assert chinese, english
        assert places(english) == places(chinese), (english, chinese)


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


SOURCES = {
    "arms": ("Removed", "Reason"),
    "candidates": ("Removed",),
    "decide": ("Reason", "Removed"),
    "eligibility": ("Removed",),
    "explain": ("Reason", "Removed"),
    "route": ("Reason",),
}

LACKING = ("no usable", " failed (", "static rule")
"""Marks of sentences about what a decision lacked."""


def sentences() -> Iterator[str]:
    """Every sentence that the modules of decisions write into reasons, with 1 in the places of values."""
    for module, calls in SOURCES.items():
        for node in ast.walk(ast.parse((ROOT / "serving" / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls:
                yield from spoken(node.args[-1])
    for module in ("eligibility", "contact_policy", "suitability"):
        for node in ast.walk(ast.parse((ROOT / "serving" / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "refusal":
                for part in ast.walk(node):
                    if isinstance(part, ast.Return) and part.value:
                        yield from spoken(part.value)
    yield from ARM_SENTENCES.values()
    for module in ("scoring", "reload"):
        for node in ast.walk(ast.parse((ROOT / "serving" / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield from (said for said in spoken(node) if any(word in said for word in LACKING))
    yield from (*unknown_views(frozenset({"consent"})), *unknown_zone("nowhere", ZoneInfo("UTC")))
    yield from (CapReached(Cap("weekly", "overall", None, 0, 1)).why, ConsentChanged().why)


def spoken(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*spoken(node.body), *spoken(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else example(part)
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )


def example(place: ast.FormattedValue) -> str:
    """What may stand in a place of a sentence."""
    source = ast.unparse(place.value)
    if source.startswith("_about("):
        return "of channel push "
    return {"window": "7 days", "rebuffs": "3 negative responses ", "worth": "expected value 1 EUR"}.get(source, "1")


def test_every_sentence_of_a_decision_can_be_said_in_chinese() -> None:
    found = set(sentences())
    assert len(found) > 35
    assert [sentence for sentence in sorted(found) if translated(sentence, "zh") is None] == []


def test_a_sentence_of_the_bank_itself_is_shown_as_it_is() -> None:
    assert translated("the branch manager said no", "zh") is None
    assert translated("the branch manager said no", "en") == "the branch manager said no"
    assert translated("2 marketing contacts of channel push in 7 days; 2 are allowed", "zh") == (
        "7 天内渠道 push 已有 2 次营销联系，上限 2 次"
    )


@pytest.mark.parametrize(
    ("propensity", "said"),
    [
        (1.0, "Certain"),
        (0.9999, "nearly always"),
        (0.975, "about 975 times"),
        (0.002, "about 2 times"),
        (0.0004, "once in 2,500 times"),
    ],
)
def test_a_probability_is_told_as_a_frequency(propensity: float, said: str) -> None:
    assert said in odds(propensity, Words("en"))


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(1.0, "100 %"), (0.99999, "> 99.99 %"), (0.42812, "42.8 %"), (0.0046, "0.46 %"), (1e-9, "< 0.01 %"), (0.0, "0 %")],
)
def test_a_percentage_is_never_rounded_to_certainty(probability: float, shown: str) -> None:
    assert percent(probability) == shown


def test_an_html_message_is_shown_as_the_text_that_it_says() -> None:
    markup = "<head><style>p{color:red}</style></head><h1>Dear&nbsp;Anna</h1><p>1 &lt; 2<br>Bye<script>x()</script>"
    assert readable(markup) == "Dear Anna\n1 < 2\nBye"
    assert readable("<p title='<b>'>a</p>") == "a"


def test_only_html_channels_lose_markup(world: World) -> None:
    catalog = world.decider.catalog
    channels = tuple(replace(one, format="html" if one.id == "email" else "text") for one in catalog.channels)
    names = Names.of(replace(catalog, channels=channels), Words("en"))
    said = {"product_id": "card", "content_id": "plain", "text": "<b>now</b>"}
    assert names.message({**said, "channel": "email"}) == "now"
    assert names.message({**said, "channel": "push"}) == "<b>now</b>"
    assert names.message({**said, "channel": "push", "text": None}) is None


def test_amounts_carry_their_unit() -> None:
    assert amount(1234.5, "EUR", Words("en")) == "1,234.50 EUR"
    assert amount(-0.5, "EUR", Words("en")) == "−0.50 EUR"
    assert amount(0.0123, "take-ups", Words("zh")) == "0.0123 次办理"


def test_everything_that_a_page_needs_is_part_of_the_package() -> None:
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["serving"]
    folder = Path(serving.console.__file__).parent
    files = [f"console/{path.name}" for path in folder.iterdir() if path.is_file()]
    assert len(files) > 10
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in globs)] == []
