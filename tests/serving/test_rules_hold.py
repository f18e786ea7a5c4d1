"""Random catalogues, customers and histories: no decision breaks a rule, and every customer gets an answer.

The rules are stated again here, plainly, on the raw declarations; the two statements must agree on every action. A
world is decoded from bytes, so that Hypothesis draws and shrinks it as one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import consent, holdings, profile
from features.catalog import Catalog, Channel, Product
from features.catalog_file import check_policy_attributes, parse_catalog
from features.packing import unknown
from features.schema import Attribute, Float64, Rows, RowSchema, State, States
from features.times import micros
from features.views import views
from serving.caps import Contact, check
from serving.content import Contents
from serving.decide import Decider
from serving.decision import Ask, Decision
from serving.history import Known, Past, Remembered, Response
from serving.policy import Policy
from serving.schedule import Scheduler
from serving.scoring import Panel
from serving.value import Worth

CASES = 5_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "Asia/Beirut")
QUIET = (None, None, ("21:00", "08:00"), ("02:00", "03:00"), ("08:00", "21:00"), ("00:15", "23:45"))
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ATTRIBUTES = (
    Attribute("age", "number"),
    Attribute("born", "date"),
    Attribute("has_address", "flag"),
    Attribute("income", "number"),
    Attribute("segment", "text"),
    Attribute("time_zone", "text"),
)
OTHER_KINDS = ("audience", "holding", "reach", "period", "affordability", "complaint", "reservation")
DAY = timedelta(days=1)


class Dice:
    """Choices read off a string of bytes; at its end every choice is the first."""

    def __init__(self, content: bytes) -> None:
        self._rest = iter(content)

    def below(self, count: int) -> int:
        return next(self._rest, 0) % count

    def one(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def some(self, options: Sequence[Any]) -> list[Any]:
        return [option for option in options if self.below(2)]

    def often(self, of_ten: int) -> bool:
        return self.below(10) >= 10 - of_ten


@dataclass(frozen=True)
class Customer:
    """One customer, as the online store knows them: the seam `Customers`."""

    catalog: Catalog
    values: Mapping[str, Any]
    held: frozenset[str]
    refused: frozenset[tuple[str, str]]
    """(channel, purpose)"""

    def read(self, customer_ids: Sequence[str]) -> States:
        states = {view.name: unknown(view, 1) for view in views(self.catalog, ATTRIBUTES)}
        known = np.array([datetime(2020, 1, 1, tzinfo=UTC).timestamp()])
        numbers = [self._number(item.name) for item in ATTRIBUTES if item.kind != "text"]
        texts = [self.values.get(item.name) for item in ATTRIBUTES if item.kind == "text"]
        states[profile.NAME] = State(known, np.array([numbers]), np.array([texts], dtype=object))
        for place, product in enumerate(self.catalog.product_ids):
            states[holdings.NAME].numbers[0, 3 * place] = product in self.held
        purposes = [str(purpose) for purpose in consent.PURPOSES]
        said = [place for place, name in enumerate(consent.view(self.catalog).numbers) if name.endswith("_refused")]
        for at, channel in enumerate(self.catalog.channel_ids):
            for place, purpose in enumerate(purposes):
                states[consent.NAME].numbers[0, said[2 * at + place]] = (channel, purpose) in self.refused
        return states

    def _number(self, name: str) -> float:
        value = self.values.get(name)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC).timestamp()
        return float("nan") if value is None else float(value)


@dataclass
class Remembering:
    """A ledger that only remembers contacts: the seam `Knows`."""

    made: list[Contact]

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        live = (one for one in self.made if one.expires_us is None or one.expires_us > now_us)
        return tuple(contact for contact in live if contact.at_us > since_us)

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        return Known(() if since_us is None else self.contacts(customer_id, since_us, now_us))


@dataclass(frozen=True)
class Dawdling(Scheduler):
    """Finds the best hour some hours after the first one that is allowed."""

    hours: int = 0

    def best(self, channel: str, since: datetime, customer: Any, zone: ZoneInfo, defer: Any, soonest: bool) -> datetime:
        soon: datetime = defer(channel, since)
        return soon if soonest else defer(channel, soon + timedelta(hours=self.hours))


def held_rows(states: States, as_of: Float64, schema: RowSchema) -> Rows:
    """Rows without features: no model looks at them."""
    held = holdings.held(states[holdings.NAME], len(schema.products)) == 1.0
    nothing = np.zeros((1, 1), np.float32)
    return Rows(
        nothing, nothing[:, :, None], nothing[:, :, None], held, np.zeros((1, len(schema.channels)), bool), schema
    )


@dataclass(frozen=True)
class Case:
    customer: Customer
    decider: Decider
    ask: Ask
    ledger: Remembering
    responses: tuple[Response, ...]

    @property
    def catalog(self) -> Catalog:
        return self.customer.catalog

    @property
    def zone(self) -> ZoneInfo:
        named = self.customer.values.get("time_zone")
        return ZoneInfo(named if named in ZONES else self.catalog.time_zone)


def case_of(dice: Dice) -> Case:
    catalog = catalog_of(dice)
    as_of = datetime(2024, dice.one((3, 10, 12, 1)), dice.one((26, 27, 30, 31)), tzinfo=UTC)
    as_of += timedelta(minutes=15 * dice.below(96))
    customer = customer_of(dice, catalog)
    products, channels = catalog.product_ids, catalog.channel_ids
    ledger = Remembering([contact_of(dice, catalog, as_of, number) for number in range(dice.below(13))])
    responses = tuple(sorted((response_of(dice, catalog, as_of) for _ in range(dice.below(5))), key=lambda r: r.at_us))
    decider = Decider(
        catalog=catalog,
        attributes=ATTRIBUTES,
        customers=customer,
        history=Remembered(ledger, {"c": responses}),
        assemble=held_rows,
        schema=RowSchema(
            products, tuple(p.holdable for p in catalog.products), channels, ATTRIBUTES, (), catalog.time_zone,
            ("messages, decayed",), ("",), ("",),
        ),
        products=Panel("next-best-product", products, True),
        channels=Panel("channel-choice", channels, False),
        contents=Contents(catalog),
        policy=Policy(epsilon=1.0),
        worth=Worth.of(catalog),
        features_version="f",
        catalog_version="c",
        scheduler=Dawdling(hours=dice.one((0, 5, 20, 44))),
    )  # fmt: skip
    ask = Ask(
        "c",
        as_of,
        tuple(dice.some(products)) if dice.often(1) else None,
        tuple(dice.some(channels)) if dice.often(1) else None,
        dice.one(("marketing", "marketing", "marketing", "service", "mandatory")),
    )
    return Case(customer, decider, ask, ledger, responses)


def catalog_of(dice: Dice) -> Catalog:
    products = [
        {"id": f"p{place}", "name": "P", "holdable": dice.often(3)} | dice.one(({}, {"group": "g"}, {"group": "h"}))
        for place in range(1 + dice.below(4))
    ]
    channels = [
        {
            "id": f"c{place}",
            "name": "C",
            "direction": dice.one(("outbound", "outbound", "both", "both", "both", "inbound")),
            "cost": 0,
        }
        | ({"quiet_hours": list(quiet)} if (quiet := dice.one(QUIET)) else {})
        for place in range(1 + dice.below(4))
    ]
    raw = {"currency": "EUR", "time_zone": dice.one(ZONES), "products": products, "channels": channels}
    raw["policies"] = [{"id": f"rule{place}"} | policy_of(dice, raw) for place in range(dice.below(7))]
    reading = parse_catalog(raw)
    assert reading.catalog is not None, reading.problems
    assert not check_policy_attributes(reading.catalog, ATTRIBUTES)
    return reading.catalog


def policy_of(dice: Dice, raw: Mapping[str, Any]) -> dict[str, Any]:
    products = [product["id"] for product in raw["products"]]
    groups = [product["group"] for product in raw["products"] if "group" in product]
    of_product = dice.one(({}, {"product": dice.one(products)}, {"group": dice.one(groups)} if groups else {}))
    of_channel = {"channel": dice.one([channel["id"] for channel in raw["channels"]])}
    target = dice.one(({}, of_product, of_channel))
    per = dice.one((target, target, {"per": dice.one(("channel", "product", "group"))}))
    days = dice.one((0.5, 1, 7, 30))
    kind = dice.one((*["cap"] * 4, *["suppression"] * 3, *OTHER_KINDS))
    match kind:
        case "cap":
            window = dice.one(({"days": days}, {"calendar": dice.one(("day", "week", "month", "quarter", "year"))}))
            return {"kind": kind, "limit": dice.below(3), **window, **per}
        case "suppression":
            within = dice.one(({}, {"within": dice.one((1, 7, 30))}))
            kinds = dice.one(({}, {"responses": ["failed"]}))
            return {"kind": kind, "after": 1 + dice.below(2), "days": days, **within, **kinds, **per}
        case "audience":
            test = dice.one(
                (
                    {"attribute": "age", "min": 18, "max": 60},
                    {"attribute": "born", "min": 24},
                    {"attribute": "segment", "any_of": ["gold", "silver"]},
                    {"attribute": "segment", "none_of": ["gold"]},
                )
            )
            return {"kind": kind, **test, **dice.one(({}, {"missing": "allow"})), **target}
        case "holding":
            return {"kind": kind, dice.one(("requires", "excludes")): [dice.one(products)], **of_product}
        case "reach":
            return {"kind": kind, **of_channel, "attribute": dice.one(("has_address", "segment"))}
        case "period":
            span = dice.one(
                (
                    {"from": date(2024, 3, 31), "until": date(2024, 10, 27)},
                    {"until": datetime(2024, 10, 27, 6, 30)},
                    {"weekdays": dice.some(WEEKDAYS) or ["mon"]},
                )
            )
            return {"kind": kind, **span, **of_product}
        case "affordability":
            return {"kind": kind, "attribute": "income", "payment": 300, "share": 0.3, **of_product}
        case "complaint":
            return {"kind": kind, "days": days, **target}
        case _:
            return {"kind": kind, "hours": 24}


def customer_of(dice: Dice, catalog: Catalog) -> Customer:
    values = {
        "age": dice.one((None, 17.0, 18.0, 40.0, 61.0)),
        "born": dice.one((None, date(2000, 3, 31), date(2000, 10, 28), date(1960, 1, 1))),
        "has_address": dice.one((None, False, True, True)),
        "income": dice.one((None, 999.0, 1000.0, 5000.0)),
        "segment": dice.one((None, "gold", "mass")),
        "time_zone": dice.one((None, *ZONES, "Nowhere", "../etc")),
    }
    held = frozenset(product for product in catalog.product_ids if dice.often(2))
    purposes = ("marketing", "service")
    refused = frozenset((channel, to) for channel in catalog.channel_ids for to in purposes if dice.often(1))
    return Customer(catalog, values, held, refused)


def contact_of(dice: Dice, catalog: Catalog, as_of: datetime, number: int) -> Contact:
    at_us = micros(as_of + dice.one((-40, -30, -7, -3, -1, 0, 1)) * DAY + timedelta(hours=dice.below(48) - 24))
    product = dice.one((*catalog.products, None))
    named = (product.id, product.group) if product else (None, None)
    purpose = dice.one(("marketing", "marketing", "marketing", "service", "mandatory"))
    expires = dice.one((None, None, micros(as_of) - 1, micros(as_of) + 10**9))
    return Contact("c", at_us, dice.one(catalog.channel_ids), *named, purpose, f"d{number}", expires)


def response_of(dice: Dice, catalog: Catalog, as_of: datetime) -> Response:
    at_us = micros(as_of - dice.one((0, 1, 7, 30)) * DAY + timedelta(hours=dice.below(24) - 20))
    product = dice.one((None, *catalog.products))
    named = (product.id, product.group) if product else (None, None)
    return Response(
        at_us, dice.one(("complained", "opted_out", "failed")), dice.one((None, *catalog.channel_ids)), *named
    )


# ---- the rules again, plainly ----------------------------------------------------------------------------------------


def asleep(channel: Channel, moment: datetime, zone: ZoneInfo) -> bool:
    if channel.quiet_hours is None:
        return False
    clock = moment.astimezone(zone).strftime("%H:%M")
    starts, ends = channel.quiet_hours
    return starts <= clock < ends if starts < ends else clock >= starts or clock < ends


def awake_from(channel: Channel, moment: datetime, zone: ZoneInfo) -> datetime:
    """On a grid of quarters of an hour, which zones, quiet hours and questions of these worlds keep."""
    while asleep(channel, moment, zone):
        moment += timedelta(minutes=15)
    return moment


def about(rule: Mapping[str, Any], product: Product, channel: Channel) -> bool:
    if rule.get("per") == "group" and product.group is None:
        return False
    return (
        rule.get("product", product.id) == product.id
        and rule.get("channel", channel.id) == channel.id
        and ("group" not in rule or rule["group"] == product.group)
    )


def same(rule: Mapping[str, Any], one: Contact | Response, product: Product, channel: Channel) -> bool:
    """Whether a contact counts towards the rule's limit for this action."""
    if "channel" in rule or rule.get("per") == "channel":
        return one.channel == channel.id
    if "product" in rule or rule.get("per") == "product":
        return one.product_id == product.id
    if "group" in rule or rule.get("per") == "group":
        return one.group == product.group
    return True


def calendar_key(moment: datetime, calendar: str, zone: ZoneInfo) -> tuple[int, ...]:
    day = moment.astimezone(zone).date()
    return {
        "day": (day.toordinal(),),
        "week": (day.isocalendar().year, day.isocalendar().week),
        "month": (day.year, day.month),
        "quarter": (day.year, (day.month - 1) // 3),
        "year": (day.year,),
    }[calendar]


def moment_of(at_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)


def breaks(rule: Mapping[str, Any], case: Case, product: Product, channel: Channel, send_at: datetime) -> bool:
    """Whether sending this by that at `send_at` breaks the declared rule."""
    if not about(rule, product, channel):
        return False
    ask, values, held = case.ask, case.customer.values, case.customer.held
    marketing = ask.purpose == "marketing"
    match rule["kind"]:
        case "holding":
            lacks = "requires" in rule and not held & set(rule["requires"])
            return bool(lacks or held & set(rule.get("excludes", ())))
        case "audience":
            value = values[rule["attribute"]]
            if value is None:
                return rule.get("missing") != "allow"
            if isinstance(value, date):
                today = ask.as_of.astimezone(case.zone).date()
                value = sum(date(year, value.month, value.day) <= today for year in range(value.year + 1, 2030))
            if "min" in rule and not rule["min"] <= value <= rule.get("max", 1000):
                return True
            return ("any_of" in rule and value not in rule["any_of"]) or value in rule.get("none_of", ())
        case "reach":
            return not values[rule["attribute"]]
        case "period":
            for moment in (ask.as_of, send_at):
                at_the_bank = moment.astimezone(ZoneInfo(case.catalog.time_zone))
                if "from" in rule and at_the_bank.date() < rule["from"]:
                    return True
                until = rule.get("until")
                if isinstance(until, datetime) and at_the_bank.replace(tzinfo=None) >= until:
                    return True
                if until is not None and not isinstance(until, datetime) and at_the_bank.date() > until:
                    return True
                if "weekdays" in rule and WEEKDAYS[moment.astimezone(case.zone).weekday()] not in rule["weekdays"]:
                    return True
            return False
        case "affordability":
            income = values["income"]
            return ask.purpose != "mandatory" and (income is None or rule["payment"] > rule["share"] * income)
        case "complaint":
            complaints = [moment_of(r.at_us) for r in case.responses if r.kind == "complained"]
            recent = [at for at in complaints if ask.as_of - rule["days"] * DAY < at <= ask.as_of]
            return marketing and bool(recent)
        case "cap":
            counted = [
                moment_of(contact.at_us)
                for contact in case.ledger.made
                if contact.purpose == "marketing" and same(rule, contact, product, channel)
                if contact.expires_us is None or moment_of(contact.expires_us) > ask.as_of
            ]
            if "days" in rule:
                inside = [at for at in counted if at > send_at - rule["days"] * DAY]
            else:
                key = calendar_key(send_at, rule["calendar"], case.zone)
                inside = [at for at in counted if calendar_key(at, rule["calendar"], case.zone) >= key]
            return marketing and len(inside) >= rule["limit"]
        case "suppression":
            kinds = rule.get("responses", ["complained", "opted_out"])
            about_this = [
                moment_of(r.at_us)
                for r in case.responses
                if r.kind in kinds and moment_of(r.at_us) <= ask.as_of and concerns(rule, r, product, channel)
            ]
            for last in range(rule["after"] - 1, len(about_this)):
                first, end = about_this[last - rule["after"] + 1], about_this[last]
                close = "within" not in rule or end - first < rule["within"] * DAY
                if close and end <= send_at < end + rule["days"] * DAY:
                    return marketing
            return False
    return False


def concerns(rule: Mapping[str, Any], response: Response, product: Product, channel: Channel) -> bool:
    """A response that names no channel or product means all of them."""
    if "channel" in rule or rule.get("per") == "channel":
        return response.channel is None or same(rule, response, product, channel)
    return response.product_id is None or same(rule, response, product, channel)


def allowed(case: Case, product: Product, channel: Channel, send_at: datetime) -> bool:
    ask, customer = case.ask, case.customer
    if ask.eligible is not None and product.id not in ask.eligible:
        return False
    if ask.channels is not None and channel.id not in ask.channels:
        return False
    if product.holdable and product.id in customer.held:
        return False
    consent_for = "marketing" if ask.purpose == "marketing" else "service"
    if channel.direction == "inbound" or (channel.id, consent_for) in customer.refused:
        return False
    return not any(breaks(rule, case, product, channel, send_at) for rule in case.catalog.policies)


def first_moment(case: Case, channel: Channel) -> datetime:
    return case.ask.as_of if case.ask.purpose == "mandatory" else awake_from(channel, case.ask.as_of, case.zone)


def assert_rules_hold(case: Case, decision: Decision) -> None:
    product_of = {product.id: product for product in case.catalog.products}
    channel_of = {channel.id: channel for channel in case.catalog.channels}
    possible = {
        (product.id, channel.id)
        for channel in case.catalog.channels
        for send_at in [first_moment(case, channel)]
        for product in case.catalog.products
        if allowed(case, product, channel, send_at)
    }
    found = {(c.action.product_id, c.action.channel) for c in decision.candidates if c.action}
    assert found == possible, "the rules and their plain statement disagree"
    for hop in decision.chain:
        assert decision.action is not None
        product, channel = product_of[decision.action.product_id or ""], channel_of[hop.channel]
        assert allowed(case, product, channel, hop.send_at)
        assert case.ask.purpose == "mandatory" or not asleep(channel, hop.send_at, case.zone)


def assert_answered(case: Case, decision: Decision) -> None:
    assert sum(decision.propensities) == pytest.approx(1.0)
    assert decision.propensity > 0
    assert decision.reasons
    record = orjson.loads(orjson.dumps(decision.record()))
    assert record["versions"]["rules"] == case.decider.layers.version
    assert Past.of(record["past"]) == decision.past
    if decision.action is None:
        assert (decision.contact, decision.caps, decision.chain) == (None, (), ())
        return
    assert decision.contact is not None
    contact = decision.contact
    assert (contact.channel, contact.product_id) == (decision.action.channel, decision.action.product_id)
    assert (moment_of(contact.at_us), contact.purpose) == (decision.send_at, case.ask.purpose)
    check(contact, decision.caps, case.ledger.contacts("c", -(2**62), micros(case.ask.as_of)))  # the ledger agrees
    assert bool(decision.caps) <= (case.ask.purpose == "marketing")


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=160, max_size=160))
def test_no_decision_breaks_a_rule_and_no_customer_is_left_without_an_answer(content: bytes) -> None:
    case = case_of(Dice(content))
    decision = case.decider.decide(case.ask, content.hex()[:32])
    assert_rules_hold(case, decision)
    assert_answered(case, decision)
