"""Message texts: the catalogue's templates (`features.templates`), compiled once, rendered per customer.

A variable that is missing for a customer is never an empty text: "Dear ," is worse than no message. The content's
declared plain variant stands in; without one the content falls out. On a channel of format html what templates print
is escaped; a text that exceeds its channel, counted as the channel counts, is never sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jinja2 import Template, TemplateError, UndefinedError

from features.catalog import Catalog, Channel, Content, Product
from features.schema import Attribute, State
from features.templates import Named, TemplateRefused, compiled, impersonal, plain_problem
from serving.segments import room, segments

if TYPE_CHECKING:
    from serving.slots import Slots

Value = str | int | float | bool


class ContentError(ValueError):
    """A template that is refused, or that cannot be rendered for this customer; the text says why."""


@dataclass(frozen=True)
class _Compiled:
    """A content's template and plain variant for one kind of channel."""

    template: Template
    plain: Template | None
    same_for_all: bool
    """Without a word about the customer: rendered once per product and channel, not once per decision."""


class Contents:
    """The catalogue's contents, compiled. `refused` maps content ids to why their template is never used."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._compiled: dict[tuple[str, bool], _Compiled] = {}
        self._fitting: dict[tuple[str | None, str], tuple[Content, ...]] = {}
        self._same_for_all: dict[tuple[str, str | None, str], str] = {}
        self._languages = tuple(dict.fromkeys(content.language for content in catalog.contents))
        self._slots: dict[tuple[int, int, tuple[str, ...]], Slots] = {}
        self._by_id = {content.id: content for content in catalog.contents}
        self.refused: dict[str, str] = {}
        for content in catalog.contents:
            try:
                for html in {channel.format == "html" for channel in catalog.channels} or {False}:
                    self._compiled[content.id, html] = _compile(content, html)
            except TemplateRefused as refused:
                self.refused[content.id] = str(refused)

    def __bool__(self) -> bool:
        return bool(self._catalog.contents)

    def __getitem__(self, content_id: str) -> Content:
        """The content of this id; KeyError where there is none."""
        return self._by_id[content_id]

    def __contains__(self, content_id: object) -> bool:
        return content_id in self._by_id

    def slots(self, catalog: Catalog, language: str | None) -> Slots:
        """The slots of a catalogue of these contents for whom speaks `language`; found out once."""
        from serving.slots import Slots  # it writes with these contents

        spoken = tuple(one for one in self._languages if language and _speaks(one, language))
        key = (id(catalog.products), id(catalog.channels), spoken)
        if key not in self._slots:
            self._slots[key] = Slots(catalog, self, language if spoken else None)
        return self._slots[key]

    def same_for_all(self, content: Content) -> bool:
        """Whether its text, or why there is none, says not a word about the customer."""
        return content.id in self.refused or all(
            made.same_for_all for (name, _), made in self._compiled.items() if name == content.id
        )

    def matching(self, product: Product | None, channel: Channel, language: str | None) -> tuple[Content, ...]:
        """Contents for the pair in `language`; where it has none, in the catalogue's first language.

        Without a product, contents that are about none.
        """
        fitting = self._for_pair(product.id if product else None, channel.id)
        for wanted in (language, self._catalog.contents[0].language if self._catalog.contents else None):
            found = tuple(content for content in fitting if wanted and _speaks(content.language, wanted))
            if found:
                return found
        return ()

    def _for_pair(self, product_id: str | None, channel_id: str) -> tuple[Content, ...]:
        pair = (product_id, channel_id)
        if pair not in self._fitting:
            self._fitting[pair] = tuple(
                content
                for content in self._catalog.contents
                if content.product_id in (None, product_id) and content.channel in (None, channel_id)
            )
        return self._fitting[pair]

    def render(self, content: Content, product: Product | None, channel: Channel, customer: Mapping[str, Value]) -> str:
        """The text for one customer; ContentError where the template is refused, fails, or exceeds the channel."""
        if content.id in self.refused:
            raise ContentError(self.refused[content.id])
        place = (content.id, product.id if product else None, channel.id)
        text = self._same_for_all.get(place)
        if text is None:
            made = self._compiled[content.id, channel.format == "html"]
            text = self._rendered(made, product, channel, customer)
            _fit(text, channel)
            if made.same_for_all:
                self._same_for_all[place] = text
        return text

    def _rendered(
        self, made: _Compiled, product: Product | None, channel: Channel, customer: Mapping[str, Value]
    ) -> str:
        ours: dict[str, object] = {
            "channel": Named(channel.id, channel.name),
            "channel_name": channel.name,
            "currency": self._catalog.currency,
        }
        if product:
            ours |= {"product": Named(product.id, product.name, product.group), "product_name": product.name}
        try:
            try:
                return made.template.render({**customer, **ours, "customer": customer})
            except UndefinedError:
                if made.plain is None:
                    raise
                return made.plain.render(ours)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ContentError(f"the template failed: {error}") from error


def customer_values(attributes: tuple[Attribute, ...], profile: State) -> dict[str, Value]:
    """What templates may say of the single customer in `profile`; unknown attributes are absent.

    profile.numbers holds flags as 0 and 1 and dates as seconds since 1970; columns stand in the order of `attributes`.
    """
    values: dict[str, Value] = {}
    numbers = iter(profile.numbers[0].tolist())
    texts = iter(profile.texts[0].tolist())
    for attribute in attributes:
        if attribute.kind == "text":
            raw = next(texts)
            if raw is not None:
                values[attribute.name] = raw
        elif math.isfinite(number := next(numbers)):
            values[attribute.name] = _spoken(attribute, number)
    return values


def _compile(content: Content, html: bool) -> _Compiled:
    if content.plain is not None:
        problem = plain_problem(content.plain)
        if problem:
            raise TemplateRefused(problem)
    plain = None if content.plain is None else compiled(content.plain, html)
    return _Compiled(compiled(content.template, html), plain, impersonal(content.template))


def _fit(text: str, channel: Channel) -> None:
    if channel.max_length is None:
        return
    if channel.format == "sms":
        taken, most = segments(text), room(channel.max_length)
        if taken > most:
            raise ContentError(f"the text takes {taken} SMS segments; {channel.id} takes {most}")
    elif len(text) > channel.max_length:
        raise ContentError(f"the text has {len(text)} characters; {channel.id} takes {channel.max_length}")


def _spoken(attribute: Attribute, number: float) -> Value:
    if attribute.kind == "flag":
        return bool(number)
    if attribute.kind == "date":
        return datetime.fromtimestamp(number, UTC).date().isoformat()
    return int(number) if number.is_integer() else number


def _speaks(language: str, wanted: str) -> bool:
    """zh-CN is spoken where zh-CN or zh is wanted, in any case."""
    return language.lower() == wanted.lower() or language.lower().split("-")[0] == wanted.lower()
