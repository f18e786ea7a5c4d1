"""Live features are the features of the whole history, whatever is imported, whatever is live, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import assemble as assembling
from features import consent, engagement, hours, purchases
from features.assemble import assemble, row_schema
from features.catalog import Catalog, Channel, Product
from features.columns import Kind, Purpose, Table
from features.errors import ArtefactError
from features.habits import habits
from features.importing import Bank, make_bank, read_bank
from features.live import MODULES, Live, LiveEvent
from features.packing import unknown
from features.schema import State, States
from features.tables import arrow_schema
from features.times import micros
from features.views import views

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = 86_400.0
CATALOG = Catalog(
    currency="CNY",
    time_zone="Asia/Shanghai",
    products=(Product("card", "Card", holdable=True), Product("fund", "Fund")),
    channels=(Channel("sms", "SMS"), Channel("app", "App", direction="both"), Channel("branch", "Branch", "inbound")),
)
LIVE = Live(CATALOG)
ROW_PARTS = ("customer", "product", "channel", "held", "opted_out")

events = st.builds(
    lambda step, kind, channel, purpose, product: event(kind, step * 7_919.25, channel, product, purpose),
    step=st.integers(0, 60),
    kind=st.sampled_from([str(kind) for kind in Kind]),
    channel=st.sampled_from([None, "sms", "app", "branch", "a channel of old"]),
    purpose=st.sampled_from([None, *(str(purpose) for purpose in Purpose)]),
    product=st.sampled_from([None, "card", "fund", "a product of old"]),
)


def event(
    kind: str, seconds: float, channel: str | None = None, product: str | None = None, purpose: str | None = None
) -> LiveEvent:
    at_us = micros(START) + round(seconds * 1e6)
    return LiveEvent("", at_us, kind, channel, purpose, product)


def bank(told: Sequence[LiveEvent], customer: str = "ann") -> Bank:
    """A bank that knows these events of one customer, and a little of two."""
    schema = arrow_schema(Table.TIMELINE)
    rows = [
        dict.fromkeys(schema.names)
        | {
            "event_id": f"e{number}",
            "customer_id": customer,
            "event_timestamp": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=one.at_us),
            "kind": one.kind,
            "channel": one.channel,
            "purpose": one.purpose,
            "product_id": one.product_id,
        }
        for number, one in enumerate(told)
    ]
    customers = pa.table(
        {
            "customer_id": ["ann", "bob"],
            "event_timestamp": pa.array([START, START], pa.timestamp("us", tz="UTC")),
        }
    )
    timeline = pa.Table.from_pylist(rows, schema=schema).sort_by("event_timestamp")
    return make_bank(CATALOG, {Table.CUSTOMERS: customers, Table.TIMELINE: timeline}, ())


def newest(world: Bank, customer: str = "ann") -> States:
    """A customer's newest states of the views with a live part, as the online store would give them."""
    found = {view.name: unknown(view, 1) for view in views(CATALOG, ())}
    for module in MODULES:
        table, state = module.states(world), found[module.NAME]
        mine = table.filter(pc.equal(table["customer_id"], customer)).sort_by("event_timestamp").to_pylist()
        if mine:
            state.at[0] = micros(mine[-1]["event_timestamp"]) / 1e6
            numbers = [mine[-1][name] for name in module.view(CATALOG).numbers]
            state.numbers[0] = [np.nan if number is None else number for number in numbers]
    return found


def assert_same(found: States, expected: States) -> None:
    for module in MODULES:
        mine, theirs = found[module.NAME], expected[module.NAME]
        np.testing.assert_array_equal(mine.at, theirs.at, err_msg=module.NAME)
        np.testing.assert_allclose(mine.numbers, theirs.numbers, rtol=1e-9, atol=1e-9, err_msg=module.NAME)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(events, st.integers(0, 3)), max_size=25), st.randoms(use_true_random=False))
def test_any_split_in_any_order_of_arrival_gives_the_states_and_rows_of_the_whole_history(
    history: list[tuple[LiveEvent, int]], random: object
) -> None:
    """Each event is imported (0), or comes live in one of three calls (1, 2, 3), each in an order of its own."""
    random.shuffle(history)  # type: ignore[attr-defined]
    blob = None
    for call in (1, 2, 3):
        blob = LIVE.add(blob, [one for one, when in history if when == call])
    whole, imported = bank([one for one, _ in history]), bank([one for one, when in history if when == 0])
    found, expected = LIVE.merged(newest(imported), [blob]), newest(whole)
    assert_same(found, expected)
    moment = np.array([START.timestamp() + 9 * DAY])
    schema = row_schema(whole)
    found_row, row = assemble(found, moment, schema), assemble(expected, moment, schema)
    for part in ROW_PARTS:
        np.testing.assert_allclose(getattr(found_row, part), getattr(row, part), rtol=1e-6, atol=1e-6, err_msg=part)
    rhythm = habits(found, moment, 3).parts
    np.testing.assert_allclose(rhythm, habits(expected, moment, 3).parts, rtol=1e-9, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, max_size=12), st.randoms(use_true_random=False))
def test_one_by_one_and_all_at_once_make_the_same_live_state(told: list[LiveEvent], random: object) -> None:
    one_by_one = None
    for one in told:
        one_by_one = LIVE.add(one_by_one, [one])
    random.shuffle(told)  # type: ignore[attr-defined]
    nobody = {view.name: unknown(view, 1) for view in views(CATALOG, ())}
    assert_same(LIVE.merged(nobody, [LIVE.add(None, told)]), LIVE.merged(nobody, [one_by_one]))


def test_a_simulated_banks_customers_replayed_event_by_event_have_the_states_of_the_import(
    simulated_bank: Path,
) -> None:
    world = read_bank(simulated_bank)
    live = Live(world.catalog)
    lines: dict[str, list[LiveEvent]] = {}
    for row in world.tables[Table.TIMELINE].to_pylist()[::-1]:
        names = ("event_id", "kind", "channel", "purpose", "product_id")
        told = LiveEvent(at_us=micros(row["event_timestamp"]), **{name: row[name] for name in names})
        lines.setdefault(row["customer_id"], []).append(told)
    people = sorted(lines, key=lambda name: -len(lines[name]))[:40]
    blobs: list[bytes | None] = []
    for name in people:
        blob = None
        for told in lines[name]:
            blob = live.add(blob, [told])
        blobs.append(blob)
    nobody = {view.name: unknown(view, len(people)) for view in views(world.catalog, world.attributes)}
    found = live.merged(nobody, blobs)
    assert len(lines[people[0]]) > 100, "long histories, or this proves little"
    for module in MODULES:
        table, view = module.states(world), module.view(world.catalog)
        expected = table.to_pandas().groupby("customer_id").tail(1).set_index("customer_id").reindex(people)
        at = (expected.event_timestamp - datetime(1970, 1, 1, tzinfo=UTC)).dt.total_seconds()
        np.testing.assert_allclose(found[module.NAME].at, at, rtol=0, atol=1e-6)
        numbers = expected[list(view.numbers)].to_numpy(dtype=float)
        np.testing.assert_allclose(found[module.NAME].numbers, numbers, rtol=1e-9, atol=1e-9, err_msg=module.NAME)


def value(states: States, name: str, days: float) -> float:
    rows = assemble(states, np.array([START.timestamp() + days * DAY]), row_schema(bank([])))
    return float(rows.customer[0, rows.schema.customer_names.index(name)])


def live_of(*told: LiveEvent, base: States | None = None) -> States:
    return LIVE.merged(base or newest(bank([])), [LIVE.add(None, told)])


def test_a_late_event_adds_what_is_left_of_it_and_moves_no_newest_time_back() -> None:
    late, newer = event("visited", 0, "app"), event("visited", 10 * DAY, "app")
    found = live_of(late, base=newest(bank([newer])))
    assert value(found, "app: visits, decayed", 10) == pytest.approx(1 + np.exp(-10 / 90))
    assert value(found, "app: days since visit", 10) == 0
    assert value(found, "days since visit 2", 10) == 10


@pytest.mark.parametrize("arrive", [list, lambda told: list(reversed(told))])
def test_the_newest_word_on_consent_counts_and_of_two_at_one_moment_the_refusal(
    arrive: Callable[[Sequence[LiveEvent]], list[LiveEvent]],
) -> None:
    def refused(*told: LiveEvent) -> list[bool]:
        blob = None
        for one in arrive(told):
            blob = LIVE.add(blob, [one])
        states = LIVE.merged(newest(bank([])), [blob])
        return [bool(flag) for flag in consent.refused(states[consent.NAME], 3, Purpose.MARKETING)[0]]

    out, back = event("opted_out", DAY, "sms"), event("opted_in", 2 * DAY)
    assert refused(out) == [True, False, False]
    assert refused(out, back) == [False, False, False], "an older refusal that comes late undoes no agreement"
    assert refused(replace(out, at_us=back.at_us), back) == [True, False, False]


def test_a_refusal_of_an_unknown_channel_is_no_refusal_of_all() -> None:
    states = live_of(event("opted_out", 0, "a channel of old"))
    assert np.isnan(states[consent.NAME].at[0])
    assert not consent.refused(states[consent.NAME], 3, Purpose.MARKETING).any()


def test_consent_keeps_when_it_was_said() -> None:
    states = live_of(event("opted_out", 5, "app", purpose="marketing"))
    names = consent.view(CATALOG).numbers
    told = dict(zip(names, states[consent.NAME].numbers[0], strict=True))
    assert told["app__marketing_said_at"] == START.timestamp() + 5
    assert told["app__marketing_refused"] == 1.0
    assert np.isnan(told["app__service_said_at"])


def test_messages_are_unanswered_until_the_customer_reacts_on_any_channel() -> None:
    messages = [event("sent", number * DAY, "sms" if number else "app") for number in range(4)]
    name = "unanswered messages, all channels"
    assert value(live_of(), name, 4) == 0
    waiting = live_of(*messages)
    assert value(waiting, name, 4) == 4
    assert (value(waiting, "app: unanswered messages", 4), value(waiting, "sms: unanswered messages", 4)) == (1, 3)
    opened = live_of(*messages, event("opened", 2 * DAY, "app"))
    assert value(opened, name, 4) == 1, "the one that was sent after the reaction"
    many = [event("sent", number * DAY, "sms") for number in range(9)]
    assert value(live_of(*many), name, 9) == engagement.MESSAGES_BACK, "the newest are counted, older ones are not kept"


def test_interest_in_a_product_has_its_time() -> None:
    states = live_of(event("clicked", DAY, "app", "fund"), event("decided", 2 * DAY, "app", "card"))
    rows = assemble(states, np.array([START.timestamp() + 3 * DAY]), row_schema(bank([])))
    since = rows.product[0, :, assembling.PRODUCT_NAMES.index("days since interest")]
    assert np.isnan(since[0])
    assert since[1] == 2


def test_activity_counts_in_the_catalogues_zone() -> None:
    states = live_of(event("visited", 0))  # midnight UTC is eight in Shanghai
    assert states[hours.NAME].numbers[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_no_live_state_changes_nothing_and_customers_keep_their_order() -> None:
    base = {view.name: State(np.array([np.nan, np.nan, np.nan]), *arrays(view, 3)) for view in views(CATALOG, ())}
    assert LIVE.merged(base, [None, None, None]) is base
    bought = LIVE.add(None, [event("converted", 0, product="card")])
    found = LIVE.merged(base, [None, bought, None])
    at = purchases.bought_at(found[purchases.NAME], 2)
    np.testing.assert_array_equal(at, [[np.nan, np.nan], [START.timestamp(), np.nan], [np.nan, np.nan]])
    assert np.isnan(found[purchases.NAME].numbers[[0, 2]]).all(), "unknown stays unknown"
    assert np.isnan(found[engagement.NAME].numbers).all(), "a conversion on no channel is no engagement"
    assert found["holdings"] is base["holdings"]
    assert np.isnan(base[purchases.NAME].numbers).all(), "what was read is not written to"


def arrays(view: object, count: int) -> tuple[np.ndarray, np.ndarray]:
    empty = unknown(view, count)  # type: ignore[arg-type]
    return empty.numbers, empty.texts


def test_an_event_that_no_view_counts_leaves_nobody_known() -> None:
    states = live_of(event("delivered", 0, "sms"))
    assert all(np.isnan(states[module.NAME].at[0]) for module in MODULES)


def test_a_live_state_of_another_catalogue_is_refused() -> None:
    other = Live(replace(CATALOG, channels=CATALOG.channels[:2]))
    assert other.fingerprint != LIVE.fingerprint
    assert Live(replace(CATALOG, time_zone="UTC")).fingerprint != LIVE.fingerprint
    assert Live(replace(CATALOG, currency="EUR")).fingerprint == LIVE.fingerprint
    blob = LIVE.add(None, [event("visited", 0, "app")])
    with pytest.raises(ArtefactError, match="make them again from the ledger's events"):
        other.add(blob, [])
    with pytest.raises(ArtefactError, match="make them again from the ledger's events"):
        LIVE.merged(newest(bank([])), [blob[:-1]])
