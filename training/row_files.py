"""Files of rows: written whole or not at all, read by the columns that are asked for; see `training.row_store`."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import AS_OF, CUSTOMER_ID
from features.schema import Int64, Rows, RowSchema

BLOCK_ROWS = 50_000
"""Rows that are computed, written and read at once: bounds memory beside the rows themselves."""
LEFTOVER_SECONDS = 86_400.0
"""A draft this old has nobody who writes it any more."""
FACTS = "facts"
_KEYS = (CUSTOMER_ID, AS_OF, FACTS)
_DAMAGE = (OSError, pa.ArrowException, KeyError, ValueError)


class Addition:
    """A file of rows that is being written; what it meets is kept in `trouble`, and then nothing is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble: str | None = None
        self._draft = folder / f".{os.getpid()}.{time.monotonic_ns()}.tmp"
        self._content = hashlib.sha256()
        self._writer: Any = None

    def write(self, keys: pd.DataFrame, rows: Rows) -> None:
        """Add rows under their keys."""
        if self.trouble is not None:
            return
        try:
            table = _table(keys, rows)
            if self._writer is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                # No dictionaries, which are made of values that count as equal; split bytes pack as well.
                self._writer = pq.ParquetWriter(
                    self._draft, table.schema, compression="zstd", use_dictionary=False,
                    use_byte_stream_split=[name for name in table.column_names if name[0] in "cpl" and "." in name],
                    write_page_checksum=True, write_statistics=False,
                )  # fmt: skip
                self._sweep()
            self._writer.write_table(table, row_group_size=BLOCK_ROWS)
            self._content.update(pd.util.hash_pandas_object(keys, index=False).to_numpy().tobytes())
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Give the file its name."""
        if self._writer is None:
            return
        try:
            self._writer.close()
            with self._draft.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._draft, self.folder / f"{self._content.hexdigest()[:32]}.parquet")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"rows could not be kept in {self.folder}: {error.strerror or error}"
        self._draft.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove drafts of writers that were killed: those much older than this one, by the file system's own clock."""
        now = self._draft.stat().st_mtime
        for path in self.folder.glob(".*.tmp"):
            try:
                if now - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()
            except OSError:  # another process removed it
                continue


def empty_rows(schema: RowSchema, n: int) -> Rows:
    """Rows whose values are to be filled in."""
    products, channels = len(schema.products), len(schema.channels)
    return Rows(
        np.empty((n, len(schema.customer_names)), dtype=np.float32),
        np.empty((n, products, len(schema.product_names)), dtype=np.float32),
        np.empty((n, channels, len(schema.channel_names)), dtype=np.float32),
        np.empty((n, products), dtype=np.bool_),
        np.empty((n, channels), dtype=np.bool_),
        schema,
    )


def read_into(rows: Rows, path: Path, asked: pd.DataFrame, missing: Any) -> None:
    """Fill the rows that are missing and that the file has; `missing` (bool [n]) no longer names them then.

    A file that lacks a column is left; one that is damaged is removed.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = _names(rows.schema)
            if not set(names) <= set(file.schema_arrow.names):
                return
            kept = file.read(columns=list(_KEYS)).to_pandas()
            kept["row"] = np.arange(len(kept))
            wanted = asked[missing].assign(place=np.flatnonzero(missing))
            found = wanted.merge(kept, on=list(_KEYS))
            place, row = found["place"].to_numpy(np.int64), found["row"].to_numpy(np.int64)
            first = 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                here = (row >= first) & (row < last)
                if here.any():
                    _fill(rows, place[here], file.read_row_group(group, columns=names), row[here] - first)
                first = last
        missing[place] = False
        if len(place):
            os.utime(path)
    except FileNotFoundError:
        return
    except _DAMAGE:
        path.unlink(missing_ok=True)


def arrays(rows: Rows) -> tuple[Any, ...]:
    return rows.customer, rows.product, rows.channel, rows.held, rows.opted_out


def _flat(rows: Rows) -> list[Any]:
    """Each array of rows as [n, columns], in the order of `_names`."""
    return [array.reshape(len(rows), int(np.prod(array.shape[1:]))) for array in arrays(rows)]


def _names(schema: RowSchema) -> list[str]:
    """A name per value of a row: of a word's column, the attribute and the word, as no other column has them."""
    plain = sum(attribute.kind != "text" for attribute in schema.attributes)
    words = [json.dumps([name, word]) for name, values in schema.vocabularies for word in values]
    names = schema.customer_names
    return [
        *(f"c.{name}" for name in (*names[:plain], *words, *names[plain + len(words) :])),
        *(f"p.{product}.{name}" for product in schema.products for name in schema.product_names),
        *(f"l.{channel}.{name}" for channel in schema.channels for name in schema.channel_names),
        *(f"held.{product}" for product in schema.products),
        *(f"opted_out.{channel}" for channel in schema.channels),
    ]


def _table(keys: pd.DataFrame, rows: Rows) -> pa.Table:
    values = [np.ascontiguousarray(column) for block in _flat(rows) for column in block.T]
    columns = [
        pa.array(keys[CUSTOMER_ID].to_numpy(dtype=object), pa.string()),
        pa.array(keys[AS_OF].to_numpy(np.int64)),
        pa.array(keys[FACTS].to_numpy(np.int64)),
        *(pa.array(column) for column in values),
    ]
    return pa.Table.from_arrays(columns, names=[*_KEYS, *_names(rows.schema)])


def _fill(rows: Rows, place: Int64, table: pa.Table, taken: Int64) -> None:
    """Put row taken[i] of the table into row place[i]."""
    names = iter(_names(rows.schema))
    for block in _flat(rows):  # views: the arrays of `rows` are contiguous
        values = np.empty((len(place), block.shape[1]), dtype=block.dtype)
        for column in range(block.shape[1]):
            values[:, column] = table.column(next(names)).to_numpy()[taken]
        block[place] = values
