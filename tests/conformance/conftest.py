"""The ledgers, for every suite that holds over all of them. A new implementation is added to LEDGERS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from features.live import LiveEvent
from serving.ledger import Ledger, SqliteLedger
from serving.postgres import PostgresLedger

Open = Callable[[], Ledger]
GROUPS = {"card": "cards", "loan": None}


def names(state: bytes | None, events: Sequence[LiveEvent]) -> bytes:
    """A fold whose outcome can be read: the ids of all events, sorted; an event that is called broken breaks it."""
    if any(event.event_id == "broken" for event in events):
        raise ValueError("no fold for this")
    return json.dumps(sorted([*json.loads(state or b"[]"), *(event.event_id for event in events)])).encode()


LEDGERS: dict[str, tuple[str, Callable[[Any], Ledger]]] = {
    "sqlite": ("tmp_path", lambda folder: SqliteLedger(folder / "ledger.db", names, GROUPS)),
    "postgres": ("postgres_url", lambda url: PostgresLedger(url, names, GROUPS)),
}
"""By name: the fixture that gives it its place, and how to open it there."""


@pytest.fixture(params=LEDGERS)
def reopen(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the ledger of this test; again and again the same one."""
    fixture, open_it = LEDGERS[request.param]
    place = request.getfixturevalue(fixture)
    opened: list[Ledger] = []

    def make() -> Ledger:
        opened.append(open_it(place))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(reopen: Open) -> Ledger:
    return reopen()
