"""Batch scoring into a file: block after block on all cores, within little memory, taken up again where it was killed.

    entities, in the order of their ids ─► blocks ─► rows ─► probabilities ─► PARTS/<block>.npy      in threads
    all parts, in the order of the entities ─► ranked lines ─► the file, in one step

Rows, models and ranks come from the very functions that score elsewhere (`serving.batch`); most of a block's time is
compiled code or numpy, which hold no lock of Python's, so threads are enough. A part is written whole or not at all.
PARTS lies beside the file and is named by all that its numbers depend on: entities, model, features. A run that asks
for the same takes them up, any other removes them; what comes out is the same file either way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features.errors import ArtefactError
from features.progress import SILENT, Progress
from features.schema import Float64, Int64
from serving.batch import SCALE, RowsOf, check_eligible, probabilities_of, ranked_lines, rows_in_parts
from serving.choice import ChoiceModel
from serving.kept_parts import digest_of, in_order_of_ids, kept_parts, load_part, save_part

if TYPE_CHECKING:
    from features.home import Build
    from serving.registry import Loaded

BLOCK = 20_000
"""Entities that a thread scores at once: about 300 MB for two dozen products."""
LINES = 1_000_000
"""Of the file's row groups, at most, unless one entity has more."""
FORMAT = 2
"""Raise it when parts mean something else: those of another format are never taken up."""
_SCORES = "scores"


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
    order = in_order_of_ids(entities)
    with kept_parts(out, str(FORMAT), build.fingerprint, origin, str(block)) as folder:

        def score(number: int) -> int:
            part = entities.iloc[order[number * block : (number + 1) * block]].reset_index(drop=True)
            path = folder / f"{number:06d}.npz"
            if not _whole(path, (len(part), len(model.question.candidates))):
                save_part(path, {_SCORES: probabilities_of(build, model, part, source)})
            return len(part)

        blocks = -(-len(entities) // block)
        with progress.step(f"score {len(entities):,} entities", len(entities)) as advance:
            for scored in _in_threads(score, blocks, threads or len(os.sched_getaffinity(0))):
                advance(scored)
        with progress.step(f"write {out.name}", len(entities)) as advance:
            return _write(model, entities, order, folder, blocks, out, advance)


def origin_of(loaded: Loaded, path: Path) -> str:
    """What a model and a file of entities are known by."""
    return f"{loaded.digest} {digest_of(path)}"


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
        path = folder / f"{number:06d}.npz"
        kept = load_part(path)
        if kept is None:
            raise ArtefactError(f"{path} was whole when it was written, however it is damaged; score again")
        scores = kept[_SCORES]
        probabilities[order[start : start + len(scores)]] = scores
        start += len(scores)
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


def _whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an earlier run wrote this part."""
    part = load_part(path)
    return part is not None and part[_SCORES].shape == shape
