"""The imported timeline by customer: one customer's events without reading everybody's.

A copy of the timeline in order of customer and time, in small row groups whose first and last customer are in the
file's footer: a customer's events lie in one group, or a few that follow each other.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.arrow import Column, kernels
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event
from features.errors import ArtefactError
from features.schema import Bool

FILE = "timeline_by_customer.parquet"
ROWS_AT_ONCE = 8_192


def write_customer_events(timeline: pa.Table, folder: Path) -> None:
    """Write the copy of `timeline` into `folder`."""
    order = [(CUSTOMER_ID, "ascending"), (EVENT_TIMESTAMP, "ascending"), (Event.EVENT_ID, "ascending")]
    pq.write_table(timeline.sort_by(order), folder / FILE, compression="zstd", row_group_size=ROWS_AT_ONCE)


class EventsByCustomer:
    """The copy in `folder`, many customers at a time. Raises ArtefactError where it is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        with _told(self._path):
            self._file = pq.ParquetFile(self._path)
        self._first, self._last = _ends(self._file)

    def of(self, customers: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """These columns of the customers' events, in order of customer, time and id; groups without any are not read.

        customers: each once, in order.
        """
        if not len(customers):
            return self._file.schema_arrow.empty_table().select(list(columns))
        places = [bisect.bisect_left(customers, first) for first in self._first]
        groups = [
            group
            for group, (place, last) in enumerate(zip(places, self._last, strict=True))
            if place < len(customers) and customers[place] <= last
        ]
        with _told(self._path):
            near = self._file.read_row_groups(groups, list(dict.fromkeys((CUSTOMER_ID, *columns))), use_threads=False)
        theirs = kernels.is_in(near[CUSTOMER_ID], value_set=pa.array(customers, pa.string()))
        return near.filter(theirs).select(list(columns))


class CustomerEvents:
    """The copy in `folder`; safe in many threads. Raises ArtefactError where it is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        with _told(self._path):
            self._file = pq.ParquetFile(self._path)
        self._first, self._last = _ends(self._file)
        self._hashes = np.sort(_hashes(self._file.read([Event.EVENT_ID])[Event.EVENT_ID]))

    def of(self, customer_id: str) -> pa.Table:
        """The customer's events in order of time and id, in the columns of the timeline."""
        with self._lock:  # a file is read by one thread at a time
            near = self._file.read_row_groups(self.groups(customer_id), use_threads=False)
        return near.filter(pc.equal(near[CUSTOMER_ID], customer_id))

    def groups(self, customer_id: str) -> range:
        """The row groups that may have events of the customer."""
        return range(bisect.bisect_left(self._last, customer_id), bisect.bisect_right(self._first, customer_id))

    def has(self, event_ids: Sequence[str]) -> Bool:
        """Whether events of these ids [n] were imported: bool [n], by 64-bit hashes of the ids."""
        wanted = _hashes(pa.chunked_array([pa.array(event_ids, pa.string())]))
        places = np.searchsorted(self._hashes, wanted)
        places = np.minimum(places, max(len(self._hashes) - 1, 0))
        return np.asarray(self._hashes[places] == wanted) if len(self._hashes) else np.zeros(len(wanted), np.bool_)


def _ends(file: pq.ParquetFile) -> tuple[list[str], list[str]]:
    """The first and the last customer of each row group."""
    footer, place = file.metadata, file.schema_arrow.names.index(CUSTOMER_ID)
    numbers = range(footer.num_row_groups if footer.num_rows else 0)  # of no rows there is an empty group
    ranges = [footer.row_group(number).column(place).statistics for number in numbers]
    return [group.min for group in ranges], [group.max for group in ranges]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); build the features again") from error


def _hashes(values: Column) -> np.ndarray:
    """uint64 [n]: a hash of each text, the same in every process."""
    blocks = [
        pd.util.hash_array(chunk.to_numpy(zero_copy_only=False), categorize=False)
        for chunk in values.chunks
        if len(chunk)
    ]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.uint64)
