"""The habits of a few customers, counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from features.catalog import Catalog, Channel
from features.columns import Table
from features.folds import decay
from features.habits import MEMORY, NAME, PARTS, Habits, habits, part_of_day, states, view
from features.importing import Bank, make_bank
from features.schema import State
from features.tables import arrow_schema

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


def newest(table: pa.Table, customer: str) -> State:
    """The newest state of a customer, as Feast would give it."""
    rows = [row for row in table.to_pylist() if row["customer_id"] == customer]
    last = max(rows, key=lambda row: row["event_timestamp"])
    numbers = [last[name] for name in view(CATALOG).numbers]
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
    table = states(bank(*MESSAGE))
    found = habits(newest(table, "ann"), at(WEEK), 2)
    assert found.outcomes[0].tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]


def test_activity_is_counted_by_the_local_part_of_the_day_of_first_reactions_and_visits() -> None:
    visit = ("ann", timedelta(hours=14), "visited", None, None)  # 22:00 in Shanghai
    found = habits(newest(states(bank(*MESSAGE, visit)), "ann"), at(WEEK), 2)
    expected = [0.0] * PARTS
    expected[3] = 1.0  # opened at 02:00 UTC, 10:00 in Shanghai
    expected[7] = 1.0
    assert found.parts[0].tolist() == expected
    assert part_of_day(START + timedelta(hours=14), ZoneInfo("Asia/Shanghai")) == 7


def test_a_state_is_visible_from_the_end_of_its_week_and_fades_from_there() -> None:
    state = newest(states(bank(*MESSAGE)), "ann")
    assert state.at.tolist() == at(WEEK).tolist()
    before = habits(state, at(WEEK - HOUR), 2)
    assert not before.outcomes.any()
    assert not before.parts.any()
    month = timedelta(days=30)
    later = habits(state, at(WEEK + month), 2)
    assert later.outcomes[0, 0, 0] == pytest.approx(float(decay(month.total_seconds(), MEMORY)))
    ages = habits(state, at(timedelta(days=3000)), 2)
    assert not ages.outcomes.any(), "older than its ttl is unknown"


def test_weeks_add_up_and_customers_do_not_mix() -> None:
    again = ("ann", WEEK + HOUR, "delivered", "sms", "m3")
    other = ("bob", HOUR, "delivered", "app", "m4")
    table = states(bank(*MESSAGE, again, other))
    assert table.num_rows == 3
    found = habits(newest(table, "ann"), at(2 * WEEK), 2)
    assert found.outcomes[0, 0, 0] == pytest.approx(1 + float(decay(WEEK.total_seconds(), MEMORY)))
    assert habits(newest(table, "bob"), at(WEEK), 2).outcomes[0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_later_events_change_no_state_of_an_earlier_week() -> None:
    later = ("ann", WEEK + HOUR, "opened", "app", "m2")
    calm, told = states(bank(*MESSAGE)), states(bank(*MESSAGE, later))
    assert told.slice(0, calm.num_rows).equals(calm)


def test_nothing_known_is_zero() -> None:
    none = Habits.none(2, 3)
    assert none.outcomes.shape == (2, 3, 4)
    unknown = State(np.full(1, np.nan), np.full((1, 4 * 2 + PARTS), np.nan), np.empty((1, 0), dtype=object))
    assert not habits(unknown, at(WEEK), 2).parts.any()
    assert states(bank()).num_rows == 0
    assert view(CATALOG).name == NAME
