"""What a ledger keeps of a decision, the same in every implementation: record, answer, timeline event, contact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias

from features.columns import Kind
from features.times import micros
from serving.caps import Cap, ConsentChanged, Contact, check
from serving.decision import Decision
from serving.errors import KeyReused
from serving.events import TimelineEvent
from serving.history import Known
from serving.packed_record import packed

Soon: TypeAlias = Callable[[Callable[[], None]], None]
"""Of an event loop: calls what it is given in its own thread, when everything at hand there has been begun."""
SEEDED_AT_ONCE = 10_000
"""Contacts that are seeded in one transaction."""


@dataclass(frozen=True)
class Entry:
    """One decision as it will be written; `decision` is the row in its table's column order, its answer the last.

    key: of idempotency, with the hash of the request that it names; empty: none.
    """

    customer_id: str
    decision: tuple[str, str, int, bytes, bytes]
    event: TimelineEvent
    contact: Contact | None
    caps: tuple[Cap, ...]
    now_us: int
    consent_version: int | None
    key: str = ""
    request_hash: str = ""

    @classmethod
    def of(
        cls,
        decision: Decision,
        recorded_at: datetime,
        answer: bytes,
        key: str | None = None,
        request_hash: str = "",
        *,
        contact: Contact | None = None,
        caps: Sequence[Cap] = (),
        consent_version: int | None = None,
    ) -> Entry:
        """The decision as `Ledger.record` takes it. caps: over which its contact is counted."""
        now_us, customer_id = micros(recorded_at), decision.ask.customer_id
        row = (decision.decision_id, customer_id, now_us, packed(decision, recorded_at), answer)
        event = _decided(decision, now_us)
        caps = tuple(caps)
        return cls(customer_id, row, event, contact, caps, now_us, consent_version, key or "", request_hash)

    @property
    def answer(self) -> bytes:
        """What the caller gets once it is durable."""
        return self.decision[-1]

    @property
    def since_us(self) -> int:
        """The start of the longest window that has to be counted."""
        return min((cap.since_us for cap in self.caps), default=self.now_us)

    def admit(self, known: Known) -> None:
        """Raise ConsentChanged or CapReached where the contact may not be made; known: with contacts after since_us."""
        if self.contact:
            if self.consent_version not in (None, known.consent_version):
                raise ConsentChanged
            check(self.contact, self.caps, known.contacts)


class Recorder(ABC):
    """A ledger's `record`, by way of its `recording`."""

    @abstractmethod
    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        """See `serving.ledger.Ledger`."""

    def record(self, entry: Entry) -> bytes:
        """See `serving.ledger.Ledger`."""
        return self._waited(self.recording(entry))

    def _waited(self, begun: Future[bytes]) -> bytes:
        """The answer once it is durable."""
        return begun.result()


def answer_of(known: Sequence[Any] | None, request_hash: str) -> bytes | None:
    """The answer of a known key, given (request hash, answer) or None; raises KeyReused for another request."""
    if known is None:
        return None
    if known[0] != request_hash:
        raise KeyReused("this Idempotency-Key came with another request before; use a new key for a new request")
    return bytes(known[1])


def chunks(contacts: Iterable[Contact]) -> Iterator[list[Contact]]:
    """Rows of table `contacts`, a transaction's worth at a time, ordered so that writers never wait in a circle."""
    rest = iter(contacts)
    while chunk := list(islice(rest, SEEDED_AT_ONCE)):
        yield sorted(chunk, key=lambda contact: contact.decision_id)


def _decided(decision: Decision, recorded_us: int) -> TimelineEvent:
    """The decision as an event: channel, product and content are null where the choice was not to contact."""
    action = decision.action
    return TimelineEvent(
        event_id=f"decided:{decision.decision_id}",
        customer_id=decision.ask.customer_id,
        at_us=micros(decision.ask.as_of),
        kind=Kind.DECIDED.value,
        channel=action.channel if action else None,
        purpose=decision.ask.purpose,
        product_id=action.product_id if action else None,
        content_id=action.content_id if action else None,
        decision_id=decision.decision_id,
        propensity=decision.propensity,
        created_us=recorded_us,
    )
