"""When to send, and what follows when it does not get through: chains whose times can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.catalog import Catalog, Channel
from features.habits import Habits
from serving.policy import Policy
from serving.prospects import HORIZON, hours
from serving.schedule import ALL_ALIKE, UNKNOWN_DELAY, Scheduler, at_once, deferring
from serving.timing import SLOTS, Stage, TimingModel

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2024, 6, 3, 12, 0, tzinfo=BERLIN)  # a Monday
EVENING = NOON.replace(hour=20)
CATALOG = Catalog(
    "EUR",
    "Europe/Berlin",
    (),
    (Channel("push", "Push"), Channel("sms", "SMS", quiet_hours=("20:00", "09:00")), Channel("post", "Letter")),
)


def evening_model(slots: np.ndarray | None = None) -> TimingModel:
    """Three channels that are only ever noticed at 20h, or at the given hours of the week; sms best."""
    noticed = np.full((3, SLOTS), 1e-6)
    noticed[:, 20::24] = np.array([0.2, 0.4, 0.3])[:, None]
    flat = Stage(np.full(3, 0.5), np.full((3, SLOTS), 0.5), 30.0)
    return TimingModel(
        channels=("push", "sms", "post"),
        time_zone="Europe/Berlin",
        delivered=flat,
        noticed=Stage(np.full(3, 0.1), noticed if slots is None else slots, 30.0),
        answered=flat,
        shares=np.full(8, 1 / 8),
        active=20.0,
        delays=np.array([3600.0, 7200.0, 86_400.0]),
        tried=np.full((3, SLOTS), 50.0),
    )


NOBODY = evening_model().outlook(Habits.none(1, 3))


def at_eight(slots: np.ndarray | None = None) -> Scheduler:
    return Scheduler(evening_model(slots), "4")


WORLD_MODEL = replace(evening_model(), channels=("push", "email", "branch"))
any_time = deferring(CATALOG, BERLIN, "mandatory")


def test_a_channel_that_is_only_opened_at_eight_in_the_evening_is_sent_at_eight_in_the_evening() -> None:
    assert at_eight().best("push", NOON, NOBODY, BERLIN, any_time, False) == EVENING


def test_the_hour_is_that_of_the_customers_own_zone() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    found = at_eight().best("push", NOON, NOBODY, tokyo, any_time, False)
    assert found.astimezone(tokyo).hour == 20
    assert NOON < found <= NOON + HORIZON


def test_the_best_hour_inside_quiet_hours_is_never_used() -> None:
    defer = deferring(CATALOG, BERLIN, "marketing")
    found = at_eight().best("sms", NOON, NOBODY, BERLIN, defer, False).astimezone(BERLIN)
    assert 9 <= found.hour < 20
    assert at_eight().best("push", NOON, NOBODY, BERLIN, defer, False) == EVENING  # push has none


def test_where_every_hour_is_quiet_but_minutes_the_message_is_put_off_not_dropped() -> None:
    short = replace(CATALOG, channels=(replace(CATALOG.channels[1], quiet_hours=("12:10", "12:05")),))
    defer = deferring(short, BERLIN, "marketing")
    start = NOON + timedelta(minutes=30)
    # Quiet but for 12:05 to 12:10: from every hour on, the first moment allowed is tomorrow's 12:05.
    assert at_eight().best("sms", start, NOBODY, BERLIN, defer, False) == NOON + timedelta(days=1, minutes=5)


def test_without_a_model_it_is_sent_as_soon_as_the_rules_allow() -> None:
    defer = deferring(CATALOG, BERLIN, "marketing")
    assert ALL_ALIKE.best("push", NOON, NOBODY, BERLIN, defer, False) == NOON
    assert ALL_ALIKE.best("sms", EVENING, NOBODY, BERLIN, defer, False) == EVENING.replace(day=4, hour=9)


def test_hours_that_are_all_alike_are_not_waited_for() -> None:
    flat = at_eight(np.full((3, SLOTS), 0.2))
    assert flat.best("push", NOON, NOBODY, BERLIN, any_time, False) == NOON


def test_an_hour_that_was_hardly_ever_tried_is_not_looked_for_unless_it_is_now() -> None:
    tried = np.full((3, SLOTS), 50.0)
    tried[:, 20::24] = 3.0
    model = Scheduler(replace(evening_model(), tried=tried), "4")
    assert model.best("push", NOON, NOBODY, BERLIN, any_time, False) == NOON
    assert model.best("push", EVENING, NOBODY, BERLIN, any_time, False) == EVENING


def test_a_chain_has_three_channels_at_most() -> None:
    four = Scheduler(None)
    chain = four.chain(NOON, ("push", "sms", "post", "desk"), NOBODY, BERLIN, any_time, False)
    assert [hop.channel for hop in chain] == ["push", "sms", "post"]


def test_waiting_must_be_worth_it() -> None:
    noticed = np.full((3, SLOTS), 0.2)
    noticed[:, 20::24] = 0.2 * 1.02  # eight hours cost a factor of ½^(8/168) = 0.9675
    assert at_eight(noticed).best("push", NOON, NOBODY, BERLIN, any_time, False) == NOON
    noticed[:, 20::24] = 0.2 * 1.05
    assert at_eight(noticed).best("push", NOON, NOBODY, BERLIN, any_time, False) == EVENING


def test_a_duty_and_an_inbound_channel_do_not_wait() -> None:
    desk = replace(CATALOG, channels=(*CATALOG.channels, Channel("desk", "Desk", "inbound")))
    assert at_once(desk, "push", "mandatory")
    assert at_once(desk, "desk", "marketing")
    assert not at_once(desk, "push", "marketing")
    assert not at_once(desk, "push", "service")
    duty = deferring(CATALOG, BERLIN, "mandatory")
    assert at_eight().best("sms", EVENING, NOBODY, BERLIN, duty, True) == EVENING


def test_the_chain_never_has_two_channels_at_once_and_every_hop_its_own_deadline() -> None:
    chain = at_eight().chain(NOON, ("push", "sms", "post"), NOBODY, BERLIN, any_time, False)
    assert [hop.channel for hop in chain] == ["push", "sms", "post"]
    assert [hop.deadline - hop.send_at for hop in chain] == [
        timedelta(hours=1),
        timedelta(hours=2),
        timedelta(days=1),
    ]
    assert all(later.send_at >= earlier.deadline for earlier, later in pairwise(chain))
    # 21:00 is push's deadline; the next hour in which sms is noticed is the next evening's
    assert [hop.send_at for hop in chain] == [EVENING, EVENING + timedelta(days=1), EVENING + timedelta(days=2)]


def test_a_chain_ends_with_the_patience_of_the_offer() -> None:
    slow = Scheduler(replace(evening_model(), delays=np.full(3, 8 * 86_400.0)), "5")
    assert [hop.channel for hop in slow.chain(NOON, ("push", "sms"), NOBODY, BERLIN, any_time, False)] == ["push"]


def test_without_a_model_every_hop_has_the_declared_delay() -> None:
    chain = ALL_ALIKE.chain(NOON, ("push", "post"), NOBODY, BERLIN, any_time, False)
    assert [(hop.send_at, hop.deadline) for hop in chain] == [
        (NOON, NOON + UNKNOWN_DELAY),
        (NOON + UNKNOWN_DELAY, NOON + 2 * UNKNOWN_DELAY),
    ]


def test_fallbacks_come_in_the_order_of_their_best_hour_and_stay_as_they_are_without_a_model() -> None:
    assert at_eight().order(("push", "post", "sms"), NOON, NOBODY, BERLIN) == ("sms", "post", "push")
    assert ALL_ALIKE.order(("push", "post", "sms"), NOON, NOBODY, BERLIN) == ("push", "post", "sms")


def test_a_customer_who_never_notices_a_channel_gets_it_last() -> None:
    deaf = Habits.none(1, 3)
    deaf.outcomes[0, 1] = (300.0, 0.0, 0.0, 0.0)  # 300 text messages, none noticed
    assert at_eight().order(("push", "post", "sms"), NOON, evening_model().outlook(deaf), BERLIN) == (
        "post",
        "push",
        "sms",
    )


@pytest.mark.parametrize("day", [datetime(2024, 3, 30, 12, tzinfo=BERLIN), datetime(2024, 10, 26, 12, tzinfo=BERLIN)])
def test_a_change_of_the_clock_skips_no_hour_and_repeats_none(day: datetime) -> None:
    found = hours(day, BERLIN)
    assert [later - earlier for earlier, later in pairwise(found)] == [timedelta(hours=1)] * 24


def test_hours_begin_on_the_local_hour_where_zones_are_half_an_hour_off() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    start = datetime(2024, 6, 3, 12, 10, tzinfo=kolkata)
    found = [moment.astimezone(kolkata) for moment in hours(start, kolkata)]
    assert found[0] == start
    assert {moment.minute for moment in found[1:]} == {0}
    assert len(found) == 25


def test_the_time_follows_from_the_choice_and_changes_no_propensity(world: World) -> None:
    plain = world.decider
    timed = replace(plain, scheduler=Scheduler(WORLD_MODEL, "3"))
    for number in range(50):
        ask = world.ask(as_of=NOON)
        alike, chosen = plain.decide(ask, f"{number:032x}"), timed.decide(ask, f"{number:032x}")
        assert (chosen.action, chosen.propensity) == (alike.action, alike.propensity)
        assert chosen.propensities == alike.propensities
        if chosen.action is None:
            assert (chosen.send_at, chosen.chain) == (None, ())
            continue
        assert (alike.send_at, chosen.send_at) == (NOON, EVENING)
        assert chosen.chain[0].channel == chosen.action.channel
        assert chosen.versions.models["send-time"] == "3"
        assert "send-time" not in alike.versions.models


def test_the_chain_uses_consented_outbound_channels_only(world: World) -> None:
    timed = world.with_models(policy=Policy(temperature=0, epsilon=0), scheduler=Scheduler(WORLD_MODEL, "3"))
    anna = timed.decide(world.ask("anna", NOON), "1")
    assert sorted(hop.channel for hop in anna.chain) == ["email", "push"]
    assert anna.fallback_channels == (anna.chain[1].channel,)
    refuser = timed.decide(world.ask("refuser", NOON), "1")
    assert [hop.channel for hop in refuser.chain] == ["push"]


def test_a_duty_is_sent_at_once(world: World) -> None:
    timed = replace(world.decider, scheduler=Scheduler(WORLD_MODEL, "3"))
    assert timed.decide(world.ask(as_of=NOON, purpose="mandatory"), "1").send_at == NOON


def test_the_answer_names_the_time_and_every_hop(world: World) -> None:
    timed = world.with_models(policy=Policy(temperature=0, epsilon=0), scheduler=Scheduler(WORLD_MODEL, "3"))
    answer = timed.decide(world.ask("refuser", NOON), "1").answer()
    assert answer["send_at"] == "2024-06-03T18:00:00Z"
    (hop,) = answer["chain"]
    says = {"content_id": answer["action"]["content_id"], "text": answer["action"]["text"]}
    assert hop == {
        "channel": "push",
        "send_at": "2024-06-03T18:00:00Z",
        "deadline": "2024-06-03T19:00:00Z",
        **says,
    }
    assert says["text"]


def test_a_fallback_says_what_is_best_for_the_same_product_on_its_own_channel(world: World) -> None:
    decision = world.with_models(policy=Policy(temperature=0, epsilon=0)).decide(world.ask("anna", NOON), "1")
    assert decision.action
    first, second = decision.answer()["chain"]
    assert (first["channel"], first["text"]) == (decision.action.channel, decision.action.text)
    there = [
        candidate
        for candidate in decision.candidates
        if candidate.action
        and (candidate.action.product_id, candidate.action.channel) == (decision.action.product_id, second["channel"])
    ]
    best = max(there, key=lambda candidate: candidate.value).action
    assert best
    assert (second["content_id"], second["text"]) == (best.content_id, best.text)
    assert second["channel"] != first["channel"]


def test_an_answer_without_a_timing_model_says_so(world: World) -> None:
    missing = Scheduler(missing=("no usable champion of send-time: all hours are taken alike",))
    decision = replace(world.decider, scheduler=missing).decide(world.ask(), "1")
    assert decision.degraded == missing.missing
