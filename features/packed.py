"""The packed online stores, read without Feast and without pandas; this one is a SQLite file.

A row holds the newest state of one key in one view (`features.packing`). `layouts` keeps, per view, the columns that
its rows were written with and their fingerprint: a reader that expects other columns is refused when it opens the file,
not answered with shifted numbers.

Expiry is *not* applied here: a state older than its view's `ttl` comes back with its time in `State.at`, and the row
builder (`features.assemble`) treats it as unknown, so that both paths follow one rule at the moment of the question.

One process writes at a time; readers never wait and never fail meanwhile (write-ahead log, one snapshot per read).
The rows of all views of a customer lie side by side: a decision reads a page or two, however many customers there are.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from features import joined_rows
from features.errors import ArtefactError, NotBuilt
from features.packing import Unpacking, fingerprint, layout, pack, seconds, stacked, unknown, unpacked
from features.schema import MARKET_ID, State, States, View

Row: TypeAlias = tuple[int, str, int, bytes, str | None]
"""A packed row as it is read: number of its view, key, event time (microseconds since 1970 UTC), numbers, texts."""

_MANY = 10
"""From so many customers on all their rows, joined, are cheaper than a row per customer and view."""
_KEYS_PER_QUERY = 1_000
_ROWS_PER_BLOCK = 65_536
_BUSY_SECONDS = 30.0
_READERS_MILLISECONDS = 1_000
"""So long the end of a load waits for readers in the middle of an answer, to cut the log."""

_TABLES = """
CREATE TABLE IF NOT EXISTS layouts (
    view_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, layout TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS states (
    view_id INTEGER NOT NULL, key TEXT NOT NULL, event_us INTEGER NOT NULL, created_us INTEGER NOT NULL,
    numbers BLOB NOT NULL, texts TEXT, PRIMARY KEY (key, view_id)
) WITHOUT ROWID;
"""

# The guard: a state that happened earlier never overwrites a later one (else a late event undoes an opt-out); of two
# with one event time, the one that became known later wins. An equal pair is the same state, computed again.
_UPSERT = """
INSERT INTO states VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, view_id) DO UPDATE SET
    event_us = excluded.event_us, created_us = excluded.created_us,
    numbers = excluded.numbers, texts = excluded.texts
WHERE (excluded.event_us, excluded.created_us) >= (states.event_us, states.created_us)
"""


_OF_VIEWS = "SELECT view_id, key, event_us, numbers, texts FROM states WHERE view_id IN"


def define(path: Path, views: Iterable[View]) -> None:
    """Create the file at `path` where it is missing and register `views` in it.

    A view that is there with other columns loses its rows: they cannot be read any more, materialise them again.
    """
    with _writing(path) as connection:
        connection.execute("PRAGMA page_size = 8192")  # rows up to 2 kB stay inside the tree
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        with connection:
            for view in views:
                held = connection.execute("SELECT fingerprint FROM layouts WHERE name = ?", [view.name]).fetchone()
                if held != (fingerprint(view),):
                    _forget(connection, view.name)
                    connection.execute(
                        "INSERT INTO layouts (name, fingerprint, layout) VALUES (?, ?, ?)",
                        [view.name, fingerprint(view), layout(view)],
                    )


def forget(path: Path, names: Iterable[str]) -> None:
    """Remove views and all their rows."""
    with _writing(path) as connection, connection:
        for name in names:
            _forget(connection, name)


class PackedStates(ABC):
    """The newest states of every key of `views`; a store says how their rows are fetched and written."""

    views: tuple[View, ...]
    _ids: Mapping[str, int]
    """View name → its number in the store."""
    _market: frozenset[int]
    """Numbers of the views of the market."""

    def read(self, customer_ids: Sequence[str]) -> States:
        """Newest states of n customers in their order; market states are the same for all of them.

        Unknown customers have `at` NaN, numbers NaN and texts None. A customer may be named several times. One query
        answers all views of many customers, and all queries of a call see one snapshot.
        """
        if len(customer_ids) == 1:
            return self._of_one(customer_ids[0])
        places = {key: place for place, key in enumerate(dict.fromkeys(customer_ids))}
        found = {number: Unpacking() for number in self._ids.values()}
        for number, key, event_us, numbers, texts in self._rows(list(places)):
            place = (0 if key == MARKET_ID else None) if number in self._market else places.get(key)
            if place is not None:
                found[number].add(place, event_us, numbers, texts)
        repeated = len(places) < len(customer_ids)
        place_of_row = np.array([places[key] for key in customer_ids], np.int64) if repeated else None
        states: dict[str, State] = {}
        for view in self.views:
            of_view = found[self._ids[view.name]]
            if view.entity == "market":
                states[view.name] = of_view.state(view, 1).take(np.zeros(len(customer_ids), np.int64))
            else:
                state = of_view.state(view, len(places))
                states[view.name] = state if place_of_row is None else state.take(place_of_row)
        return states

    def _of_one(self, customer_id: str) -> States:
        """The states of one customer; for a decision it is the calls that cost."""
        found: dict[int, Row] = {}
        for row in self._rows([customer_id]):
            # A customer may well be called "all": each kind of view has keys of its own.
            if row[1] == (MARKET_ID if row[0] in self._market else customer_id):
                found[row[0]] = row
        rows = [found.get(self._ids[view.name]) for view in self.views]
        at = seconds(np.array([row[2] if row else 0 for row in rows], np.int64))  # [views]
        return {
            view.name: unpacked(view, at[place : place + 1], row[3], row[4]) if row else unknown(view, 1)
            for place, (view, row) in enumerate(zip(self.views, rows, strict=True))
        }

    @abstractmethod
    def write(self, view: View, table: pa.Table) -> None:
        """Write the states in `table` (key, event and created timestamps, the view's columns).

        The guard applies: a row changes a key's state only where its (event, created) is not older than what is there.
        Raises InputError, with nothing written, where a row has no key or no event time.
        """

    @abstractmethod
    def load(self, view: View, blocks: Iterable[pa.Table]) -> None:
        """Write the states of all keys of `view`, as `write` does, block after block; best in the order of the keys."""

    @abstractmethod
    def _rows(self, keys: list[str]) -> Iterator[Row]:
        """All views' rows of the customers `keys`, and the market's."""


class OnlineStates(PackedStates):
    """The states as they are in the file at `path`.

    Each thread that reads gets a read-only connection of its own. Raises NotBuilt where there is no such file and
    ArtefactError where it is damaged or was written for other columns.
    """

    def __init__(self, path: Path, views: Sequence[View]) -> None:
        if not path.is_file():
            raise NotBuilt(f"there is no online store at {path}; build it with `nextbest features build DIR`")
        self.path = path
        self.views = tuple(views)
        self._of_thread = threading.local()
        self._ids = self._check_layouts()
        self._market = frozenset(self._ids[view.name] for view in self.views if view.entity == "market")
        of_customers = ", ".join(str(number) for number in self._ids.values() if number not in self._market)
        of_market = ", ".join(str(number) for number in self._market)
        # Asked apart: no customer is looked for among the market's keys, nor the market among theirs.
        self._query = f"{_OF_VIEWS} ({of_market}) AND key = ? UNION ALL {_OF_VIEWS} ({of_customers}) AND key IN"

    def write(self, view: View, table: pa.Table) -> None:
        """Write the states in `table`, all of them or none."""
        with _writing(self.path) as connection:
            self._upsert(connection, view, [table])

    def load(self, view: View, blocks: Iterable[pa.Table]) -> None:
        """Write the states of all blocks, all of them or none; the file is all that is left on disk then."""
        blocks = iter(blocks)
        first = next(blocks, None)  # it may take long to compute: nobody else has to wait for it
        with _writing(self.path) as connection:
            self._upsert(connection, view, itertools.chain([] if first is None else [first], blocks))
            _cut_log(connection)

    def _upsert(self, connection: sqlite3.Connection, view: View, blocks: Iterable[pa.Table]) -> None:
        number = self._ids[view.name]
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for block in blocks:
                for start in range(0, block.num_rows, _ROWS_PER_BLOCK):
                    rows = pack(view, block.slice(start, _ROWS_PER_BLOCK))
                    connection.executemany(_UPSERT, zip(itertools.repeat(number), *rows, strict=False))

    def read(self, customer_ids: Sequence[str]) -> States:
        """As every store does; of many customers all rows are one, which is what reading costs."""
        n = len(customer_ids)
        if n < _MANY or not joined_rows.possible():
            return super().read(customer_ids)
        joined = {self._ids[view.name]: view for view in self.views if view.entity == "customer"}
        parts = list[States]()
        with self._snapshot() as connection:
            for start in range(0, n, _KEYS_PER_QUERY):
                asked = customer_ids[start : start + _KEYS_PER_QUERY]
                given = itertools.chain.from_iterable(enumerate(asked))
                row = connection.execute(joined_rows.query(list(joined), len(asked)), list(given)).fetchone()
                parts.append(joined_rows.states(joined, row, len(asked)))
            market = self._of_market(connection, n)
        states: dict[str, State] = {}
        for view in self.views:
            of_view = [part[view.name] for part in parts] if view.entity == "customer" else [market[view.name]]
            states[view.name] = of_view[0] if len(of_view) == 1 else stacked(of_view)
        return states

    def _of_market(self, connection: sqlite3.Connection, n: int) -> States:
        """The market's states, the same for each of n customers."""
        rows = connection.execute(f"{_OF_VIEWS} ({', '.join(map(str, self._market))}) AND key = ?", [MARKET_ID])
        found = {number: Unpacking() for number in self._market}
        for number, _, event_us, numbers, texts in rows:
            found[number].add(0, event_us, numbers, texts)
        everybody = np.zeros(n, np.int64)
        of_market = [view for view in self.views if view.entity == "market"]
        return {view.name: found[self._ids[view.name]].state(view, 1).take(everybody) for view in of_market}

    def _rows(self, keys: list[str]) -> Iterator[Row]:
        """All views' rows of fewer than `_MANY` customers and of the market, in one query, hence of one snapshot."""
        try:
            yield from self._connection().execute(self._asking(len(keys)), [MARKET_ID, *keys]).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection whose queries all see the store as it is at the first of them."""
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.DatabaseError) -> ArtefactError:
        return ArtefactError(f"the online store {self.path} cannot be read ({error}); build it again")

    def _asking(self, customers: int) -> str:
        return f"{self._query} ({', '.join('?' * customers)})"

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
            self._of_thread.connection = connection
        return connection

    def _check_layouts(self) -> dict[str, int]:
        """View name → its number in the file; refuses views that the file holds otherwise or not at all."""
        try:
            rows = self._connection().execute("SELECT name, view_id, fingerprint, layout FROM layouts").fetchall()
        except sqlite3.DatabaseError as error:
            raise ArtefactError(f"{self.path} is not an online store ({error}); build it again") from error
        there = {name: (number, held, columns) for name, number, held, columns in rows}
        for view in self.views:
            _, held, columns = there.get(view.name, (0, "", "nothing"))
            if held != fingerprint(view):
                raise ArtefactError(
                    f"the online store {self.path} must hold view {view.name!r} as {layout(view)}, however it holds "
                    f"{columns}; build the features again with this version"
                )
        return {view.name: int(there[view.name][0]) for view in self.views}


def _forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM states WHERE view_id = (SELECT view_id FROM layouts WHERE name = ?)", [name])
    connection.execute("DELETE FROM layouts WHERE name = ?", [name])


def _cut_log(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file and cut it to nothing: after a load it is as large as what was loaded.

    No reader fails or waits for it: who comes meanwhile reads the file itself. Where one takes long over an answer from
    the log, the log stays as it is, which is no harm, and the next load cuts it.
    """
    connection.execute(f"PRAGMA busy_timeout = {_READERS_MILLISECONDS}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")  # a lost tail is rebuilt; the file itself stays sound
        yield connection
