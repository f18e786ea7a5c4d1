"""Parquet files of the simulated bank: the same tables always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.schema import Bool

TIMESTAMP = pa.timestamp("us", tz="UTC")
_FOUR_DIGITS = np.array([list(f"{number:04d}".encode()) for number in range(10_000)], dtype=np.uint8)


class TableFile:
    """A Parquet file written row group by row group, with fixed options, in a thread of its own.

    Dictionary arrays are written as what they encode: the Arrow schema is not stored, a reader sees plain strings.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        """Append `table` as one row group. Every table of a file has the same columns.

        Returns while the file is still being written: arrays behind the table must not change any more. At most
        one table waits; an error in writing one is raised by the next call, or on exit.
        """
        self._settle()
        self._pending = self._thread.submit(self._append, table)

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _append(self, table: pa.Table) -> None:
        if self._writer is None:
            coded = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
            self._writer = pq.ParquetWriter(
                self._path,
                table.schema,
                version="2.6",
                compression="zstd",
                compression_level=1,
                use_dictionary=coded,
                dictionary_pagesize_limit=64 << 20,
                write_statistics=True,
                store_schema=False,
            )
        self._writer.write_table(table, row_group_size=max(len(table), 1))

    def __enter__(self) -> TableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._settle()
        finally:
            self._thread.shutdown()
            if self._writer is not None:
                self._writer.close()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table as one row group."""
    with TableFile(path) as file:
        file.write(table)


def ids(prefix: str, numbers: npt.NDArray[np.int64], digits: int) -> pa.Array:
    """Strings like c00000042, of `digits` (a multiple of four) digits; null where the number is negative."""
    valid = numbers >= 0
    rest = numbers[valid]
    head = prefix.encode()
    text = np.empty((len(rest), len(head) + digits), dtype=np.uint8)
    text[:, : len(head)] = np.frombuffer(head, dtype=np.uint8)
    for end in range(len(head) + digits, len(head), -4):
        rest, low = np.divmod(rest, 10_000)
        text[:, end - 4 : end] = _FOUR_DIGITS[low]
    offsets = np.zeros(len(numbers) + 1, dtype=np.int32)
    np.cumsum(valid * text.shape[1], out=offsets[1:])
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        pa.string(), len(numbers), [bitmap, pa.py_buffer(offsets), pa.py_buffer(text.reshape(-1))]
    )


def texts(names: Sequence[str], codes: npt.NDArray[Any], known: Bool | None = None) -> pa.Array:
    """Dictionary-coded strings; null where `known` is False or the code negative."""
    missing = codes < 0 if known is None else ~known | (codes < 0)
    values = names if isinstance(names, pa.Array) else pa.array(names, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=missing), values)


def timestamps(micros: npt.NDArray[np.int64]) -> pa.Array:
    """timestamp[us, UTC]."""
    return pa.array(micros).cast(TIMESTAMP)


def numbers(values: npt.NDArray[Any]) -> pa.Array:
    """Numbers of the array's own type; null where NaN."""
    return pa.array(values, from_pandas=True)
