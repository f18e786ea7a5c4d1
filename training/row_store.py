"""Assembled rows that are kept in the home, so that the next training computes only what is new.

home/rows/
  facts/<build>.json          what the build's tables say by the end of each day (`facts_by_day`)
  <context>/<content>.parquet rows, one file per addition, never changed; a column per value, float32 as computed

A row about a customer at a moment is made of the facts until then, the catalogue, the definitions of the views and the
code. The context is all of them but the facts; of the facts each row keeps the number that they had by the end of its
day. It is used again where context and number are the build's: later facts leave it valid, a late one, an earlier one
and a changed one do not. The words that have a column may change from day to day: columns are found by name.

A file is written under another name and then named after its content: a kill leaves nothing that is read, and two
processes at once leave both their files. A file that is damaged is removed and its rows are computed. What was not used
for longest goes when all is larger than MOST_BYTES. Nothing here may fail a training: it goes on without the store.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from features.catalog_file import render_catalog
from features.columns import AS_OF, CUSTOMER_ID
from features.home import FEATURES_VERSION, replace_text
from features.packing import layout
from features.schema import Int64, Rows, RowSchema, Texts
from training.facts_by_day import FactsByDay, facts_by_day
from training.row_files import BLOCK_ROWS, FACTS, Addition, arrays, empty_rows, read_into

if TYPE_CHECKING:
    from features.home import Build

MOST_BYTES = 2 << 30
"""Of all files together: some three million rows of a default bank."""


Compute: TypeAlias = Callable[[Texts, Int64], Rows]
"""Customer ids [k] and moments int64 [k] (µs) → their rows."""


class RowStore:
    """Rows of one home. reused, computed: rows so far. seconds: spent on both. trouble: why nothing could be kept."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """folder: is made when something is kept."""
        self.folder = folder
        self.most_bytes = most_bytes
        self.reused = 0
        self.computed = 0
        self.seconds = 0.0
        self.trouble: str | None = None

    @classmethod
    def beside(cls, build: Build) -> RowStore:
        """The store of the home that the build lies in."""
        return cls(build.folder.parent.parent / "rows")

    def rows(self, build: Build, customer_id: Texts, as_of: Int64, schema: RowSchema, compute: Compute) -> Rows:
        """Rows of n customers, each at its own moment (µs): kept ones, and `compute` for the others, which are kept.

        They are the same to the last bit as those that `compute` makes. Each customer and moment is computed once.
        """
        started = time.perf_counter()
        asked, place = distinct(customer_id, as_of)
        rows = empty_rows(schema, len(asked))
        try:
            asked[FACTS] = self._facts(build).at(asked[AS_OF].to_numpy(np.int64))
            folder: Path | None = self.folder / context(build, schema)
        except OSError as error:
            folder, self.trouble = None, str(error)
        missing = np.ones(len(asked), dtype=np.bool_)
        for path in [] if folder is None else sorted(folder.glob("*.parquet")):
            if missing.any():
                read_into(rows, path, asked, missing)
        kept = int((~missing)[place].sum())
        self.reused += kept
        self.computed += len(place) - kept
        self._compute(rows, asked, np.flatnonzero(missing), compute, folder)
        self.seconds += time.perf_counter() - started
        return rows if np.array_equal(place, np.arange(len(rows))) else rows.take(place)

    def _compute(self, rows: Rows, asked: pd.DataFrame, missing: Int64, compute: Compute, folder: Path | None) -> None:
        """Fill rows [missing] block by block, and keep each block where that can be done."""
        addition = None if folder is None or not len(missing) else Addition(folder)
        for start in range(0, len(missing), BLOCK_ROWS):
            block = missing[start : start + BLOCK_ROWS]
            part = asked.iloc[block]
            made = compute(part[CUSTOMER_ID].to_numpy(dtype=object), part[AS_OF].to_numpy(np.int64))
            for whole, piece in zip(arrays(rows), arrays(made), strict=True):
                whole[block] = piece
            if addition is not None:
                addition.write(part, made)
        if addition is not None:
            addition.close()
            self.trouble = self.trouble or addition.trouble
            self._forget()

    def _facts(self, build: Build) -> FactsByDay:
        """The build never changes, so its numbers are found once."""
        path = self.folder / FACTS / f"{build.fingerprint}.json"
        try:
            return FactsByDay.from_json(path.read_text("utf-8"))
        except (OSError, ValueError, TypeError):
            pass
        found = facts_by_day(build)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, found.to_json())
        return found

    def _forget(self) -> None:
        """Remove what was not used for longest until the rest fits."""
        files = []
        for path in self.folder.rglob("*.parquet"):
            try:
                stat = path.stat()
            except OSError:  # another process removed it
                continue
            files.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def distinct(customer_id: Texts, as_of: Int64) -> tuple[pd.DataFrame, Int64]:
    """Each customer and moment once, by customer and then time, and int64 [n]: which of them each row is about."""
    code, ids = pd.factorize(np.asarray(customer_id, dtype=object), sort=True)
    times, time_of = np.unique(as_of, return_inverse=True)
    pairs, place = np.unique(code * np.int64(max(len(times), 1)) + time_of, return_inverse=True)
    customer, moment = np.divmod(pairs, max(len(times), 1))
    asked = pd.DataFrame({CUSTOMER_ID: np.asarray(ids, dtype=object)[customer], AS_OF: times[moment]})
    return asked, place.astype(np.int64)


def context(build: Build, schema: RowSchema) -> str:
    """All that a row depends on but the facts, 32 hex digits: catalogue, views, code, libraries, kinds of columns."""
    import duckdb

    code = hashlib.sha256()
    for file in sorted(_sources(), key=lambda one: one.name):
        code.update(file.read_bytes())
    plain = asdict(schema)
    for name in ("vocabularies", "customer_names"):
        plain.pop(name)
    parts = [
        plain,
        render_catalog(build.catalog),
        [[view.name, view.ttl.total_seconds(), layout(view)] for view in build.views],
        [FEATURES_VERSION, code.hexdigest(), np.__version__, pd.__version__, duckdb.__version__],
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]


def _sources() -> Iterator[Any]:
    return (file for file in resources.files("features").iterdir() if file.name.endswith(".py"))
