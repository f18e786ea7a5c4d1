"""Message templates: what they may contain, checked when the catalogue is read, and the sandbox that renders them.

A template is data from outside. It may print variables, filter them, and choose between texts; loops, calls,
arithmetic, assignments and names with underscores are refused, because a text needs none of them.

Variables: `product` and `channel` print as their names and have `.id` and `.name`, `product` also `.group`;
`product_name`, `channel_name`, `currency`; `customer.<attribute>`, and an attribute by its own name where that is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 20_000
"""Characters of a template: the longest e-mail fits, and what parses slowly or too deep does not get far."""

IMPERSONAL = frozenset({"product", "product_name", "channel", "channel_name", "currency"})
"""Variables that need nothing to be known of the customer."""

_CUSTOMER = "customer"
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
_FILTERS = frozenset({"capitalize", "d", "default", "e", "escape", "int", "lower", "round", "title", "trim", "upper"})
_TESTS = frozenset({"defined", "none", "undefined", "true", "false"})


class TemplateRefused(ValueError):
    """A template that is never used; the text says why."""


class Named:
    """A product or channel inside a template: prints as its name."""

    def __init__(self, id: str, name: str, group: str | None = None) -> None:
        self.id = id
        self.name = name
        self.group = group

    def __str__(self) -> str:
        return self.name


def compiled(source: str, html: bool = False) -> Template:
    """The template, ready to render; `html`: what it prints is escaped. TemplateRefused where it is not allowed."""
    try:
        return _environment(html).from_string(_tree(source))
    except (TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise TemplateRefused(f"the template does not compile: {error}") from error


def impersonal(source: str) -> bool:
    """Whether the template says not a word about the customer: it renders alike for everyone, and never fails."""
    return find_undeclared_variables(_tree(source)) <= IMPERSONAL


def template_problem(source: str) -> str | None:
    """Why a template is refused; None where it may be used."""
    try:
        compiled(source)
    except TemplateRefused as refused:
        return str(refused)
    return None


def plain_problem(source: str) -> str | None:
    """Why a plain variant is refused: it must be sound, and need nothing of the customer."""
    problem = template_problem(source)
    if problem or impersonal(source):
        return problem
    return f"a plain variant uses only {', '.join(sorted(IMPERSONAL))}: it stands in where the customer is not known"


@cache
def _environment(html: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=html, finalize=_printable)
    environment.globals.clear()  # range, lipsum, cycler, …: a text needs none of them
    return environment


def _printable(value: object) -> object:
    """What a template may print. A method or a whole mapping would show the inside of this program to a customer."""
    if isinstance(value, str | int | float | Named | Undefined):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be printed")


def _tree(source: str) -> nodes.Template:
    if len(source) > LONGEST:
        raise TemplateRefused(f"the template has {len(source)} characters, at most {LONGEST} are taken")
    try:
        tree = _environment(False).parse(source)
        for problem in _forbidden(tree):
            raise TemplateRefused(f"the template is refused: {problem}")
    except TemplateError as error:
        raise TemplateRefused(f"the template does not parse: {error}") from error
    except RecursionError as error:
        raise TemplateRefused("the template is refused: it is nested too deep") from error
    return tree


def _forbidden(tree: nodes.Template) -> Iterator[str]:
    owners = {id(node.node) for node in tree.find_all(nodes.Getattr)}
    owners |= {id(node.node) for node in tree.find_all(nodes.Getitem)}
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _NODES):
            yield f"{type(node).__name__} is not allowed; use variables, filters and if"
        elif isinstance(node, nodes.Name) and node.name == _CUSTOMER and id(node) not in owners:
            yield "customer as a whole is not allowed; name one attribute, as in customer.first_name"
        elif isinstance(node, nodes.Name) and node.name.startswith("_"):
            yield f"name {node.name!r} starts with an underscore"
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


def reads(source: str) -> tuple[str, ...]:
    """The customer's attributes that a template may look at: all that its text depends on, with product and channel."""
    tree = _tree(source)
    own = find_undeclared_variables(tree) - IMPERSONAL - {_CUSTOMER}
    return tuple(sorted(own | {name for node in tree.find_all((nodes.Getattr, nodes.Getitem)) for name in _of(node)}))


def only_prints(source: str) -> tuple[str, ...] | None:
    """The customer's attributes that a template prints, in order and as they are; None where it does anything else.

    Such a template fails for nobody who has these attributes: its text is what it says to somebody whose attributes are
    empty, and theirs in between.
    """
    found: list[str] = []
    for output in _tree(source).body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            of_customer = _of(node)
            if isinstance(node, nodes.Name) and node.name not in IMPERSONAL:
                found.append(node.name)
            elif of_customer:
                found += of_customer
            elif not isinstance(node, nodes.Name | nodes.TemplateData):
                return None
    return tuple(found)


def _of(node: nodes.Node) -> list[str]:
    """The attribute in `customer.attribute` or `customer["attribute"]`; nothing for any other node."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return []
    if not isinstance(node.node, nodes.Name) or node.node.name != _CUSTOMER:
        return []
    named = node.attr if isinstance(node, nodes.Getattr) else node.arg.as_const()
    return [str(named)]
