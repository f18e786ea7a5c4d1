"""Banks written out by hand, small enough that every row and label can be listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from features.catalog import Catalog, Channel, Product
from features.columns import Table
from features.home import Build, Home
from features.importing import Bank, make_bank
from features.served import SERVED_SCHEMA
from features.tables import arrow_schema
from features.times import micros
from training.labels import DAY
from training.track import Tracking

ZERO = datetime(2024, 1, 1, tzinfo=UTC)


def at(days: float) -> int:
    """µs of the moment `days` after the world begins."""
    return micros(ZERO) + int(days * DAY)


@dataclass
class World:
    """A bank with the products card (holdable) and loan, and the channels app, web and sms."""

    customers: dict[str, float] = field(default_factory=dict)
    holdings: list[dict[str, Any]] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    served: list[dict[str, Any]] = field(default_factory=list)
    windows: dict[str, float] = field(default_factory=dict)
    """Product → days in which an offer of it may be answered, where declared."""

    def knows(self, **since: float) -> World:
        """Customers, and the day each is known from."""
        self.customers |= since
        return self

    def opens(self, customer: str, day: float, product: str) -> World:
        self.holdings.append({"customer_id": customer, "day": day, "product_id": product, "action": "opened"})
        return self

    def event(self, customer: str, day: float, kind: str, **columns: Any) -> World:
        name = f"e{len(self.timeline)}"
        self.timeline.append({"event_id": name, "customer_id": customer, "day": day, "kind": kind, **columns})
        return self

    def serves(self, customer: str, day: float, kind: str, known: float | None = None, **columns: Any) -> World:
        """An event of the ledger; known: the day on which it became known, if not at once."""
        event = {"event_id": f"s{len(self.served)}", "customer_id": customer, "day": day, "kind": kind, **columns}
        self.served.append({**event, "created_timestamp": ZERO + timedelta(days=day if known is None else known)})
        return self

    @property
    def bank(self) -> Bank:
        card = Product("card", "Card", holdable=True, response_days=self.windows.get("card"))
        products = (card, Product("loan", "Loan", response_days=self.windows.get("loan")))
        channels = (Channel("app", "App", "both"), Channel("web", "Web", "both"), Channel("sms", "SMS", "outbound"))
        people = [{"customer_id": customer, "day": day} for customer, day in self.customers.items()]
        tables = {
            Table.CUSTOMERS: _table(Table.CUSTOMERS, people),
            Table.HOLDINGS: _table(Table.HOLDINGS, self.holdings),
            Table.TIMELINE: _table(Table.TIMELINE, self.timeline),
        }
        served = _rows(SERVED_SCHEMA, self.served) if self.served else None
        return make_bank(Catalog("EUR", "UTC", products, channels), tables, (), served)


def _table(name: Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return _rows(arrow_schema(name), rows)


def _rows(schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> pa.Table:
    stamped = [{**row, "event_timestamp": ZERO + timedelta(days=row["day"])} for row in rows]
    complete = [{column: row.get(column) for column in schema.names} for row in stamped]
    return pa.Table.from_pylist(complete, schema=schema).sort_by("event_timestamp")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def day() -> Callable[[float], int]:
    """`day(3.5)` is the µs of three and a half days after the world begins."""
    return at


@pytest.fixture
def asked() -> Callable[..., pd.DataFrame]:
    """`asked(("anna", 3.0), ...)` makes an entities frame."""

    def make(*rows: tuple[str, float], eligible: Sequence[frozenset[str] | None] | None = None) -> pd.DataFrame:
        times = pd.Series([ZERO + timedelta(days=days) for _, days in rows])
        frame = pd.DataFrame({"customer_id": [name for name, _ in rows], "as_of": times.astype("datetime64[us, UTC]")})
        if eligible is not None:
            frame["eligible"] = pd.Series(list(eligible), dtype=object)
        return frame

    return make


@pytest.fixture(scope="session")
def new_world() -> Callable[[], World]:
    """Makes worlds for fixtures that last longer than one test."""
    return World


@pytest.fixture(scope="module")
def build(simulated_home: Home) -> Build:
    return simulated_home.build()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")
