"""Writing decisions to the SQLite ledger: a group of them with the statements of one.

At every statement another thread may go on, and the writer waits until that lets it again; so what all of a group have
to know is read by one statement, and what they write is one statement per table. In between each is judged in its turn,
knowing what those before it are about to write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from serving.caps import Contact, NotReserved
from serving.entries import Entry, answer_of
from serving.errors import KeyReused, LedgerUnavailable
from serving.events import Fold, check_key, folded
from serving.history import Known

TOGETHER = 16
"""Most decisions that share statements: each number of them has statements of its own, which are kept prepared."""
_FACT, _LIVE, _CONTACT, _ANSWER = range(4)
_KNOWN = """SELECT 0, NULL, value, NULL, NULL, NULL, NULL, NULL, NULL FROM facts WHERE name = 'live'
UNION ALL SELECT 1, customer_id, state, consent_version, NULL, NULL, NULL, NULL, NULL FROM live
WHERE customer_id IN ({places})
UNION ALL SELECT 2, customer_id, at_us, channel, product_id, product_group, purpose, decision_id, expires_us
FROM contacts WHERE customer_id IN ({places}) AND at_us > ?"""
_ANSWERS = """
UNION ALL SELECT 3, key, request_hash, answer, NULL, NULL, NULL, NULL, NULL
FROM idempotency JOIN decisions USING (decision_id) WHERE key IN ({places})"""
_REMEMBER = " ON CONFLICT (customer_id) DO UPDATE SET state = excluded.state"

Result = bytes | Exception
"""The answer to send, or ConsentChanged, CapReached, KeyReused, LedgerUnavailable: then nothing of it was written."""


def write(connection: sqlite3.Connection, entries: Sequence[Entry], fold: Fold, key: str | None) -> list[Result]:
    """Write decisions, their events, their contacts and the live states after them; what came of each.

    key: as in `check_key`. Inside a transaction.
    """
    outcomes: list[Result] = []
    for start in range(0, len(entries), TOGETHER):
        block = entries[start : start + TOGETHER]
        known = _Known(connection, block, fold)
        try:
            check_key(known.key, key)
        except LedgerUnavailable as error:
            return [error] * len(entries)
        outcomes += [known.outcome(entry) for entry in block]
        known.insert(connection)
    return outcomes


class _Known:
    """What has to be known for a block of decisions, and becomes known while they are judged one after the other.

    key: what the live states were computed for.
    """

    def __init__(self, connection: sqlite3.Connection, block: Sequence[Entry], fold: Fold) -> None:
        self._fold = fold
        self.key: str | None = None
        self._live: dict[str, tuple[bytes | None, int]] = {}
        self._contacts: dict[str, list[Contact]] = {}
        self._answers: dict[str, tuple[str, bytes]] = {}
        self._taken: list[Entry] = []
        self._after: dict[str, bytes] = {}
        for kind, name, *row in connection.execute(*_question(block)):
            if kind == _CONTACT:
                self._contacts.setdefault(name, []).append(Contact(name, *row))
            elif kind == _LIVE:
                self._live[name] = row[0], row[1]
            elif kind == _ANSWER:
                self._answers[name] = row[0], row[1]
            else:
                self.key = row[0]

    def outcome(self, entry: Entry) -> Result:
        """What comes of this decision, which later ones then know of."""
        try:
            return self._judged(entry)
        except (NotReserved, KeyReused, LedgerUnavailable) as error:
            return error

    def insert(self, connection: sqlite3.Connection) -> None:
        """Write the decisions that were taken."""
        taken = self._taken
        _insert(connection, "timeline", [entry.event.row for entry in taken])
        _insert(connection, "live", [(name, 0, state) for name, state in self._after.items()], _REMEMBER)
        _insert(connection, "contacts", [entry.contact for entry in taken if entry.contact])
        _insert(connection, "decisions", [entry.decision for entry in taken])
        keys = [(entry.key, entry.request_hash, entry.decision[0]) for entry in taken if entry.key]
        _insert(connection, "idempotency", keys)

    def _judged(self, entry: Entry) -> bytes:
        if entry.key and (first := answer_of(self._answers.get(entry.key), entry.request_hash)) is not None:
            return first
        customer = entry.customer_id
        state, version = self._live.get(customer, (None, 0))
        if entry.contact:
            entry.admit(Known(self._counted(entry), (), state, version))
        after = folded(self._fold, state, [entry.event])
        # From here on it is taken.
        if after is not state and after is not None:
            self._live[customer] = after, version
            self._after[customer] = after
        if entry.contact:
            self._contacts.setdefault(customer, []).append(entry.contact)
        if entry.key:
            self._answers[entry.key] = entry.request_hash, entry.answer
        self._taken.append(entry)
        return entry.answer

    def _counted(self, entry: Entry) -> tuple[Contact, ...]:
        """The customer's contacts that the caps are counted over."""
        return tuple(
            contact
            for contact in self._contacts.get(entry.customer_id, ())
            if contact.at_us > entry.since_us and (contact.expires_us is None or contact.expires_us > entry.now_us)
        )


def _question(block: Sequence[Entry]) -> tuple[str, list[object]]:
    """The statement that reads what has to be known, and its parameters; None stands where nothing is asked."""
    customers = [entry.customer_id for entry in block]
    capped = [entry.customer_id if entry.contact and entry.caps else None for entry in block]
    keys = [entry.key or None for entry in block]
    places = ", ".join("?" * len(block))
    statement = (_KNOWN + _ANSWERS) if any(keys) else _KNOWN
    since = min(entry.since_us for entry in block)
    return statement.format(places=places), [*customers, *capped, since, *(keys if any(keys) else ())]


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]], update: str = "") -> None:
    """Write rows, all of their columns in order, at most `TOGETHER`; update: what a row that is there becomes."""
    if rows:
        one = f"({', '.join('?' * len(rows[0]))})"
        values = ", ".join([one] * len(rows))
        connection.execute(f"INSERT INTO {table} VALUES {values}{update}", [*chain.from_iterable(rows)])
