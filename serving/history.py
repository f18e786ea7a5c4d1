"""What happened between the bank and a customer before a decision: contacts from the ledger, responses from the bank.

The ledger counts contacts, our own and, once seeded, those of the imported timeline. Responses are kept in memory, in
the order of time per customer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose, Table
from features.importing import Bank
from features.policy_file import NEGATIVE
from features.times import micros
from serving.caps import Contact


@dataclass(frozen=True)
class Response:
    """A negative response; channel and product are None where it named none, and so means all. Times as in Contact."""

    at_us: int
    kind: str
    channel: str | None
    product_id: str | None
    group: str | None
    """The product's group."""


@dataclass(frozen=True)
class Past:
    """One customer's contacts that count, and negative responses in the order of time."""

    contacts: tuple[Contact, ...] = ()
    responses: tuple[Response, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON-ready values, of which `of` makes it again."""
        return {
            "contacts": [dict(vars(contact)) for contact in self.contacts],
            "responses": [dict(vars(response)) for response in self.responses],
        }

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Past:
        """The past that a record holds as JSON."""
        return cls(
            tuple(Contact(**contact) for contact in written["contacts"]),
            tuple(Response(**response) for response in written["responses"]),
        )


class History(Protocol):
    """The seam between the rules and what remembers."""

    def past(self, customer_id: str, since: datetime | None, now: datetime) -> Past:
        """Contacts after `since` (None: none are wanted) that count at `now`, and responses known by `now`.

        Raises LedgerUnavailable where it cannot be known: without it nobody may be contacted.
        """
        ...


class Contacts(Protocol):
    """What history needs of a ledger."""

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        """The contacts with at_us > since_us that are sent, or reserved and not lapsed at now_us."""
        ...


@dataclass(frozen=True)
class RecordedPast:
    """History that a record brings, the same whatever has happened since."""

    known: Past = field(default_factory=Past)

    def past(self, customer_id: str, since: datetime | None, now: datetime) -> Past:
        return self.known


@dataclass(frozen=True)
class Remembered:
    """History as it is served: a ledger, and the responses of the imported timeline by customer."""

    ledger: Contacts
    responses: Mapping[str, tuple[Response, ...]]

    def past(self, customer_id: str, since: datetime | None, now: datetime) -> Past:
        now_us = micros(now)
        contacts = () if since is None else self.ledger.contacts(customer_id, micros(since), now_us)
        answered = self.responses.get(customer_id, ())
        return Past(contacts, tuple(response for response in answered if response.at_us <= now_us))


def responses(bank: Bank) -> dict[str, tuple[Response, ...]]:
    """The negative responses of the imported timeline, by customer, in the order of time."""
    table = bank.tables[Table.TIMELINE]
    table = table.filter(pc.is_in(table[Event.KIND], pa.array([str(kind) for kind in NEGATIVE])))
    columns = (EVENT_TIMESTAMP, Event.KIND, Event.CHANNEL, Event.PRODUCT_ID)
    groups = groups_of(bank.catalog)
    found: dict[str, list[Response]] = {}
    for customer, at_us, kind, channel, product in _lines(table, CUSTOMER_ID, *columns):
        found.setdefault(customer, []).append(Response(at_us, kind, channel, product, groups.get(product)))
    return {customer: tuple(sorted(given, key=lambda one: one.at_us)) for customer, given in found.items()}


def contacts(bank: Bank) -> Iterator[Contact]:
    """The contacts of the imported timeline: what was sent; for a bank that keeps no such events, what was decided.

    A contact without a purpose counts as marketing: it may have been.
    """
    table = bank.tables[Table.TIMELINE]
    contact = table.filter(pc.is_valid(table[Event.CHANNEL]))
    sent = contact.filter(pc.equal(contact[Event.KIND], Kind.SENT.value))
    if not sent.num_rows:
        sent = contact.filter(pc.equal(contact[Event.KIND], Kind.DECIDED.value))
    groups = groups_of(bank.catalog)
    columns = (CUSTOMER_ID, EVENT_TIMESTAMP, Event.CHANNEL, Event.PRODUCT_ID, Event.PURPOSE, Event.EVENT_ID)
    for customer, at_us, channel, product, purpose, event in _lines(sent, *columns):
        group = groups.get(product)
        yield Contact(customer, at_us, channel, product, group, purpose or Purpose.MARKETING.value, event, None)


def groups_of(catalog: Catalog) -> dict[str, str | None]:
    """The group of each product."""
    return {product.id: product.group for product in catalog.products}


def _lines(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of these columns, times as microseconds, in blocks: a bank's timeline is long."""
    for batch in table.select(list(columns)).to_batches(max_chunksize=65_536):
        lists = []
        for name in columns:
            values = batch.column(name)
            lists.append((values.cast(pa.int64()) if name == EVENT_TIMESTAMP else values).to_pylist())
        yield from zip(*lists, strict=True)
