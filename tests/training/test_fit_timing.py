"""Rates that can be counted, smoothing that ends where it must, and a world whose hours are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.habits import Habits
from serving.schedule import UNKNOWN_DELAY, Deferring, Scheduler
from training.attempts import Attempts, attempts
from training.fit_timing import DECLARED, NEVER, around, choose, delays, fit, log_losses, rates
from training.labels import DAY, ModelNotPossible, cut

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

WINDOW = 7 * DAY
Day = Callable[[float], int]


def send(world: World, customer: str, day: float, channel: str, noticed: float | None, name: str) -> None:
    """A message on that day, delivered a minute later and noticed after that many days, if at all."""
    world.event(customer, day, "sent", channel=channel, message_id=name)
    world.event(customer, day + 1 / 1440, "delivered", channel=channel, message_id=name)
    if noticed is not None:
        world.event(customer, day + noticed, "clicked", channel=channel, message_id=name)


def evenings(world: World, weeks: int = 12) -> World:
    """App messages at eight in the morning are never clicked, those at eight in the evening always."""
    for number in range(weeks * 7):
        send(world, f"c{number % 5}", number + 8 / 24, "app", None, f"m{number}")
        send(world, f"c{number % 5}", number + 20 / 24, "app", 1 / 24 + 20 / 24, f"n{number}")
        world.knows(**{f"c{number % 5}": 0.0})
    return world


def test_an_attempt_is_delivered_noticed_and_answered_within_its_window(world: World, day: Day) -> None:
    world.knows(ann=0.0)
    send(world, "ann", 1.0, "sms", 0.5, "in time")
    send(world, "ann", 2.0, "sms", 7.5, "too late")
    world.event("ann", 3.0, "sent", channel="sms", message_id="lost")
    world.event("ann", 3.1, "failed", channel="sms", message_id="lost")
    send(world, "ann", 14.0, "sms", 0.1, "not closed")
    found = attempts(world.bank, day(20.0), WINDOW)
    assert found.sent.tolist() == [day(1.0), day(2.0), day(3.0)]
    assert found.delivered.tolist() == [True, True, False]
    assert found.noticed.tolist() == [True, False, False]
    assert found.delay[0] == pytest.approx(0.5 * 86_400)


def test_service_messages_are_not_learned_from(world: World, day: Day) -> None:
    world.knows(ann=0.0)
    send(world, "ann", 1.0, "sms", 0.5, "offer")
    world.event("ann", 2.0, "sent", channel="sms", message_id="duty", purpose="service")
    assert len(attempts(world.bank, day(20.0), WINDOW)) == 1


def test_without_receipts_or_reactions_there_is_no_model(world: World, day: Day) -> None:
    world.knows(ann=0.0).event("ann", 1.0, "sent", channel="sms", message_id="m")
    with pytest.raises(ModelNotPossible, match="of 1 sent 0 are on channels with receipts"):
        attempts(world.bank, day(20.0), WINDOW)
    world.event("ann", 1.1, "delivered", channel="sms", message_id="m")
    with pytest.raises(ModelNotPossible, match="0 were reacted to"):
        attempts(world.bank, day(20.0), WINDOW)


def test_habits_are_those_before_the_message_never_its_own_outcome(world: World, day: Day) -> None:
    world.knows(ann=0.0)
    send(world, "ann", 1.0, "sms", 0.5, "first")
    send(world, "ann", 30.0, "sms", 0.5, "second")
    found = attempts(world.bank, day(60.0), WINDOW)
    sms = found.habits.outcomes[:, 2]
    assert not sms[0].any()
    assert sms[1, 2] == pytest.approx(1.0, abs=0.2)  # noticed once, a little faded


def test_facts_after_until_change_nothing(world: World, day: Day) -> None:
    evenings(world, 6)
    until = day(30.0)
    calm = fit(attempts(cut(world.bank, until), until, WINDOW), ("app", "web", "sms"), "UTC", DECLARED)
    for number in range(20):
        send(world, "c1", 30.5 + number, "app", 0.1, f"later {number}")
        world.event("c1", 30.2 + number, "visited", channel="web")
        world.event("c1", 30.3, "opened", channel="app", message_id=f"m{number}")
    told = fit(attempts(cut(world.bank, until), until, WINDOW), ("app", "web", "sms"), "UTC", DECLARED)
    for stage in ("delivered", "noticed", "answered"):
        np.testing.assert_array_equal(getattr(calm, stage).slots, getattr(told, stage).slots)
    np.testing.assert_array_equal(calm.shares, told.shares)
    np.testing.assert_array_equal(calm.delays, told.delays)
    np.testing.assert_array_equal(calm.tried, told.tried)


def test_rates_without_messages_are_those_of_the_level_above() -> None:
    nothing = np.zeros(0, np.int64)
    of_channel, slots = rates(nothing, nothing, nothing.astype(bool), 2, 300.0)
    assert of_channel.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(slots, 0.5)
    channel = np.zeros(80, np.int64)
    of_channel, slots = rates(channel, np.arange(80) % 24, np.arange(80) % 4 == 0, 2, 300.0)
    assert of_channel[1] == pytest.approx((20 + 1) / 82)  # Beta(1, 1) over all
    np.testing.assert_allclose(slots[1], of_channel[1])


def test_smoothing_ends_at_the_counts_and_at_the_channel() -> None:
    rng = np.random.default_rng(0)
    slot = np.repeat(np.arange(168), 50)
    success = rng.random(len(slot)) < np.where(slot % 24 == 20, 0.9, 0.1)
    channel = np.zeros(len(slot), np.int64)
    of_channel, none = rates(channel, slot, success, 1, NEVER)
    np.testing.assert_allclose(none, of_channel[0], rtol=1e-4)
    _, counted = rates(channel, slot, success, 1, 1e-9)
    raw = around(np.bincount(slot, success)[None, :]) / around(np.bincount(slot).astype(float)[None, :])
    np.testing.assert_allclose(counted, raw, rtol=1e-6)


def test_the_kernel_goes_round_from_sunday_night_to_monday() -> None:
    counts = np.zeros((1, 168))
    counts[0, 0] = 1.0
    found = around(counts)[0]
    assert found[167] == found[1] == pytest.approx(np.exp(-0.5))
    assert found[164] == found[4] == 0.0


def test_a_channel_opened_only_in_the_evening_is_sent_in_the_evening(world: World, day: Day) -> None:
    learned = attempts(evenings(world).bank, day(84.0), WINDOW)
    model = fit(learned, ("app", "web", "sms"), "UTC", DECLARED)
    noon = datetime(2024, 6, 4, 12, tzinfo=UTC)
    utc, nobody = ZoneInfo("UTC"), model.outlook(Habits.none(1, 3))
    found = Scheduler(model, "1").best("app", noon, nobody, utc, Deferring(utc, {"app": None}), False)
    assert found == noon + timedelta(hours=8)


def test_hours_are_tried_as_often_as_messages_were_sent_around_them(world: World, day: Day) -> None:
    model = fit(attempts(evenings(world).bank, day(84.0), WINDOW), ("app", "web", "sms"), "UTC", DECLARED)
    assert model.tried[0, 20] == model.tried[0, 24 + 20] == 77.0  # the last week's windows have not closed
    assert model.tried[0, 21] == pytest.approx(77.0 * np.exp(-0.5))
    assert model.tried[0, 2] == 0.0
    assert not model.tried[1:].any()


def test_strengths_are_those_that_foretell_later_messages(world: World, day: Day) -> None:
    learned = attempts(evenings(world).bank, day(84.0), WINDOW)
    parts = [learned.take(np.flatnonzero(where)) for where in (learned.sent < day(40), learned.sent >= day(40))]
    chosen = choose(*parts, ("app", "web", "sms"), "UTC")
    assert chosen.trials[1] == 30.0, "hours decide everything here, so they are smoothed least"
    blind = fit(parts[0], ("app", "web", "sms"), "UTC", replace(DECLARED, trials=(NEVER,) * 3))
    seeing = fit(parts[0], ("app", "web", "sms"), "UTC", chosen)
    assert losses(seeing, parts[1]) < 0.3 * losses(blind, parts[1])


def losses(model: Any, asked: Attempts) -> float:
    found = model.chances(asked.channel, asked.slot, asked.part, asked.habits)[:, 1]
    return float(log_losses(found, asked.noticed).mean())


def test_delays_are_those_by_which_nine_in_ten_were_noticed_or_everybodys(world: World, day: Day) -> None:
    world.knows(ann=0.0)
    for number in range(20):
        send(world, "ann", number, "app", (number + 1) / 24, f"a{number}")
    send(world, "ann", 1.0, "sms", 5.0, "slow")
    learned = attempts(world.bank, day(60.0), WINDOW)
    found = delays(learned, 3)
    hours = np.arange(1, 21) * 3600.0
    assert found[0] == pytest.approx(np.quantile(hours, 0.9))
    everybody = np.quantile([*hours, 5 * 86_400.0], 0.9)
    assert found[1:].tolist() == pytest.approx([everybody] * 2)
    silent = learned.take(np.flatnonzero(~learned.noticed))
    assert delays(silent, 2).tolist() == [UNKNOWN_DELAY.total_seconds()] * 2
