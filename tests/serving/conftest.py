"""A bank of four customers whose right answers can be counted on one hand, and models that say what they are told.

- anna: attributes, no history → everything is possible
- held: holds the card → never the card again
- refuser: opted out of e-mail → only push
- silent: opted out of everything → no contact
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.assemble import assemble, row_schema
from features.catalog import Catalog, Channel, Content, Product
from features.columns import Table
from features.home import Build, Home
from features.importing import Bank, make_bank, write_bank
from features.packed import OnlineStates, define
from features.schema import Attribute, Bool, Float64, Rows, RowSchema
from features.tables import arrow_schema
from features.views import state_tables, views
from serving.content import Contents
from serving.decide import Decider
from serving.decision import Ask
from serving.history import RecordedPast
from serving.policy import Policy
from serving.scoring import Panel, Source
from serving.value import Worth

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)

CATALOG = Catalog(
    "EUR",
    "Europe/Berlin",
    (
        Product("card", "Gold card", holdable=True, margin=100.0),
        Product("loan", "Car loan", margin=400.0),
    ),
    (
        Channel("push", "App push", "outbound", 0.1),
        Channel("email", "E-mail", "outbound", 0.2),
        Channel("branch", "Branch", "inbound"),
    ),
    (
        Content("plain", "en", "{{ product.name }} for you"),
        Content("named", "en", "{{ customer.first_name }}, look at the {{ product }}", "loan", "push"),
        Content("schlicht", "de", "{{ product_name }} für Sie"),
    ),
)
ATTRIBUTES = (Attribute("first_name", "text"), Attribute("age", "number"))


@dataclass(frozen=True)
class FakeModel:
    """Says the given probabilities whatever the row; `error` instead, where there is one."""

    row_schema: RowSchema
    says: tuple[float, ...]
    error: Exception | None = None

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        assert rows.schema.fingerprint == self.row_schema.fingerprint
        if self.error:
            raise self.error
        return np.where(available, np.array(self.says), np.nan)


def make_world(catalog: Catalog = CATALOG) -> Bank:
    """The bank of the module's docstring."""
    customers = ["anna", "held", "refuser", "silent"]
    events = [
        ("out-1", "refuser", "opted_out", "email"),
        ("out-2", "silent", "opted_out", None),
    ]
    timeline = {
        "event_id": [event[0] for event in events],
        "customer_id": [event[1] for event in events],
        "event_timestamp": [START + timedelta(days=2)] * len(events),
        "kind": [event[2] for event in events],
        "channel": [event[3] for event in events],
    }
    schema = arrow_schema(Table.TIMELINE, ())
    nulls = {name: pa.nulls(len(events), schema.field(name).type) for name in schema.names if name not in timeline}
    tables = {
        Table.CUSTOMERS: pa.table(
            {
                "customer_id": customers,
                "event_timestamp": [START] * 4,
                "first_name": ["Anna", "Hedwig", None, "Stille"],
                "age": [40.0, 50.0, 60.0, 70.0],
            },
            schema=arrow_schema(Table.CUSTOMERS, ATTRIBUTES),
        ),
        Table.HOLDINGS: pa.table(
            {
                "customer_id": ["held"],
                "event_timestamp": [START + timedelta(days=1)],
                "product_id": ["card"],
                "action": ["opened"],
            },
            schema=arrow_schema(Table.HOLDINGS, ()),
        ),
        Table.TIMELINE: pa.table({**timeline, **nulls}).select(schema.names).cast(schema),
    }
    return make_bank(catalog, tables, ATTRIBUTES)


@pytest.fixture(scope="session")
def bank() -> Bank:
    return make_world()


@pytest.fixture(scope="session")
def build_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Bank], Home]:
    """A home with a complete build of a bank, made without Feast (whose import takes seconds)."""

    def make(bank: Bank) -> Home:
        home = Home(tmp_path_factory.mktemp("home"))
        build = Build(home.builds / "small", "f" * 64, views(bank.catalog, bank.attributes), NOW)
        write_bank(bank, build.bank_folder)
        define(build.online_path, build.views)
        online = OnlineStates(build.online_path, build.views)
        for view, table in state_tables(bank):
            online.write(view, table)
        build.mark_complete()
        home.use(build)
        return home

    return make


@pytest.fixture(scope="session")
def home(bank: Bank, build_home: Callable[[Bank], Home]) -> Home:
    return build_home(bank)


@dataclass(frozen=True)
class World:
    """A decider over the small bank, with models that are told what to say."""

    home: Home
    bank: Bank
    decider: Decider

    @property
    def schema(self) -> RowSchema:
        return self.decider.schema

    def ask(self, customer_id: str = "anna", as_of: datetime = NOW, **more: object) -> Ask:
        return replace(Ask(customer_id, as_of), **more)  # type: ignore[arg-type]

    def with_models(
        self,
        products: tuple[float, ...] | Exception | None = (0.02, 0.01),
        channels: tuple[float, ...] | Exception | None = (0.5, 0.25, 0.1),
        prior: tuple[float, ...] | None = None,
        **more: object,
    ) -> Decider:
        """The decider with these answers of its models (None: no model, an exception: a broken one)."""
        catalog = self.decider.catalog
        return replace(
            self.decider,
            products=self._panel("next-best-product", catalog.product_ids, True, products, prior),
            channels=self._panel("channel-choice", catalog.channel_ids, False, channels, None),
            **more,  # type: ignore[arg-type]
        )

    def _panel(
        self,
        question: str,
        candidates: tuple[str, ...],
        outside: bool,
        says: tuple[float, ...] | Exception | None,
        prior: tuple[float, ...] | None,
    ) -> Panel:
        sources = []
        for name, version, answer in (("champion", "7", says), ("prior", "1", prior)):
            if isinstance(answer, Exception):
                broken = FakeModel(self.schema, (), answer)
                sources.append(Source(name, version, candidates, broken))
            elif answer is not None:
                sources.append(Source(name, version, candidates, FakeModel(self.schema, answer)))
        missing = ("no usable champion",) if says is None else ()
        return Panel(question, candidates, outside, tuple(sources), missing)


@pytest.fixture(scope="session")
def world(home: Home, bank: Bank) -> World:
    build = home.build()
    schema = row_schema(bank)
    none = Panel("", (), False)
    decider = Decider(
        catalog=bank.catalog,
        attributes=bank.attributes,
        customers=OnlineStates(build.online_path, build.views),
        history=RecordedPast(),
        assemble=assemble,
        schema=schema,
        products=none,
        channels=none,
        contents=Contents(bank.catalog),
        policy=Policy(),
        worth=Worth.of(bank.catalog),
        features_version="features",
        catalog_version="catalog",
    )
    world = World(home, bank, decider)
    return replace(world, decider=world.with_models())


@pytest.fixture
def killed_after_five_parts() -> Callable[[str, Path], None]:
    """Start `run(out, Stuck())` of a test module in a process of its own, which never ends, and kill it at 5 parts."""

    def killed(module: str, out: Path) -> None:
        here = Path(__file__).parent
        paths = [str(here), str(here.parents[1])]
        program = f"import sys; sys.path[:0] = {paths!r}; import pathlib, {module} as world; "
        program += f"world.run(pathlib.Path({str(out)!r}), world.Stuck())"
        child = subprocess.Popen([sys.executable, "-c", program])
        try:
            until = time.monotonic() + 120
            while len(list(out.parent.rglob("*.npz"))) < 5:
                assert child.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()

    return killed
