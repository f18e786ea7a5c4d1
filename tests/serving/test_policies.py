"""The policy layers in a small bank: each rule by its id, in the decision that a request gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from features.columns import Purpose
from features.times import micros
from serving.caps import CapReached, Contact, check
from serving.contact_policy import period_start
from serving.decide import Decider
from serving.decision import Decision
from serving.errors import LedgerUnavailable
from serving.history import Past, RecordedPast, Response
from serving.policy import Policy
from serving.schedule import Scheduler

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

EVERY = Policy(temperature=1.0, epsilon=1.0)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)  # 14:00 in Berlin, a Saturday
DAY = timedelta(days=1)


def made(days_ago: float, channel: str = "push", product: str = "card", purpose: str = "marketing") -> Contact:
    at_us = micros(NOW - days_ago * DAY)
    return Contact("anna", at_us, channel, product, None, purpose, f"d{days_ago}", None)


def complained(days_ago: float, kind: str = "complained", channel: str | None = None) -> Response:
    return Response(micros(NOW - days_ago * DAY), kind, channel, None, None)


def decider(world: World, *policies: Mapping[str, Any], past: Past | None = None, **channels: Any) -> Decider:
    """The small bank with these policies and this past; `push={"quiet_hours": …}` changes a channel."""
    rules = tuple({"id": f"rule{place}", **policy} for place, policy in enumerate(policies))
    catalog = world.decider.catalog
    changed = tuple(replace(channel, **channels.get(channel.id, {})) for channel in catalog.channels)
    catalog = replace(catalog, policies=rules, channels=changed, contents=())
    return world.with_models(catalog=catalog, policy=EVERY, history=RecordedPast(past or Past()))


def decide(world: World, *policies: Mapping[str, Any], past: Past | None = None, **more: Any) -> Decision:
    asked = {key: more.pop(key) for key in ("purpose", "as_of", "customer_id") if key in more}
    return decider(world, *policies, past=past, **more).decide(world.ask(**asked), "1")


def pairs(decision: Decision) -> set[str]:
    return {f"{c.action.product_id}/{c.action.channel}" for c in decision.candidates if c.action}


ALL = {"card/push", "card/email", "loan/push", "loan/email"}


@dataclass(frozen=True)
class Claim:
    policies: tuple[Mapping[str, Any], ...]
    past: Past
    left: set[str]


CAP = {"kind": "cap", "limit": 2, "days": 7}
CLAIMS = {
    "a full cap overall stops every channel": Claim((CAP,), Past((made(1), made(2, "email"))), set()),
    "a cap that is not full stops nothing": Claim((CAP,), Past((made(1),)), ALL),
    "a contact at the window's edge has left it": Claim((CAP,), Past((made(1), made(7))), ALL),
    "service messages use no cap up": Claim((CAP,), Past((made(1, purpose="service"), made(2))), ALL),
    "a cap on a channel stops it alone": Claim(
        ({"kind": "cap", "channel": "push", "limit": 1, "days": 7},), Past((made(1),)), {"card/email", "loan/email"}
    ),
    "a cap on each product stops the one that is full": Claim(
        ({"kind": "cap", "per": "product", "limit": 1, "days": 7},), Past((made(1),)), {"loan/push", "loan/email"}
    ),
    "a cap of nothing is a ban": Claim(
        ({"kind": "cap", "product": "loan", "limit": 0, "days": 1},), Past(), ALL - {"loan/push", "loan/email"}
    ),
    "a month begins anew": Claim(({"kind": "cap", "limit": 1, "calendar": "month"},), Past((made(0.7),)), ALL),
    "a month's contacts are counted": Claim(
        ({"kind": "cap", "limit": 1, "calendar": "month"},), Past((made(0.5),)), set()
    ),
    "one rebuff is not two": Claim(
        ({"kind": "suppression", "after": 2, "days": 30},), Past(responses=(complained(3),)), ALL
    ),
    "two rebuffs bring silence": Claim(
        ({"kind": "suppression", "after": 2, "days": 30},), Past(responses=(complained(9), complained(3))), set()
    ),
    "silence ends": Claim(
        ({"kind": "suppression", "after": 2, "days": 3},), Past(responses=(complained(9), complained(3))), ALL
    ),
    "rebuffs far apart do not add up": Claim(
        ({"kind": "suppression", "after": 2, "days": 30, "within": 5},),
        Past(responses=(complained(9), complained(3))),
        ALL,
    ),
    "rebuffs on a channel silence it": Claim(
        ({"kind": "suppression", "after": 1, "days": 30, "per": "channel"},),
        Past(responses=(complained(3, channel="email"),)),
        {"card/push", "loan/push"},
    ),
    "a recent complaint stops selling": Claim(
        ({"kind": "complaint", "days": 5},), Past(responses=(complained(3),)), set()
    ),
    "an old complaint does not": Claim(({"kind": "complaint", "days": 3},), Past(responses=(complained(3),)), ALL),
    "an age limit keeps a product back": Claim(
        ({"kind": "audience", "product": "loan", "attribute": "age", "max": 39},), Past(), {"card/push", "card/email"}
    ),
    "what cannot be paid is not sold": Claim(
        ({"kind": "affordability", "product": "loan", "attribute": "age", "payment": 21, "share": 0.5},),
        Past(),
        {"card/push", "card/email"},
    ),
    "half of it can": Claim(
        ({"kind": "affordability", "product": "loan", "attribute": "age", "payment": 20, "share": 0.5},), Past(), ALL
    ),
    "what is needed first must be held": Claim(
        ({"kind": "holding", "product": "loan", "requires": ["card"]},), Past(), {"card/push", "card/email"}
    ),
    "a campaign that is over is over": Claim(
        ({"kind": "period", "product": "card", "until": datetime(2024, 6, 1, 12, 0)},),
        Past(),
        {"loan/push", "loan/email"},
    ),
    "a weekday is the customer's": Claim(({"kind": "period", "weekdays": ["sun"]},), Past(), set()),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
def test_the_rule_leaves_exactly_these_actions_and_gives_its_reason(world: World, claim: Claim) -> None:
    decision = decide(world, *claim.policies, past=claim.past)
    assert pairs(decision) == claim.left
    told = {item.rule for item in decision.removed}
    assert ("rule0" in told) == (claim.left != ALL)
    if not claim.left:
        assert decision.action is None
        assert "rule0" in {reason.rule for reason in decision.reasons}


LIMITS = [name for name, claim in CLAIMS.items() if claim.policies[0]["kind"] in ("cap", "suppression", "complaint")]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("purpose", ["service", "mandatory"])
def test_service_and_mandatory_messages_know_no_contact_limits(world: World, name: str, purpose: str) -> None:
    claim = CLAIMS[name]
    decision = decide(world, *claim.policies, past=claim.past, purpose=purpose)
    assert pairs(decision) == ALL
    assert decision.caps == ()


@pytest.mark.parametrize("purpose", [str(purpose) for purpose in Purpose])
def test_a_channel_without_an_address_reaches_nobody_for_any_purpose(world: World, purpose: str) -> None:
    rules = ({"kind": "reach", "channel": "push", "attribute": "phone"},)
    decision = decide(world, *rules, purpose=purpose)
    assert pairs(decision) == {"card/email", "loan/email"}


def test_quiet_hours_defer_in_the_catalogues_zone_and_never_drop(world: World) -> None:
    night = {"quiet_hours": ("13:00", "08:00")}
    decision = decide(world, push=night, email=night)
    assert pairs(decision) == ALL
    deferred = [decider(world, push=night, email=night).decide(world.ask(), f"{n}") for n in range(20)]
    sent = {one.send_at for one in deferred if one.action}
    assert sent == {datetime(2024, 6, 2, 6, tzinfo=UTC)}  # 08:00 in Berlin
    contacts = {one.contact.at_us for one in deferred if one.contact}
    assert contacts == {micros(datetime(2024, 6, 2, 6, tzinfo=UTC))}


def test_a_deferred_message_is_not_sent_after_its_campaign(world: World) -> None:
    night = {"quiet_hours": ("13:00", "08:00")}
    over = {"kind": "period", "until": datetime(2024, 6, 2, 7, 0)}
    decision = decide(world, over, push=night)
    assert pairs(decision) == {"card/email", "loan/email"}
    assert {item.id for item in decision.removed if item.rule == "rule0"} == {"card/push", "loan/push"}


class Tomorrow(Scheduler):
    """Finds that the next day is better."""

    def best(self, channel: str, since: datetime, customer: Any, zone: Any, defer: Any, soonest: bool) -> datetime:
        return since + DAY


def test_a_better_hour_never_outlasts_a_campaign(world: World) -> None:
    tonight = {"kind": "period", "until": datetime(2024, 6, 1, 20, 0)}
    late = replace(decider(world, tonight), scheduler=Tomorrow())
    decided = [one for one in (late.decide(world.ask(), f"{n}") for n in range(20)) if one.action]
    assert {one.send_at for one in decided} == {NOW}
    # The channels that would follow come after the campaign's end.
    assert {(len(one.chain), one.fallback_channels) for one in decided} == {(1, ())}


def test_windows_end_when_a_deferred_message_is_sent(world: World) -> None:
    # The contact is in the window at the moment of the question, and has left it when the night is over.
    cap = {"kind": "cap", "per": "channel", "limit": 1, "days": 7}
    past = Past((made(6.5, "push"), made(6.5, "email")))
    assert pairs(decide(world, cap, past=past, push={"quiet_hours": ("13:00", "08:00")})) == {"card/push", "loan/push"}


def test_the_ledger_gets_the_caps_of_the_chosen_action_and_would_refuse_one_more(world: World) -> None:
    rules = (
        {"kind": "cap", "limit": 1, "days": 7},
        {"kind": "cap", "channel": "push", "limit": 1, "days": 7},
        {"kind": "cap", "per": "product", "limit": 1, "calendar": "day"},
    )
    decided = (decider(world, *rules).decide(world.ask(channels=("push",)), f"{n}") for n in range(50))
    decision = next(one for one in decided if one.action)
    assert decision.contact is not None
    assert decision.action is not None
    assert [(cap.rule_id, cap.scope, cap.value) for cap in decision.caps] == [
        ("rule0", "overall", None),
        ("rule1", "channel", "push"),
        ("rule2", "product", decision.action.product_id),
    ]
    check(decision.contact, decision.caps, ())
    for cap in decision.caps:
        with pytest.raises(CapReached):
            check(decision.contact, (cap,), (decision.contact,))


def test_a_reservation_lapses_only_where_that_is_declared(world: World) -> None:
    def expires(*policies: Mapping[str, Any]) -> set[int | None]:
        made = (decider(world, *policies).decide(world.ask(), f"{n}").contact for n in range(20))
        return {contact.expires_us for contact in made if contact}

    assert expires() == {None}
    assert expires({"kind": "reservation", "hours": 48}) == {micros(NOW + 2 * DAY)}


def test_without_contact_history_nothing_is_decided(world: World) -> None:
    class Down:
        def past(self, customer_id: str, since: datetime | None, now: datetime) -> Past:
            raise LedgerUnavailable("the disk is gone")

    with pytest.raises(LedgerUnavailable):
        replace(decider(world, CAP), history=Down()).decide(world.ask(), "1")


def test_products_that_do_not_suit_are_not_shown_either_and_limits_do_not_hide_them(world: World) -> None:
    full = Past((made(1), made(2)))
    ranking = decider(world, CAP, {"kind": "audience", "product": "loan", "attribute": "age", "max": 39}, past=full)
    assert [product.product_id for product in ranking.rank(world.ask()).products] == ["card"]


def test_the_version_of_the_rules_stamps_the_decision(world: World) -> None:
    assert decide(world, CAP).versions.rules != decide(world).versions.rules != ""


@pytest.mark.parametrize(
    ("calendar", "zone", "at", "start"),
    [
        ("day", "Asia/Shanghai", "2024-06-01T15:59:59Z", "2024-05-31T16:00:00Z"),
        ("day", "Asia/Shanghai", "2024-06-01T16:00:00Z", "2024-06-01T16:00:00Z"),
        ("week", "UTC", "2024-06-02T23:59:00Z", "2024-05-27T00:00:00Z"),
        ("quarter", "UTC", "2024-06-30T12:00:00Z", "2024-04-01T00:00:00Z"),
        ("year", "America/New_York", "2024-07-01T00:00:00Z", "2024-01-01T05:00:00Z"),
        ("day", "Asia/Beirut", "2024-03-31T12:00:00Z", "2024-03-30T22:00:00Z"),  # midnight is skipped
        ("day", "America/Havana", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z"),  # midnight comes twice
    ],
)
def test_calendar_periods_begin_on_the_customers_clock(calendar: Any, zone: str, at: str, start: str) -> None:
    found = period_start(datetime.fromisoformat(at), calendar, ZoneInfo(zone))
    assert found == datetime.fromisoformat(start)
