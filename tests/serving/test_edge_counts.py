"""What a decision costs at the edge, counted and not timed: statements, commits, threads that wait, bytes."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from features.schema import State
from serving.api import create_app
from serving.caps import Cap, Contact
from serving.decision import Action, Candidate, Decision
from serving.desk import Desk
from serving.entries import Entry, Soon
from serving.errors import LedgerUnavailable
from serving.group_commit import Writer
from serving.history import Known
from serving.opening import Opening, Serving
from serving.packed_record import BEFORE, FORM, packed, unpacked
from serving.readers import Readers
from serving.recorded import pack
from serving.sqlite_decisions import write
from serving.sqlite_events import known
from serving.sqlite_tables import connect
from serving.turns import Turns

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CLOCK = datetime(2024, 6, 1, 12, tzinfo=UTC)
TOGETHER = 6


@pytest.fixture
def decision(world: World) -> Decision:
    """Anna's, to be contacted, with two caps."""
    made = world.decider.decide(world.ask(), "0" * 32)
    contact = Contact("anna", 1, "push", "card", None, "marketing", made.decision_id, 2)
    caps = (Cap("week", "overall", None, 0, 9), Cap("day", "channel", "push", 0, 9))
    return replace(made, contact=contact, caps=caps)


def test_decisions_that_share_a_transaction_are_one_question_and_a_row_per_table_in_one_statement(
    decision: Decision, tmp_path: Path
) -> None:
    """However many they are, and however many caps they have."""
    for count in (1, TOGETHER):
        with closing(connect(tmp_path / f"{count}.db")) as connection:
            statements: list[str] = []
            connection.set_trace_callback(statements.append)
            outcomes = write(connection, [named(decision, str(at)) for at in range(count)], state, None)
            connection.set_trace_callback(None)
            assert connection.execute("SELECT count(*) FROM contacts").fetchone() == (count,)
        assert outcomes == [b"{}"] * count
        assert [statement.split()[0] for statement in statements] == ["SELECT"] + ["INSERT"] * 4


def named(decision: Decision, name: str) -> Entry:
    assert decision.contact
    mine = decision.contact._replace(decision_id=name)
    made = replace(decision, decision_id=name)
    return Entry.of(made, CLOCK, b"{}", contact=mine, caps=decision.caps, consent_version=0)


def state(before: bytes | None, events: Sequence[Any]) -> bytes:
    return (before or b"") + b"."


def test_all_that_a_decision_has_to_know_of_a_customer_is_one_statement(tmp_path: Path) -> None:
    connect(tmp_path / "ledger.db").close()
    statements: list[str] = []

    def asked(connection: sqlite3.Connection) -> Known:
        connection.set_trace_callback(statements.append)
        return known(connection, "anna", 0, 1, {}, None)

    readers = Readers(tmp_path / "ledger.db")
    assert readers.ask(asked) == Known()
    readers.close()
    assert len(statements) == 1


def nothing() -> None:
    """A disk that has everything at once."""


def test_whoever_waits_while_the_disk_is_busy_shares_one_commit(tmp_path: Path) -> None:
    statements: list[str] = []
    begun, gate = threading.Event(), threading.Event()

    def block(_: sqlite3.Connection) -> None:
        begun.set()
        gate.wait(10)

    def traced() -> sqlite3.Connection:
        connection = connect(tmp_path / "ledger.db")
        connection.set_trace_callback(statements.append)
        return connection

    def together(_: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
        return items

    writer = Writer(traced, together, Turns(tmp_path / "ledger.db"), nothing, capacity=100, patience=10.0)
    busy = writer.begin(block)
    assert begun.wait(10)  # else others could still join its transaction
    waiting = [writer.begin_item(number) for number in range(50)]
    gate.set()
    assert [done.result(10) for done in (busy, *waiting)] == [None, *range(50)]
    committed = statements.count("COMMIT")  # closing commits once more, nothing
    writer.close()
    assert committed == 2, "one for the first, one for all that came meanwhile"
    assert statements.count("SAVEPOINT request") == 1, "what checks before it writes needs none"


def test_a_group_that_fails_writes_nothing_and_the_next_one_is_written(tmp_path: Path) -> None:
    def together(connection: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
        for item in items:
            connection.execute("INSERT INTO facts VALUES (?, 'told')", (item,))
        return items

    def told(connection: sqlite3.Connection) -> list[str]:
        return [name for (name,) in connection.execute("SELECT name FROM facts")]

    turns, path = Turns(tmp_path / "ledger.db"), tmp_path / "ledger.db"
    writer = Writer(lambda: connect(path), together, turns, nothing, capacity=9, patience=10.0)
    assert writer.begin_item("once").result(10) == "once"
    with pytest.raises(LedgerUnavailable, match="UNIQUE"):
        writer.begin_item("once").result(10)
    assert writer.begin_item("another").result(10) == "another"
    assert writer.submit(told) == ["another", "once"]
    writer.close()


@dataclass
class Slow:
    """A ledger whose disk is done when `TOGETHER` decisions wait for it."""

    open: bool = True
    begun: list[tuple[Entry, Future[bytes]]] = field(default_factory=list)

    def recall(self, key: str, request_hash: str) -> bytes | None:
        return None

    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        self.begun.append((entry, Future()))
        if len(self.begun) == TOGETHER:
            for waiting, done in self.begun:
                done.set_result(waiting.answer)
        return self.begun[-1][1]

    def close(self) -> None:
        self.open = False


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """One thread that works, over a slow disk."""
    numbers = iter(range(100))
    opening = Opening(lambda: Serving(world.decider, Slow()), retry_seconds=0.01)  # type: ignore[arg-type]
    with TestClient(create_app(opening, lambda: CLOCK, lambda: f"{next(numbers):032x}", in_flight=1)) as made:
        while opening.reasons:
            threading.Event().wait(0.01)
        yield made


def test_no_thread_waits_for_the_disk_so_that_one_is_enough_for_all_who_share_a_commit(client: TestClient) -> None:
    with ThreadPoolExecutor(TOGETHER) as callers:
        calls = [callers.submit(client.post, "/v1/decide", json={"customer_id": "anna"}) for _ in range(TOGETHER)]
        answers = [call.result(20) for call in calls]
    assert [answer.status_code for answer in answers] == [200] * TOGETHER
    assert len({answer.json()["decision_id"] for answer in answers}) == TOGETHER


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_decision_that_waits_for_nobody_changes_no_thread(world: World, at_hand: bool) -> None:
    where: list[tuple[bool, bool]] = []

    class Told(Slow):
        def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
            where.append((threading.current_thread().name.startswith("desk"), soon is not None))
            done: Future[bytes] = Future()
            done.set_result(entry.answer)
            return done

    serving = Serving(world.decider, Told(), at_hand=at_hand)  # type: ignore[arg-type]
    opening = Opening(lambda: serving, retry_seconds=0.01)
    with TestClient(create_app(opening, lambda: CLOCK, lambda: "0" * 32)) as client:
        while opening.reasons:
            threading.Event().wait(0.01)
        assert client.post("/v1/decide", json={"customer_id": "anna"}).status_code == 200
    assert where == [(not at_hand, at_hand)]


def test_what_nobody_waits_for_any_more_is_withdrawn_where_it_was_not_begun() -> None:
    pending: Future[bytes] = Future()

    async def impatient() -> None:
        desk = Desk(1, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await desk.durable(lambda: pending)
        desk.close()

    asyncio.run(impatient())
    assert pending.cancelled()


def test_who_is_gone_before_their_turn_is_not_decided_for() -> None:
    begun: list[str] = []
    gate = threading.Event()

    def job(name: str) -> Future[bytes]:
        begun.append(name)
        gate.wait(10)
        return Future()

    async def leave() -> None:
        desk = Desk(1, 9)
        calls = [asyncio.create_task(desk.durable(partial(job, name))) for name in ("first", "gone", "last")]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.sleep(0)
        gate.set()
        while "last" not in begun:
            await asyncio.sleep(0.001)
        for call in calls:
            call.cancel()
        desk.close()

    asyncio.run(leave())
    assert begun == ["first", "last"]


def test_what_became_durable_together_wakes_the_event_loop_once() -> None:
    begun: list[Future[bytes]] = [Future() for _ in range(50)]
    woken: list[object] = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            woken.append(callback)
            return super().call_soon_threadsafe(callback, *args, context=context)

    async def all_of_them() -> list[bytes]:
        desk, rest = Desk(1, 99), iter(begun)
        waiting = asyncio.gather(*(desk.durable(lambda: next(rest)) for _ in begun))
        await asyncio.sleep(0)
        await desk.work(lambda: None)  # the one thread has begun all that came before
        woken.clear()
        writer = threading.Thread(target=lambda: [done.set_result(b"a") for done in begun])
        writer.start()
        writer.join()  # the loop is not looking meanwhile
        answers = await waiting
        assert len(woken) == 1
        desk.close()
        return answers

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(all_of_them()) == [b"a"] * 50


def whole(decision: Decision) -> bytes:
    return orjson.dumps({**decision.record(), "recorded_at": CLOCK})


def test_a_record_comes_back_byte_for_byte_and_takes_a_seventh_of_the_room(decision: Decision, world: World) -> None:
    many = tuple(
        Candidate(Action(f"p{n // 24}", f"c{n % 8}", f"t{n % 24}", "words"), n / 7, {"score": n / 3, "cost": 0.25})
        for n in range(240)
    )
    crowd = replace(decision, candidates=(*many, Candidate(None, 0.0)), propensities=(1 / 241,) * 241)
    silent = world.decider.decide(world.ask("silent"), "1" * 32)
    for one in (decision, silent, crowd):
        assert packed(one, CLOCK).startswith(FORM)
        assert unpacked(packed(one, CLOCK)) == whole(one)
    assert len(packed(crowd, CLOCK)) < len(whole(crowd)) / 7


@pytest.mark.parametrize("factors", [{"score": 1}, {"another": 0.5}])
def test_a_decision_that_does_not_fit_into_columns_is_written_whole(
    decision: Decision, factors: dict[str, float]
) -> None:
    action = Action("card", "push", None, None)
    odd = (Candidate(action, 1.0, {"score": 0.5}), Candidate(action, 1.0, factors))
    given = replace(decision, candidates=odd, propensities=(0.5, 0.5))
    assert not packed(given, CLOCK).startswith(FORM)
    assert unpacked(packed(given, CLOCK)) == whole(given)


def test_records_of_earlier_versions_are_read_as_they_always_were(decision: Decision) -> None:
    assert unpacked(zlib.compress(whole(decision), 1)) == whole(decision)
    document = orjson.loads(whole(decision))
    numbers = np.array([[one["value"], one["propensity"]] for one in document["candidates"]]).T
    factors = [list(one["factors"].values()) for one in document["candidates"] if one["factors"]]
    document["candidates"] = {
        **{name: [one[name] for one in document["candidates"]] for name in ("product_id", "channel", "content_id")},
        "factors": list(next(one["factors"] for one in document["candidates"] if one["factors"])),
        "without": [place for place, one in enumerate(document["candidates"]) if not one["factors"]],
    }
    text = orjson.dumps(document)  # the features' numbers among it, as base64
    plain = len(text).to_bytes(4, "little") + text + numbers.tobytes() + np.array(factors).T.tobytes()
    before = BEFORE + len(plain).to_bytes(4, "little") + pa.compress(plain, codec="zstd", asbytes=True)
    assert unpacked(before) == whole(decision)


def test_a_record_without_features_comes_back_without_any(decision: Decision) -> None:
    none = replace(decision, features=None)
    assert unpacked(packed(none, CLOCK)) == whole(none)


def test_a_record_keeps_its_features_to_the_last_bit(decision: Decision) -> None:
    assert decision.features
    odd = np.array([[-0.0, np.nan, 5e-324, -np.inf, 1 / 3]])
    odd.view(np.uint64)[0, 1] |= 5  # a missing number of its own
    kept = {**decision.features, "market": State(np.array([1e9 + 1e-6]), odd, np.empty((1, 0), dtype=object))}
    written = orjson.loads(unpacked(packed(replace(decision, features=kept), CLOCK)))["features"]
    assert written == orjson.loads(orjson.dumps(pack(kept)))
    assert base64.b64decode(written["market"]["numbers"]) == odd.tobytes()


def test_the_names_of_other_candidates_are_never_taken_for_these(world: World) -> None:
    everything, push_only = (
        world.decider.decide(world.ask(), "0"),
        world.decider.decide(world.ask(channels=("push",)), "0"),
    )
    for one in (everything, push_only, everything):
        assert unpacked(packed(one, CLOCK)) == whole(one)
