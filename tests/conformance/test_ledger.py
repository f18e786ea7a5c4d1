"""What every ledger promises of decisions and contacts; `conftest.py` names the ledgers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.caps import Cap, CapReached, Contact
from serving.decision import Action, Ask, Candidate, Decision, Reason, Versions
from serving.entries import Entry
from serving.errors import KeyReused, LedgerUnavailable
from serving.events import TimelineEvent
from serving.ledger import Ledger, SqliteLedger

NOW = datetime(2024, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
Open = Callable[[], Ledger]


def decision(decision_id: str, action: Action | None = None) -> Decision:
    candidate = Candidate(action, 1.5)
    return Decision(
        decision_id=decision_id,
        ask=Ask("anna", NOW),
        action=action,
        propensity=0.25,
        value=1.5,
        candidates=(candidate,),
        propensities=(0.25,),
        removed=(),
        reasons=(Reason("explored", "to learn"),),
        degraded=(),
        dropped=0,
        fallback_channels=(),
        versions=Versions({}, "p", "f", "c"),
    )


def test_an_answer_comes_back_as_it_was_given(ledger: Ledger) -> None:
    assert ledger.record(Entry.of(decision("1"), NOW, b"the answer")) == b"the answer"


def test_a_record_can_be_read_and_an_unknown_one_is_none(ledger: Ledger) -> None:
    ledger.record(Entry.of(decision("1", Action("card", "push", "plain", "text")), NOW, b"a"))
    record = json.loads(ledger.get("1") or b"")
    assert (record["decision_id"], record["action"]["product_id"]) == ("1", "card")
    assert record["candidates"][0]["propensity"] == 0.25
    assert ledger.get("2") is None


def test_records_survive_closing(reopen: Open) -> None:
    first = reopen()
    first.record(Entry.of(decision("1"), NOW, b"a", "key", "hash"))
    first.close()
    second = reopen()
    assert second.get("1") is not None
    assert second.recall("key", "hash") == b"a"


def test_the_same_key_and_request_give_the_first_answer_byte_for_byte(ledger: Ledger) -> None:
    assert ledger.record(Entry.of(decision("1"), NOW, b"first", "key", "hash")) == b"first"
    assert ledger.record(Entry.of(decision("2"), NOW, b"second", "key", "hash")) == b"first"
    assert ledger.recall("key", "hash") == b"first"
    assert ledger.get("2") is None, "the second decision must not have been made"


def test_the_same_key_with_another_request_is_refused(ledger: Ledger) -> None:
    ledger.record(Entry.of(decision("1"), NOW, b"first", "key", "hash"))
    with pytest.raises(KeyReused):
        ledger.record(Entry.of(decision("2"), NOW, b"second", "key", "other"))
    with pytest.raises(KeyReused):
        ledger.recall("key", "other")
    assert ledger.get("2") is None
    assert ledger.recall("new", "hash") is None


def test_concurrent_calls_with_one_key_make_one_decision(ledger: Ledger) -> None:
    together = threading.Barrier(16)

    def call(number: int) -> bytes:
        together.wait()
        return ledger.record(Entry.of(decision(str(number)), NOW, f"answer {number}".encode(), "key", "hash"))

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(call, range(16)))
    assert len(answers) == 1
    assert sum(ledger.get(str(number)) is not None for number in range(16)) == 1


def test_a_failed_decision_does_not_take_others_of_its_group_along(ledger: Ledger) -> None:
    ledger.record(Entry.of(decision("0"), NOW, b"a", "key", "hash"))

    def call(number: int) -> bytes | None:
        try:
            return ledger.record(Entry.of(decision(str(number)), NOW, b"a", "key" if number % 2 else None, "other"))
        except KeyReused:
            return None

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, range(1, 65)))
    assert answers == [None if number % 2 else b"a" for number in range(1, 65)]


WEEK = 7 * 86_400 * 1_000_000
AT = 1_717_243_200_000_000
TWICE = Cap("twice-a-week", "overall", None, AT - WEEK, 2)


def contact(decision_id: str, at_us: int = AT, **other: Any) -> Contact:
    given = {"channel": "push", "product_id": "card", "group": "cards", "purpose": "marketing", "expires_us": None}
    return Contact(customer_id="anna", at_us=at_us, decision_id=decision_id, **{**given, **other})


def reserve(ledger: Ledger, wanted: Contact, *caps: Cap, now: datetime = NOW, key: str | None = None) -> bytes:
    answer = wanted.decision_id.encode()
    return ledger.record(Entry.of(decision(wanted.decision_id), now, answer, key, "hash", contact=wanted, caps=caps))


def known(ledger: Ledger, now_us: int = AT) -> list[str]:
    return [found.decision_id for found in ledger.contacts("anna", 0, now_us)]


def test_a_contact_is_reserved_with_its_decision_and_comes_back_unchanged(ledger: Ledger) -> None:
    wanted = contact("1", product_id=None, group=None, expires_us=AT + WEEK)
    reserve(ledger, wanted)
    assert ledger.contacts("anna", AT - 1, AT) == (wanted,)
    assert ledger.contacts("anna", AT, AT) == (), "the window is open at its start"
    assert ledger.contacts("bert", 0, AT) == ()


def test_a_cap_that_is_reached_writes_nothing_and_names_itself(ledger: Ledger) -> None:
    reserve(ledger, contact("1"), TWICE)
    reserve(ledger, contact("2"), TWICE)
    with pytest.raises(CapReached, match="twice-a-week") as caught:
        reserve(ledger, contact("3"), TWICE, key="key")
    assert caught.value.cap == TWICE
    assert ledger.get("3") is None
    assert known(ledger) == ["1", "2"]
    assert ledger.recall("key", "hash") is None, "the key is still free for the next try"
    assert reserve(ledger, contact("4", purpose="service"), TWICE, key="key") == b"4"


def test_a_cap_counts_its_window_and_nothing_older(ledger: Ledger) -> None:
    reserve(ledger, contact("old", AT - WEEK))
    reserve(ledger, contact("older", AT - WEEK - 1))
    reserve(ledger, contact("1"), TWICE)
    reserve(ledger, contact("2"), TWICE)
    with pytest.raises(CapReached):
        reserve(ledger, contact("3"), TWICE)


def test_each_of_several_caps_counts_its_own_window(ledger: Ledger) -> None:
    day = Cap("once-a-day", "overall", None, AT - WEEK // 7, 1)
    reserve(ledger, contact("yesterday", AT - WEEK // 7), TWICE, day)
    reserve(ledger, contact("1"), TWICE, day)
    with pytest.raises(CapReached, match="once-a-day"):
        reserve(ledger, contact("2"), day, TWICE)


@pytest.mark.parametrize(
    ("scope", "value", "other"),
    [
        ("channel", "push", {"channel": "email"}),
        ("product", "card", {"product_id": "loan"}),
        ("group", "cards", {"group": None}),
    ],
)
def test_a_cap_of_one_channel_product_or_group_leaves_the_others_free(
    ledger: Ledger, scope: Any, value: str, other: dict[str, Any]
) -> None:
    cap = Cap("once", scope, value, AT - WEEK, 1)
    reserve(ledger, contact("1", **other), cap)
    reserve(ledger, contact("2"), cap)
    reserve(ledger, contact("3", **other), cap)
    with pytest.raises(CapReached):
        reserve(ledger, contact("4"), cap)


@pytest.mark.parametrize("purpose", ["service", "mandatory"])
def test_messages_of_other_purposes_neither_use_up_a_cap_nor_are_held_back(ledger: Ledger, purpose: str) -> None:
    for number in range(3):
        reserve(ledger, contact(f"other {number}", purpose=purpose), TWICE)
    for number in range(2):
        reserve(ledger, contact(str(number)), TWICE)
    reserve(ledger, contact("last", purpose=purpose), TWICE)
    assert sorted(known(ledger)) == ["0", "1", "last", "other 0", "other 1", "other 2"]


def test_the_first_cap_without_room_is_named(ledger: Ledger) -> None:
    once = Cap("once", "channel", "push", AT - WEEK, 1)
    reserve(ledger, contact("1"))
    with pytest.raises(CapReached, match="once"):
        reserve(ledger, contact("2"), TWICE, once)


def test_a_reservation_lapses_where_nothing_was_sent(ledger: Ledger) -> None:
    now_us = AT + 123_456  # NOW
    once = Cap("once", "overall", None, AT - WEEK, 1)
    reserve(ledger, contact("1", expires_us=now_us + 1), once)
    with pytest.raises(CapReached):
        reserve(ledger, contact("2"), once)
    later = NOW + timedelta(microseconds=1)
    assert (known(ledger, now_us), known(ledger, now_us + 1)) == (["1"], [])
    reserve(ledger, contact("3"), once, now=later)
    assert known(ledger, now_us + 1) == ["3"]


def test_a_known_key_gives_its_answer_even_under_a_cap_that_is_reached_since(ledger: Ledger) -> None:
    once = Cap("once", "overall", None, AT - WEEK, 1)
    reserve(ledger, contact("1"), once, key="key")
    assert reserve(ledger, contact("2"), once, key="key") == b"1"
    assert known(ledger) == ["1"]


def test_seeded_contacts_count_and_seeding_again_changes_nothing(ledger: Ledger) -> None:
    made = [contact("event-1"), contact("event-2"), contact("event-1")]
    ledger.seed(made)
    ledger.seed(iter(made))
    assert known(ledger) == ["event-1", "event-2"]
    with pytest.raises(CapReached):
        reserve(ledger, contact("1"), TWICE)


def test_what_was_sent_makes_its_reservation_lasting(ledger: Ledger) -> None:
    reserve(ledger, contact("1", expires_us=AT + 1))
    ledger.seed([contact("1", AT + 5, channel="email")])
    assert ledger.contacts("anna", 0, AT + WEEK) == (contact("1", AT + 5, channel="email"),)
    ledger.seed([contact("1", expires_us=AT + 1)])
    assert known(ledger, AT + WEEK) == ["1"], "a reservation does not undo what was sent"


def test_contacts_survive_closing(reopen: Open) -> None:
    first = reopen()
    reserve(first, contact("1"))
    first.close()
    assert known(reopen()) == ["1"]


def test_of_many_that_want_the_last_place_one_gets_it_and_the_rest_of_their_group_is_written(ledger: Ledger) -> None:
    together = threading.Barrier(16)

    def call(name: str, week: int, purpose: str) -> bool:
        once = Cap("once", "overall", None, AT + (week - 1) * WEEK, 1)
        together.wait()
        try:
            reserve(ledger, contact(name, AT + week * WEEK, purpose=purpose), once)
        except CapReached:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        for week in range(10):
            names = [f"{week}-{number}" for number in range(16)]
            written = list(pool.map(call, names, [week] * 16, ["marketing", "service"] * 8))
            assert all(written[1::2]), "those without a limit"
            assert sum(written[0::2]) == 1
            assert [ledger.get(name) is not None for name in names] == written


def test_a_closed_ledger_promises_nothing(ledger: Ledger) -> None:
    assert ledger.open
    ledger.close()
    ledger.close()
    assert not ledger.open
    with pytest.raises(LedgerUnavailable):
        ledger.record(Entry.of(decision("1"), NOW, b"a"))
    with pytest.raises(LedgerUnavailable):
        ledger.get("1")


def test_closing_finishes_what_was_accepted(reopen: Open) -> None:
    ledger = reopen()

    def call(number: int) -> str | None:
        try:
            ledger.record(Entry.of(decision(str(number)), NOW, b"a"))
        except LedgerUnavailable:
            return None
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number) for number in range(400)]
        calls[20].result()
        ledger.close()
        kept = [found for found in (one.result() for one in calls) if found]
    again = reopen()
    assert len(kept) >= 1
    assert all(again.get(found) is not None for found in kept)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys, threading
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_ledger import NOW, decision
        from serving.entries import Entry
        from serving.ledger import SqliteLedger
        ledger = SqliteLedger(Path(sys.argv[1]) / "ledger.db")
        def write(worker):
            for number in range(10**9):
                name = f"{worker}-{number}"
                ledger.record(Entry.of(decision(name), NOW, name.encode(), f"key-{name}", "hash"))
                os.write(1, (name + "\\n").encode())
        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
        [thread.start() for thread in threads]
        """
    )
    here = Path(__file__).resolve()
    acknowledged: list[str] = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(here.parent)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(here.parents[2])},
        )
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        seen += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        acknowledged = [*acknowledged, *seen]
        ledger = SqliteLedger(tmp_path / "ledger.db")
        lost = [name for name in set(seen) if ledger.recall(f"key-{name}", "hash") != name.encode()]
        ledger.close()
        (tmp_path / "ledger.db").rename(tmp_path / f"done-{len(acknowledged)}.db")
        assert not lost
    assert len(acknowledged) >= 300


def test_the_decision_is_an_event_on_the_timeline(tmp_path: Path) -> None:
    with_action, without = decision("1", Action("card", "push", "plain", "text")), decision("2")
    ledger = SqliteLedger(tmp_path / "ledger.db")
    for one in (with_action, without):
        ledger.record(Entry.of(one, NOW, b"a"))
    ledger.close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    rows = connection.execute(
        "SELECT event_id, customer_id, event_timestamp, kind, channel, purpose, product_id, content_id, decision_id, "
        "message_id, propensity, value, created_timestamp FROM timeline ORDER BY event_id"
    ).fetchall()
    connection.close()
    micros = 1_717_243_200_123_456
    assert rows == [
        ("decided:1", "anna", micros, "decided", "push", "marketing", "card", "plain", "1", None, 0.25, None, micros),
        ("decided:2", "anna", micros, "decided", None, "marketing", None, None, "2", None, 0.25, None, micros),
    ]


def test_a_ledger_of_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerUnavailable, match="99"):
        SqliteLedger(tmp_path / "ledger.db")


def test_a_closed_ledger_is_one_file(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.record(Entry.of(decision("1"), NOW, b"a"))
    assert ledger.get("1") is not None
    ledger.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db", "ledger.db.lock", "ledger.db.turn"]


BEFORE_EVENTS = """
CREATE TABLE decisions (
    decision_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, recorded_us INTEGER NOT NULL,
    record BLOB NOT NULL, answer BLOB NOT NULL
) STRICT;
CREATE INDEX decisions_of_customer ON decisions (customer_id, recorded_us);
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY, request_hash TEXT NOT NULL, decision_id TEXT NOT NULL REFERENCES decisions
) STRICT;
CREATE TABLE timeline (
    event_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, event_timestamp INTEGER NOT NULL, kind TEXT NOT NULL,
    channel TEXT, purpose TEXT, product_id TEXT, content_id TEXT, decision_id TEXT, message_id TEXT,
    propensity REAL, value REAL, created_timestamp INTEGER NOT NULL
) STRICT;
CREATE TABLE contacts (
    customer_id TEXT NOT NULL, at_us INTEGER NOT NULL, channel TEXT NOT NULL, product_id TEXT, product_group TEXT,
    purpose TEXT NOT NULL, decision_id TEXT PRIMARY KEY, expires_us INTEGER
) STRICT;
CREATE INDEX contacts_of_customer ON contacts (customer_id, at_us);
INSERT INTO timeline VALUES
    ('decided:1', 'anna', 5, 'decided', 'push', 'marketing', 'card', NULL, '1', NULL, 0.5, NULL, 5);
PRAGMA user_version = 2;
"""


def test_a_ledger_from_before_there_were_events_is_brought_up_to_date(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.executescript(BEFORE_EVENTS)
    connection.close()
    ledger = SqliteLedger(tmp_path / "ledger.db", lambda state, events: events[0].event_id.encode())
    ledger.rebase("key", lambda ids: np.zeros(len(ids), dtype=bool))
    assert ledger.known("anna", None, AT).live == b"decided:1"
    assert ledger.append([TimelineEvent("e1", "bert", 5, "clicked", created_us=5)]) == ("accepted",)
    ledger.close()


def test_a_writer_that_cannot_keep_up_refuses_at_once(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db", capacity=2, patience=0.2)
    blocker = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # now the writer waits for this lock

    def call(number: int) -> str:
        try:
            ledger.record(Entry.of(decision(str(number)), NOW, b"a"))
        except LedgerUnavailable as error:
            return str(error)
        return "written"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(8)))
    assert any("keep up" in answer for answer in answers)
    assert "written" not in answers
    blocker.execute("ROLLBACK")
    blocker.close()
    ledger.close()
