"""The ledger's timeline as a table: what features and training learn from served decisions.

It is read while a server writes. SQLite: a read-only connection, which in WAL mode sees one moment, waits for nobody
and never checkpoints. PostgreSQL: one read-only transaction that sees one moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from features.served import SERVED_SCHEMA
from serving.errors import LedgerUnavailable

ROWS_AT_ONCE = 50_000
_QUERY = f"SELECT {', '.join(SERVED_SCHEMA.names)} FROM timeline"


def served_events(url: str, path: Path, rows_at_once: int = ROWS_AT_ONCE) -> pa.Table | None:
    """Every event of the ledger, of `features.served.SERVED_SCHEMA`; None where there is no ledger yet.

    url: of the PostgreSQL ledger, or empty: the SQLite file at `path`. Raises LedgerUnavailable.
    """
    blocks = _from_postgres(url, rows_at_once) if url else _from_sqlite(path, rows_at_once)
    return None if blocks is None else pa.Table.from_batches(blocks, SERVED_SCHEMA)


def _from_sqlite(path: Path, rows_at_once: int) -> list[pa.RecordBatch] | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'timeline'").fetchone():
                return None
            return [_block(rows) for rows in _chunks(connection.execute(_QUERY), rows_at_once)]
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"the ledger {path} cannot be read: {error}") from error


def _from_postgres(url: str, rows_at_once: int) -> list[pa.RecordBatch] | None:
    import asyncpg  # only who uses it needs its driver

    from serving.postgres_tables import SCHEMA

    async def read() -> list[pa.RecordBatch] | None:
        connection = await asyncpg.connect(url, server_settings={"application_name": "nextbest export"})
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.timeline") is None:
                    return None
                cursor = await connection.cursor(_QUERY.replace("FROM ", f"FROM {SCHEMA}."))
                blocks = []
                while rows := await cursor.fetch(rows_at_once):
                    blocks.append(_block([tuple(row) for row in rows]))
                return blocks
        finally:
            await connection.close()

    try:
        return asyncio.run(read())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise LedgerUnavailable(f"the PostgreSQL ledger cannot be read: {error}") from error


def _chunks(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _block(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """At least one row of the ledger's table, times in microseconds, as Arrow."""
    columns = zip(SERVED_SCHEMA, zip(*rows, strict=True), strict=True)
    return pa.record_batch([_typed(field, values) for field, values in columns], schema=SERVED_SCHEMA)


def _typed(field: pa.Field[Any], values: Sequence[Any]) -> pa.Array[Any]:
    if pa.types.is_timestamp(field.type):
        return pa.array(values, pa.int64()).cast(field.type)
    return pa.array(values, field.type)
