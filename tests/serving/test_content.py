"""Templates come from outside: what they may say, and what they may not do."""

from __future__ import annotations

import numpy as np
import pytest

from features.catalog import Catalog, Channel, Content, Product
from features.schema import Attribute, State
from serving.content import ContentError, Contents, customer_values

PRODUCT = Product("card", "Gold card", group="cards")
CHANNEL = Channel("sms", "SMS", max_length=30)


def contents(*templates: str, language: str = "en") -> Contents:
    made = tuple(Content(f"c{place}", language, template) for place, template in enumerate(templates))
    return Contents(Catalog("EUR", "UTC", (PRODUCT,), (CHANNEL,), made))


def render(template: str, **customer: str | int | float | bool) -> str:
    made = contents(template)
    return made.render(made.matching(PRODUCT, CHANNEL, None)[0], PRODUCT, CHANNEL, customer)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ product }}|{{ product.name }}", "Gold card|Gold card"),
        ("{{ product_name }}", "Gold card"),
        ("{{ product.group }} by {{ channel }}", "cards by SMS"),
        ("Dear {{ first_name }}", "Dear Ada"),
        ("Dear {{ customer.first_name | upper }}", "Dear ADA"),
        ("{% if age is defined and age >= 60 %}60+{% else %}young{% endif %}", "60+"),
        ("{{ nickname | default('you') }}", "you"),
    ],
)
def test_templates_print_filter_and_choose(template: str, text: str) -> None:
    assert render(template, first_name="Ada", age=61) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ product.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{% set x = 1 %}",
        "{% include 'catalog.toml' %}",
        "{{ product | attr('__class__') }}",
        "{{ lipsum() }}",
        "{{ customer.update({}) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ customer }}",
        "{{ customer | upper }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% import 'os' as os %}",
        "{{ (" + "(" * 5000 + "1" + ")" * 5000 + ") }}",
        "{% if a %}" * 300 + "{% endif %}" * 300,
        "{{ a" + "|upper" * 2000 + " }}",
        "x" * 20_001,
        "{% if ",
    ],
)
def test_attacks_and_bombs_are_refused_when_the_catalogue_loads(template: str) -> None:
    made = contents(template)
    assert list(made.refused) == ["c0"]
    with pytest.raises(ContentError):
        made.render(made.matching(PRODUCT, CHANNEL, None)[0], PRODUCT, CHANNEL, {})


def test_a_missing_variable_fails_instead_of_printing_nothing() -> None:
    with pytest.raises(ContentError, match="first_name"):
        render("Dear {{ customer.first_name }}")


def test_methods_and_globals_are_never_printed() -> None:
    for template in ("{{ customer.items }}", "{{ product.name.upper }}", "{{ lipsum }}", "{{ self }}"):
        with pytest.raises(ContentError):
            render(template)


def test_a_missing_variable_gives_the_plain_variant_and_a_known_one_does_not() -> None:
    catalog = Catalog(
        "EUR", "UTC", (PRODUCT,), (CHANNEL,), (Content("c", "en", "Dear {{ name }}", plain="Dear {{ product }} fan"),)
    )
    made = Contents(catalog)
    assert made.render(made["c"], PRODUCT, CHANNEL, {"name": "Ada"}) == "Dear Ada"
    assert made.render(made["c"], PRODUCT, CHANNEL, {}) == "Dear Gold card fan"


def test_a_plain_variant_that_needs_the_customer_is_refused() -> None:
    content = Content("c", "en", "Dear {{ name }}", plain="Dear {{ customer.nick }}")
    assert "plain variant" in Contents(Catalog("EUR", "UTC", (PRODUCT,), (CHANNEL,), (content,))).refused["c"]


def test_what_templates_print_is_escaped_on_a_channel_of_html_and_nowhere_else() -> None:
    html = Channel("email", "E-mail <b>", format="html")
    content = Content("c", "en", "<p>{{ name }} {{ channel }} {{ nick | default('&') }}</p>")
    made = Contents(Catalog("EUR", "UTC", (PRODUCT,), (html, CHANNEL), (content,)))
    name = {"name": "<script>'\"&"}
    text = made.render(content, PRODUCT, html, name)
    assert text == "<p>&lt;script&gt;&#39;&#34;&amp; E-mail &lt;b&gt; &amp;</p>"
    assert made.render(content, PRODUCT, CHANNEL, name) == "<p><script>'\"& SMS &</p>"


def test_an_sms_is_measured_in_segments_so_other_alphabets_have_less_room() -> None:
    sms = Channel("sms", "SMS", max_length=160, format="sms")
    for text in ("x" * 160, "中" * 70):
        made = contents(text)
        assert made.render(made["c0"], PRODUCT, sms, {}) == text
    for text in ("x" * 161, "中" * 71, "€" * 81):
        made = contents(text)
        with pytest.raises(ContentError, match="2 SMS segments; sms takes 1"):
            made.render(made["c0"], PRODUCT, sms, {})


def test_a_text_longer_than_its_channel_fails() -> None:
    with pytest.raises(ContentError, match="31 characters"):
        render("x" * 31)
    assert render("x" * 30)


def test_a_customer_attribute_never_hides_the_product() -> None:
    assert render("{{ product }}", product="their own") == "Gold card"


def test_texts_for_one_customer_are_never_given_to_another() -> None:
    made = contents(
        "{{ product }} for {{ first_name }}", "{% if vip is defined %}VIP{% else %}all{% endif %}", "{{ product }}"
    )
    personal, choosing, same = made.matching(PRODUCT, CHANNEL, None)
    for name in ("Ada", "Bob"):
        assert made.render(personal, PRODUCT, CHANNEL, {"first_name": name}) == f"Gold card for {name}"
        assert made.render(same, PRODUCT, CHANNEL, {"first_name": name}) == "Gold card"
    assert made.render(choosing, PRODUCT, CHANNEL, {}) == "all"
    assert made.render(choosing, PRODUCT, CHANNEL, {"vip": True}) == "VIP"
    assert made.render(same, Product("loan", "Car loan"), CHANNEL, {}) == "Car loan"


def test_the_language_asked_for_comes_first_then_the_catalogues_first() -> None:
    catalog = Catalog(
        "EUR",
        "UTC",
        (PRODUCT,),
        (CHANNEL,),
        (Content("en", "en", "hello"), Content("zh", "zh-CN", "你好"), Content("zh2", "zh-CN", "您好")),
    )
    made = Contents(catalog)

    def ids(language: str | None) -> list[str]:
        return [content.id for content in made.matching(PRODUCT, CHANNEL, language)]

    assert ids("zh-CN") == ids("zh") == ["zh", "zh2"]
    assert ids("fr") == ids(None) == ["en"]


def test_contents_of_other_products_and_channels_do_not_match() -> None:
    catalog = Catalog(
        "EUR",
        "UTC",
        (PRODUCT,),
        (CHANNEL,),
        (Content("other", "en", "x", "loan"), Content("mail", "en", "x", "card", "email"), Content("any", "en", "x")),
    )
    assert [content.id for content in Contents(catalog).matching(PRODUCT, CHANNEL, None)] == ["any"]


def test_customer_values_read_each_kind_and_leave_out_the_unknown() -> None:
    attributes = (
        Attribute("name", "text"),
        Attribute("age", "number"),
        Attribute("vip", "flag"),
        Attribute("born", "date"),
        Attribute("nick", "text"),
        Attribute("rate", "number"),
        Attribute("gone", "number"),
    )
    state = State(
        np.array([0.0]),
        np.array([[40.0, 1.0, 0.0, 1.5, np.nan]]),
        np.array([["Ada", None]], dtype=object),
    )
    assert customer_values(attributes, state) == {
        "name": "Ada",
        "age": 40,
        "vip": True,
        "born": "1970-01-01",
        "rate": 1.5,
    }
