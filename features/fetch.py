"""Columns of some rows of a Parquet file, by row number: only row groups and columns that are asked for are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import take
from features.asof import first_rows, in_threads
from features.schema import Int64

_CELLS = 10_000_000
"""Cells that a thread decodes at once, 80 MB of numbers: the columns of a large row group are read in portions."""


def fetch(
    path: Path, rows: Int64, columns: Sequence[str], dictionaries: Sequence[str] = ()
) -> Iterator[tuple[Int64, pa.Table]]:
    """Rows `rows` [k] of the file, group by group: which of the k they are, and their columns.

    A row may be asked for several times. dictionaries: columns of texts to get as dictionaries. A row group with many
    rows comes in several portions, each with some of the columns.
    """
    metadata = pq.read_metadata(path)
    starts = first_rows(metadata)
    by_row = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[by_row], starts)
    tasks = [
        (group, columns[first : first + width])
        for group in np.flatnonzero(np.diff(ends)).tolist()
        for width in [max(1, _CELLS // int(starts[group + 1] - starts[group]))]
        for first in range(0, len(columns), width)
    ]

    def read(task: tuple[int, Sequence[str]]) -> tuple[Int64, pa.Table]:
        group, portion = task
        file = pq.ParquetFile(path, metadata=metadata, read_dictionary=list(dictionaries))
        which = by_row[ends[group] : ends[group + 1]]
        states = file.read_row_group(group, list(portion), use_threads=False)
        return which, take(states, rows[which] - starts[group])

    return in_threads(read, tasks)
