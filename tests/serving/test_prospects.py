"""Moments to choose from: what is kept for an hour says the same as what is worked out moment by moment."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.habits import Habits
from features.times import part_of_day
from serving.prospects import HALF_LIFE, HORIZON, LEAST_TRIED, Prospects, hours
from serving.quiet_hours import Quiet, is_quiet, next_allowed
from serving.timing import SLOTS, Outlook, Stage, TimingModel, slot_of

ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu")
QUIETS: tuple[Quiet | None, ...] = (None, ("21:00", "08:00"), ("12:10", "12:05"), ("01:30", "03:15"))


def any_model(seed: int) -> TimingModel:
    """Three channels without a pattern."""
    dice = np.random.default_rng(seed)

    def stage(pull: float = 0.0) -> Stage:
        return Stage(dice.uniform(0.1, 0.9, 3), dice.uniform(0.05, 0.95, (3, SLOTS)), 30.0, pull)

    shares = dice.dirichlet(np.ones(8))
    delays, tried = np.full(3, 600.0), dice.uniform(0, 3 * LEAST_TRIED, (3, SLOTS))
    return TimingModel(("a", "b", "c"), "Asia/Tokyo", stage(), stage(0.7), stage(), shares, 20.0, delays, tried)


def somebody(model: TimingModel, seed: int) -> tuple[Habits, Outlook]:
    dice = np.random.default_rng(seed)
    habits = Habits(dice.gamma(1.0, 3.0, (1, 3, 4)), dice.gamma(1.0, 3.0, (1, 8)))
    return habits, model.outlook(habits)


def moments_of(since: datetime, zone: ZoneInfo, quiet: Quiet | None) -> list[datetime]:
    """The moments as the words say: the first allowed one, and every full hour of the horizon, put off."""
    return sorted({next_allowed(moment, zone, quiet) for moment in hours(since, zone)})


def questions(count: int) -> list[tuple[datetime, ZoneInfo, Quiet | None]]:
    dice = random.Random(5)
    changes = [
        datetime(2024, 3, 31, tzinfo=UTC),
        datetime(2024, 10, 26, 18, tzinfo=UTC),
        datetime(2024, 4, 6, 10, tzinfo=UTC),
    ]
    found = []
    for _ in range(count):
        start = dice.choice([*changes, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=dice.randrange(9_000))])
        since = start + timedelta(minutes=dice.randrange(600), microseconds=dice.choice((0, dice.randrange(10**6))))
        since = dice.choice((since, since.replace(minute=0, microsecond=0)))
        found.append((since, ZoneInfo(dice.choice(ZONES)), dice.choice(QUIETS)))
    return found


def test_kept_hours_say_of_every_moment_what_the_model_says_of_it_alone() -> None:
    model = any_model(1)
    prospects = Prospects(model)
    for number, (since, zone, quiet) in enumerate([*questions(150), *questions(150)]):  # the second time all are kept
        place = number % 3
        habits, outlook = somebody(model, number)
        found = prospects.since(place, since, zone, quiet)
        assert list(found.moments) == moments_of(since, zone, quiet)
        slots = np.array([slot_of(moment, zone) for moment in found.moments])
        parts = np.array([part_of_day(moment, model.zone) for moment in found.moments])
        count = len(slots)
        many = Habits(np.repeat(habits.outcomes, count, axis=0), np.repeat(habits.parts, count, axis=0))
        chances = model.chances(np.full(count, place), slots, parts, many)
        assert outlook.reached(found.hours)[0].tolist() == (chances[:, 0] * chances[:, 1] * chances[:, 2]).tolist()
        tried = model.tried[place, slots] >= LEAST_TRIED
        tried[0] = True
        waits = np.array([(moment - since) / HALF_LIFE for moment in found.moments])
        assert found.weights[0].tolist() == np.where(tried, 0.5**waits, 0.0).tolist()


def test_all_channels_together_are_each_of_them_alone_without_quiet_hours_or_weights() -> None:
    model = any_model(2)
    _, outlook = somebody(model, 3)
    for since, zone, _ in questions(30):
        together, known = Prospects(model).unweighted(since, zone)
        for place in range(3):
            alone = Prospects(model).since(place, since, zone, None)
            assert outlook.reached(together)[place].tolist() == outlook.reached(alone.hours)[0].tolist()
            assert (known[place] > 0).tolist() == (alone.weights[0] > 0).tolist()


@pytest.mark.parametrize("zone", ZONES)
def test_an_end_of_quiet_hours_that_is_kept_for_an_hour_holds_for_every_minute_of_it(zone: str) -> None:
    there = ZoneInfo(zone)
    for quiet in (("21:20", "08:40"), ("02:15", "02:45"), ("00:00", "23:59")):
        for minute in range(0, 26 * 60, 7):
            at = datetime(2024, 10, 26, 12, tzinfo=UTC) + timedelta(minutes=minute)
            found = next_allowed(at, there, quiet)
            assert found >= at
            assert not is_quiet(found.astimezone(there), quiet)
            step = at
            while step < found:  # nothing in between was allowed
                assert is_quiet(step.astimezone(there), quiet)
                step += timedelta(minutes=1)


def test_no_moment_lies_beyond_the_horizon_but_for_what_is_put_off() -> None:
    for since, zone, _ in questions(40):
        moments = Prospects(any_model(4)).since(0, since, zone, None).moments
        assert moments[0] == since
        assert moments[-1] - since <= HORIZON
