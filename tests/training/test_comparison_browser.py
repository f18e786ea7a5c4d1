"""The comparison page in a real browser: what a reviewer would see on a screen, on a phone and on paper.

Needs Chromium: NEXTBEST_CHROMIUM, or `chromium` on the path. With NEXTBEST_SCREENSHOTS=FOLDER and NEXTBEST_COMPARISON,
a page that `nextbest compare` wrote, the picture of the README is taken anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from two_runs import TwoRuns, rows

from training.bootstrap import Interval
from training.comparison.compare_runs import RunComparison, compare_runs
from training.comparison.comparison_page import page
from training.comparison.run_evidence import Cost, Evidence, Fact, PolicyValue, evidence
from training.monitoring.drift import Drift
from training.promotion.verdict import Check, Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
HOSTILE = "<img src=x onerror=alert(1)>\"'&"
SECTIONS = (
    *("verdict", "short", "checks", "metrics", "slices", "calibration", "policy", "fairness", "drift", "cost"),
    "lineage",
)
POOR = """() => {
  const parsed = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * linear(colour[i] / 255), 0);
  const ground = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = parsed(getComputedStyle(element).backgroundColor);
    return own[3] ? own : ground(element.parentElement);
  };
  return [...document.querySelectorAll("body *")].filter((element) => {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !element.checkVisibility() || element.closest(".unseen, .skip, svg")) return false;
    const [one, other] = [light(parsed(getComputedStyle(element).color)), light(ground(element))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
  }).map((element) => element.textContent.trim().slice(0, 40));
}"""
"""Texts with less than 4.5:1 against what is behind them (WCAG 2.2, 1.4.3)."""


BEYOND = """(width) => [...document.querySelectorAll("td, th, p, h1, figure, .tag")].filter((one) =>
  one.checkVisibility() && !one.closest(".unseen, thead") && one.getBoundingClientRect().right > width + 1
).map((one) => one.textContent.slice(0, 40))"""
"""Texts that reach beyond a width."""

OVERLAPPING = """() => [...document.querySelectorAll("tbody tr")].filter((line) => {
  const boxes = [...line.children].filter((one) => one.textContent.trim()).map((one) => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return range.getBoundingClientRect();
  });
  const apart = (one, other) => one.right <= other.left + 1 || other.right <= one.left + 1 ||
    one.bottom <= other.top + 1 || other.bottom <= one.top + 1;
  return boxes.some((one, i) => boxes.slice(i + 1).some((other) => !apart(one, other)));
}).map((line) => line.innerText)"""
"""Lines of tables in which the text of one cell lies over that of another."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> RunComparison:
    knows, usual = rows()
    segment = np.where(knows.slices["segment"] == "a", HOSTILE, "b").astype(object)
    runs = TwoRuns.of(
        tmp_path_factory.mktemp("runs"), replace(knows, slices={**knows.slices, "segment": segment}), usual
    )
    return compare_runs(replace(runs.challenger, name=HOSTILE), runs.champion, seed=1)


@pytest.fixture(scope="module")
def told(found: RunComparison) -> Evidence:
    """What two runs of this version keep, with a gate that refuses."""
    refused = Check("segment at half the rate", False, 0.5, 0.8, f"segment {HOSTILE} is targeted 0.5 times as often")
    checks = (
        Check("rules", True, 0, 0, "nothing is ranked that is held"),
        refused,
        Check("leak", None, None, None, "-"),
    )
    shares = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5)
    drift = Drift("age", "feature", 0.55, 0.001, ("young", "old", "missing"), *shares, 500.0)
    return replace(
        evidence(found, seed=1),
        verdict=Verdict(False, checks, found.challenger.id, found.champion.id),
        policy=(PolicyValue("test/dr_value", Interval(12.5, 8.0, 17.0), None),),
        drifts=(drift,),
        costs=(Cost("latency_ms_p99", 2.0, 1.0), Cost("model_bytes", 2.4e6, float("nan"))),
        params=(Fact("family", "lightgbm", "torch"), Fact("seed", "0", "0")),
    )


@pytest.fixture(scope="module")
def file(found: RunComparison, told: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(found, told), encoding="utf-8")
    return path


@dataclass
class Reader:
    """Somebody who opens the file, and everything that the browser asked for or complained about."""

    file: Path
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def opens(self, **options: Any) -> Page:
        context = self.browser.new_context(locale="en-GB", **options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.file.as_uri())
        return page


@pytest.fixture
def reader(file: Path, browser: Browser) -> Iterator[Reader]:
    reader = Reader(file, browser)
    yield reader
    for context in reader.contexts:
        context.close()
    assert reader.complaints == []
    assert set(reader.asked) == {file.as_uri()}, "the page loads nothing but itself"


def test_the_verdict_with_its_reasons_is_what_a_reviewer_sees_first(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    assert page.locator("h1").inner_text().startswith("The challenger is surely better: ")
    verdict = page.locator("#verdict")
    assert verdict.bounding_box()["y"] < 400
    assert verdict.locator("h2").inner_text() == "The gate refuses the challenger"
    assert "1 of 2 checks refuse; 1 could not be counted" in verdict.inner_text()
    assert "targeted 0.5 times as often" in verdict.locator("li").inner_text()


def test_every_part_is_there_and_the_links_lead_to_it(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    for section in SECTIONS:
        assert page.locator(f"section#{section} h2").count() == 1, section
    targets = [link.get_attribute("href") for link in page.locator("a[href^='#']").all()]
    assert {f"#{section}" for section in SECTIONS} <= set(targets)
    assert all(page.locator(str(target)).count() == 1 for target in targets)


def test_the_page_says_its_language_its_title_and_what_each_picture_shows(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.title() == f"next-best-product: {HOSTILE} against two"
    assert page.locator("svg").count() > 20
    for picture in page.locator("svg").all():
        assert picture.get_attribute("role") == "img"
        assert len(picture.get_attribute("aria-label") or "") > 10
    assert page.locator("figure figcaption").count() == page.locator("figure").count() == 2


def test_every_table_has_a_caption_column_headers_and_row_headers(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    tables = page.locator("table")
    assert tables.count() >= 14
    for table in tables.all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() >= 3
        lines = table.locator("tbody tr").count()
        assert lines
        assert table.locator("tbody tr > th").count() == lines


def test_every_id_is_there_once(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_a_mark_stands_right_of_the_line_where_the_challenger_is_better(reader: Reader) -> None:
    """Log-loss falls and the mark is to the right all the same; the number keeps its sign."""
    page = reader.opens(**DESKTOP)
    line = page.locator("#metrics tr", has_text="Log-loss").first
    assert line.locator(".tag").inner_text() == "surely better"
    assert line.locator("[data-name=difference]").inner_text().startswith("−")
    mark, zero = (line.locator(one).bounding_box() for one in ("svg circle", "svg .zero"))
    assert mark["x"] > zero["x"]


def test_hostile_names_are_shown_and_run_nothing(reader: Reader) -> None:
    page = reader.opens(**DESKTOP)
    assert page.locator("#slices th", has_text=HOSTILE).count() == 1
    assert page.locator("img, script").count() == 0


@pytest.mark.parametrize("width", [320, 390, 710, 768, 1024])
def test_nothing_scrolls_sideways_or_lies_over_something_else(reader: Reader, width: int) -> None:
    page = reader.opens(**{**PHONE, "viewport": {"width": width, "height": 844}})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(BEYOND, width) == []
    assert page.evaluate(OVERLAPPING) == []


def test_on_a_phone_every_number_says_what_it_is(reader: Reader) -> None:
    page = reader.opens(**PHONE)
    cell = page.locator("#metrics td[data-name=challenger]").first
    assert "challenger" in cell.evaluate("(one) => getComputedStyle(one, '::before').content")
    unnamed = page.locator("td.number:not([data-name])").count()
    assert unnamed == 0


def test_every_text_stands_out_from_what_is_behind_it(reader: Reader) -> None:
    assert reader.opens(**DESKTOP).evaluate(POOR) == []
    assert reader.opens(**PHONE).evaluate(POOR) == []


def test_on_paper_everything_is_there(reader: Reader, tmp_path: Path) -> None:
    page = reader.opens(**DESKTOP)
    page.emulate_media(media="print")
    for section in SECTIONS:
        assert page.locator(f"#{section} h2").is_visible(), section
    page.set_viewport_size({"width": 687, "height": 1000})  # A4 without its margins
    assert page.evaluate(BEYOND, 687) == []
    assert page.evaluate(OVERLAPPING) == []
    drawn = page.pdf(format="A4")
    pages = len(re.findall(rb"/Type\s*/Page\b", drawn))
    assert 3 <= pages <= 20


def test_a_page_without_what_older_runs_lack_says_so(
    found: RunComparison, told: Evidence, browser: Browser, tmp_path: Path
) -> None:
    less = replace(
        told, verdict=None, drifts=None, costs=(), policy=(), groups=(), equal_rates=(),
        left_out={"drift": "run a keeps no reference", "verdict": "run a keeps no model"},
    )  # fmt: skip
    path = tmp_path / "page.html"
    path.write_text(page(found, less), encoding="utf-8")
    shown = Reader(path, browser).opens(**DESKTOP)
    text = shown.locator("body").inner_text()
    for said in (
        *("The gate was not asked", "run a keeps no model", "Not known: run a keeps no reference"),
        *(
            "Neither run measured its cost",
            "No group has enough rows to tell",
            "Neither run keeps an off-policy estimate",
        ),
    ):
        assert said in text, said
    shown.context.close()


def test_the_same_comparison_makes_the_same_page(found: RunComparison, told: Evidence, file: Path) -> None:
    assert page(found, told) == file.read_text(encoding="utf-8")


@pytest.mark.skipif(
    not {"NEXTBEST_SCREENSHOTS", "NEXTBEST_COMPARISON"} <= set(os.environ),
    reason="NEXTBEST_SCREENSHOTS names no folder, or NEXTBEST_COMPARISON no page",
)
def test_the_screenshot_is_taken(browser: Browser) -> None:
    reader = Reader(Path(os.environ["NEXTBEST_COMPARISON"]).resolve(), browser)
    shown = reader.opens(viewport={"width": 1180, "height": 2330})
    taken = Image.open(BytesIO(shown.screenshot()))
    shown.context.close()
    picture = Path(os.environ["NEXTBEST_SCREENSHOTS"]) / "comparison.png"
    taken.convert("RGB").quantize(128).save(picture, optimize=True)
    assert picture.stat().st_size < 250_000, "what the README shows loads fast"
