"""A server that is killed (SIGKILL) under load, again and again, keeps what it acknowledged, once, as it was.

Small on every run; at full size by `make proof`. Callers do what callers have to do: where no answer came, they send
the same request again, with the same key or the same event ids. In the end everything that was acknowledged is looked
for in the ledger, and every decision is made again from its record.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from served import Caller, Load, Shelf, home_of, under_load

from features.assemble import row_schema
from features.columns import CUSTOMER_ID, Table
from features.home import Home
from serving.choice import ChoiceModel
from serving.launch import Server, environment, free_port
from serving.opening import open_serving
from serving.packed_record import unpacked
from serving.registry import CHANNEL_MODEL, PRODUCT_MODEL
from serving.replay import replay
from serving.settings import Settings

CALLERS = 4
SOON = 240.0
EVENTS = (("visited", "app_push"), ("clicked", "email"), ("delivered", "sms"))
"""What the events say: kind and channel."""

full = (pytest.mark.proof, pytest.mark.timeout(7200))


@dataclass
class World:
    """A home with a registry, and what is asked of it."""

    home: Home
    settings: Settings
    customers: list[str]
    start: datetime


@dataclass
class Promised:
    """What the server acknowledged: the answer by key, and the status that each event was given first."""

    answers: dict[str, bytes] = field(default_factory=dict)
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    first: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def world(simulated_bank: Path, tmp_path: Path, model_of: Callable[..., ChoiceModel]) -> World:
    home, shelf = home_of(simulated_bank, tmp_path / "home"), Shelf(tmp_path)
    bank = home.build().bank
    for name in (PRODUCT_MODEL, CHANNEL_MODEL):
        model_of(row_schema(bank), "lightgbm", 1, name).save(tmp_path / name)
        shelf.move(name, shelf.put(name, tmp_path / name))
    customers = bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()
    return World(home, Settings(home.root, shelf.uri), customers, home.build().data_end + timedelta(days=7))


def asking(world: World, promised: Promised) -> Callable[[Caller, int, Load], None]:
    """One turn of a caller: a decision and three events, each sent until it is acknowledged."""

    def until_answered(caller: Caller, load: Load, *request: Any) -> tuple[int, bytes]:
        while True:
            try:
                status, body = caller(*request)
                if status != 503:
                    return status, body
            except (OSError, HTTPException):
                caller.close()
            load.did("sent again", True)
            time.sleep(0.05)

    def ask(caller: Caller, number: int, load: Load) -> None:
        at = (world.start + timedelta(minutes=number)).isoformat()
        customer, key = world.customers[number % len(world.customers)], f"key-{number}"
        question = {"customer_id": customer, "as_of": at}
        status, answer = until_answered(caller, load, "POST", "/v1/decide", question, {"idempotency-key": key})
        load.did("decide", status == 200, answer)
        events = [
            {
                "event_id": f"{key}-{kind}",
                "customer_id": customer,
                "event_timestamp": at,
                "kind": kind,
                "channel": channel,
            }
            for kind, channel in EVENTS
        ]
        status, body = until_answered(caller, load, "POST", "/v1/events", {"events": events})
        statuses = [result["status"] for result in json.loads(body).get("results", [])]
        load.did("events", status == 202 and set(statuses) <= {"accepted", "duplicate"}, body)
        with load.lock:
            promised.questions[key], promised.answers[key] = question, answer
            promised.events |= {event["event_id"]: event for event in events}
            promised.first.update(statuses)

    return ask


def check_again(url: str, promised: Promised, keys: list[str]) -> None:
    """Whoever sends again what was acknowledged gets the same answer, and no event is taken twice."""
    caller = Caller(url)
    for key in keys:
        again = caller("POST", "/v1/decide", promised.questions[key], {"idempotency-key": key})
        assert again == (200, promised.answers[key])
        events = [promised.events[f"{key}-{kind}"] for kind, _ in EVENTS]
        status, body = caller("POST", "/v1/events", {"events": events})
        assert status == 202, body
        assert [result["status"] for result in json.loads(body)["results"]] == ["duplicate"] * len(EVENTS)
    caller.close()


def check_ledger(world: World, promised: Promised) -> int:
    """Everything acknowledged is there, once, and nothing else; how many decisions were made again, all equal."""
    with closing(sqlite3.connect(world.home.ledger_path)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = "SELECT key, answer FROM idempotency JOIN decisions USING (decision_id)"
        assert dict(ledger.execute(query)) == promised.answers
        (decisions,) = ledger.execute("SELECT count(*) FROM decisions").fetchone()
        assert decisions == len(promised.answers), "decided twice for one key"
        written = Counter(row[0] for row in ledger.execute("SELECT event_id FROM timeline WHERE kind <> 'decided'"))
        assert written == Counter(promised.events.keys())
        decided = [row[0] for row in ledger.execute("SELECT decision_id FROM timeline WHERE kind = 'decided'")]
        assert sorted(decided) == sorted(json.loads(answer)["decision_id"] for answer in promised.answers.values())
        contacted = {json.loads(a)["decision_id"] for a in promised.answers.values() if json.loads(a)["action"]}
        ours = "SELECT decision_id FROM contacts WHERE decision_id IN (SELECT decision_id FROM decisions)"
        assert {row[0] for row in ledger.execute(ours)} == contacted, "caps count each contact, and nothing else"
        records = [unpacked(row[0]) for row in ledger.execute("SELECT record FROM decisions")]
    serving = open_serving(world.settings)
    try:
        outcomes = [replay(record, serving.decider) for record in records]
    finally:
        serving.ledger.close()
    forced = sum(bool(orjson.loads(record)["forced"]) for record in records)
    assert [outcome for outcome in outcomes if outcome.replayed and not outcome.equal] == []
    assert sum(outcome.replayed for outcome in outcomes) == len(records) - forced
    return len(records)


@contextmanager
def forking(settings: Settings, port: int) -> Iterator[subprocess.Popen[str]]:
    """The process that starts servers; see `forked_server`."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forked_server.py")), str(port)],
        env={**environment(settings, os.environ), "PYTHONPATH": str(root), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start(starter: subprocess.Popen[str]) -> int:
    """The process number of a server that is starting."""
    assert starter.stdin is not None
    assert starter.stdout is not None
    starter.stdin.write("start\n")
    starter.stdin.flush()
    return int(starter.stdout.readline())


def end(starter: subprocess.Popen[str], server: int, how: signal.Signals) -> None:
    """End it, and wait until it is gone."""
    assert starter.stdout is not None
    os.kill(server, how)
    assert starter.stdout.readline() == "gone\n"


def wait_ready(url: str) -> None:
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        caller = Caller(url)
        try:
            if caller("GET", "/readyz")[0] == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            caller.close()
        time.sleep(0.05)
    raise AssertionError("the server is not ready in time")


@pytest.mark.parametrize("kills", [pytest.param(3, id="small"), pytest.param(200, id="full", marks=full)])
def test_what_was_acknowledged_survives_being_killed_under_load(world: World, kills: int) -> None:
    draw, promised, port = random.Random(7), Promised(), free_port()
    url, checked = f"http://127.0.0.1:{port}", 0
    started = time.monotonic()
    with forking(world.settings, port) as starter:
        server = start(starter)
        with under_load(url, CALLERS, 0.0, asking(world, promised)) as load:
            for number in range(kills):
                if number % 10 != 9:  # every tenth is killed while it still opens
                    wait_ready(url)
                    with load.lock:
                        keys = list(promised.answers)
                    some = keys[-20:] + draw.sample(keys, min(10, len(keys)))
                    check_again(url, promised, some)
                    checked += len(some)
                time.sleep(draw.uniform(0.0, 1.0))
                end(starter, server, signal.SIGKILL)
                server = start(starter)
            wait_ready(url)
        end(starter, server, signal.SIGTERM)
    assert load.wrong == []
    assert load.counts["sent again"] > kills, "they were killed while they were asked"
    replayed = check_ledger(world, promised)
    assert promised.first["accepted"] <= len(promised.events)
    print(
        f"{kills} kills in {time.monotonic() - started:.0f} s: {replayed} decisions and {len(promised.events)} events "
        f"acknowledged, {checked} asked for again, {replayed} made again; {dict(load.counts)}, {dict(promised.first)}"
    )


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_the_whole_server_killed_with_its_supervisor_keeps_what_it_acknowledged(world: World, tmp_path: Path) -> None:
    """The same with BentoML, all of its processes at once, as when the machine's power goes."""
    promised, port = Promised(), free_port()
    url = f"http://127.0.0.1:{port}"
    with under_load(url, CALLERS, 0.0, asking(world, promised)) as load:
        for _ in range(5):
            server = Server(world.settings, port=port, output=tmp_path / "log")
            server.wait_ready(SOON)
            check_again(url, promised, list(promised.answers)[-30:])
            time.sleep(1.0)
            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            for process in family:
                process.kill()
            server.wait()
            psutil.wait_procs(family, timeout=30)
        server = Server(world.settings, port=port, output=tmp_path / "log")
        server.wait_ready(SOON)
    assert server.stop() == 0
    assert load.wrong == []
    print(f"5 kills of the whole server: {check_ledger(world, promised)} decisions kept; {dict(load.counts)}")
