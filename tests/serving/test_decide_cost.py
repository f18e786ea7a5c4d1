"""What one decision costs, counted where no machine makes a difference: calls of functions, and reads of the store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from features.assemble import row_schema
from features.catalog import Catalog, Channel, Content, Product
from features.home import Home
from features.importing import make_bank
from features.packed import OnlineStates
from features.times import micros
from serving.caps import Contact
from serving.content import Contents
from serving.decide import Decider
from serving.history import Past, RecordedPast
from serving.value import Worth

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

MOST_CALLS = 400
"""Of Python functions, for one decision and its answer among 120 and more actions. Lower it when there are fewer."""
PRODUCTS = (Product("card", "Gold card", holdable=True, margin=100.0), Product("loan", "Car loan", margin=400.0))
CHANNELS = (Channel("push", "App push"), Channel("email", "E-mail", max_length=200), Channel("branch", "Branch"))
POLICIES = (
    {"id": "week", "kind": "cap", "limit": 1_000, "days": 300},
    {"id": "each", "kind": "cap", "per": "product", "limit": 40, "days": 300},
)


def wide(contents: int) -> Catalog:
    """24 products × 8 channels × contents, each of which greets the customer."""
    products = tuple(Product(f"product-{n}", f"Product {n}", group="more", margin=50.0 + n) for n in range(22))
    channels = tuple(Channel(f"channel-{n}", f"Channel {n}", max_length=90 + n) for n in range(5))
    texts = tuple(Content(f"c{n}", "en", f"{{{{ first_name }}}}: {n} {{{{ product }}}}") for n in range(contents))
    return Catalog("EUR", "Europe/Berlin", (*PRODUCTS, *products), (*CHANNELS, *channels), texts, POLICIES)


def calls(work: Callable[[], object], name: str | None = None) -> int:
    """Calls of Python functions while `work` is done the second time; with a name, of C functions so called."""
    found = 0

    def count(frame: FrameType, event: str, what: Any) -> None:
        nonlocal found
        found += event == "call" if name is None else event == "c_call" and what.__name__ == name

    work()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


@pytest.fixture(scope="module")
def decider_of(world: World, build_home: Callable[..., Home]) -> Callable[[int], Decider]:
    """`decider_of(contents)` decides among 24 × 8 × contents actions."""
    bank = make_bank(wide(1), world.bank.tables, world.bank.attributes)
    build = build_home(bank).build()
    online, schema = OnlineStates(build.online_path, build.views), row_schema(bank)

    def make(contents: int) -> Decider:
        catalog = wide(contents)
        decider = replace(
            world.decider,
            catalog=catalog,
            customers=online,
            schema=schema,
            contents=Contents(catalog),
            worth=Worth.of(catalog),
            products=replace(world.decider.products, candidates=catalog.product_ids, sources=()),
            channels=replace(world.decider.channels, candidates=catalog.channel_ids, sources=()),
        )
        assert len(decider.decide(world.ask(), "0").candidates) == 24 * 8 * contents + 1
        return decider

    return make


def test_a_decision_is_so_many_calls_and_five_times_the_actions_are_hardly_more(
    world: World, decider_of: Callable[[int], Decider]
) -> None:
    less, more = decider_of(1), decider_of(5)
    few = calls(lambda: less.decide(world.ask(), "0").answer())
    many = calls(lambda: more.decide(world.ask(), "0").answer())
    assert few <= MOST_CALLS
    assert many <= few + 20


def test_a_long_history_of_contacts_is_gone_through_once_whatever_counts_it(
    world: World, decider_of: Callable[[int], Decider]
) -> None:
    def counted(contacts: int) -> int:
        ask = world.ask()
        made = tuple(
            Contact("anna", micros(ask.as_of - timedelta(hours=n)), "push", "card", None, "marketing", f"{n}", None)
            for n in range(contacts)
        )
        decider = replace(decider_of(1), history=RecordedPast(Past(made[::-1])))
        assert "card" in {gone.id.split("/")[0] for gone in decider.decide(ask, "0").removed if gone.rule == "each"}
        return calls(lambda: decider.decide(ask, "0").answer())

    assert counted(400) - counted(50) <= 3 * 350


def test_a_decision_is_one_read_of_the_online_store(world: World, decider_of: Callable[[int], Decider]) -> None:
    decider = decider_of(1)
    assert calls(lambda: decider.decide(world.ask(), "0"), "execute") == 1
