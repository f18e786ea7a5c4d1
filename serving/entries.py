"""What a ledger keeps of a decision, the same in every implementation: record, answer, timeline event, contact."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import orjson

from features.columns import Kind
from features.times import micros
from serving.caps import Cap, Contact
from serving.decision import Decision
from serving.errors import KeyReused

SEEDED_AT_ONCE = 10_000
"""Contacts that are seeded in one transaction."""


@dataclass(frozen=True)
class Entry:
    """One decision as it will be written; `decision`, `event` and `contact` are rows in their tables' column order."""

    customer_id: str
    decision: tuple[str, str, int, bytes, bytes]
    event: tuple[Any, ...]
    contact: Contact | None
    caps: tuple[Cap, ...]
    now_us: int

    @classmethod
    def of(
        cls, decision: Decision, recorded_at: datetime, answer: bytes, contact: Contact | None, caps: Sequence[Cap]
    ) -> Entry:
        # Hundreds of candidates are much alike: a tenth of the bytes reaches the disk.
        record = zlib.compress(orjson.dumps({**decision.record(), "recorded_at": recorded_at}), 1)
        now_us, customer_id = micros(recorded_at), decision.ask.customer_id
        row = (decision.decision_id, customer_id, now_us, record, answer)
        return cls(customer_id, row, _decided(decision, now_us), contact, tuple(caps), now_us)

    @property
    def since_us(self) -> int:
        """The start of the longest window that has to be counted."""
        return min((cap.since_us for cap in self.caps), default=self.now_us)


def unpacked(record: bytes) -> bytes:
    """The JSON of a record as it was before it was packed."""
    return zlib.decompress(record)


def answer_of(known: Sequence[Any] | None, request_hash: str) -> bytes | None:
    """The answer of a known key, given (request hash, answer) or None; raises KeyReused for another request."""
    if known is None:
        return None
    if known[0] != request_hash:
        raise KeyReused("this Idempotency-Key came with another request before; use a new key for a new request")
    return bytes(known[1])


def chunks(contacts: Iterable[Contact]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of table `contacts`, a transaction's worth at a time, ordered so that writers never wait in a circle."""
    rest = iter(contacts)
    while chunk := list(islice(rest, SEEDED_AT_ONCE)):
        yield [astuple(contact) for contact in sorted(chunk, key=lambda contact: contact.decision_id)]


def _decided(decision: Decision, recorded_us: int) -> tuple[Any, ...]:
    """The row of table `timeline`: channel, product and content are null where the choice was not to contact."""
    action = decision.action
    return (
        f"decided:{decision.decision_id}",
        decision.ask.customer_id,
        micros(decision.ask.as_of),
        Kind.DECIDED.value,
        action and action.channel,
        decision.ask.purpose,
        action and action.product_id,
        action and action.content_id,
        decision.decision_id,
        None,
        decision.propensity,
        None,
        recorded_us,
    )
