"""Reading the entries of `[[policies]]`: every flaw with its key, never a guess at what was meant.

A misspelt rule must not be ignored: it would be a limit that nobody keeps. So unknown kinds and keys are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

from features import arbitration
from features.catalog import Catalog
from features.columns import Kind
from features.errors import InputError
from features.policies import (
    FOR_PEOPLE,
    AffordabilityRule,
    AudienceRule,
    Calendar,
    CapRule,
    ComplaintRule,
    HoldingRule,
    PeriodRule,
    Policy,
    ReachRule,
    Reservation,
    Scope,
    SuppressionRule,
    Target,
)
from features.problems import Rule, show
from features.schema import Attribute

NEGATIVE = (Kind.COMPLAINED, Kind.OPTED_OUT, Kind.FAILED)
"""Responses that a suppression may count; without a list of its own it counts the first two."""
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONGEST = 3_660.0
"""Days; a window beyond ten years is a typing error."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with an entry: under which key, which rule of the format it breaks, and the value."""

    key: str
    rule: Rule
    what: str


@dataclass(frozen=True)
class Named:
    """What policies may name; None where the ids could not be read, and nothing can be said of them."""

    products: frozenset[str] | None
    channels: frozenset[str] | None
    groups: frozenset[str] | None


@dataclass(frozen=True)
class _Key:
    wanted: str
    fits: Callable[[Any], bool]
    required: bool = False


def _number(value: Any, least: float, most: float, strict: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return least < value <= most if strict else least <= value <= most


def _count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and _number(value, least, 10**9)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(fits(item) for item in value)


def _plain(value: Any) -> bool:
    return isinstance(value, str | bool) or _number(value, -1e300, 1e300)


_TEXT = _Key("text", _text)
_ATTRIBUTE = _Key("the name of an attribute of customers", _text, required=True)
_DAYS = _Key("a number of days above 0, at most 3660", lambda value: _number(value, 0, _LONGEST, strict=True))
_NEEDED_DAYS = _Key(_DAYS.wanted, _DAYS.fits, required=True)
_LIMIT = _Key("a whole number of at least 0", _count(0), required=True)
_BOUND = _Key("a finite number", lambda value: _number(value, -1e300, 1e300))
_VALUES = _Key("a list of texts, numbers or flags", _list_of(_plain))
_IDS = _Key("a list of product ids", _list_of(_text))
_MISSING = _Key('"allow" or "refuse"', lambda value: value in ("allow", "refuse"))
_MOMENT = _Key(
    "a date or a time, from 1900 to 2199", lambda value: isinstance(value, date) and 1900 <= value.year < 2200
)
_CHANNEL = {"channel": _TEXT}
_PRODUCT = {"product": _TEXT, "group": _TEXT}
_PER = {"per": _Key('"channel", "product" or "group"', lambda value: value in ("channel", "product", "group"))}

_KEYS: Mapping[str, Mapping[str, _Key]] = {
    "holding": {**_PRODUCT, "requires": _IDS, "excludes": _IDS},
    "audience": {
        **_CHANNEL,
        **_PRODUCT,
        "attribute": _ATTRIBUTE,
        "min": _BOUND,
        "max": _BOUND,
        "any_of": _VALUES,
        "none_of": _VALUES,
        "missing": _MISSING,
    },
    "reach": {"channel": _Key("a channel", _text, required=True), "attribute": _ATTRIBUTE},
    "period": {
        **_PRODUCT,
        "from": _MOMENT,
        "until": _MOMENT,
        "weekdays": _Key(f"a list of {', '.join(_WEEKDAYS)}", _list_of(lambda value: value in _WEEKDAYS)),
    },
    "affordability": {
        **_PRODUCT,
        "attribute": _ATTRIBUTE,
        "payment": _Key("a number of at least 0", lambda value: _number(value, 0, 1e300), required=True),
        "share": _Key("a number above 0, at most 1", lambda value: _number(value, 0, 1, strict=True), required=True),
        "missing": _MISSING,
    },
    "complaint": {**_CHANNEL, **_PRODUCT, "days": _NEEDED_DAYS},
    "cap": {
        **_CHANNEL,
        **_PRODUCT,
        **_PER,
        "limit": _LIMIT,
        "days": _DAYS,
        "calendar": _Key(", ".join(get_args(Calendar)), lambda value: value in get_args(Calendar)),
    },
    "suppression": {
        **_CHANNEL,
        **_PRODUCT,
        **_PER,
        "after": _Key("a whole number of at least 1", _count(1), required=True),
        "days": _NEEDED_DAYS,
        "within": _DAYS,
        "responses": _Key(f"a list of {', '.join(NEGATIVE)}", _list_of(lambda value: value in NEGATIVE)),
    },
    "reservation": {
        "hours": _Key("a number of hours above 0", lambda value: _number(value, 0, 24 * _LONGEST, True), required=True)
    },
}

_ONE_OF: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "cap": (("days", "calendar"), True),
    "holding": (("requires", "excludes"), False),
    "audience": (("min", "max", "any_of", "none_of"), False),
    "period": (("from", "until", "weekdays"), False),
}
"""Keys of which an entry needs one, and whether it may have only one."""


def flaws(entry: Mapping[str, Any], named: Named) -> Iterator[Flaw]:
    """Everything that is wrong with one entry, its id apart; how actions are weighed is read by `arbitration`."""
    kind = entry.get("kind")
    if isinstance(kind, str) and kind in arbitration.KINDS:
        return
    if not isinstance(kind, str) or kind not in _KEYS:
        known = (*_KEYS, *sorted(arbitration.KINDS))
        yield Flaw("kind", Rule.POLICY_KIND, f"{show(kind)}, one of {', '.join(known)} is wanted")
        return
    keys = _KEYS[kind]
    for name, key in keys.items():
        if name not in entry:
            if key.required:
                yield Flaw(name, Rule.POLICY_VALUE, f"missing, {key.wanted} is wanted")
        elif not key.fits(entry[name]):
            yield Flaw(name, Rule.POLICY_VALUE, f"{show(entry[name])}, {key.wanted} is wanted")
    for name in sorted(entry.keys() - keys.keys() - {"id", "kind", *FOR_PEOPLE}):
        yield Flaw(name, Rule.POLICY_KEY, f"{show(entry[name])}; a {kind} has {', '.join(keys)}")
    targets = [name for name in ("channel", "product", "group", "per") if name in entry]
    if len(targets) > 1:
        yield Flaw("kind", Rule.POLICY_TARGET, f"{', '.join(targets)}; write a policy for each")
    wanted, single = _ONE_OF.get(kind, ((), False))
    given = [name for name in wanted if name in entry]
    if wanted and (not given or (single and len(given) > 1)):
        yield Flaw("kind", Rule.POLICY_VALUE, f"{' and '.join(given) or 'none'}, {'one of' if single else 'some of'} "
                   f"{', '.join(wanted)} is wanted")  # fmt: skip
    least, most = entry.get("min"), entry.get("max")
    if _BOUND.fits(least) and _BOUND.fits(most) and cast(float, least) > cast(float, most):
        yield Flaw("min", Rule.POLICY_VALUE, f"{least} is above max = {most}, so nobody is left")
    yield from _unknown(entry, named)


def _unknown(entry: Mapping[str, Any], named: Named) -> Iterator[Flaw]:
    for key, known, rule in (
        ("channel", named.channels, Rule.CHANNEL),
        ("product", named.products, Rule.PRODUCT),
        ("group", named.groups, Rule.GROUP),
        ("requires", named.products, Rule.PRODUCT),
        ("excludes", named.products, Rule.PRODUCT),
    ):
        given = entry.get(key)
        for value in given if isinstance(given, list | tuple) else [given]:
            if known is not None and _text(value) and value not in known:
                yield Flaw(key, rule, show(value))


def attribute_flaws(entry: Mapping[str, Any], attributes: Iterable[Attribute]) -> Iterator[Flaw]:
    """What is wrong with the attribute that a sound entry names."""
    name = entry.get("attribute")
    if name is None or entry["kind"] not in _KEYS:
        return
    kind = {attribute.name: attribute.kind for attribute in attributes}.get(name)
    if kind is None:
        yield Flaw("attribute", Rule.POLICY_ATTRIBUTE, f"{show(name)} is not a column of customers")
    elif ({"min", "max"} & entry.keys() and kind not in ("number", "date")) or (
        entry["kind"] == "affordability" and kind != "number"
    ):
        yield Flaw("attribute", Rule.POLICY_ATTRIBUTE, f"{show(name)} is a {kind}, which has no amount")
    types = {"number": (int, float), "flag": (bool,), "text": (str,), "date": (str,)}.get(str(kind), (object,))
    for key in ("any_of", "none_of"):
        for value in entry.get(key, ()):
            if not isinstance(value, types) or (kind == "number" and isinstance(value, bool)):
                yield Flaw(key, Rule.POLICY_VALUE, f"{show(value)}, however {name} is a {kind}")


def declared(catalog: Catalog) -> tuple[Policy, ...]:
    """The catalogue's policies, typed and in its order; InputError for a catalogue that was never checked."""
    groups = frozenset(product.group for product in catalog.products if product.group is not None)
    named = Named(frozenset(catalog.product_ids), frozenset(catalog.channel_ids), groups)
    for entry in catalog.policies:
        for flaw in flaws(entry, named):
            raise InputError(f"policy {entry.get('id')!r}: {flaw.key}: {flaw.rule}, however {flaw.what}")
    zone = ZoneInfo(catalog.time_zone)
    return tuple(_policy(entry, zone) for entry in catalog.policies if entry["kind"] in _KEYS)


def _policy(entry: Mapping[str, Any], zone: ZoneInfo) -> Policy:
    name, target, allow = entry["id"], _target(entry), entry.get("missing") == "allow"
    match entry["kind"]:
        case "holding":
            return HoldingRule(name, target, tuple(entry.get("requires", ())), tuple(entry.get("excludes", ())))
        case "audience":
            any_of, none_of = tuple(entry.get("any_of", ())), tuple(entry.get("none_of", ()))
            least, most = entry.get("min"), entry.get("max")
            return AudienceRule(name, target, entry["attribute"], least, most, any_of, none_of, allow)
        case "reach":
            return ReachRule(name, target, entry["attribute"])
        case "period":
            weekdays = tuple(_WEEKDAYS.index(day) for day in entry.get("weekdays", ()))
            return PeriodRule(name, target, _starts(entry.get("from"), zone), _ends(entry.get("until"), zone), weekdays)
        case "affordability":
            return AffordabilityRule(name, target, entry["attribute"], entry["payment"], entry["share"], allow)
        case "complaint":
            return ComplaintRule(name, target, entry["days"])
        case "cap":
            return CapRule(name, target, entry["limit"], entry.get("days"), entry.get("calendar"))
        case "suppression":
            kinds = tuple(entry.get("responses", NEGATIVE[:2]))
            return SuppressionRule(name, target, entry["after"], entry["days"], entry.get("within"), kinds)
        case _:
            return Reservation(name, entry["hours"])


def _target(entry: Mapping[str, Any]) -> Target:
    for scope in get_args(Scope)[1:]:
        if scope in entry:
            return Target(scope, entry[scope])
    return Target(entry.get("per", "overall"))


def _starts(value: date | None, zone: ZoneInfo) -> datetime | None:
    """A time without a zone is the bank's; a date is its first moment."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _ends(value: date | None, zone: ZoneInfo) -> datetime | None:
    """The first moment after: a date is meant with all of its day."""
    whole_day = value is not None and not isinstance(value, datetime)
    return _starts(value + timedelta(days=1) if value is not None and whole_day else value, zone)
