"""Batch scoring into a file: block after block on all cores, within little memory, taken up again where it was killed.

    entities, in the order of their ids ─► blocks ─► rows ─► probabilities ─► PARTS/<block>.npy      in threads
    all parts, in the order of the entities ─► ranked lines ─► the file, in one step

Rows, models and ranks come from the very functions that score elsewhere (`serving.batch`); most of a block's time is
compiled code or numpy, which hold no lock of Python's, so threads are enough. A part is written whole or not at all.
PARTS lies beside the file and is named by all that its numbers depend on: entities, model, features. A run that asks
for the same takes them up, any other removes them; what comes out is the same file either way.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import kernels
from features.columns import CUSTOMER_ID
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64, Int64
from serving.batch import SCALE, RowsOf, check_eligible, probabilities_of, ranked_lines, rows_in_parts
from serving.choice import ChoiceModel

if TYPE_CHECKING:
    from features.home import Build
    from serving.registry import Loaded

BLOCK = 20_000
"""Entities that a thread scores at once: about 300 MB for two dozen products."""
LINES = 1_000_000
"""Of the file's row groups, at most, unless one entity has more."""
FORMAT = 1
"""Raise it when parts mean something else: those of another format are never taken up."""


def score_file(
    build: Build,
    model: ChoiceModel,
    entities: pd.DataFrame,
    out: Path,
    origin: str,
    progress: Progress = SILENT,
    block: int = BLOCK,
    threads: int | None = None,
    source: RowsOf = rows_in_parts,
) -> int:
    """Score `entities` into the Parquet file `out`, whole or not at all; the number of its lines.

    Columns and lines as `serving.batch.score_blocks` has them. origin: what the model and the entities are known by,
    digests for example; with the build it says which parts of an interrupted run may be taken up. threads: None: as
    many as this process has cores. InputError where another run is writing the same file.
    """
    check_eligible(entities, build.catalog)
    out.parent.mkdir(parents=True, exist_ok=True)
    known_by = hashlib.sha256("\0".join((str(FORMAT), build.fingerprint, origin, str(block))).encode()).hexdigest()
    order = kernels.array_sort_indices(pa.array(entities[CUSTOMER_ID], pa.string())).to_numpy().astype(np.int64)
    with kept_parts(out, known_by[:32]) as folder:

        def score(number: int) -> int:
            part = entities.iloc[order[number * block : (number + 1) * block]].reset_index(drop=True)
            path = folder / f"{number:06d}.npy"
            if not _whole(path, (len(part), len(model.question.candidates))):
                _save(path, probabilities_of(build, model, part, source))
            return len(part)

        blocks = -(-len(entities) // block)
        with progress.step(f"score {len(entities):,} entities", len(entities)) as advance:
            for scored in _in_threads(score, blocks, threads or len(os.sched_getaffinity(0))):
                advance(scored)
        with progress.step(f"write {out.name}", len(entities)) as advance:
            return _write(model, entities, order, folder, blocks, out, advance)


def origin_of(loaded: Loaded, path: Path) -> str:
    """What a model and a file of entities are known by."""
    with path.open("rb") as file:
        return f"{loaded.digest} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _in_threads(work: Callable[[int], int], count: int, threads: int) -> Iterator[int]:
    """work(0) … work(count - 1), in whatever order they end; what was not begun when one fails never begins."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
    try:
        for done in as_completed([pool.submit(work, number) for number in range(count)]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(
    model: ChoiceModel,
    entities: pd.DataFrame,
    order: Int64,
    folder: Path,
    blocks: int,
    out: Path,
    advance: Callable[[int], None],
) -> int:
    """The file, from all parts; the number of its lines."""
    n, m = len(entities), len(model.question.candidates)
    probabilities: Float64 = np.lib.format.open_memmap(folder / "all", mode="w+", dtype=np.float64, shape=(n, m))
    start = 0
    for number in range(blocks):
        part = np.load(folder / f"{number:06d}.npy", allow_pickle=False)
        probabilities[order[start : start + len(part)]] = part
        start += len(part)
    draft = folder / "draft"
    empty = ranked_lines(model, entities.iloc[:0], probabilities[:0])
    lines, step = 0, max(1, LINES // m)
    # Without Arrow's own schema in the file dictionaries are read as texts; the columns that repeat are kept as such.
    repeated = [name for name in empty.column_names if name != "score"]
    with pq.ParquetWriter(draft, empty.schema, use_dictionary=repeated, store_schema=False) as writer:
        for start in range(0, n, step):
            part = entities.iloc[start : start + step]
            table = ranked_lines(model, part, np.asarray(probabilities[start : start + step]))
            writer.write_table(table)
            lines += table.num_rows
            advance(len(part))
        writer.add_key_value_metadata({SCALE: model.calibration.scale})
    os.replace(draft, out)
    return lines


@contextmanager
def kept_parts(out: Path, known_by: str) -> Iterator[Path]:
    """The folder of these parts, for this run alone, removed after it unless it was interrupted."""
    above = out.with_name(f".{out.name}.parts")
    folder = above / known_by
    folder.mkdir(parents=True, exist_ok=True)
    with (above / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"one run at a time writes {out}, however another one does; wait for its end") from None
        for other in above.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
        yield folder
        shutil.rmtree(above)


def _save(path: Path, probabilities: Float64) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.save(file, probabilities, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an earlier run wrote this part."""
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).shape == shape)
    except (OSError, ValueError):
        return False
