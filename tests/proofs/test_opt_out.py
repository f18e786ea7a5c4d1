"""After an opt-out was acknowledged by one worker, no decision of any worker contacts the customer to sell something.

Each pair takes a customer of its own: a decision, which contacts them, then an opt-out with another decision in flight
beside it, and, as soon as the opt-out is acknowledged, decisions that any worker may answer. What was written to the
ledger has to agree with what was answered.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from features.catalog import Catalog, Channel, Product
from features.columns import Table
from features.home import Build, Home
from features.importing import make_bank, write_bank
from features.packed import OnlineStates, define
from features.schema import Attribute
from features.tables import arrow_schema
from features.views import state_tables, views
from serving.api import create_app
from serving.launch import Server, free_port
from serving.ledger import open_ledger
from serving.opening import Opening, open_serving
from serving.settings import Settings

START = datetime(2024, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    "EUR",
    "UTC",
    (Product("loan", "Loan", margin=400.0),),
    (Channel("push", "App push", "outbound", 0.01), Channel("email", "E-mail", "outbound", 0.01)),
)
Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Posts a body to a path of whichever worker gets it."""


@dataclass(frozen=True)
class Size:
    pairs: int
    workers: int
    callers: int


SMALL = Size(pairs=40, workers=2, callers=4)
FULL = Size(pairs=10_000, workers=4, callers=8)


def make_home(folder: Path, customers: int) -> Home:
    """Features of that many customers without history, made without Feast."""
    attributes = (Attribute("age", "number"),)
    columns = {"customer_id": [f"c{n}" for n in range(customers)], "event_timestamp": [START] * customers}
    table = pa.table({**columns, "age": [40.0] * customers}, schema=arrow_schema(Table.CUSTOMERS, attributes))
    bank = make_bank(CATALOG, {Table.CUSTOMERS: table}, attributes)
    home = Home(folder / "home")
    build = Build(home.builds / "one", "f" * 64, views(CATALOG, attributes), START)
    write_bank(bank, build.bank_folder)
    define(build.online_path, build.views)
    for view, states in state_tables(bank):
        OnlineStates(build.online_path, build.views).write(view, states)
    build.mark_complete()
    home.use(build)
    return home


def pair(call: Call, number: int) -> Counter[str]:
    """One customer's decisions and opt-out: what was contacted before, beside and after the acknowledgement."""
    customer = {"customer_id": f"c{number}"}
    found: Counter[str] = Counter()

    def decide(when: str) -> None:
        answer = call("/v1/decide", customer)
        found[when] += answer["action"] is not None

    decide("before")
    beside = threading.Thread(target=decide, args=("beside",))
    beside.start()
    out = {**customer, "event_id": f"out-{number}", "kind": "opted_out", "purpose": "marketing"}
    moment = datetime.now(UTC).isoformat()
    answer = call("/v1/events", {"events": [{**out, "event_timestamp": moment}]})
    assert answer["results"][0]["status"] == "accepted"
    decide("after")
    beside.join()
    decide("after")
    return found


def run(call: Call, size: Size, what: str) -> Counter[str]:
    started = time.monotonic()
    with ThreadPoolExecutor(size.callers) as pool:
        found = sum(pool.map(lambda number: pair(call, number), range(size.pairs)), Counter())
    print(f"{what}: {size}, {dict(found)} contacts, {time.monotonic() - started:.0f} s")
    return found


def recorded(settings: Settings, customers: int) -> int:
    """Contacts in the ledger."""
    ledger = open_ledger(settings.ledger_url, Home(settings.home).ledger_path)
    try:
        return sum(len(ledger.contacts(f"c{number}", 0, 0)) for number in range(customers))
    finally:
        ledger.close()


def assert_nobody_contacted_after(found: Counter[str], settings: Settings, size: Size) -> None:
    assert found["after"] == 0
    assert found["before"] > 0.9 * size.pairs, "the opt-out was put to the test"
    assert recorded(settings, size.pairs) == found["before"] + found["beside"]


@contextmanager
def apps(settings: Settings, workers: int) -> Iterator[Call]:
    """The app several times in this process, each with a ledger of its own; calls go to them in turn."""
    turns = iter(range(10**9))
    with ExitStack() as stack:
        clients = []
        for _ in range(workers):
            opening = Opening(lambda: open_serving(settings), retry_seconds=0.1)
            app = create_app(opening, lambda: datetime.now(UTC), lambda: f"{next(ids):032x}")
            clients.append(stack.enter_context(TestClient(app)))
        for client in clients:
            until = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < until, client.get("/readyz").text
                time.sleep(0.02)

        def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
            response = clients[next(turns) % workers].post(path, json=body)
            assert response.status_code in (200, 202), response.text
            return response.json()

        ids = iter(range(10**9))
        yield call


@contextmanager
def server(settings: Settings, workers: int, output: Path) -> Iterator[Call]:
    """The real server; every call is a new connection, which any worker may take."""
    with Server(settings, port=free_port(), workers=workers, output=output) as running:
        running.wait_ready(240)
        host, port = running.url.removeprefix("http://").split(":")

        def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                assert response.status in (200, 202), answer
                return dict(json.loads(answer))
            finally:
                connection.close()

        yield call


def settings_of(home: Home, url: str = "") -> Settings:
    return Settings(home.root, f"sqlite:///{home.root}/none/mlflow.db", epsilon=0.0, ledger_url=url, reload_seconds=0.0)


def test_workers_on_postgres_contact_nobody_who_has_opted_out(tmp_path: Path, postgres_url: str) -> None:
    settings = settings_of(make_home(tmp_path, SMALL.pairs), postgres_url)
    with apps(settings, SMALL.workers) as call:
        found = run(call, SMALL, "apps on PostgreSQL")
    assert_nobody_contacted_after(found, settings, SMALL)


def test_workers_on_sqlite_contact_nobody_who_has_opted_out(tmp_path: Path) -> None:
    settings = settings_of(make_home(tmp_path, SMALL.pairs))
    with apps(settings, SMALL.workers) as call:
        found = run(call, SMALL, "apps on SQLite")
    assert_nobody_contacted_after(found, settings, SMALL)


def test_threads_on_sqlite_contact_nobody_who_has_opted_out(tmp_path: Path) -> None:
    settings = settings_of(make_home(tmp_path, SMALL.pairs))
    with apps(settings, 1) as call:
        found = run(call, replace(SMALL, workers=1), "one app on SQLite")
    assert_nobody_contacted_after(found, settings, SMALL)


@pytest.mark.proof
@pytest.mark.timeout(7_200)
def test_ten_thousand_pairs_over_the_workers_of_a_server_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    settings = settings_of(make_home(tmp_path, FULL.pairs), postgres_url)
    with server(settings, FULL.workers, tmp_path / "log") as call:
        found = run(call, FULL, "the server on PostgreSQL")
    assert_nobody_contacted_after(found, settings, FULL)


@pytest.mark.proof
@pytest.mark.timeout(7_200)
def test_ten_thousand_pairs_over_the_workers_of_a_server_on_sqlite(tmp_path: Path) -> None:
    settings = settings_of(make_home(tmp_path, FULL.pairs))
    with server(settings, FULL.workers, tmp_path / "log") as call:
        found = run(call, FULL, "the server on SQLite")
    assert_nobody_contacted_after(found, settings, FULL)
