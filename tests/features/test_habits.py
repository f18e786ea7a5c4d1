"""The habits of a few customers, counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from features import habits as habits_view
from features import hours
from features.catalog import Catalog, Channel
from features.columns import Table
from features.folds import decay
from features.habits import MEMORY, NAME, Habits, habits, states, view
from features.importing import Bank, make_bank
from features.packing import unknown
from features.schema import State, States, View
from features.tables import arrow_schema
from features.times import PARTS, part_of_day

CATALOG = Catalog("CNY", "Asia/Shanghai", (), (Channel("sms", "SMS"), Channel("app", "App", "both")))
WEEK = timedelta(days=7)
START = datetime(2024, 1, 4, tzinfo=UTC)  # weeks are counted from 1970-01-01, a Thursday, like this one


def bank(*events: tuple[str, timedelta, str, str | None, str | None]) -> Bank:
    """Events: customer, time since START, kind, channel, message."""
    schema = arrow_schema(Table.TIMELINE)
    rows = [
        dict.fromkeys(schema.names)
        | {
            "event_id": f"e{number}",
            "customer_id": customer,
            "event_timestamp": START + after,
            "kind": kind,
            "channel": channel,
            "message_id": message,
        }
        for number, (customer, after, kind, channel, message) in enumerate(events)
    ]
    timeline = pa.Table.from_pylist(rows, schema=schema).sort_by("event_timestamp")
    return make_bank(CATALOG, {Table.TIMELINE: timeline}, ())


def known(world: Bank, customer: str) -> States:
    """The newest states of a customer, as Feast would give them."""
    return {
        module.NAME: newest(module.view(CATALOG), module.states(world), customer) for module in (habits_view, hours)
    }


def newest(of: View, table: pa.Table, customer: str) -> State:
    rows = [row for row in table.to_pylist() if row["customer_id"] == customer]
    if not rows:
        return unknown(of, 1)
    last = max(rows, key=lambda row: row["event_timestamp"])
    numbers = [last[name] for name in of.numbers]
    return State(
        np.array([last["event_timestamp"].timestamp()]), np.array([numbers], float), np.empty((1, 0), dtype=object)
    )


def at(after: timedelta) -> np.ndarray:
    return np.array([(START + after).timestamp()])


HOUR = timedelta(hours=1)
MESSAGE = (
    ("ann", 1 * HOUR, "delivered", "sms", "m1"),
    ("ann", 2 * HOUR, "opened", "sms", "m1"),
    ("ann", 3 * HOUR, "opened", "sms", "m1"),
    ("ann", 4 * HOUR, "clicked", "sms", "m1"),
    ("ann", 5 * HOUR, "failed", "app", "m2"),
)


def test_a_message_is_noticed_once_however_often_it_is_opened() -> None:
    found = habits(known(bank(*MESSAGE), "ann"), at(WEEK), 2)
    assert found.outcomes[0].tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]


def test_activity_is_counted_by_the_local_part_of_the_day_of_reactions_and_visits() -> None:
    visit = ("ann", timedelta(hours=14), "visited", None, None)  # 22:00 in Shanghai
    moment = timedelta(hours=14)
    counted = habits(known(bank(*MESSAGE, visit), "ann"), at(moment), 2).parts[0]
    expected = [0.0] * PARTS
    for part, hour in ((3, 2), (3, 3), (4, 4), (7, 14)):  # opened at 02:00 UTC, 10:00 in Shanghai, and again at 11:00
        expected[part] += float(decay((moment - hour * HOUR).total_seconds(), MEMORY))
    assert counted.tolist() == pytest.approx(expected)
    assert part_of_day(START + timedelta(hours=14), ZoneInfo("Asia/Shanghai")) == 7


def test_a_state_is_visible_from_the_end_of_its_week_and_fades_from_there() -> None:
    ann = known(bank(*MESSAGE), "ann")
    assert ann[NAME].at.tolist() == at(WEEK).tolist()
    before = habits(ann, at(WEEK - HOUR), 2)
    assert not before.outcomes.any()
    assert before.parts.any(), "an hour counts at once"
    month = timedelta(days=30)
    later = habits(ann, at(WEEK + month), 2)
    assert later.outcomes[0, 0, 0] == pytest.approx(float(decay(month.total_seconds(), MEMORY)))
    ages = habits(ann, at(timedelta(days=3000)), 2)
    assert not ages.outcomes.any(), "older than its ttl is unknown"
    assert not ages.parts.any()


def test_weeks_add_up_and_customers_do_not_mix() -> None:
    again = ("ann", WEEK + HOUR, "delivered", "sms", "m3")
    other = ("bob", HOUR, "delivered", "app", "m4")
    world = bank(*MESSAGE, again, other)
    assert states(world).num_rows == 3
    found = habits(known(world, "ann"), at(2 * WEEK), 2)
    assert found.outcomes[0, 0, 0] == pytest.approx(1 + float(decay(WEEK.total_seconds(), MEMORY)))
    assert habits(known(world, "bob"), at(WEEK), 2).outcomes[0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_later_events_change_no_state_of_an_earlier_week() -> None:
    later = ("ann", WEEK + HOUR, "opened", "app", "m2")
    calm, told = states(bank(*MESSAGE)), states(bank(*MESSAGE, later))
    assert told.slice(0, calm.num_rows).equals(calm)


def test_nothing_known_is_zero() -> None:
    none = Habits.none(2, 3)
    assert none.outcomes.shape == (2, 3, 4)
    stranger = habits(known(bank(), "ann"), at(WEEK), 2)
    assert not stranger.outcomes.any()
    assert not stranger.parts.any()
    assert states(bank()).num_rows == 0
    assert hours.states(bank()).num_rows == 0
    assert view(CATALOG).name == NAME
