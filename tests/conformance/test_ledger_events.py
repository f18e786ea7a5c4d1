"""What every ledger promises of events: written once, in any order, and known to the next decision."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from serving.caps import Cap, CapReached, ConsentChanged, Contact
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.entries import Entry
from serving.errors import LedgerUnavailable
from serving.events import AHEAD_US, TimelineEvent
from serving.history import Known, Response
from serving.ledger import Ledger

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
AT = 1_717_243_200_000_000
"""NOW in microseconds."""
HOUR = 3_600_000_000
Open = Callable[[], Ledger]


def event(event_id: str, kind: str = "clicked", **other: Any) -> TimelineEvent:
    return replace(TimelineEvent(event_id, "anna", AT - HOUR, kind, created_us=AT), **other)


def decision(decision_id: str, product: str | None = "card", as_of: datetime = NOW) -> Decision:
    action = Action(product, "push", None, None) if product else None
    candidates, versions = (Candidate(action, 1.0),), Versions({}, "p", "f", "c")
    return Decision(decision_id, Ask("anna", as_of), action, 0.5, 1.0, candidates, (0.5,), (), (), (), 0, (), versions)


def reservation(decision_id: str, expires_us: int | None = AT + HOUR) -> Contact:
    return Contact("anna", AT, "push", "card", "cards", "marketing", decision_id, expires_us)


def decide(ledger: Ledger, decision_id: str, **more: Any) -> None:
    ledger.record(Entry.of(decision(decision_id), NOW, b"a", contact=reservation(decision_id), **more))


def known(ledger: Ledger, customer_id: str = "anna", now_us: int = AT) -> Known:
    return ledger.known(customer_id, 0, now_us)


def live(ledger: Ledger, customer_id: str = "anna") -> list[str]:
    """The events that the live state is made of, as the suite's fold shows them."""
    state = known(ledger, customer_id).live
    return [] if state is None else json.loads(state)


def nothing_imported(event_ids: Sequence[str]) -> Any:
    return np.zeros(len(event_ids), dtype=bool)


def test_an_event_comes_back_as_it_was_given_and_counts_at_once(ledger: Ledger) -> None:
    full = TimelineEvent(
        "e1", "anna", AT - HOUR, "converted", "push", "service", "card", "plain", "d1", "m1", 0.25, -3.5, AT
    )
    assert ledger.append([full, event("e2", customer_id="bert")]) == ("accepted", "accepted")
    assert ledger.timeline("anna", AT, None, 10) == (full,)
    assert (live(ledger), live(ledger, "bert"), live(ledger, "carl")) == (["e1"], ["e2"], [])
    assert ledger.append([]) == ()


def test_the_same_event_again_is_a_duplicate_and_counts_once(ledger: Ledger) -> None:
    once = event("e1", channel="push", value=1.0)
    assert ledger.append([once, once]) == ("accepted", "duplicate")
    later = replace(once, created_us=AT + HOUR)
    assert ledger.append([later, event("e2")]) == ("duplicate", "accepted")
    assert live(ledger) == ["e1", "e2"]
    assert ledger.timeline("anna", AT, None, 10)[-1].created_us == AT, "the first receipt counts"


@pytest.mark.parametrize(
    "change",
    [
        {"customer_id": "bert"},
        {"at_us": AT - HOUR + 1},
        {"kind": "opened"},
        {"channel": None},
        {"purpose": "service"},
        {"product_id": "loan"},
        {"content_id": "plain"},
        {"decision_id": "d"},
        {"message_id": "m"},
        {"propensity": 0.5},
        {"value": 0.0},
    ],
)
def test_another_event_under_a_name_that_is_taken_is_a_conflict_and_changes_nothing(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    first = event("e1", channel="push")
    assert ledger.append([first]) == ("accepted",)
    other = replace(first, **change)
    assert ledger.append([other, event("e2", customer_id="carl"), other]) == ("conflict", "accepted", "conflict")
    assert ledger.append([event("e3", value=1.0), event("e3", value=2.0)]) == ("accepted", "conflict")
    assert live(ledger) == ["e1", "e3"]
    assert live(ledger, "bert") == []


def test_an_event_that_was_ahead_of_our_clock_is_the_same_when_it_comes_again(ledger: Ledger) -> None:
    ahead = event("e1", at_us=AT, created_us=AT)  # it said AT + 3 minutes, and was taken as now
    assert ledger.append([ahead]) == ("accepted",)
    again = replace(ahead, at_us=AT + AHEAD_US, created_us=AT + HOUR)
    assert ledger.append([again]) == ("duplicate",)
    assert ledger.append([replace(again, at_us=AT + AHEAD_US + 1)]) == ("conflict",)
    assert ledger.append([replace(again, at_us=AT - 1)]) == ("conflict",)


def test_a_timeline_is_read_newest_first_page_by_page_up_to_a_moment(ledger: Ledger) -> None:
    made = [event(f"e{n:02}", "visited", at_us=AT + n // 3) for n in range(20)]
    ledger.append([*made[::2], event("other", customer_id="bert")])
    ledger.append(made[1::2])
    ledger.append([event("Ä", "clicked", at_us=AT), event("Z", "clicked", at_us=AT), event("a", "clicked", at_us=AT)])
    pages: list[TimelineEvent] = []
    while block := ledger.timeline("anna", AT + 4, pages[-1].order if pages else None, 4):
        pages += block
    assert len(ledger.timeline("anna", AT + 4, None, 4)) == 4
    assert [one.order for one in pages] == sorted((one.order for one in pages), reverse=True), "in the order of bytes"
    assert {one.event_id for one in pages} == {f"e{n:02}" for n in range(15)} | {"Ä", "Z", "a"}
    assert [one.event_id for one in ledger.timeline("anna", AT + 99, None, 9, ["clicked"])] == ["Ä", "a", "Z"]
    assert ledger.timeline("anna", AT + 99, None, 9, []) == ()


def test_negative_responses_are_known_in_order_of_time_up_to_the_moment(ledger: Ledger) -> None:
    ledger.append(
        [
            event("late", "complained", at_us=AT + 1),
            event("second", "opted_out", channel="push", at_us=AT),
            event("first", "failed", product_id="card", at_us=AT - 5),
            event("no", "opted_in"),
        ]
    )
    found = known(ledger).responses
    assert found == (
        Response(AT - 5, "failed", None, "card", "cards"),
        Response(AT, "opted_out", "push", None, None),
    )
    assert [response.event_id for response in found] == ["first", "second"]
    assert len(known(ledger, now_us=AT + 1).responses) == 3


def test_contacts_are_known_only_where_they_are_wanted(ledger: Ledger) -> None:
    decide(ledger, "d1")
    assert ledger.known("anna", 0, AT).contacts == (reservation("d1"),)
    assert ledger.known("anna", None, AT).contacts == ()
    assert ledger.known("anna", AT, AT).contacts == (), "the window is open at its start"


@pytest.mark.parametrize("kind", ["opted_out", "opted_in", "complained"])
def test_no_contact_is_made_on_consent_that_has_changed_since_it_was_read(ledger: Ledger, kind: str) -> None:
    before = known(ledger).consent_version
    ledger.append([event("e1", kind)])
    with pytest.raises(ConsentChanged):
        decide(ledger, "d1", consent_version=before, key="key")
    assert ledger.get("d1") is None
    assert (known(ledger).contacts, ledger.recall("key", "")) == ((), None)
    decide(ledger, "d2", consent_version=known(ledger).consent_version)
    decide(ledger, "d3")
    ledger.record(
        Entry.of(decision("d4", None), NOW, b"a", consent_version=before)
    )  # no contact, so nothing to prevent
    assert [contact.decision_id for contact in known(ledger).contacts] == ["d2", "d3"]


def test_only_consent_and_complaints_make_a_decision_out_of_date(ledger: Ledger) -> None:
    ledger.append([event("e0", "opted_out")])
    before = known(ledger).consent_version
    ledger.append([event(kind, kind) for kind in ("clicked", "sent", "failed", "converted", "visited")])
    ledger.append([event("e0", "opted_out"), event("e9", "opted_out", customer_id="bert")])
    assert known(ledger).consent_version == before
    decide(ledger, "d1", consent_version=before)


def test_a_decision_about_a_product_enters_the_live_state_with_its_record(ledger: Ledger) -> None:
    decide(ledger, "d1")
    ledger.record(Entry.of(decision("d2", None), NOW, b"a"))
    ledger.record(Entry.of(decision("d3", as_of=NOW + timedelta(days=9)), NOW, b"a"))
    once = Cap("once", "overall", None, AT - HOUR, 1)
    with pytest.raises(CapReached):
        decide(ledger, "d4", caps=[once])
    assert live(ledger) == ["decided:d1"], "no contact, next week's question and what was not written stay out"
    ids = [one.event_id for one in ledger.timeline("anna", AT + 100 * 24 * HOUR, None, 9)]
    assert ids == ["decided:d3", "decided:d2", "decided:d1"]
    assert ledger.append([event("decided:d1", "clicked")]) == ("conflict",)


SENT, FAILED = {"kind": "sent", "channel": "push"}, {"kind": "failed", "channel": "push"}
LASTING = ("push", AT - HOUR, None)
RECEIPTS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, tuple[str, int, int | None]]]]] = {
    "nothing is known of any message: it stays reserved": (
        [{"kind": "opened", "decision_id": "d1"}],
        [("d1", ("push", AT, AT + HOUR))],
    ),
    "what was sent lasts, from when it was sent": (
        [{**SENT, "decision_id": "d1", "message_id": "m1"}],
        [("d1", LASTING)],
    ),
    "what failed is free again": (
        [{**SENT, "decision_id": "d1", "message_id": "m1"}, {**FAILED, "decision_id": "d1", "message_id": "m1"}],
        [],
    ),
    "a failure that names the message alone": (
        [{**SENT, "decision_id": "d1", "message_id": "m1"}, {**FAILED, "message_id": "m1"}],
        [],
    ),
    "a failure without a message means the channel": (
        [{**SENT, "decision_id": "d1"}, {**FAILED, "decision_id": "d1"}],
        [],
    ),
    "the next channel of the chain takes its place": (
        [
            {**SENT, "decision_id": "d1", "message_id": "m1"},
            {**FAILED, "decision_id": "d1", "message_id": "m1"},
            {"kind": "sent", "channel": "email", "decision_id": "d1", "message_id": "m2", "at_us": AT - 5},
        ],
        [("d1", ("email", AT - 5, None))],
    ),
    "of two that did not fail the last counts": (
        [
            {**SENT, "decision_id": "d1", "message_id": "m1"},
            {**SENT, "decision_id": "d1", "message_id": "m2", "at_us": AT - 5},
        ],
        [("d1", ("push", AT - 5, None))],
    ),
    "a chain without message ids": (
        [
            {**SENT, "decision_id": "d1"},
            {**FAILED, "decision_id": "d1"},
            {"kind": "sent", "channel": "email", "decision_id": "d1", "at_us": AT - 5},
        ],
        [("d1", ("email", AT - 5, None))],
    ),
    "delivered is as good as sent": (
        [{"kind": "delivered", "channel": "push", "decision_id": "d1", "message_id": "m1"}],
        [("d1", LASTING)],
    ),
    "a message without a decision is a contact of its own": (
        [{**SENT, "message_id": "m9"}, {"kind": "delivered", "channel": "push", "message_id": "m9"}],
        [("e0", LASTING), ("d1", ("push", AT, AT + HOUR))],
    ),
    "unless it failed": (
        [{**SENT, "message_id": "m9"}, {**FAILED, "message_id": "m9"}, {"kind": "failed", "message_id": "m8"}],
        [("d1", ("push", AT, AT + HOUR))],
    ),
    "two messages without ids are two": (
        [SENT, {**SENT, "at_us": AT - 5}],
        [("e0", LASTING), ("e1", ("push", AT - 5, None)), ("d1", ("push", AT, AT + HOUR))],
    ),
    "a message that turns out to be a decision's is no second contact": (
        [{**SENT, "message_id": "m1"}, {"kind": "delivered", "decision_id": "d1", "message_id": "m1"}],
        [("d1", LASTING)],
    ),
    "what a decision elsewhere says of a message's channel counts, before or after it": (
        [{"kind": "sent", "message_id": "m7"}, {"kind": "decided", "channel": "push", "message_id": "m7"}],
        [("e0", LASTING), ("d1", ("push", AT, AT + HOUR))],
    ),
    "a message nobody says the channel of is none": ([{"kind": "sent"}], [("d1", ("push", AT, AT + HOUR))]),
}


@pytest.mark.parametrize("case", RECEIPTS)
def test_contacts_follow_receipts_whatever_their_order(ledger: Ledger, case: str) -> None:
    receipts, expected = RECEIPTS[case]
    for lap, order in enumerate(itertools.permutations(range(len(receipts)))):
        who = f"c{lap}"
        one = replace(decision(f"d1-{lap}"), ask=Ask(who, NOW))
        ledger.record(Entry.of(one, NOW, b"a", contact=reservation(f"d1-{lap}")._replace(customer_id=who)))
        for place in order:
            told = {
                name: f"{value}-{lap}" if name in ("decision_id", "message_id") else value
                for name, value in receipts[place].items()
            }
            made = replace(event(f"e{place}-{lap}"), customer_id=who, **told)
            assert ledger.append([made, made]) == ("accepted", "duplicate")
        found = {
            (contact.decision_id, (contact.channel, contact.at_us, contact.expires_us))
            for contact in known(ledger, who).contacts
        }
        assert found == {(f"{name}-{lap}", rest) for name, rest in expected}, order


@pytest.mark.parametrize("late", [False, True])
def test_what_a_message_was_about_is_what_its_decision_says_however_late(ledger: Ledger, late: bool) -> None:
    told = [
        event("e1", "sent", channel="sms", decision_id="elsewhere", purpose="service"),
        event("e2", "decided", channel="push", product_id="card", decision_id="elsewhere", purpose="marketing"),
    ]
    for one in reversed(told) if late else told:
        ledger.append([one])
    assert known(ledger).contacts == (
        Contact("anna", told[0].at_us, "sms", "card", "cards", "marketing", "elsewhere", None),
    )


def test_a_contact_without_a_reservation_is_about_what_its_events_say(ledger: Ledger) -> None:
    ledger.append(
        [
            event("e1", "sent", channel="sms", product_id="card", purpose="service"),
            event("e2", "sent", channel="sms", at_us=AT - 5),
            event("e3", "decided", channel="sms", product_id="loan", decision_id="elsewhere"),
            event("e4", "sent", decision_id="elsewhere", at_us=AT - 1),
        ]
    )
    assert known(ledger).contacts == (
        Contact("anna", AT - HOUR, "sms", "card", "cards", "service", "e1", None),
        Contact("anna", AT - 5, "sms", None, None, "marketing", "e2", None),
        Contact("anna", AT - 1, "sms", "loan", None, "marketing", "elsewhere", None),
    )


def test_another_customers_decision_is_left_alone(ledger: Ledger) -> None:
    decide(ledger, "d1")
    for kind in ("sent", "failed"):
        ledger.append([event(kind, kind, customer_id="bert", channel="email", decision_id="d1", message_id=kind)])
        assert known(ledger).contacts == (reservation("d1"),)


def test_seeding_does_not_bring_back_what_has_failed_here(ledger: Ledger) -> None:
    decide(ledger, "d1")
    ledger.append([event("e1", "failed", decision_id="d1", channel="push")])
    ledger.seed([reservation("d1", None)])
    assert known(ledger).contacts == ()


def test_rebasing_makes_live_states_of_what_was_not_imported(reopen: Open) -> None:
    ledger = reopen()
    ledger.rebase("first", nothing_imported)
    decide(ledger, "d1")
    ledger.append([event("e1"), event("e2", "opted_out"), event("e3", customer_id="bert")])
    version = known(ledger).consent_version
    ledger.rebase("first", lambda ids: np.ones(len(ids), dtype=bool))
    assert live(ledger) == ["decided:d1", "e1", "e2"], "the same key: nothing to do"
    ledger.close()
    ledger = reopen()
    ledger.rebase("second", lambda ids: np.array([name in ("e1", "decided:d1", "e3") for name in ids]))
    assert (live(ledger), live(ledger, "bert")) == (["e2"], [])
    assert known(ledger).consent_version == version, "consent did not change"
    ledger.append([event("e4"), event("e5", customer_id="bert")])
    assert (live(ledger), live(ledger, "bert")) == (["e2", "e4"], ["e5"])
    assert [one.event_id for one in ledger.timeline("bert", AT, None, 9)] == ["e5", "e3"], "the timeline keeps all"


def test_events_survive_closing(reopen: Open) -> None:
    first = reopen()
    first.append([event("e1", "opted_out")])
    before = known(first)
    first.close()
    again = reopen()
    assert known(again) == before
    assert again.append([event("e1", "opted_out")]) == ("duplicate",)


def test_what_cannot_be_folded_is_not_written_and_takes_no_other_along(ledger: Ledger) -> None:
    ledger.append([event("e0", at_us=AT - 2 * HOUR)])

    def call(number: int) -> str:
        name = "broken" if number % 2 else f"e{number}"
        try:
            ledger.append([event(f"beside {number}", "opted_out"), event(name)])
        except LedgerUnavailable as error:
            return str(error)
        return "written"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(call, range(1, 17)))
    assert set(outcomes[1::2]) == {"written"}
    assert all("live state cannot be computed" in outcome for outcome in outcomes[0::2])
    assert live(ledger) == sorted(["e0", *(name for n in range(2, 17, 2) for name in (f"e{n}", f"beside {n}"))])
    assert len(ledger.timeline("anna", AT, None, 99)) == 17


def test_of_many_that_give_one_event_at_once_one_is_accepted(ledger: Ledger) -> None:
    together = threading.Barrier(16)

    def call(number: int) -> str:
        together.wait()
        customer = "anna" if number % 2 else f"c{number}"
        return ledger.append([event("e1", customer_id=customer), event(f"x{number}", customer_id=customer)])[0]

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(call, range(16)))
    assert outcomes.count("accepted") == 1
    assert set(outcomes) <= {"accepted", "duplicate", "conflict"}
    who = [name for name in ("anna", *(f"c{n}" for n in range(16))) if "e1" in live(ledger, name)]
    assert len(who) == 1


def test_events_of_many_customers_in_crossing_orders_wait_for_each_other_and_all_are_written(ledger: Ledger) -> None:
    customers = [f"c{number}" for number in range(200)]

    def call(worker: int) -> None:
        order = customers[::-1] if worker % 2 else customers
        for lap in range(3):
            outcomes = ledger.append([event(f"{who}-{worker}-{lap}", customer_id=who) for who in order])
            assert set(outcomes) == {"accepted"}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert all(len(live(ledger, who)) == 12 for who in customers)


def test_no_contact_is_reserved_after_an_opt_out_was_acknowledged(ledger: Ledger) -> None:
    """A decision that read consent before the opt-out may be recorded before it, never after it."""

    def pair(number: int) -> None:
        who = f"c{number}"
        read = ledger.known(who, None, AT).consent_version
        ready = threading.Barrier(2)
        acknowledged = threading.Event()

        def opt_out() -> None:
            ready.wait()
            ledger.append([event(f"out-{number}", "opted_out", customer_id=who)])
            acknowledged.set()

        thread = threading.Thread(target=opt_out)
        thread.start()
        ready.wait()
        for turn in itertools.count():  # it ends: what is recorded after the acknowledgement is refused, or fails here
            after = acknowledged.is_set()
            name = f"{number}-{turn}"
            one = replace(decision(name), ask=Ask(who, NOW))
            try:
                contact = reservation(name)._replace(customer_id=who)
                ledger.record(Entry.of(one, NOW, b"a", contact=contact, consent_version=read))
            except ConsentChanged:
                break
            assert not after
        thread.join()

    for number in range(10):
        pair(number)


def test_a_closed_ledger_takes_no_events(ledger: Ledger) -> None:
    ledger.close()
    for call in (
        lambda: ledger.append([event("e1")]),
        lambda: ledger.known("anna", None, AT),
        lambda: ledger.timeline("anna", AT, None, 1),
        lambda: ledger.rebase("key", nothing_imported),
    ):
        with pytest.raises(LedgerUnavailable):
            call()
