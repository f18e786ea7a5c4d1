"""The views of a bank of two customers, worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from features import assemble as assembling
from features import consent, engagement, habits, holdings, hours, market, profile, purchases, transactions
from features.assemble import assemble, row_schema
from features.catalog import Catalog, Channel, Product
from features.columns import Purpose, Table
from features.importing import Bank
from features.schema import Attribute, Rows, RowSchema, State
from features.takeups import take_ups
from features.views import state_tables, views

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = 86_400.0
TIMELINE = (
    "event_id",
    "customer_id",
    "kind",
    "channel",
    "purpose",
    "product_id",
    "content_id",
    "decision_id",
    "message_id",
)
CATALOG = Catalog(
    currency="CNY",
    time_zone="Asia/Shanghai",
    products=(Product("card", "Card", holdable=True), Product("fund", "Fund")),
    channels=(Channel("sms", "SMS"), Channel("app", "App", direction="both")),
)
ATTRIBUTES = (
    Attribute("age", "number"),
    Attribute("vip", "flag"),
    Attribute("born", "date"),
    Attribute("city", "text"),
)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def at(*numbers: float) -> np.ndarray:
    return np.array([day(number).timestamp() for number in numbers])


def times(values: list[float]) -> pa.Array:
    return pa.array([day(value) for value in values], pa.timestamp("us", tz="UTC"))


def timeline(*events: dict[str, object]) -> pa.Table:
    columns = {name: pa.array([event.get(name) for event in events], pa.string()) for name in TIMELINE}
    columns["event_id"] = pa.array([f"e{number}" for number in range(len(events))], pa.string())
    columns["event_timestamp"] = times([event["day"] for event in events])  # type: ignore[misc]
    for name in ("propensity", "value"):
        columns[name] = pa.array([None] * len(events), pa.float64())
    return pa.table(columns)


def bank(events: tuple[dict[str, object], ...] = (), **tables: pa.Table) -> Bank:
    customers = pa.table(
        {
            "customer_id": ["ann", "bob", "ann"],
            "event_timestamp": times([0, 0, 10]),
            "age": pa.array([30.0, None, 31.0]),
            "vip": pa.array([False, True, True]),
            "born": pa.array(["1994-03-01", None, "1994-03-01"], pa.string()),
            "city": pa.array(["Xi'an", "Lanzhou", "Xi'an"], pa.string()),
        }
    )
    empty_holdings = {"customer_id": pa.array([], pa.string()), "event_timestamp": times([])}
    defaults = {
        Table.CUSTOMERS: customers,
        Table.HOLDINGS: pa.table(
            {**empty_holdings, "product_id": pa.array([], pa.string()), "action": pa.array([], pa.string())}
        ),
        Table.TRANSACTIONS: pa.table(
            {
                **empty_holdings,
                "amount": pa.array([], pa.float64()),
                "category": pa.array([], pa.string()),
                "balance": pa.array([], pa.float64()),
            }
        ),
        Table.TIMELINE: timeline(*events),
    }
    given = {Table(name): table for name, table in tables.items()}
    return Bank(catalog=CATALOG, tables={**defaults, **given}, attributes=ATTRIBUTES, fingerprint="x")


def states_at(world: Bank, customer: str, moment: float) -> dict[str, State]:
    """Point-in-time lookup by hand: the newest row of each view at `moment`."""
    found = {}
    for view, table in state_tables(world):
        frame = table.to_pandas()
        key = "market_id" if view.entity == "market" else "customer_id"
        known = frame[
            (frame[key] == ("all" if key == "market_id" else customer)) & (frame.event_timestamp <= day(moment))
        ]
        numbers = np.full((1, len(view.numbers)), np.nan)
        texts = np.full((1, len(view.texts)), None, dtype=object)
        stamp = np.array([np.nan])
        if len(known):
            newest = known.iloc[-1]
            stamp = np.array([newest.event_timestamp.timestamp()])
            numbers = newest[list(view.numbers)].to_numpy(dtype=float)[None, :]
            texts = newest[list(view.texts)].to_numpy(dtype=object)[None, :]
        found[view.name] = State(stamp, numbers, texts)
    return found


def row_at(world: Bank, customer: str, moment: float, schema: RowSchema | None = None) -> Rows:
    return assemble(states_at(world, customer, moment), at(moment), schema or row_schema(world))


def value(rows: Rows, name: str) -> float:
    return float(rows.customer[0, rows.schema.customer_names.index(name)])


def test_profile_tells_what_was_known_then_and_dates_become_years() -> None:
    early, late = row_at(bank(), "ann", 5), row_at(bank(), "ann", 10)
    assert (value(early, "age"), value(early, "vip")) == (30, 0)
    assert (value(late, "age"), value(late, "vip")) == (31, 1)
    assert value(late, "born (years ago)") == pytest.approx(30.03, abs=0.01)
    assert (value(late, "city = Xi'an"), value(late, "city = Lanzhou")) == (1, 0)
    assert np.isnan(value(row_at(bank(), "bob", 5), "age"))


def test_a_value_outside_the_vocabulary_lights_no_column() -> None:
    schema = row_schema(bank(), until=day(-1))
    assert schema.vocabularies == (("city", ()),), "nothing was known before the first customer"
    assert "city = Xi'an" in row_schema(bank(), until=day(0)).customer_names


def test_holding_ends_with_closing_and_an_exchange_leaves_the_customer_holding() -> None:
    table = pa.table(
        {
            "customer_id": ["ann"] * 4,
            "event_timestamp": times([1, 3, 7, 7]),
            "product_id": ["card"] * 4,
            "action": ["opened", "closed", "opened", "closed"],
        }
    )
    world = bank(holdings=table)
    held = [bool(row_at(world, "ann", moment).held[0, 0]) for moment in (0.5, 1, 2.9, 3, 6.9, 7)]
    assert held == [False, True, True, False, False, True]
    opened = assembling.PRODUCT_NAMES.index("days since opened")
    assert row_at(world, "ann", 9).product[0, 0, opened] == pytest.approx(2)


def test_money_decays_to_the_moment_of_the_question() -> None:
    table = pa.table(
        {
            "customer_id": ["ann"] * 3,
            "event_timestamp": times([0, 30, 30]),
            "amount": [-100.0, -50.0, 80.0],
            "category": ["food", "food", None],
            "balance": [900.0, None, 930.0],
        }
    )
    rows = row_at(bank(transactions=table), "ann", 60)
    assert value(rows, "money_out") == pytest.approx(100 * np.exp(-2) + 50 * np.exp(-1))
    assert value(rows, "money_in") == pytest.approx(80 * np.exp(-1))
    assert value(rows, f"spending_{transactions.bucket('food'):02d}") > 0
    assert (value(rows, "balance"), value(rows, "days since booking")) == (930, 30)


def test_the_last_three_visits_are_remembered_in_order_with_their_channels() -> None:
    visits = [
        {"day": d, "customer_id": "ann", "kind": kind, "channel": c}
        for d, kind, c in ((1, "visited", "app"), (2, "called", "sms"), (5, "visited", "app"), (6, "clicked", "sms"))
    ]
    rows = row_at(bank(tuple(visits)), "ann", 7)
    assert [value(rows, f"days since visit {back}") for back in (1, 2, 3)] == [2, 5, 6]
    assert [value(rows, name) for name in ("visit gap 1", "visit gap 2")] == [3, 1]
    assert [value(rows, f"app: was visit {back} back") for back in (1, 2, 3)] == [1, 0, 1]
    assert np.isnan(value(row_at(bank(tuple(visits)), "ann", 1), "days since visit 2"))


def test_response_rate_starts_at_its_prior_and_moves_with_evidence() -> None:
    name = "sms: response rate, smoothed"
    prior = engagement.PRIOR_RESPONSES / engagement.PRIOR_MESSAGES
    assert value(row_at(bank(), "ann", 1), name) == pytest.approx(prior)
    sent = [{"day": 1, "customer_id": "ann", "kind": "sent", "channel": "sms"}]
    assert value(row_at(bank(tuple(sent)), "ann", 1), name) < prior
    clicked = [*sent, {"day": 1, "customer_id": "ann", "kind": "clicked", "channel": "sms"}]
    assert value(row_at(bank(tuple(clicked)), "ann", 1), name) > prior


def test_an_opt_out_without_channel_means_all_and_wins_over_an_opt_in_at_the_same_moment() -> None:
    events = (
        {"day": 1, "customer_id": "ann", "kind": "opted_out", "channel": "sms", "purpose": "marketing"},
        {"day": 2, "customer_id": "ann", "kind": "opted_out"},
        {"day": 3, "customer_id": "ann", "kind": "opted_in", "channel": "app"},
        {"day": 4, "customer_id": "ann", "kind": "opted_out", "channel": "app", "purpose": "marketing"},
        {"day": 4, "customer_id": "ann", "kind": "opted_in", "channel": "app"},
    )

    def refused(moment: float, purpose: Purpose = Purpose.MARKETING) -> list[bool]:
        state = states_at(bank(events), "ann", moment)[consent.NAME]
        return [bool(flag) for flag in consent.refused(state, 2, purpose)[0]]

    assert [refused(moment) for moment in (0.5, 1, 2, 3, 4)] == [
        [False, False],
        [True, False],
        [True, True],
        [True, False],
        [True, True],
    ]
    assert refused(1, Purpose.SERVICE) == [False, False]
    assert refused(2, Purpose.MANDATORY) == [False, False]
    np.testing.assert_array_equal(row_at(bank(events), "ann", 2).opted_out, [[True, True]])
    np.testing.assert_array_equal(row_at(bank(events), "bob", 2).opted_out, [[False, False]])


def test_a_take_up_told_by_two_tables_counts_once_and_what_was_held_from_the_start_not_at_all() -> None:
    converted = {"day": 1, "customer_id": "ann", "kind": "converted", "product_id": "card", "decision_id": "d1"}
    table = pa.table(
        {
            "customer_id": ["ann", "ann", "bob", "ann"],
            "event_timestamp": times([1.5, 9, 1, 0]),
            "product_id": ["card", "card", "card", "fund"],
            "action": ["opened", "opened", "opened", "opened"],
        }
    )
    found = take_ups(bank((converted,), holdings=table)).to_pydict()
    assert list(zip(found["customer_id"], found["event_timestamp"], found["decision_id"], strict=True)) == [
        ("ann", day(1), "d1"),
        ("bob", day(1), None),
        ("ann", day(9), None),
    ]


def test_popularity_is_visible_from_the_end_of_its_hour() -> None:
    event = {"day": 1 + 1 / 48, "customer_id": "ann", "kind": "converted", "product_id": "fund"}
    share = assembling.PRODUCT_NAMES.index("share of take-ups, ever")
    before, after = (row_at(bank((event,)), "bob", moment) for moment in (1 + 1 / 25, 1 + 1 / 24))
    np.testing.assert_allclose(before.product[0, :, share], [0.5, 0.5])
    np.testing.assert_allclose(after.product[0, :, share], [0.25, 0.75])


def test_expired_states_are_unknown_but_refusals_hold_forever() -> None:
    events = (
        {"day": 1, "customer_id": "ann", "kind": "visited", "channel": "app"},
        {"day": 1, "customer_id": "ann", "kind": "opted_out", "channel": "sms", "purpose": "marketing"},
    )
    world = bank(events)
    states, schema = states_at(world, "ann", 2), row_schema(world)
    last, expired = (assemble(states, at(1 + engagement.TTL.days + late), schema) for late in (0, 0.01))
    assert value(last, "days since visit 1") == engagement.TTL.days
    assert np.isnan(value(expired, "days since visit 1"))
    assert expired.opted_out[0, 0]


def test_a_state_from_after_the_question_is_unknown_yet_its_refusal_counts() -> None:
    events = (
        {"day": 8, "customer_id": "ann", "kind": "visited", "channel": "app"},
        {"day": 8, "customer_id": "ann", "kind": "opted_out", "channel": "sms", "purpose": "marketing"},
    )
    world = bank(events)
    rows = assemble(states_at(world, "ann", 8), at(7), row_schema(world))
    assert np.isnan(value(rows, "days since visit 1"))
    assert rows.opted_out[0, 0], "a newer no is a no"


def test_rows_have_the_columns_that_their_schema_names() -> None:
    rows = row_at(bank(), "ann", 1)
    assert rows.customer.shape == (1, len(rows.schema.customer_names))
    assert rows.product.shape == (1, 2, len(rows.schema.product_names))
    assert rows.channel.shape == (1, 2, len(rows.schema.channel_names))
    assert len(set(rows.schema.customer_names)) == len(rows.schema.customer_names)
    assert rows.customer.dtype == np.float32
    assert RowSchema.from_json(rows.schema.to_json()) == rows.schema


def test_local_hour_follows_the_zone_of_the_catalogue() -> None:
    assert value(row_at(bank(), "ann", 1), "hour of day") == 8, "midnight UTC is eight in Shanghai"
    summer, winter = (datetime(2024, month, 1, tzinfo=UTC).timestamp() for month in (7, 1))
    hours = assembling.calendar(np.array([summer, winter]), "Europe/Lisbon")[:, 0]
    np.testing.assert_array_equal(hours, [1, 0])


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Europe/Lisbon", "America/St_Johns", "Australia/Lord_Howe"])
def test_many_moments_have_the_same_local_calendar_as_each_alone(zone: str) -> None:
    moments = np.random.default_rng(5).uniform(0, 1.9e9, 400).round(6)
    together = assembling.calendar(moments, zone)
    alone = np.concatenate([assembling.calendar(moments[[position]], zone) for position in range(400)])
    np.testing.assert_array_equal(together, alone)
    local = [datetime.fromtimestamp(moment, ZoneInfo(zone)) for moment in moments]
    np.testing.assert_array_equal(together[:, 3], [moment.weekday() for moment in local])
    np.testing.assert_array_equal(together[:, 4], [moment.day for moment in local])
    np.testing.assert_array_equal(np.floor(together[:, 0]), [moment.hour for moment in local])


def test_events_after_the_question_change_no_row() -> None:
    past = ({"day": 1, "customer_id": "ann", "kind": "visited", "channel": "app"},)
    future = [
        {"day": 6, "customer_id": who, "kind": kind, "channel": "sms", "product_id": "fund"}
        for who in ("ann", "bob")
        for kind in ("sent", "converted", "opted_out", "visited", "complained")
    ]
    schema = row_schema(bank(past), until=day(5))
    assert row_schema(bank((*past, *future)), until=day(5)) == schema  # type: ignore[arg-type]
    calm, told = row_at(bank(past), "ann", 5, schema), row_at(bank((*past, *future)), "ann", 5, schema)  # type: ignore[arg-type]
    for part in ("customer", "product", "channel", "held", "opted_out"):
        np.testing.assert_array_equal(getattr(calm, part), getattr(told, part))


def test_view_columns_are_unique_over_all_views_and_safe_for_the_store() -> None:
    names = [column.name for view in views(CATALOG, ATTRIBUTES) for column in view.columns]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and not name.endswith("_y") and name != "rn" for name in names)
    modules = (profile, holdings, transactions, engagement, purchases, consent, habits, hours, market)
    assert {view.name for view in views(CATALOG, ATTRIBUTES)} == {module.NAME for module in modules}
