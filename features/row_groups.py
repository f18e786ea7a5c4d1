"""A Parquet file read row group by row group in a few threads: memory holds a few of them, however long the file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORKERS = 2
"""Threads that read at once; each holds one row group."""

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


class RowGroups:
    """The row groups of a file; every thread opens it once.

    dictionaries: columns of texts to read as dictionaries. starts: int64 [groups + 1], the number of the first row of
    each group, and of all rows at the end.
    """

    def __init__(self, path: Path, dictionaries: Sequence[str] = ()) -> None:
        self._path = path
        self._dictionaries = list(dictionaries)
        self._of_thread = threading.local()
        self.metadata = pq.read_metadata(path)
        sizes = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes], dtype=np.int64)

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of one row group, in the order in which they are asked for."""
        if not hasattr(self._of_thread, "file"):
            metadata, dictionaries = self.metadata, self._dictionaries
            self._of_thread.file = pq.ParquetFile(self._path, metadata=metadata, read_dictionary=dictionaries)
        table: pa.Table = self._of_thread.file.read_row_group(group, list(columns), use_threads=False)
        return table


def in_threads(work: Callable[[_Task], _Done], tasks: Iterable[_Task], workers: int = WORKERS) -> Iterator[_Done]:
    """What `work` makes of each task, in their order; at most `workers` results more than were taken are in memory."""
    waiting = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, task) for task in islice(waiting, workers)]
        while running:
            done = running.pop(0).result()
            running += [pool.submit(work, task) for task in islice(waiting, 1)]
            yield done
