"""The actions that are possible: found out once, the same as if every text were written for every customer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from features.catalog import Catalog, Channel, Content, Product
from features.templates import only_prints, reads
from serving.candidates import Draft, written
from serving.content import Contents, Value
from serving.decision import Action, Removed

PRODUCTS = (Product("card", "Gold card", group="cards"), Product("loan", "Car loan"))
CHANNELS = (
    Channel("push", "App push", max_length=30),
    Channel("sms", "SMS", max_length=160, format="sms"),
    Channel("mail", "E-mail", max_length=60, format="html"),
    Channel("post", "Letter"),
)
CONTENTS = (
    Content("same", "en", "{{ product_name }} for you"),
    Content("named", "en", "{{ first_name }}, see the {{ product }}"),
    Content("whole", "en", "For {{ customer.first_name }} of {{ customer['town'] }}: " + "x" * 38),
    Content("chooses", "en", "{% if age >= 60 %}Senior{% else %}Young{% endif %} offer", plain="An offer"),
    Content("group", "en", "{{ first_name }}: our {{ product.group }}"),
    Content("loud", "en", "{{ first_name | upper }}!", "card", "sms"),
    Content("years", "en", "Aged {{ age | title }}"),
    Content("german", "de", "{{ product_name }} für {{ first_name }}", "loan"),
)
CATALOG = Catalog("EUR", "Europe/Berlin", PRODUCTS, CHANNELS, CONTENTS)
ALL = (np.ones(len(PRODUCTS), np.bool_), np.ones(len(CHANNELS), np.bool_))
CUSTOMERS: tuple[Mapping[str, Value], ...] = (
    {"first_name": "Anna", "town": "Ulm", "age": 40},
    {"first_name": "Anna", "town": "Ulm", "age": 70},
    {"first_name": "Anna", "town": "Ulm", "age": 70.5},
    {"first_name": "Иннокентий", "town": "Екатеринбург"},
    {"first_name": "Maximilian-Ferdinand von und zu", "town": "Ulm"},
    {"first_name": "<b>&\"'", "town": "Ulm" * 12, "age": 1},
    {"first_name": "€" * 45, "town": "{}" * 30, "age": True},
    {"first_name": "'&<>" * 4, "town": "Ulm", "age": 1},
    {"first_name": "Anna", "town": "Ulm", "age": True},
    {"town": "Ulm"},
    {},
)


def one_by_one(contents: Contents, customer: Mapping[str, Value], language: str | None) -> list[Action | Removed]:
    """Every text written for this customer alone: what the slots must come to."""
    return [
        written(contents, content, product, channel, customer)
        for product in PRODUCTS
        for channel in CHANNELS
        for content in contents.matching(product, channel, language)
    ]


@pytest.mark.parametrize("language", [None, "en", "de", "fr"])
def test_slots_come_to_what_writing_every_text_comes_to(language: str | None) -> None:
    contents = Contents(CATALOG)
    slots = contents.slots(CATALOG, language)
    for customer in CUSTOMERS * 2:  # once more, from what was kept
        expected = one_by_one(Contents(CATALOG), customer, language)
        found, removed = slots.offers(*ALL, customer)
        actions = [found.action(place) for place in range(len(found))]
        assert actions == [one for one in expected if isinstance(one, Action)]
        assert removed == [one for one in expected if isinstance(one, Removed)]
    assert any(isinstance(one, Removed) for customer in CUSTOMERS for one in one_by_one(contents, customer, language))


def test_a_text_that_surely_fits_is_not_written_before_it_is_chosen() -> None:
    found, _ = Contents(CATALOG).slots(CATALOG, "en").offers(*ALL, CUSTOMERS[0])
    drafts = {(one.channel, one.content_id) for one in found.actions if isinstance(one, Draft)}
    assert drafts >= {(channel.id, "named") for channel in CHANNELS}
    assert not drafts & {(channel.id, name) for channel in CHANNELS for name in ("same", "chooses", "group", "loud")}


def test_only_what_may_be_offered_is_there_and_in_the_catalogues_order() -> None:
    found, _ = (
        Contents(CATALOG)
        .slots(CATALOG, "en")
        .offers(np.array([False, True]), np.array([True, False, False, True]), CUSTOMERS[0])
    )
    assert {one.product_id for one in found.actions} == {"loan"}
    pairs = list(zip(found.product.tolist(), found.channel.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert set(found.channel.tolist()) == {0, 3}


def test_a_pair_without_a_content_falls_out_and_a_catalogue_without_contents_needs_none() -> None:
    some = Catalog("EUR", "UTC", PRODUCTS, CHANNELS, (Content("only", "en", "Hello", "card"),))
    found, removed = Contents(some).slots(some, None).offers(*ALL, {})
    assert {one.product_id for one in found.actions} == {"card"}
    assert [(one.id, one.rule) for one in removed] == [(f"loan/{channel.id}", "no_content") for channel in CHANNELS]
    none = Catalog("EUR", "UTC", PRODUCTS, CHANNELS)
    found, removed = Contents(none).slots(none, None).offers(*ALL, {})
    assert (len(found), removed) == (len(PRODUCTS) * len(CHANNELS), [])


def test_a_template_names_what_it_reads_and_whether_it_only_prints_it() -> None:
    assert reads("{{ town }} {{ customer.age }} {{ customer['x'] }} {{ product.name }}") == ("age", "town", "x")
    assert only_prints("{{ town }}, {{ customer.age }} and {{ town }}: {{ product }}") == ("town", "age", "town")
    for does_more in ("{{ town | upper }}", "{% if town %}a{% endif %}", "{{ product.group }}", "{{ town == 'a' }}"):
        assert only_prints(does_more) is None
