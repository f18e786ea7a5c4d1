"""The records of recent decisions, read from a ledger that a server may be writing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from serving.entries import unpacked
from serving.errors import LedgerUnavailable


def recent_records(url: str, path: Path, most: int) -> list[dict[str, Any]]:
    """The newest decisions' records, at most `most`, newest first; none where there is no ledger yet.

    url: of the PostgreSQL ledger, or empty: the SQLite file at `path`. Raises LedgerUnavailable.
    """
    packed = _from_postgres(url, most) if url else _from_sqlite(path, most)
    return [orjson.loads(unpacked(record)) for record in packed]


def _from_sqlite(path: Path, most: int) -> list[bytes]:
    if not path.exists():
        return []
    query = "SELECT record FROM decisions ORDER BY recorded_us DESC, decision_id LIMIT ?"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            return [record for (record,) in connection.execute(query, (most,))]
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"the ledger {path} cannot be read: {error}") from error


def _from_postgres(url: str, most: int) -> list[bytes]:
    import asyncpg  # only who uses it needs its driver

    from serving.postgres_tables import SCHEMA

    async def read() -> list[bytes]:
        connection = await asyncpg.connect(url, server_settings={"application_name": "nextbest evaluate"})
        try:
            rows = await connection.fetch(
                f"SELECT record FROM {SCHEMA}.decisions ORDER BY recorded_us DESC, decision_id LIMIT $1", most
            )
            return [row[0] for row in rows]
        finally:
            await connection.close()

    try:
        return asyncio.run(read())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise LedgerUnavailable(f"the PostgreSQL ledger cannot be read: {error}") from error
