"""The tables of an imported copy, read when they are asked for and no further than they are asked for.

Training asks a bank for its take-ups, for when its data ends and since when it knows each customer. That is a few
columns of a few events; the rest of a timeline takes seconds to read and gigabytes to hold. Whoever asks for a whole
table gets it, read once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import kernels
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Table
from features.errors import InputError
from features.schema import Int64, Texts

FIRST_KNOWN_FILE = "first_known.parquet"
_MICROS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class KeptTables(Mapping[Table, pa.Table]):
    """Tables in the files of `folder`, of these schemas, without what happened after `until` (µs; None: all of it).

    whole: tables that were asked for whole, or that stand in the place of a file, and then `changed`. Raises InputError
    where a file turns out to be damaged.
    """

    folder: Path
    schemas: Mapping[Table, pa.Schema]
    until: int | None = None
    whole: dict[Table, pa.Table] = field(default_factory=dict)
    changed: bool = False

    def __getitem__(self, table: Table) -> pa.Table:
        if table not in self.whole:
            with _told(self.path(table)), pq.ParquetFile(self.path(table)) as file:
                self.whole[table] = until(file.read(), self.until)
        return self.whole[table]

    def __iter__(self) -> Iterator[Table]:
        return iter(self.schemas)

    def __len__(self) -> int:
        return len(self.schemas)

    def path(self, table: Table) -> Path:
        return self.folder / f"{table}.parquet"

    def cut(self, at: int) -> KeptTables:
        """The same tables without what happened after `at` (µs)."""
        at = at if self.until is None else min(at, self.until)
        whole = {name: until(one, at) for name, one in self.whole.items()}
        return KeptTables(self.folder, self.schemas, at, whole, self.changed)

    def replaced(self, table: Table, content: pa.Table) -> KeptTables:
        """The same tables with another in the place of one."""
        return KeptTables(self.folder, self.schemas, self.until, {**self.whole, table: content}, True)

    def columns(self, table: Table, names: Sequence[str], kinds: Collection[Kind] | None) -> pa.Table:
        """See `columns`."""
        if table in self.whole:
            return _picked(self.whole[table], names, kinds)
        listed = ", ".join(f"'{kind}'" for kind in sorted(kinds or ()))
        of_kinds = "" if kinds is None else f'"{Event.KIND}" IN ({listed or "NULL"})'
        found = self._asked(table, ", ".join(f'"{name}"' for name in names), of_kinds)
        return found.cast(pa.schema([self.schemas[table].field(name) for name in names]))

    def newest(self, table: Table) -> int | None:
        """µs of the newest event of a table; None where it has none."""
        if table in self.whole:
            return _newest(self.whole[table])
        return _newest(self._asked(table, f'max("{EVENT_TIMESTAMP}") AS "{EVENT_TIMESTAMP}"'))

    def first_known(self) -> tuple[Texts, Int64]:
        """See `first_known`. What is known first does not change by what comes later: the whole copy's, cut."""
        path = self.folder / FIRST_KNOWN_FILE
        if self.changed or not path.exists():
            return first_of(self._first(table) for table in self)
        with _told(path), pq.ParquetFile(path) as file:
            return _arrays(until(file.read(), self.until))

    def _first(self, table: Table) -> pa.Table:
        if table in self.whole:
            return self.whole[table].select([CUSTOMER_ID, EVENT_TIMESTAMP])
        first = f'"{CUSTOMER_ID}", min("{EVENT_TIMESTAMP}") AS "{EVENT_TIMESTAMP}"'
        return self._asked(table, first, group=f'GROUP BY "{CUSTOMER_ID}"')

    def _asked(self, table: Table, what: str, which: str = "", group: str = "") -> pa.Table:
        """What a query finds in a file; rows keep the file's order."""
        path = str(self.path(table)).replace("'", "''")
        limit = "" if self.until is None else f'epoch_us("{EVENT_TIMESTAMP}") <= {self.until}'
        where = " AND ".join(filter(None, (which, limit)))
        with _told(self.path(table)), duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            query = f"SELECT {what} FROM read_parquet('{path}') {f'WHERE {where}' if where else ''} {group}"
            return database.sql(query).to_arrow_table()


def columns(
    tables: Mapping[Table, pa.Table], table: Table, names: Sequence[str], kinds: Collection[Kind] | None = None
) -> pa.Table:
    """Columns of a table in its order; of the timeline, only events of these kinds (None: all)."""
    if isinstance(tables, KeptTables):
        return tables.columns(table, names, kinds)
    return _picked(tables[table], names, kinds)


def newest(tables: Mapping[Table, pa.Table]) -> int | None:
    """µs of the newest event of any table; None where there is none."""
    if isinstance(tables, KeptTables):
        found = [tables.newest(table) for table in tables]
    else:
        found = [_newest(table) for table in tables.values()]
    return max((at for at in found if at is not None), default=None)


def first_known(tables: Mapping[Table, pa.Table]) -> tuple[Texts, Int64]:
    """Every customer's id, object [N] in order, and µs of the first fact of any table about them, int64 [N]."""
    if isinstance(tables, KeptTables):
        return tables.first_known()
    return first_of(table.select([CUSTOMER_ID, EVENT_TIMESTAMP]) for table in tables.values())


def cut(tables: Mapping[Table, pa.Table], at: int) -> Mapping[Table, pa.Table]:
    """The tables without what happened after `at` (µs)."""
    if isinstance(tables, KeptTables):
        return tables.cut(at)
    return {name: until(table, at) for name, table in tables.items()}


def replaced(tables: Mapping[Table, pa.Table], table: Table, content: pa.Table) -> Mapping[Table, pa.Table]:
    """The tables with another in the place of one."""
    return tables.replaced(table, content) if isinstance(tables, KeptTables) else {**tables, table: content}


def until(table: pa.Table, at: int | None) -> pa.Table:
    """The rows that happened by `at` (µs; None: all)."""
    if at is None:
        return table
    return table.filter(kernels.less_equal(table[EVENT_TIMESTAMP], pa.scalar(at, _MICROS)))


def write_first_known(tables: Mapping[Table, pa.Table], folder: Path) -> None:
    """Keep `first_known` of the tables beside them."""
    ids, at = first_known(tables)
    times = pa.array(at).cast(_MICROS)
    kept = pa.Table.from_arrays([pa.array(ids, pa.string()), times], names=[CUSTOMER_ID, EVENT_TIMESTAMP])
    pq.write_table(kept, folder / FIRST_KNOWN_FILE, compression="zstd")


def first_of(facts: Iterable[pa.Table]) -> tuple[Texts, Int64]:
    """See `first_known`; facts: tables of a customer and a time."""
    together = pa.concat_tables(
        [one.cast(pa.schema([(CUSTOMER_ID, pa.string()), (EVENT_TIMESTAMP, _MICROS)])) for one in facts]
    )
    grouped = together.group_by(CUSTOMER_ID, use_threads=False).aggregate([(EVENT_TIMESTAMP, "min")])
    return _arrays(grouped.rename_columns([CUSTOMER_ID, EVENT_TIMESTAMP]).sort_by(CUSTOMER_ID))


def _arrays(known: pa.Table) -> tuple[Texts, Int64]:
    at = known[EVENT_TIMESTAMP].cast(_MICROS).cast(pa.int64())
    return np.asarray(known[CUSTOMER_ID].to_numpy(), dtype=np.object_), np.asarray(at.to_numpy(), dtype=np.int64)


def _picked(table: pa.Table, names: Sequence[str], kinds: Collection[Kind] | None) -> pa.Table:
    if kinds is not None:
        wanted = pa.array([str(kind) for kind in kinds], table.schema.field(Event.KIND).type)
        table = table.filter(kernels.is_in(table[Event.KIND], value_set=wanted))
    return table.select(list(names))


def _newest(table: pa.Table) -> int | None:
    at: int | None = kernels.max(table[EVENT_TIMESTAMP]).cast(_MICROS).cast(pa.int64()).as_py()
    return at


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise InputError(
            f"{path} is not a whole file of an imported copy ({error}); import again with `nextbest features build DIR`"
        ) from error
