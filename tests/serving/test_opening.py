"""What a server opens obeys the bank's rules: with the contacts that the bank brought, and with its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from features.columns import Table
from features.home import Build, Home
from features.importing import Bank, make_bank, write_bank
from features.packed import OnlineStates, define
from features.tables import arrow_schema
from features.times import micros, moment
from features.views import state_tables, views
from serving.decision import Ask, Decision
from serving.entries import Entry
from serving.events import TimelineEvent
from serving.opening import Serving, open_serving
from serving.settings import Settings

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CAP = {"id": "two_a_month", "kind": "cap", "limit": 2, "days": 30}


def bank_with_rules(world: World, now: datetime) -> Bank:
    """The small bank with a cap; `held` was sent two messages in the last week."""
    schema = arrow_schema(Table.TIMELINE)
    sent = [
        {"event_id": f"s{day}", "customer_id": "held", "event_timestamp": now - timedelta(days=day), "kind": "sent"}
        | {"channel": "push", "product_id": "loan", "purpose": "marketing"}
        for day in (2, 5)
    ]
    lines = [{name: line.get(name) for name in schema.names} for line in sent]
    timeline = pa.concat_tables([world.bank.tables[Table.TIMELINE], pa.Table.from_pylist(lines, schema=schema)])
    catalog = replace(world.bank.catalog, policies=(CAP,))
    return make_bank(catalog, {**world.bank.tables, Table.TIMELINE: timeline}, world.bank.attributes)


@contextmanager
def opened(home: Home, folder: Path) -> Iterator[Serving]:
    serving = open_serving(Settings(home.root, f"sqlite:///{folder / 'none.db'}", epsilon=0.0))
    try:
        yield serving
    finally:
        serving.ledger.close()


def decide(serving: Serving, customer: str, as_of: datetime, number: int) -> Decision:
    decision = serving.decider.decide(Ask(customer, as_of), f"{number:032x}")
    answer = orjson.dumps(decision.answer())
    serving.ledger.record(Entry.of(decision, as_of, answer, contact=decision.contact, caps=decision.caps))
    return decision


def test_caps_count_imported_contacts_and_our_own_also_after_a_restart(
    world: World, build_home: Callable[[Bank], Home], tmp_path: Path
) -> None:
    now = world.ask().as_of
    home = build_home(bank_with_rules(world, now))
    with opened(home, tmp_path) as serving:
        full = decide(serving, "held", now, 1)
        first = decide(serving, "anna", now, 2)
    with opened(home, tmp_path) as serving:
        later = [decide(serving, "anna", now + timedelta(hours=hour), 2 + hour) for hour in (1, 2, 3)]
        freed = decide(serving, "anna", now + timedelta(days=31), 9)
    assert full.action is None
    assert "two_a_month" in {reason.rule for reason in full.reasons}
    assert [one.action is not None for one in (first, *later, freed)] == [True, True, False, False, True]


def test_events_change_what_was_imported_and_stay_known_after_a_restart_on_newer_features(
    world: World, build_home: Callable[[Bank], Home], tmp_path: Path
) -> None:
    now = world.ask().as_of
    at_us = micros(now)
    home = build_home(world.bank)
    out = TimelineEvent("new", "anna", at_us - 1, "opted_out", created_us=at_us)
    with opened(home, tmp_path) as serving:
        assert serving.ledger.append([out]) == ("accepted",)
        assert decide(serving, "anna", now, 1).action is None
        assert serving.imported is not None
        assert serving.imported.has(["out-1", "new"]).tolist() == [True, False]
        page = serving.timeline.page("refuser", now, None, 5)
        assert [event.event_id for event in page.events] == ["out-1"]
    newer = make_bank(world.bank.catalog, with_event(world, out), world.bank.attributes)
    use_build(home, newer, "e" * 64)
    with opened(home, tmp_path) as serving:
        assert serving.ledger.known("anna", None, at_us).live is None, "the features have it now"
        assert decide(serving, "anna", now, 2).action is None
        page = serving.timeline.page("anna", now, None, 5)
        assert [event.event_id for event in page.events].count("new") == 1


def use_build(home: Home, bank: Bank, fingerprint: str) -> None:
    """Make a build of `bank` in `home`, and make it current."""
    build = Build(home.builds / fingerprint[:16], fingerprint, views(bank.catalog, bank.attributes), NOW)
    write_bank(bank, build.bank_folder)
    define(build.online_path, build.views)
    for view, table in state_tables(bank):
        OnlineStates(build.online_path, build.views).write(view, table)
    build.mark_complete()
    home.use(build)


def with_event(world: World, event: TimelineEvent) -> dict[Table, pa.Table]:
    """The world's tables with one event more."""
    timeline = world.bank.tables[Table.TIMELINE]
    line = {name: vars(event).get(name) for name in timeline.schema.names} | {"event_timestamp": moment(event.at_us)}
    added = pa.Table.from_pylist([line], schema=timeline.schema)
    return {**world.bank.tables, Table.TIMELINE: pa.concat_tables([timeline, added])}
