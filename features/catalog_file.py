"""Reading `catalog.toml` with every problem collected, and writing a catalogue back as TOML."""

from __future__ import annotations

import json
import re
import tomllib
import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from features.arbitration import declared_problems
from features.catalog import Catalog, Channel, Content, Product
from features.columns import Kind
from features.policy_file import Named, attribute_flaws, flaws
from features.problems import SHOWN, Problem, Rule, Severity, show
from features.schema import Attribute
from features.templates import plain_problem, template_problem

CATALOG = "catalog"
CATALOG_FILE = "catalog.toml"

_LARGEST = 1e300
"""Bound of an amount: TOML knows nan, inf, and integers that no float can hold."""

_LONGEST_DAYS = 3650

REPORTED = tuple(str(kind) for kind in Kind if kind != Kind.DECIDED)
"""Kinds of events that a provider can report."""

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True)
class CatalogReading:
    """What a catalogue file says.

    catalog is None when a problem is an error. The ids are what tables may name even so; None where an id could
    not be read, because checking tables against an incomplete list would accuse good rows.
    """

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    product_ids: frozenset[str] | None = None
    channel_ids: frozenset[str] | None = None
    content_ids: frozenset[str] | None = None


@dataclass(frozen=True)
class _Key:
    """A key of a section: what its value must be, in words and as a test."""

    wanted: str
    fits: Callable[[Any], bool]
    required: bool = False
    rule: Rule = Rule.CATALOG_VALUE


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_zone(value: Any) -> bool:
    try:
        return _is_text(value) and zoneinfo.ZoneInfo(value) is not None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: "Europe" is a folder of zones
        return False


def _are_statuses(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(word) and kind in REPORTED for word, kind in value.items())


def _quiet_hours(value: Any) -> tuple[str, str] | None:
    """("21:00", "08:00") from a list of two times of day or from "21:00-08:00"; None where it is neither."""
    parts = value.split("-") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 2 or parts[0] == parts[1]:
        return None
    if not all(isinstance(part, str) and _TIME_OF_DAY.fullmatch(part) for part in parts):
        return None
    return parts[0], parts[1]


_TEXT = _Key("text", _is_text, required=True)
_MAYBE_TEXT = _Key("text", _is_text)

_TOP: Mapping[str, _Key] = {
    "currency": _TEXT,
    "time_zone": _Key("an IANA time zone such as Europe/Prague", _is_zone, required=True, rule=Rule.TIME_ZONE),
}

_SECTIONS: Mapping[str, Mapping[str, _Key]] = {
    "products": {
        "id": _TEXT,
        "name": _TEXT,
        "group": _MAYBE_TEXT,
        "margin": _Key("a finite number", _is_number),
        "holdable": _Key("true or false", lambda value: isinstance(value, bool)),
        "response_days": _Key(
            f"a number of days above 0, at most {_LONGEST_DAYS}",
            lambda value: _is_number(value) and 0 < value <= _LONGEST_DAYS,
        ),
    },
    "channels": {
        "id": _TEXT,
        "name": _TEXT,
        "direction": _Key(
            "inbound, outbound or both", lambda value: value in ("inbound", "outbound", "both"), required=True
        ),
        "cost": _Key("a number of at least 0", lambda value: _is_number(value) and value >= 0, required=True),
        "capacity": _Key("a whole number of at least 0", lambda value: _is_count(value, 0)),
        "quiet_hours": _Key("two times of day", lambda value: _quiet_hours(value) is not None, rule=Rule.QUIET_HOURS),
        "max_length": _Key("a whole number of at least 1", lambda value: _is_count(value, 1)),
        "format": _Key("text, html or sms", lambda value: value in ("text", "html", "sms")),
        "statuses": _Key(f"words with one of {', '.join(REPORTED)} each", lambda value: _are_statuses(value)),
    },
    "contents": {
        "id": _TEXT,
        "product_id": _MAYBE_TEXT,
        "channel": _MAYBE_TEXT,
        "language": _TEXT,
        "template": _TEXT,
        "plain": _MAYBE_TEXT,
    },
    "policies": {"id": _TEXT},
}


@dataclass
class _Findings:
    """Problems by (column, rule, severity), each with the entries that have it."""

    found: dict[tuple[str | None, str, Severity], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, column: str | None, rule: str, what: str, severity: Severity = "error") -> None:
        self.found[column, rule, severity].append(what)

    @property
    def errors(self) -> bool:
        return any(severity == "error" for _, _, severity in self.found)

    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(CATALOG, column, rule, len(entries), tuple(entries[:SHOWN]), severity)
            for (column, rule, severity), entries in self.found.items()
        )


def read_catalog(path: Path) -> CatalogReading:
    """Read the catalogue at `path`; problems are returned, never raised."""
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return CatalogReading(None, (Problem(CATALOG, None, Rule.PRESENT, 0, (f"{path.name} is missing",)),))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return CatalogReading(None, (Problem(CATALOG, None, Rule.READABLE, 0, (show_error(error),)),))
    return parse_catalog(raw)


def parse_catalog(raw: Mapping[str, Any]) -> CatalogReading:
    """Check the parsed TOML of a catalogue against the format."""
    findings = _Findings()
    _check_keys(findings, None, {key: value for key, value in raw.items() if key not in _SECTIONS}, _TOP, "file")
    sections = {name: _section(findings, name, raw.get(name, [])) for name in _SECTIONS}
    ids = {name: _ids(findings, name, entries) for name, entries in sections.items()}
    for key, target, rule in (
        ("product_id", "products", Rule.PRODUCT),
        ("channel", "channels", Rule.CHANNEL),
    ):
        known = ids[target]
        for number, entry in enumerate(sections["contents"] or (), start=1):
            named = entry.get(key)
            if known is not None and _is_text(named) and named not in known:
                findings.add(f"contents.{key}", rule, f"{_label(number, entry)}: {show(named)}")
    for number, entry in enumerate(sections["contents"] or (), start=1):
        for key, problem_of in (("template", template_problem), ("plain", plain_problem)):
            problem = problem_of(entry[key]) if _is_text(entry.get(key)) else None
            if problem:
                findings.add(f"contents.{key}", Rule.TEMPLATE, f"{_label(number, entry)}: {problem}")
    groups = frozenset(entry["group"] for entry in sections["products"] or () if _is_text(entry.get("group")))
    named = Named(ids["products"], ids["channels"], groups if ids["products"] is not None else None)
    for number, entry in enumerate(sections["policies"] or (), start=1):
        for flaw in flaws(entry, named):
            findings.add(f"policies.{flaw.key}", flaw.rule, f"{_label(number, entry)}: {flaw.what}")
    catalog = None if findings.errors else _catalog(raw)
    for weighing in declared_problems(catalog.policies, catalog) if catalog else ():
        findings.add("policies", Rule.POLICY_VALUE, weighing)
    catalog = None if findings.errors else catalog
    return CatalogReading(catalog, findings.problems(), ids["products"], ids["channels"], ids["contents"])


def check_policy_attributes(catalog: Catalog, attributes: Sequence[Attribute]) -> tuple[Problem, ...]:
    """The policies of a sound catalogue that name attributes which customers lack, or which are of another kind."""
    findings = _Findings()
    for number, entry in enumerate(catalog.policies, start=1):
        for flaw in attribute_flaws(entry, attributes):
            findings.add(f"policies.{flaw.key}", flaw.rule, f"{_label(number, entry)}: {flaw.what}")
    return findings.problems()


def show_error(error: Exception) -> str:
    """The text of an error of a library, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _label(number: int, entry: Mapping[str, Any]) -> str:
    return f"entry {number} (id {entry['id']!r})" if _is_text(entry.get("id")) else f"entry {number}"


def _check_keys(
    findings: _Findings, section: str | None, entry: Mapping[str, Any], keys: Mapping[str, _Key], label: str
) -> None:
    prefix = "" if section is None else f"{section}."
    for name, key in keys.items():
        if name not in entry:
            if key.required:
                findings.add(prefix + name, key.rule, f"{label}: missing, {key.wanted} is wanted")
        elif not key.fits(entry[name]):
            findings.add(prefix + name, key.rule, f"{label}: {show(entry[name])}, {key.wanted} is wanted")
    if section == "policies":
        return  # each kind has keys of its own: features.policy_file
    for name in sorted(entry.keys() - keys.keys()):
        findings.add(prefix + name, Rule.EXTRA_KEY, f"{label}: {show(entry[name])}", "note")


def _section(findings: _Findings, name: str, entries: Any) -> tuple[Mapping[str, Any], ...] | None:
    """The entries of a section; None when it is not a list of tables."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        findings.add(name, Rule.CATALOG_TABLES, f"{show(entries)}; write [[{name}]] before each entry")
        return None
    for number, entry in enumerate(entries, start=1):
        _check_keys(findings, name, entry, _SECTIONS[name], _label(number, entry))
    return tuple(entries)


def _ids(findings: _Findings, name: str, entries: tuple[Mapping[str, Any], ...] | None) -> frozenset[str] | None:
    """The ids of a section, repeated ones reported; None when one of them cannot be read."""
    if entries is None:
        return None
    seen: dict[str, int] = {}
    readable = True
    for number, entry in enumerate(entries, start=1):
        if not _is_text(entry.get("id")):
            readable = False
        elif entry["id"] in seen:
            findings.add(f"{name}.id", Rule.CATALOG_ID, f"entry {number}: {entry['id']!r} is entry {seen[entry['id']]}")
        else:
            seen[entry["id"]] = number
    return frozenset(seen) if readable else None


def _catalog(raw: Mapping[str, Any]) -> Catalog:
    """The catalogue of TOML that has been checked. Numbers become float, absent keys their defaults."""

    def known(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {item.name: entry[item.name] for item in fields(kind) if item.name in entry}

    def product(entry: Mapping[str, Any]) -> Product:
        values = known(Product, entry)
        return Product(**values | {name: float(values[name]) for name in ("margin", "response_days") if name in values})

    def channel(entry: Mapping[str, Any]) -> Channel:
        values = known(Channel, entry) | {"cost": float(entry["cost"])}
        return Channel(**values | {"quiet_hours": _quiet_hours(entry.get("quiet_hours"))})

    return Catalog(
        currency=raw["currency"],
        time_zone=raw["time_zone"],
        products=tuple(product(entry) for entry in raw.get("products", [])),
        channels=tuple(channel(entry) for entry in raw.get("channels", [])),
        contents=tuple(Content(**known(Content, entry)) for entry in raw.get("contents", [])),
        policies=tuple(raw.get("policies", [])),
    )


def render_catalog(catalog: Catalog) -> str:
    """The catalogue as TOML. `parse_catalog` of it is the same catalogue, so it also serves as canonical text."""
    lines = [f"currency = {_toml(catalog.currency)}", f"time_zone = {_toml(catalog.time_zone)}"]
    for section in _SECTIONS:
        for entry in getattr(catalog, section):
            values = entry if isinstance(entry, Mapping) else {k.name: getattr(entry, k.name) for k in fields(entry)}
            lines += ["", f"[[{section}]]"]
            lines += [f"{_toml(key)} = {_toml(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A TOML value on one line. JSON strings are TOML strings, but for DEL, which TOML wants escaped."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case Mapping():
            return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
        case _:  # the dates and times of TOML
            return str(value.isoformat())
