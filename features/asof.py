"""The one rule of what was known when: which state of a key counts at a moment, looked up in a view's Parquet file.

A state counts from the moment when it has happened and is known. Of those the latest event counts, of equal events the
one known last, and it counts until its ttl is over. Histories for learning, Feast's own joins and the online store all
ask here. Only keys and times are read; the columns of the rows that count are fetched by row number (`features.fetch`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import Column, kernels
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.packing import key_column, microseconds
from features.schema import Bool, Int64, View
from features.times import micros

WORKERS = 2
"""Threads that read Parquet at once; each holds one row group."""

_BEFORE_ALL = np.iinfo(np.int64).min
_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


@dataclass(frozen=True)
class Source:
    """A Parquet file of states, one row each, fastest when sorted by key; ttl None: a state counts for ever.

    created: column of the moment when a state became known, None for a file without; known_only: whether what was not
    known yet is left out, as it must be for learning.
    """

    path: Path
    key: str
    event: str = EVENT_TIMESTAMP
    created: str | None = CREATED_TIMESTAMP
    ttl: timedelta | None = None
    known_only: bool = True

    @classmethod
    def of(cls, view: View, path: Path) -> Source:
        """The states of `view`, whose Parquet file is at `path`."""
        return cls(path, key_column(view), ttl=view.ttl)


@dataclass(frozen=True)
class Asked:
    """n questions "which state of this key, at this moment?", in the order of their keys.

    keys: the different keys, sorted. code: int64 [n], ascending, which of them. at: int64 [n], µs since 1970 UTC.
    place: int64 [n], where in the caller's order a question stands; those with a null key stand nowhere.
    """

    keys: pa.Array[Any]
    code: Int64
    at: Int64
    place: Int64

    @classmethod
    def of(cls, keys: Column, at: Int64) -> Asked:
        """keys: [n], any type that sorts, null = nobody; at: [n], µs since 1970 UTC."""
        encoded = keys.combine_chunks().dictionary_encode()
        order = kernels.sort_indices(encoded.dictionary)
        rank = np.argsort(order.to_numpy())
        place = np.flatnonzero(kernels.is_valid(encoded).to_numpy(zero_copy_only=False))
        code = rank[encoded.indices.drop_null().to_numpy()].astype(np.int64)
        by_key = np.argsort(code, kind="stable")
        return cls(encoded.dictionary.take(order), code[by_key], at[place[by_key]], place[by_key])


def rows_that_count(source: Source, asked: Asked) -> tuple[Int64, Int64]:
    """Per question [n, in the order of `asked`] the row of the file that counts, -1 for none, and its event time [µs].

    The rule picks a maximum, so row groups are asked one by one, whatever their order, and the best answer is kept. A
    file sorted by key answers each question from one of them, two at a border.
    """
    n = len(asked.code)
    row, event, created = np.full(n, -1), np.full(n, _BEFORE_ALL), np.full(n, _BEFORE_ALL)
    file = pq.ParquetFile(source.path)
    starts = first_rows(file.metadata)
    parts = [(group, *part) for group, part in enumerate(_parts(file, source.key, asked)) if part[0] < part[1]]

    def ask(part: tuple[int, int, int]) -> tuple[Int64, Int64, Int64]:
        group, first, last = part
        known = pq.ParquetFile(source.path, metadata=file.metadata, read_dictionary=[source.key])
        return _newest_in_group(known, group, source, asked, first, last)

    for (group, first, last), (found, its_event, its_created) in zip(parts, in_threads(ask, parts), strict=True):
        here = slice(first, last)
        newer = (its_event > event[here]) | ((its_event == event[here]) & (its_created >= created[here]))
        wins = np.flatnonzero((found >= 0) & newer)
        row[first + wins] = starts[group] + found[wins]
        event[first + wins], created[first + wins] = its_event[wins], its_created[wins]
    if source.ttl:
        row[(row >= 0) & (asked.at - event > source.ttl // timedelta(microseconds=1))] = -1
    return row, event


def newest_known(
    key: Int64, event: Int64, created: Int64, asked_key: Int64, at: Int64, known_only: bool = True
) -> Int64:
    """Per question [n], the row of the newest of m states of its key that had happened and were known then; -1: none.

    key, asked_key: small numbers from 0. Newest is the latest event, and of equal events the one known last; of equal
    states the last row. Row i can be used from max(event, created) on: in the order of these moments, key by key, the
    running maximum of the rows' ranks is the newest row so far. Rows that are in order already cost no sorting.
    """
    if not len(key):
        return np.full(len(asked_key), -1)
    by_rank = _order(key, event, created)
    usable = np.maximum(event, created) if known_only else event
    first = usable.min()
    span = int(usable.max() - first) + 1
    offset, asked_offset = usable - first, np.clip(at, first - 1, first + span - 1) - first
    if (
        int(max(key.max(), asked_key.max(initial=0))) + 1
    ) * span >= 2**62:  # key and moment fit no int64: count moments
        moments, offset = np.unique(usable, return_inverse=True)
        span, asked_offset = len(moments), np.searchsorted(moments, at, side="right") - 1
    moment = key * span + offset  # ranks of earlier keys are smaller: the maximum does not reach over from them
    newest = by_rank
    if not (_ascending(moment[by_rank])):
        rank = np.empty_like(by_rank)
        rank[by_rank] = np.arange(len(by_rank))
        by_moment = np.argsort(moment, kind="stable")
        newest = by_rank[np.maximum.accumulate(rank[by_moment])]
        moment = moment[by_moment]
    else:
        moment = moment[by_rank]
    last = np.searchsorted(moment, asked_key * span + asked_offset, side="right") - 1
    found = newest[last]
    return np.where((last >= 0) & (key[found] == asked_key), found, -1)


def newest_of_keys(path: Path, key: str, keys: Column, until: datetime, columns: list[str]) -> pa.Table:
    """The newest state of each of `keys` among those that had happened and were known by `until`, ttl aside.

    path: a view's Parquet file; key: its key column. Keys without such a state are absent.
    """
    from features.fetch import fetch

    asked = Asked.of(keys, np.full(len(keys), micros(until)))
    row, _ = rows_that_count(Source(path, key), asked)
    found = [table.select(columns) for _, table in fetch(path, row[row >= 0], columns)]
    return pa.concat_tables(found) if found else pq.read_schema(path).empty_table().select(columns)


def first_rows(metadata: pq.FileMetaData) -> Int64:
    """The number of the first row of each row group, and the number of all rows at the end."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.cumsum([0, *sizes], dtype=np.int64)


def in_threads(work: Callable[[_Task], _Done], tasks: Iterable[_Task], workers: int = WORKERS) -> Iterator[_Done]:
    """What `work` makes of each task, in their order; at most `workers` results more than were taken are in memory."""
    waiting = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, task) for task in islice(waiting, workers)]
        while running:
            done = running.pop(0).result()
            running += [pool.submit(work, task) for task in islice(waiting, 1)]
            yield done


def _newest_in_group(
    file: pq.ParquetFile, group: int, source: Source, asked: Asked, first: int, last: int
) -> tuple[Int64, Int64, Int64]:
    """Questions first…last answered from one row group: its row, -1 for none, and the row's event and created time."""
    times = [source.event, *([source.created] if source.created else [])]
    states = file.read_row_group(group, [source.key, *times], use_threads=False)
    code, mine = _codes(states.column(source.key), asked.keys, asked.code[first], asked.code[last - 1])
    kept = mine & kernels.is_valid(states.column(source.event)).to_numpy()
    created_column = states.column(source.created) if source.created else None
    if created_column is not None and source.known_only:
        kept &= kernels.is_valid(created_column).to_numpy()
    rows = np.arange(len(kept)) if kept.all() else np.flatnonzero(kept)
    event = microseconds(kernels.fill_null(states.column(source.event), 0))[rows]
    created = np.zeros_like(event) if created_column is None else _created(created_column)[rows]
    code = code[rows]
    asked_code = asked.code[first:last] - asked.code[first]
    known_only = source.known_only and source.created is not None
    newest = newest_known(code, event, created, asked_code, asked.at[first:last], known_only)
    found = newest >= 0
    answer = tuple(np.full(len(newest), nothing) for nothing in (-1, _BEFORE_ALL, _BEFORE_ALL))
    for told, values in zip(answer, (rows, event, created), strict=True):
        told[found] = values[newest[found]]
    return answer[0], answer[1], answer[2]


def _created(column: Column) -> Int64:
    """Times of becoming known; null, which only counts where the unknown is not left out, is before all others."""
    times = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return np.asarray(kernels.fill_null(times, _BEFORE_ALL).to_numpy(), np.int64)


def _codes(column: Column, keys: pa.Array[Any], first: int, last: int) -> tuple[Int64, Bool]:
    """Per row of a key column, which of the keys first…last it has, from 0, and whether it has one of them."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded: Any = column.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], keys.type))
    wanted = keys.slice(first, last - first + 1)
    code_of = kernels.index_in(encoded.dictionary.cast(keys.type), wanted)
    code_of = np.append(kernels.fill_null(code_of, -1).to_numpy(), -1).astype(np.int64)
    code = code_of[kernels.fill_null(encoded.indices, len(code_of) - 1).to_numpy()]
    return code, code >= 0


def _parts(file: pq.ParquetFile, key: str, asked: Asked) -> Iterator[tuple[int, int]]:
    """Per row group, the first and last (exclusive) question whose key can be in it, by its statistics."""
    keys = asked.keys.to_pylist()
    column = file.schema_arrow.get_field_index(key)
    for group in range(file.metadata.num_row_groups):
        told = file.metadata.row_group(group).column(column).statistics
        low, high = 0, len(keys)
        if keys and told is not None and told.has_min_max and isinstance(told.min, type(keys[0])):
            low, high = bisect_left(keys, told.min), bisect_right(keys, told.max)
        yield int(np.searchsorted(asked.code, low)), int(np.searchsorted(asked.code, high))


def _order(key: Int64, event: Int64, created: Int64) -> Int64:
    """Rows in the order of (key, event, created, row)."""
    same_key = key[1:] == key[:-1]
    later = (event[1:] > event[:-1]) | ((event[1:] == event[:-1]) & (created[1:] >= created[:-1]))
    if np.all((key[1:] > key[:-1]) | (same_key & later)):
        return np.arange(len(key))
    return np.lexsort((created, event, key))


def _ascending(values: Int64) -> bool:
    return bool(np.all(values[1:] >= values[:-1]))
