"""The ledger: every decision and every event, durable before it is acknowledged. The seam, and which one is opened.

    decisions     the record (`serving.packed_record`) and the answer, by decision id
    idempotency   which answer a key was given, and for which request
    timeline      decisions and events, in the columns of the bank data directory: what training reads
    contacts      who was or will be contacted, and when: what contact caps are counted over
    live          per customer: the live state (`features.live`), and how often consent changed
    facts         what the live states were computed for

On one machine: a SQLite file (`serving.sqlite`). On more than one: PostgreSQL (`serving.postgres`). Either may be open
in several processes at once, workers of one server or servers of one home, and the promises hold across all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from features.schema import Bool
from serving.caps import Contact
from serving.entries import Entry, Soon
from serving.events import Fold, Outcome, TimelineEvent, unfolded
from serving.history import Known
from serving.sqlite import SqliteLedger


class Ledger(Protocol):
    """The seam between the decision and what remembers it. Every call may be made from many threads."""

    def record(self, entry: Entry) -> bytes:
        """Make the decision durable, with its contact where there is one, and give the answer to send.

        With a key that is known for the same request, nothing is written and the first answer comes back, byte for
        byte. Else consent is compared, the caps are counted and the contact is reserved in the transaction that writes
        the decision: raises ConsentChanged where the customer's consent is not of `entry.consent_version` any more
        (None: do not compare), CapReached where a cap has no room for it, nothing written. A decision about a product
        enters the live state with it. Raises KeyReused where the key named another request, LedgerUnavailable where
        nothing can be promised.
        """
        ...

    def recording(self, entry: Entry, soon: Soon | None = None) -> Future[bytes]:
        """What `record` does, without waiting for it: the future has the answer to send once it is durable.

        It has what `record` would raise; cancelling it withdraws what has not been begun. soon: given by an event loop
        whose thread may write, where that needs no waiting. Raises LedgerUnavailable at once where nothing more can be
        taken.
        """
        ...

    def append(self, events: Sequence[TimelineEvent]) -> tuple[Outcome, ...]:
        """Make events durable and let them count, in one transaction per customer; the outcome of each, in order.

        Accepted events change the live state, consent and contacts of their customers in the transaction that writes
        them: the next decision of every process knows of them. Duplicates are told by all columns but `created_us`.
        Raises LedgerUnavailable where nothing can be promised; giving all of them again is always safe.
        """
        ...

    def known(self, customer_id: str, since_us: int | None, now_us: int) -> Known:
        """What a decision has to know of the customer, read at one moment; see `contacts` for the times.

        since_us None: no contacts are wanted. Responses are those with at_us <= now_us. Raises LedgerUnavailable.
        """
        ...

    def timeline(
        self,
        customer_id: str,
        as_of_us: int,
        before: tuple[int, str] | None,
        limit: int,
        kinds: Collection[str] | None = None,
    ) -> tuple[TimelineEvent, ...]:
        """The customer's newest events by (at_us, event_id), newest first, with at_us <= as_of_us.

        before: only events that come before this (at_us, event_id). kinds: only these; None: all. Raises
        LedgerUnavailable.
        """
        ...

    def rebase(self, key: str, imported: Callable[[Sequence[str]], Bool]) -> None:
        """Compute all live states anew, without the events that the features have imported, where `key` is new.

        key: names the features and the meaning of live states. imported: event ids [n] → bool [n]. From then on this
        ledger raises LedgerUnavailable for decisions and events where another process has rebased it to another key:
        what is live and what is imported would not fit together.
        """
        ...

    def contacts(self, customer_id: str, since_us: int, now_us: int) -> tuple[Contact, ...]:
        """The customer's contacts with at_us > since_us that are sent or still reserved at now_us, in order of time.

        Raises LedgerUnavailable.
        """
        ...

    def seed(self, contacts: Iterable[Contact]) -> None:
        """Make contacts known that were made elsewhere. Seeding again changes nothing.

        One that was sent and names a decision with a reservation makes it lasting. Raises LedgerUnavailable.
        """
        ...

    def recall(self, key: str, request_hash: str) -> bytes | None:
        """The answer that this key was given, None where it is new; raises KeyReused, LedgerUnavailable."""
        ...

    def get(self, decision_id: str) -> bytes | None:
        """The record of a decision (JSON), None where there is none; raises LedgerUnavailable."""
        ...

    @property
    def open(self) -> bool:
        """Whether decisions can be recorded."""
        ...

    def close(self) -> None:
        """Finish what was accepted, then accept nothing more. May be called twice."""
        ...


def open_ledger(url: str, path: Path, fold: Fold = unfolded, groups: Mapping[str, str | None] | None = None) -> Ledger:
    """The PostgreSQL ledger at `url`, or, where that is empty, the file at `path`. Raises LedgerUnavailable.

    fold: makes live states. groups: of products, for contacts that were made without a decision.
    """
    if not url:
        return SqliteLedger(path, fold, groups)
    from serving.postgres import PostgresLedger  # only who uses it needs its driver

    return PostgresLedger(url, fold, groups)
