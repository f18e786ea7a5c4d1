"""Counts of contacts and of what followed them, in a log that fits on a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from features.catalog import Catalog, Channel, Product
from features.columns import Table
from features.evidence import Evidence, evidence
from features.importing import make_bank
from features.tables import arrow_schema

START = datetime(2024, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    "EUR", "UTC", (Product("card", "Card"), Product("loan", "Loan")), (Channel("push", "Push"), Channel("sms", "SMS"))
)
#            kind, product, channel, decision, purpose
EVENTS = (
    ("sent", "card", "push", "d1", "marketing"),
    ("converted", "card", "push", "d1", None),
    ("converted", "card", "push", "d1", None),  # told twice: still one message that worked
    ("sent", "card", "push", "d2", "marketing"),
    ("converted", "loan", "push", "d2", None),  # another product: not what the message was about
    ("opted_out", None, None, "d2", None),
    ("sent", "loan", "sms", "d3", None),  # no purpose: marketing
    ("sent", "loan", "sms", "d4", "service"),
    ("converted", "loan", "sms", "d4", None),
    ("sent", None, "sms", "d5", "marketing"),  # about no product
    ("opted_out", None, "sms", "d5", "marketing"),
    ("sent", "loan", "sms", None, "marketing"),  # nothing can be told to follow it
    ("converted", "card", None, None, None),  # by themselves
)


def count_up(events: Sequence[tuple[str | None, ...]]) -> Evidence:
    schema = arrow_schema(Table.TIMELINE, ())
    count = len(events)
    names = ("kind", "product_id", "channel", "decision_id", "purpose")
    columns = {
        "event_id": [f"e{number:02d}" for number in range(count)],
        "customer_id": [f"c{number:02d}" for number in range(count)],
        "event_timestamp": [START + timedelta(days=2 * number) for number in range(count)],
        **{name: [event[place] for event in events] for place, name in enumerate(names)},
    }
    nulls = {name: pa.nulls(count, schema.field(name).type) for name in schema.names if name not in columns}
    customers = pa.table(
        {"customer_id": columns["customer_id"], "event_timestamp": [START] * count},
        schema=arrow_schema(Table.CUSTOMERS, ()),
    )
    timeline = pa.table({**columns, **nulls}).select(schema.names).cast(schema)
    return evidence(make_bank(CATALOG, {Table.CUSTOMERS: customers, Table.TIMELINE: timeline}, ()))


@pytest.fixture(scope="module")
def counted() -> Evidence:
    return count_up(EVENTS)


def test_decided_contacts_count_only_in_a_log_that_tells_of_nothing_being_sent(counted: Evidence) -> None:
    decided = tuple(("decided", *event[1:]) if event[0] == "sent" else event for event in EVENTS)
    assert count_up(decided).contacts.tolist() == counted.contacts.tolist()
    assert count_up((*EVENTS, ("decided", "card", "sms", "d9", "marketing"))).sent.tolist() == counted.sent.tolist()
    assert count_up([("decided", None, None, "d1", "marketing")]).sent.tolist() == [0, 0], "no contact is none"


def test_messages_are_counted_per_product_and_channel_where_something_can_follow_them(counted: Evidence) -> None:
    assert counted.contacts.tolist() == [[2, 0], [0, 1]]
    assert counted.sent.tolist() == [2, 2]


def test_a_take_up_counts_for_the_message_whose_decision_and_product_it_names(counted: Evidence) -> None:
    assert counted.converted.tolist() == [[1, 0], [0, 0]]


def test_an_opt_out_counts_for_the_channel_of_its_decision(counted: Evidence) -> None:
    assert counted.opted_out.tolist() == [1, 1]


def test_take_ups_count_however_they_came_about(counted: Evidence) -> None:
    assert counted.take_ups.tolist() == [3, 2]


def test_an_empty_log_is_no_evidence() -> None:
    customers = pa.table({"customer_id": ["c"], "event_timestamp": [START]}, schema=arrow_schema(Table.CUSTOMERS, ()))
    found, none = evidence(make_bank(CATALOG, {Table.CUSTOMERS: customers}, ())), Evidence.none(CATALOG)
    for name in ("contacts", "converted", "sent", "opted_out", "take_ups"):
        assert getattr(found, name).tolist() == getattr(none, name).tolist()
