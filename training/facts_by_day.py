"""What a build's tables say by the end of each day, as one number: equal numbers, equal facts, whichever build it is.

Every fact (a row of a table, with when the ledger's became known) has a 64-bit hash; a day's facts have the sum of
theirs, in which order does not count; days are chained by SHA-256. A build with later facts only has the same numbers
for the days before them; one fact more, less or other on a day gives this and all later days other numbers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Event, Table
from features.importing import SERVED_FILE
from features.schema import Int64
from training.labels import DAY

if TYPE_CHECKING:
    from features.home import Build

NOTHING = 0
"""Before the first fact."""


@dataclass(frozen=True)
class FactsByDay:
    """days: int64 [d], days since 1970 UTC on which something happened, rising. digests: int64 [d], of all until then.

    Facts count from when they happened, not from when they became known: who asks is then never told too little.
    """

    days: Int64
    digests: Int64

    def at(self, moment: Int64) -> Int64:
        """Int64 [n]: of all facts until the end of the day of each moment (µs)."""
        before = np.searchsorted(self.days, moment // DAY, side="right")
        return np.concatenate([[NOTHING], self.digests])[before].astype(np.int64)

    def to_json(self) -> str:
        return json.dumps([self.days.tolist(), self.digests.tolist()])

    @classmethod
    def from_json(cls, text: str) -> FactsByDay:
        days, digests = json.loads(text)
        return cls(np.array(days, np.int64), np.array(digests, np.int64))


def facts_by_day(build: Build) -> FactsByDay:
    """Read all tables of the build once, column by column, within bounded memory."""
    import duckdb

    sums: dict[int, list[str]] = {}
    with duckdb.connect() as database:
        for table in Table:
            for day, count, total in database.execute(_query(build, table)).fetchall():
                sums.setdefault(day, []).append(f"{table}:{count}:{total}")
    days = np.array(sorted(sums), dtype=np.int64)
    digests = np.empty(len(days), dtype=np.int64)
    digest = hashlib.sha256(duckdb.__version__.encode())  # whose hashes they are
    for place, day in enumerate(days.tolist()):
        digest.update(f"{day} {' '.join(sums[day])}\n".encode())
        digests[place] = int.from_bytes(digest.digest()[:8], "big", signed=True)
    return FactsByDay(days, digests)


def _query(build: Build, table: Table) -> str:
    """Per day: how many facts, and the sum of their hashes (128 bits wide, so that nothing wraps)."""
    path = build.bank_folder / f"{table}.parquet"
    columns = [f'fact."{name}"' for name in pq.read_schema(path).names]
    source = f"read_parquet({_quoted(str(path))}) AS fact"
    if table is Table.TIMELINE:
        source += f" LEFT JOIN read_parquet({_quoted(str(build.bank_folder / SERVED_FILE))}) AS known"
        source += f' ON fact."{Event.EVENT_ID}" = known."{Event.EVENT_ID}"'
        columns.append(f'known."{CREATED_TIMESTAMP}"')
    day = f'epoch_us(fact."{EVENT_TIMESTAMP}") // {DAY}'
    return f"SELECT {day} AS day, count(*), sum(hash({', '.join(columns)})) FROM {source} GROUP BY day"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
