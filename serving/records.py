"""The records of decisions, read from a ledger that a server may be writing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from serving.errors import LedgerUnavailable
from serving.packed_record import unpacked

Picked = TypeVar("Picked")
AT_ONCE = 500
"""Decisions looked up by one query: a record with its features may have a megabyte."""


def recent_records(url: str, path: Path, most: int) -> list[dict[str, Any]]:
    """The newest decisions' records, at most `most`, newest first; none where there is no ledger yet.

    url: of the PostgreSQL ledger, or empty: the SQLite file at `path`. Raises LedgerUnavailable.
    """
    packed = _from_postgres(url, most) if url else _from_sqlite(path, most)
    return [orjson.loads(unpacked(record)) for record in packed]


def picked_records(
    url: str, path: Path, decision_ids: Sequence[str], pick: Callable[[dict[str, Any]], Picked]
) -> list[Picked]:
    """What `pick` takes from the records of these decisions, in any order; unknown ones are left out.

    Records are read a few at a time and let go, for they are large. url, path: as in `recent_records`.
    """
    chunks = [list(decision_ids[start : start + AT_ONCE]) for start in range(0, len(decision_ids), AT_ONCE)]
    packed = _named_in_postgres(url, chunks) if url else _named_in_sqlite(path, chunks)
    return [pick(orjson.loads(unpacked(record))) for record in packed]


def _from_sqlite(path: Path, most: int) -> list[bytes]:
    return list(_asked(path, "ORDER BY recorded_us DESC, decision_id LIMIT ?", [most]))


def _named_in_sqlite(path: Path, chunks: Sequence[list[str]]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from _asked(path, f"WHERE decision_id IN ({', '.join('?' * len(chunk))})", chunk)


def _asked(path: Path, which: str, parameters: Sequence[Any]) -> Iterator[bytes]:
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            yield from (record for (record,) in connection.execute(f"SELECT record FROM decisions {which}", parameters))
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"the ledger {path} cannot be read: {error}") from error


def _from_postgres(url: str, most: int) -> list[bytes]:
    return _rows(url, "ORDER BY recorded_us DESC, decision_id LIMIT $1", most)


def _named_in_postgres(url: str, chunks: Sequence[list[str]]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from _rows(url, "WHERE decision_id = ANY($1)", chunk)


def _rows(url: str, which: str, parameter: object) -> list[bytes]:
    import asyncpg  # only who uses it needs its driver

    from serving.postgres_tables import SCHEMA

    async def read() -> list[bytes]:
        connection = await asyncpg.connect(url, server_settings={"application_name": "nextbest evaluate"})
        try:
            rows = await connection.fetch(f"SELECT record FROM {SCHEMA}.decisions {which}", parameter)
            return [row[0] for row in rows]
        finally:
            await connection.close()

    try:
        return asyncio.run(read())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise LedgerUnavailable(f"the PostgreSQL ledger cannot be read: {error}") from error
