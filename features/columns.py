"""Names of the tables and columns of a bank data directory, and the kinds of timeline events.

Every table, importer, fold and test takes its names from here; a typo is then an AttributeError, not an empty join.
"""

from __future__ import annotations

from enum import StrEnum

CUSTOMER_ID = "customer_id"
EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
"""When a fact became known to us; differs from the event's own time for late facts."""

AS_OF = "as_of"
ELIGIBLE = "eligible"


class Table(StrEnum):
    CUSTOMERS = "customers"
    HOLDINGS = "holdings"
    TRANSACTIONS = "transactions"
    TIMELINE = "timeline"


class Holding:
    PRODUCT_ID = "product_id"
    ACTION = "action"
    OPENED = "opened"
    CLOSED = "closed"


class Transaction:
    AMOUNT = "amount"
    CATEGORY = "category"
    BALANCE = "balance"


class Event:
    EVENT_ID = "event_id"
    KIND = "kind"
    CHANNEL = "channel"
    PURPOSE = "purpose"
    PRODUCT_ID = "product_id"
    CONTENT_ID = "content_id"
    DECISION_ID = "decision_id"
    MESSAGE_ID = "message_id"
    PROPENSITY = "propensity"
    VALUE = "value"


class Kind(StrEnum):
    """What happened, on the timeline."""

    DECIDED = "decided"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    OPENED = "opened"
    CLICKED = "clicked"
    REPLIED = "replied"
    VISITED = "visited"
    CALLED = "called"
    CONVERTED = "converted"
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"
    COMPLAINED = "complained"


class Purpose(StrEnum):
    MARKETING = "marketing"
    SERVICE = "service"
    MANDATORY = "mandatory"


WORDS_FOR_NULL = ("", "nan", "NaN", "NaT", "None", "null", "NULL", "<NA>")
"""What tools write when they turn a missing id into text."""

DOWNLINK = frozenset({Kind.DECIDED, Kind.SENT, Kind.DELIVERED, Kind.FAILED})
"""From the bank to the customer; all other kinds are uplink."""

REACTIONS = frozenset({Kind.OPENED, Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED})
"""Uplink events that answer a message."""

VISITS = frozenset({Kind.VISITED, Kind.CALLED})
"""Uplink events in which the customer came by themselves."""
