"""What the rules know of the past: the imported timeline's contacts and rebuffs, and the ledger's contacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from features.catalog import Catalog, Channel, Product
from features.columns import Table
from features.importing import Bank, make_bank
from features.served import SERVED_SCHEMA
from features.tables import arrow_schema
from features.times import micros
from serving.caps import Contact
from serving.history import Known, Past, Remembered, Response, contacts, responses

START = datetime(2024, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    "EUR", "UTC", (Product("card", "Card", group="cards"), Product("loan", "Loan")), (Channel("sms", "S"),)
)


def bank(*events: dict[str, Any], served: Sequence[dict[str, Any]] = ()) -> Bank:
    schema = arrow_schema(Table.TIMELINE)
    lines = [
        {"event_id": f"e{n}", "customer_id": "a", "event_timestamp": START + timedelta(days=n), **event}
        for n, event in enumerate(events)
    ]
    full = [{name: line.get(name) for name in schema.names} for line in lines]
    customers = pa.table({"customer_id": ["a"], "event_timestamp": [START]}).cast(arrow_schema(Table.CUSTOMERS))
    tables = {Table.CUSTOMERS: customers, Table.TIMELINE: pa.Table.from_pylist(full, schema=schema)}
    ledger = [
        {"event_id": f"s{n}", "customer_id": "a", "event_timestamp": START, "created_timestamp": START, **event}
        for n, event in enumerate(served)
    ]
    ours = [{name: line.get(name) for name in SERVED_SCHEMA.names} for line in ledger]
    return make_bank(CATALOG, tables, (), pa.Table.from_pylist(ours, schema=SERVED_SCHEMA))


def day(number: int) -> int:
    return micros(START + timedelta(days=number))


def test_what_was_sent_is_a_contact_and_without_a_purpose_counts_as_marketing() -> None:
    found = contacts(
        bank(
            {"kind": "decided", "channel": "sms", "product_id": "card", "purpose": "marketing"},
            {"kind": "sent", "channel": "sms", "product_id": "card", "purpose": "service"},
            {"kind": "delivered", "channel": "sms", "product_id": "card"},
            {"kind": "sent", "channel": "sms"},
        )
    )
    assert list(found) == [
        Contact("a", day(1), "sms", "card", "cards", "service", "e1", None),
        Contact("a", day(3), "sms", None, None, "marketing", "e3", None),
    ]


def test_where_nothing_is_logged_as_sent_a_decision_to_contact_counts() -> None:
    found = contacts(bank({"kind": "decided", "channel": "sms", "product_id": "loan"}, {"kind": "decided"}))
    assert list(found) == [Contact("a", day(0), "sms", "loan", None, "marketing", "e0", None)]


def test_what_the_ledger_decided_is_a_contact_only_when_it_was_sent() -> None:
    decided = {"kind": "decided", "channel": "sms", "product_id": "loan", "decision_id": "d1"}
    own = {"kind": "decided", "channel": "sms", "product_id": "card"}
    assert [one.decision_id for one in contacts(bank(own, served=[decided]))] == ["e0"]
    sent = {"kind": "sent", "channel": "sms", "product_id": "loan", "decision_id": "d1", "message_id": "m1"}
    assert sorted(one.decision_id for one in contacts(bank(own, served=[decided, sent]))) == ["d1", "e0"]


def test_negative_responses_are_kept_per_customer_in_the_order_of_time() -> None:
    found = responses(
        bank(
            {"kind": "opted_out", "channel": "sms"},
            {"kind": "clicked", "channel": "sms"},
            {"kind": "complained", "product_id": "card"},
        )
    )
    assert found == {
        "a": (Response(day(0), "opted_out", "sms", None, None), Response(day(2), "complained", None, "card", "cards"))
    }


@dataclass
class Ledger:
    """Knows what it is told, and remembers what it was asked."""

    known_of: Known = field(default_factory=Known)
    asked: list[tuple[str, int | None, int]] = field(default_factory=list)

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        self.asked.append((customer_id, since_us, now_us))
        return self.known_of


def test_the_past_ends_at_the_moment_asked_and_asks_for_contacts_only_where_a_rule_counts() -> None:
    ledger = Ledger()
    imported = (Response(day(0), "failed", None, None, None), Response(day(2), "failed", None, None, None))
    history = Remembered(ledger, {"a": imported})
    assert history.past("a", None, START + timedelta(days=1)) == Past((), imported[:1])
    history.past("b", START, START + timedelta(days=1))
    assert ledger.asked == [("a", None, day(1)), ("b", day(0), day(1))], "one question each"


def test_a_response_that_was_imported_and_is_in_the_ledger_too_counts_once() -> None:
    both = Response(day(1), "complained", None, None, None, "both")
    only_here = Response(day(0), "failed", "sms", None, None, "here")
    ledger = Ledger(Known(responses=(only_here, both), live=b"state", consent_version=3))
    past = Remembered(ledger, {"a": (both,)}).past("a", None, START + timedelta(days=2))
    assert [response.event_id for response in past.responses] == ["here", "both"]
    assert (past.live, past.consent_version) == (b"state", 3)


def test_a_record_keeps_what_the_rules_looked_at_and_nothing_of_the_moment() -> None:
    past = Past((), (Response(day(1), "failed", None, None, None, "event"),), b"state", 3)
    assert past.document() == {
        "contacts": [],
        "responses": [{"at_us": day(1), "kind": "failed", "channel": None, "product_id": None, "group": None}],
    }
    again = Past.of(past.document())
    assert again == past
    assert (again.live, again.consent_version) == (None, None)


def test_a_message_that_failed_is_no_contact_and_a_decision_makes_one_at_most() -> None:
    found = contacts(
        bank(
            {"kind": "sent", "channel": "sms", "decision_id": "d1", "message_id": "m1", "product_id": "card"},
            {"kind": "failed", "channel": "sms", "message_id": "m1"},
            {"kind": "sent", "channel": "sms", "decision_id": "d1", "message_id": "m2", "product_id": "card"},
            {"kind": "sent", "channel": "sms", "decision_id": "d2", "message_id": "m3"},
            {"kind": "failed", "channel": "sms", "decision_id": "d2", "message_id": "m3"},
        )
    )
    assert list(found) == [Contact("a", day(2), "sms", "card", "cards", "marketing", "d1", None)]
