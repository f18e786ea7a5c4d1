"""What a server opens obeys the bank's rules: with the contacts that the bank brought, and with its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from features.columns import Table
from features.home import Home
from features.importing import Bank, make_bank
from features.tables import arrow_schema
from serving.decision import Ask, Decision
from serving.opening import Serving, open_serving
from serving.settings import Settings

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

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
    serving.ledger.record(decision, as_of, answer, contact=decision.contact, caps=decision.caps)
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
