"""What happened between the bank and a customer before a decision: what the ledger knows, and what was imported.

The ledger counts contacts, our own and, once seeded, those of the imported timeline; it has the responses and the live
state of the events that it was given. Imported responses are kept in memory, in the order of time per customer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose, Table
from features.importing import Bank
from features.policy_file import NEGATIVE
from features.times import micros
from serving.caps import Contact, Tally
from serving.events import TimelineEvent
from serving.receipts import DELIVERIES, settled

EVENT_COLUMNS = (
    *("event_id", "customer_id", "event_timestamp", "kind", "channel", "purpose", "product_id", "content_id"),
    *(Event.DECISION_ID, Event.MESSAGE_ID),
)
"""Of a timeline: what contacts and responses are made of, in the order of `TimelineEvent`."""


@dataclass(frozen=True)
class Response:
    """A negative response; channel and product are None where it named none, and so means all. Times as in Contact."""

    at_us: int
    kind: str
    channel: str | None
    product_id: str | None
    group: str | None
    """The product's group."""
    event_id: str = field(default="", compare=False)
    """Tells a response that was imported and is in the ledger too from two; no rule looks at it."""


@dataclass(frozen=True)
class Known:
    """What a ledger knows of one customer at one moment, all of it read at once.

    responses: negative ones up to the moment, in the order of time. live: the live state of all events that it was
    given, None without any. consent_version: rises whenever the customer says something about consent, or complains.
    """

    contacts: tuple[Contact, ...] = ()
    responses: tuple[Response, ...] = ()
    live: bytes | None = None
    consent_version: int = 0


@dataclass(frozen=True)
class Past:
    """One customer's contacts that count, and negative responses in the order of time."""

    contacts: tuple[Contact, ...] = ()
    responses: tuple[Response, ...] = ()
    live: bytes | None = field(default=None, compare=False, repr=False)
    """The live state (`features.live`), to be merged with the imported features; a record keeps what came out."""
    consent_version: int | None = field(default=None, compare=False)
    """As in Known; None: not read from a ledger, and so never out of date."""

    @cached_property
    def tally(self) -> Tally:
        """The contacts as caps count them."""
        return Tally(self.contacts)

    def document(self) -> dict[str, Any]:
        """As JSON-ready values, of which `of` makes it again, but for what was known at that moment alone."""
        return {
            "contacts": [contact._asdict() for contact in self.contacts],
            "responses": [
                {name: value for name, value in vars(response).items() if name != "event_id"}
                for response in self.responses
            ],
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
        """Contacts after `since` (None: none are wanted) that count at `now`, responses by `now`, and the live state.

        Raises LedgerUnavailable where it cannot be known: without it nobody may be contacted.
        """
        ...


class Knows(Protocol):
    """What history needs of a ledger."""

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        """Contacts with at_us > since_us (None: none are wanted) that are sent, or reserved and not lapsed at now_us,
        and what else is known of the customer."""
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

    ledger: Knows
    responses: Mapping[str, tuple[Response, ...]]

    def past(self, customer_id: str, since: datetime | None, now: datetime) -> Past:
        now_us = micros(now)
        known = self.ledger.known(customer_id, None if since is None else micros(since), now_us)
        imported = [one for one in self.responses.get(customer_id, ()) if one.at_us <= now_us]
        if not imported and not known.responses:
            return Past(known.contacts, (), known.live, known.consent_version)
        ids = {response.event_id for response in imported}
        given = [response for response in known.responses if response.event_id not in ids]
        both = tuple(sorted((*imported, *given), key=lambda one: (one.at_us, one.event_id)))
        return Past(known.contacts, both, known.live, known.consent_version)


def responses(bank: Bank) -> dict[str, tuple[Response, ...]]:
    """The negative responses of the imported timeline, by customer, in the order of time."""
    return responses_of(bank, bank.tables[Table.TIMELINE])


def responses_of(bank: Bank, table: pa.Table) -> dict[str, tuple[Response, ...]]:
    """As `responses`, of some customers' part of the timeline."""
    table = table.filter(pc.is_in(table[Event.KIND], pa.array([str(kind) for kind in NEGATIVE])))
    columns = (EVENT_TIMESTAMP, Event.KIND, Event.CHANNEL, Event.PRODUCT_ID, Event.EVENT_ID)
    groups = groups_of(bank.catalog)
    found: dict[str, list[Response]] = {}
    for customer, at_us, kind, channel, product, event in _lines(table, CUSTOMER_ID, *columns):
        found.setdefault(customer, []).append(Response(at_us, kind, channel, product, groups.get(product), event))
    return {customer: tuple(sorted(given, key=lambda one: one.at_us)) for customer, given in found.items()}


@dataclass(frozen=True)
class Receipts:
    """Whether the timeline tells of any message being sent, and whether the bank's own part of it does."""

    any: bool
    own: bool

    @classmethod
    def of(cls, bank: Bank) -> Receipts:
        sent = bank.columns(Table.TIMELINE, [Event.EVENT_ID], [Kind.SENT])
        return cls(sent.num_rows > 0, not bool(bank.served.among(sent[Event.EVENT_ID]).all()))


def contacts(bank: Bank) -> Iterator[Contact]:
    """The contacts of the imported timeline: messages that were sent and did not fail, one of each decision.

    For a bank whose own log keeps no such events they are also what it decided; not what the ledger decided, which has
    reserved those contacts itself. One without a purpose counts as marketing: it may have been.
    """
    return contacts_of(bank, bank.tables[Table.TIMELINE], Receipts.of(bank))


def contacts_of(bank: Bank, table: pa.Table, receipts: Receipts, since_us: int | None = None) -> Iterator[Contact]:
    """As `contacts`, of some customers' part of the timeline. receipts: what the whole of it keeps.

    since_us: contacts up to then may be left out (None: none are).
    """
    groups = groups_of(bank.catalog)
    if since_us is not None:
        table = _lasting(table, since_us)
    if receipts.any:
        delivery = pc.is_in(table[Event.KIND], pa.array([str(kind) for kind in DELIVERIES]))
        to_contact = pc.and_(pc.equal(table[Event.KIND], Kind.DECIDED.value), pc.is_valid(table[Event.CHANNEL]))
        for _, events in groupby(_events(table.filter(pc.or_(delivery, to_contact))), key=lambda one: one.customer_id):
            of_customer = list(events)
            yield from settled(of_customer, of_customer, groups).lasting
    if receipts.own:
        return
    table = bank.served.left_of(table)
    decided = table.filter(pc.and_(pc.equal(table[Event.KIND], Kind.DECIDED.value), pc.is_valid(table[Event.CHANNEL])))
    columns = (CUSTOMER_ID, EVENT_TIMESTAMP, Event.CHANNEL, Event.PRODUCT_ID, Event.PURPOSE, Event.EVENT_ID)
    for customer, at_us, channel, product, purpose, event in _lines(decided, *columns):
        group = groups.get(product)
        yield Contact(customer, at_us, channel, product, group, purpose or Purpose.MARKETING.value, event, None)


def _lasting(table: pa.Table, since_us: int) -> pa.Table:
    """Without the events that can make no contact after `since_us`.

    A contact has the time of one of its events. What an event belongs to is settled by the events with its decision or
    its message, and by theirs in turn: of those that come together nothing is left out.
    """
    kept = pc.greater(table[EVENT_TIMESTAMP].cast(pa.int64()), since_us)
    before = -1
    while before < (count := pc.sum(kept).as_py() or 0):
        before = count
        theirs = table.filter(kept)
        for name in (Event.DECISION_ID, Event.MESSAGE_ID):
            known = pc.unique(theirs[name]).drop_null()
            kept = pc.or_(kept, pc.is_in(table[name], value_set=known))
    return table.filter(kept)


def _events(table: pa.Table) -> Iterator[TimelineEvent]:
    """The rows of a timeline as events, a customer's together."""
    ordered = table.sort_by([(CUSTOMER_ID, "ascending"), (EVENT_TIMESTAMP, "ascending")])
    for line in _lines(ordered, *EVENT_COLUMNS):
        yield TimelineEvent(*line)


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
