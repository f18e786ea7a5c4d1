from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from features.catalog import Catalog, Channel, Content, Product, load_catalog
from features.catalog_file import parse_catalog, read_catalog, render_catalog
from features.errors import BankDataError

SMALL = """\
currency = "EUR"
time_zone = "Europe/Prague"
[[products]]
id = "card"
name = "Card"
[[channels]]
id = "sms"
name = "SMS"
direction = "outbound"
cost = 0.1
[[contents]]
id = "hello"
product_id = "card"
channel = "sms"
language = "en"
template = "Hello"
"""


def test_a_catalogue_is_read_with_its_defaults(small_bank_folder: Path) -> None:
    path = small_bank_folder / "catalog.toml"
    declared = path.read_text("utf-8").replace('name = "Fund units"', 'name = "Fund units"\nresponse_days = 30')
    path.write_text(declared, "utf-8")
    catalog = load_catalog(path)
    assert (catalog.currency, catalog.time_zone) == ("EUR", "Europe/Prague")
    assert catalog.products == (
        Product("card", "Credit card", holdable=True, group="cards", margin=40.0),
        Product("loan", "Consumer loan", holdable=True),
        Product("fund", "Fund units", response_days=30.0),
    )
    assert catalog.channels == (
        Channel("app_push", "App push", quiet_hours=("21:00", "08:00"), max_length=120),
        Channel("voice", "Call", "both", 2.5, capacity=100, quiet_hours=("20:00", "09:00")),
        Channel("website", "Website", "inbound"),
    )
    assert catalog.contents[1] == Content("greeting", "cs", "Dobrý den")
    assert catalog.policies == ({"id": "weekly_cap", "kind": "cap", "limit": 3, "days": 7},)


# claim: the text that replaces a line, and the one problem it must give: column, words of the rule, severity
DAMAGES = {
    "a missing currency": ('currency = "EUR"', "", "currency", "right type", "error"),
    "an empty currency": ('currency = "EUR"', 'currency = " "', "currency", "right type", "error"),
    "a missing time zone": ('time_zone = "Europe/Prague"', "", "time_zone", "time zone is known", "error"),
    "an unknown time zone": ("Europe/Prague", "Europe/Atlantis", "time_zone", "time zone is known", "error"),
    "a time zone that is a folder": ("Europe/Prague", "Europe", "time_zone", "time zone is known", "error"),
    "a time zone outside the data": ("Europe/Prague", "../etc/x", "time_zone", "time zone is known", "error"),
    "a product without a name": ('name = "Card"', "", "products.name", "right type", "error"),
    "a margin of infinity": ('name = "Card"', 'name = "C"\nmargin = inf', "products.margin", "right type", "error"),
    "no time to answer": (
        'name = "Card"',
        'name = "C"\nresponse_days = 0',
        "products.response_days",
        "right type",
        "error",
    ),
    "a margin beyond floats": (
        'name = "Card"',
        'name = "C"\nmargin = 1' + "0" * 400,
        "products.margin",
        "right type",
        "error",
    ),
    "a margin of true": ('name = "Card"', 'name = "C"\nmargin = true', "products.margin", "right type", "error"),
    "a holdable of 1": ('name = "Card"', 'name = "C"\nholdable = 1', "products.holdable", "right type", "error"),
    "a bad direction": ('"outbound"', '"sideways"', "channels.direction", "right type", "error"),
    "a direction that is a list": ('"outbound"', '["outbound"]', "channels.direction", "right type", "error"),
    "a negative cost": ("cost = 0.1", "cost = -0.1", "channels.cost", "right type", "error"),
    "a cost in words": ("cost = 0.1", 'cost = "0.1"', "channels.cost", "right type", "error"),
    "a missing cost": ("cost = 0.1", "", "channels.cost", "right type", "error"),
    "a half capacity": ("cost = 0.1", "cost = 0\ncapacity = 1.5", "channels.capacity", "right type", "error"),
    "no length at all": ("cost = 0.1", "cost = 0\nmax_length = 0", "channels.max_length", "right type", "error"),
    "hour 24": ("cost = 0.1", 'cost = 0\nquiet_hours = ["24:00", "08:00"]', "channels.quiet_hours", "quiet", "error"),
    "one quiet hour": ("cost = 0.1", 'cost = 0\nquiet_hours = ["21:00"]', "channels.quiet_hours", "quiet", "error"),
    "a whole quiet day": (
        "cost = 0.1",
        'cost = 0\nquiet_hours = "08:00-08:00"',
        "channels.quiet_hours",
        "quiet",
        "error",
    ),
    "an id that is a number": ('id = "hello"', "id = 5", "contents.id", "right type", "error"),
    "an unknown product": (
        'product_id = "card"',
        'product_id = "cart"',
        "contents.product_id",
        "product is in",
        "error",
    ),
    "an unknown channel": ('channel = "sms"', 'channel = "mms"', "contents.channel", "channel is in", "error"),
    "a status that means nothing": (
        "cost = 0.1",
        'cost = 0.1\nstatuses = {OK = "fine"}',
        "channels.statuses",
        "type",
        "error",
    ),
    "statuses that are a list": ("cost = 0.1", 'cost = 0.1\nstatuses = ["OK"]', "channels.statuses", "type", "error"),
    "a status that means a decision": (
        "cost = 0.1",
        'cost = 0.1\nstatuses = {OK = "decided"}',
        "channels.statuses",
        "type",
        "error",
    ),
    "an unknown key": ('name = "Card"', 'name = "C"\ncolour = "red"', "products.colour", "ignored", "note"),
    "an unknown table": ('currency = "EUR"', 'currency = "EUR"\nbank = "x"', "bank", "ignored", "note"),
    "a channel of an unknown format": ("cost = 0.1", 'cost = 0.1\nformat = "fax"', "channels.format", "type", "error"),
    "a template that escapes": (
        'template = "Hello"',
        """template = "{{ ''['__class__'] }}\"""",
        "contents.template",
        "nothing else",
        "error",
    ),
    "a template that loops": (
        'template = "Hello"',
        'template = "{% for i in range(9) %}x{% endfor %}"',
        "contents.template",
        "nothing else",
        "error",
    ),
    "a plain variant that needs the customer": (
        'template = "Hello"',
        'template = "Hello"\nplain = "Hello {{ name }}"',
        "contents.plain",
        "nothing else",
        "error",
    ),
}


@pytest.mark.parametrize(("before", "after", "column", "rule", "severity"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_catalogue_gives_its_one_problem(
    before: str, after: str, column: str, rule: str, severity: str, tmp_path: Path
) -> None:
    assert SMALL.count(before) == 1
    path = tmp_path / "catalog.toml"
    path.write_text(SMALL.replace(before, after), encoding="utf-8")
    reading = read_catalog(path)
    (problem,) = reading.problems
    assert (problem.table, problem.column, problem.rows, problem.severity) == ("catalog", column, 1, severity)
    assert rule in problem.rule
    assert len(problem.first) == 1
    assert (reading.catalog is None) == (severity == "error")


@pytest.mark.parametrize("section", ["products", "channels", "contents", "policies"])
def test_an_id_that_occurs_twice_is_refused_in_every_section(section: str) -> None:
    channel = {"direction": "inbound", "cost": 0} if section == "channels" else {}
    content = {"language": "en", "template": "x"} if section == "contents" else {"name": "x"}
    policy = {"kind": "cap", "limit": 1, "days": 1} if section == "policies" else {}
    entry = {"id": "a", **channel, **content, **policy}
    reading = parse_catalog({"currency": "EUR", "time_zone": "UTC", section: [entry, {**entry, "id": "b"}, entry]})
    errors = [problem for problem in reading.problems if problem.severity == "error"]
    assert [(problem.column, problem.rule, problem.first) for problem in errors] == [
        (f"{section}.id", "an id occurs once", ("entry 3: 'a' is entry 1",))
    ]


@pytest.mark.parametrize("policies", ['policies = ["cap"]', "policies = 3", "[policies]\nid = 'cap'"])
def test_policies_must_be_tables(policies: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(f'currency = "EUR"\ntime_zone = "UTC"\n{policies}\n', encoding="utf-8")
    (problem,) = read_catalog(path).problems
    assert (problem.column, problem.rule) == ("policies", "is a list of tables")


def test_all_problems_of_a_catalogue_are_raised_at_once(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(SMALL.replace("0.1", "-1").replace("EUR", "").replace('"Card"', "7"), encoding="utf-8")
    with pytest.raises(BankDataError, match="3 errors, 0 notes") as raised:
        load_catalog(path)
    assert {problem.column for problem in raised.value.problems} == {"currency", "products.name", "channels.cost"}
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("content", [b"currency = ", b"\xff\xfe", b'a = "x"\na = "y"'])
def test_a_file_that_is_no_toml_is_a_problem_and_no_traceback(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_bytes(content)
    (problem,) = read_catalog(path).problems
    assert (problem.table, problem.column, problem.rule) == ("catalog", None, "the file can be read")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_catalog(path).currency == "EUR"


ATTACKS = (
    "{{ product.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ ''['__class__'] }}",
    "{{ product | attr('__class__') }}",
    "{% include 'catalog.toml' %}",
    "{{ self._TemplateReference__context }}",
    "{% for i in range(10**9) %}x{% endfor %}",
)


def test_no_catalogue_with_a_template_attack_is_ever_loaded(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    for attack in ATTACKS:
        path.write_text(SMALL.replace('"Hello"', json.dumps(attack)), encoding="utf-8")
        with pytest.raises(BankDataError, match=r"hello.*refused"):
            load_catalog(path)


def test_a_catalogue_written_and_read_again_is_the_same() -> None:
    awkward = 'quote " backslash \\ newline \n delete \x7f nul \x00 háček 微信 🏦'
    catalog = Catalog(
        currency="EUR",
        time_zone="UTC",
        products=(Product("p", awkward, holdable=True, group=awkward, margin=1e21, response_days=0.5),),
        channels=(Channel("c", "C", "both", 1e-9, 7, ("23:59", "00:00"), 1, statuses={awkward: "failed"}),),
        contents=(Content("t", "en", awkward, "p", "c"),),
        policies=({"id": awkward, "kind": "complaint", "days": 1, "note": {awkward: [1, 2.5, True, {"a": "b"}]}},),
    )
    reading = parse_catalog(tomllib.loads(render_catalog(catalog)))
    assert reading.problems == ()
    assert reading.catalog == catalog
