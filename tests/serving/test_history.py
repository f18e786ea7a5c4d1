"""What the rules know of the past: the imported timeline's contacts and rebuffs, and the ledger's contacts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from features.catalog import Catalog, Channel, Product
from features.columns import Table
from features.importing import Bank, make_bank
from features.tables import arrow_schema
from features.times import micros
from serving.caps import Contact
from serving.history import Past, Remembered, Response, contacts, responses

START = datetime(2024, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    "EUR", "UTC", (Product("card", "Card", group="cards"), Product("loan", "Loan")), (Channel("sms", "S"),)
)


def bank(*events: dict[str, Any]) -> Bank:
    schema = arrow_schema(Table.TIMELINE)
    lines = [
        {"event_id": f"e{n}", "customer_id": "a", "event_timestamp": START + timedelta(days=n), **event}
        for n, event in enumerate(events)
    ]
    full = [{name: line.get(name) for name in schema.names} for line in lines]
    return make_bank(CATALOG, {Table.TIMELINE: pa.Table.from_pylist(full, schema=schema)}, ())


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


def test_the_past_ends_at_the_moment_asked_and_asks_the_ledger_only_where_a_rule_counts() -> None:
    class Ledger:
        asked: list[tuple[int, int]] = []  # noqa: RUF012  # one test, one list

        def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
            self.asked.append((since_us, now_us))
            return ()

    known = (Response(day(0), "failed", None, None, None), Response(day(2), "failed", None, None, None))
    history = Remembered(Ledger(), {"a": known})
    assert history.past("a", None, START + timedelta(days=1)) == Past((), known[:1])
    assert Ledger.asked == []
    history.past("b", START, START + timedelta(days=1))
    assert Ledger.asked == [(day(0), day(1))]
