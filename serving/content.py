"""Message texts: templates of the catalogue, compiled once, rendered per customer in an immutable sandbox.

A template may print variables, filter them, and choose between texts; loops, calls, arithmetic and assignments are
refused when the catalogue loads, because a template is data from outside and a text needs none of them. Variables:

- `product` and `channel` print as their names; they have `.id`, `.name`, and `product.group`
- `product_name`, `channel_name`, `currency`
- `customer.<attribute>`, and the attribute by its own name where that is free

A variable that is missing for a customer is an error, never an empty text: "Dear ," is worse than no message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from features.catalog import Catalog, Channel, Content, Product
from features.schema import Attribute, State

Value = str | int | float | bool

_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Filter,
    nodes.Test,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
)
_IMPERSONAL = frozenset({"product", "product_name", "channel", "channel_name", "currency"})
_FILTERS = frozenset({"capitalize", "d", "default", "e", "escape", "int", "lower", "round", "title", "trim", "upper"})
_TESTS = frozenset({"defined", "none", "undefined", "true", "false"})


class ContentError(ValueError):
    """A template that is refused, or that cannot be rendered for this customer; the text says why."""


@dataclass(frozen=True)
class Named:
    """A product or channel inside a template: prints as its name."""

    id: str
    name: str
    group: str | None = None

    def __str__(self) -> str:
        return self.name


class Contents:
    """The catalogue's contents, compiled. `refused` maps content ids to why their template is never used."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._environment = _environment()
        self._templates: dict[str, Template] = {}
        self._fitting: dict[tuple[str, str], tuple[Content, ...]] = {}
        self._impersonal: set[str] = set()
        """Contents without a word about the customer: rendered once per product and channel, not once per decision."""
        self._same_for_all: dict[tuple[str, str, str], str] = {}
        self.refused: dict[str, str] = {}
        for content in catalog.contents:
            try:
                tree = _parse(self._environment, content.template)
            except ContentError as error:
                self.refused[content.id] = str(error)
                continue
            self._templates[content.id] = self._environment.from_string(tree)
            if find_undeclared_variables(tree) <= _IMPERSONAL:
                self._impersonal.add(content.id)

    def __bool__(self) -> bool:
        return bool(self._catalog.contents)

    def matching(self, product: Product, channel: Channel, language: str | None) -> tuple[Content, ...]:
        """Contents for the pair in `language`; where it has none, in the catalogue's first language."""
        fitting = self._for_pair(product.id, channel.id)
        for wanted in (language, self._catalog.contents[0].language if self._catalog.contents else None):
            found = tuple(content for content in fitting if wanted and _speaks(content.language, wanted))
            if found:
                return found
        return ()

    def _for_pair(self, product_id: str, channel_id: str) -> tuple[Content, ...]:
        pair = (product_id, channel_id)
        if pair not in self._fitting:
            self._fitting[pair] = tuple(
                content
                for content in self._catalog.contents
                if content.product_id in (None, product_id) and content.channel in (None, channel_id)
            )
        return self._fitting[pair]

    def render(self, content: Content, product: Product, channel: Channel, customer: Mapping[str, Value]) -> str:
        """The text for one customer; ContentError where the template is refused, fails, or exceeds the channel."""
        if content.id in self.refused:
            raise ContentError(self.refused[content.id])
        place = (content.id, product.id, channel.id)
        text = self._same_for_all.get(place)
        if text is None:
            text = self._rendered(content, product, channel, customer)
            if content.id in self._impersonal:
                self._same_for_all[place] = text
        if channel.max_length is not None and len(text) > channel.max_length:
            raise ContentError(f"the text has {len(text)} characters; {channel.id} takes {channel.max_length}")
        return text

    def _rendered(self, content: Content, product: Product, channel: Channel, customer: Mapping[str, Value]) -> str:
        ours = {
            "customer": customer,
            "product": Named(product.id, product.name, product.group),
            "product_name": product.name,
            "channel": Named(channel.id, channel.name),
            "channel_name": channel.name,
            "currency": self._catalog.currency,
        }
        try:
            return self._templates[content.id].render({**customer, **ours})
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ContentError(f"the template failed: {error}") from error


def customer_values(attributes: tuple[Attribute, ...], profile: State) -> dict[str, Value]:
    """What templates may say of the single customer in `profile`; unknown attributes are absent.

    profile.numbers holds flags as 0 and 1 and dates as seconds since 1970; columns stand in the order of `attributes`.
    """
    values: dict[str, Value] = {}
    numbers = iter(profile.numbers[0])
    texts = iter(profile.texts[0])
    for attribute in attributes:
        raw = next(texts) if attribute.kind == "text" else next(numbers)
        if raw is None or (attribute.kind != "text" and not np.isfinite(raw)):
            continue
        values[attribute.name] = _spoken(attribute, raw)
    return values


def _spoken(attribute: Attribute, raw: str | float) -> Value:
    if isinstance(raw, str):
        return raw
    if attribute.kind == "flag":
        return bool(raw)
    if attribute.kind == "date":
        return datetime.fromtimestamp(float(raw), UTC).date().isoformat()
    return int(raw) if float(raw).is_integer() else float(raw)


def _speaks(language: str, wanted: str) -> bool:
    """zh-CN is spoken where zh-CN or zh is wanted, in any case."""
    return language.lower() == wanted.lower() or language.lower().split("-")[0] == wanted.lower()


def _environment() -> ImmutableSandboxedEnvironment:
    # Autoescape would write &amp; into SMS and push texts; escaping belongs to a channel that shows HTML.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def _parse(environment: ImmutableSandboxedEnvironment, source: str) -> nodes.Template:
    """The template's tree; ContentError where it does not parse or does what no text needs."""
    try:
        tree = environment.parse(source)
    except TemplateError as error:
        raise ContentError(f"the template does not parse: {error}") from error
    for problem in _forbidden(tree):
        raise ContentError(f"the template is refused: {problem}")
    return tree


def _forbidden(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _NODES):
            yield f"{type(node).__name__} is not allowed; use variables, filters and if"
        elif isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            yield f"filter {node.name!r} is not one of {', '.join(sorted(_FILTERS))}"
        elif isinstance(node, nodes.Test) and node.name not in _TESTS:
            yield f"test {node.name!r} is not one of {', '.join(sorted(_TESTS))}"
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            yield f"attribute {node.attr!r} starts with an underscore"
        elif isinstance(node, nodes.Getitem) and not _plain_index(node.arg):
            yield "an index must be a constant that does not start with an underscore"


def _plain_index(index: nodes.Expr) -> bool:
    return isinstance(index, nodes.Const) and not str(index.value).startswith("_")
