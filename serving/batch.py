"""Batch scoring: a file of entities in, ranked candidates with calibrated probabilities out.

Each entity is scored as of its own moment, from the history that was known then; facts later than `as_of` never reach
the row. Entities are scored in blocks, so memory does not grow with the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from features.assemble import assemble, row_schema
from features.columns import AS_OF, CUSTOMER_ID, ELIGIBLE
from features.errors import ArtefactError, InputError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64, Rows, stacked
from serving.batch_states import states_in_parts
from serving.choice import ChoiceModel, ranks
from serving.eligibility import rankable
from serving.registry import misfit

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.home import Build

BLOCK = 50_000
"""Entities scored at once."""
SCORE = "score"
RANK = "rank"
_RULE = "entities have the columns customer_id (text), as_of (time with zone) and, optionally, eligible (product ids)"
_STRINGS = pa.list_(pa.string())
RowsOf: TypeAlias = "Callable[[Build, ChoiceModel, pd.DataFrame], Iterable[Rows]]"
"""Model rows of entities, in their order, in as many parts as there may be."""
READ_TOGETHER = 512
SCORED_TOGETHER = 4_096
"""Rows of a part: so many lie near the processor, and a network scores no more of them at once anyway."""


def read_entities(path: Path) -> pd.DataFrame:
    """Entities of a Parquet or CSV file, duplicates and order kept. Raises InputError naming the rule that is broken.

    Columns of the answer: customer_id (str), as_of (datetime64[us, UTC]) and, where the file has it, eligible
    (frozenset of product ids, or None for all). In CSV `eligible` is a JSON list, or ids separated by ";".
    """
    table = _table(path)
    missing = {CUSTOMER_ID, AS_OF} - set(table.column_names)
    extra = set(table.column_names) - {CUSTOMER_ID, AS_OF, ELIGIBLE}
    if missing or extra:
        raise InputError(
            f"{_RULE}; however in {path} {_told(missing, 'is missing')}{_told(extra, 'is not one of them')}"
        )
    frame = pd.DataFrame({CUSTOMER_ID: _ids(table[CUSTOMER_ID], path), AS_OF: _times(table[AS_OF], path)})
    if ELIGIBLE in table.column_names:
        frame[ELIGIBLE] = pd.Series(_lists(table[ELIGIBLE], path), dtype=object)
    return frame


def check_eligible(entities: pd.DataFrame, catalog: Catalog) -> None:
    """InputError when an eligible list names a product that the catalogue lacks."""
    if ELIGIBLE not in entities:
        return
    known = set(catalog.product_ids)
    strange = [(row, sorted(ids - known)) for row, ids in enumerate(entities[ELIGIBLE]) if ids and ids - known]
    if strange:
        row, ids = strange[0]
        raise InputError(
            f"eligible lists hold products of the catalogue, however {len(strange)} rows do not; the first, row {row}, "
            f"has {', '.join(ids)}"
        )


def check_fits(build: Build, model: ChoiceModel) -> None:
    """ArtefactError when the model was trained on another bank's products, channels or attributes."""
    reason = misfit(model.row_schema, row_schema(build.bank))
    if reason is not None:
        raise ArtefactError(f"{model.question.model} cannot score with these features: it was {reason}")


def score_entities(
    build: Build, model: ChoiceModel, entities: pd.DataFrame, progress: Progress = SILENT
) -> pd.DataFrame:
    """All scores in one frame: see `score_blocks`."""
    return pd.concat(list(score_blocks(build, model, entities, progress)), ignore_index=True)


SCALE = "nextbest.scores"


def score_blocks(
    build: Build,
    model: ChoiceModel,
    entities: pd.DataFrame,
    progress: Progress = SILENT,
    block: int = BLOCK,
    source: RowsOf | None = None,
) -> Iterator[pd.DataFrame]:
    """Scores of consecutive blocks of entities, in their order, best candidate first.

    Columns: customer_id, as_of, product_id or channel, score (calibrated probability), rank (1 = best). Held holdable
    and ineligible products are absent; every channel is present. source: where rows come from (None: `rows_in_parts`).
    """
    check_eligible(entities, build.catalog)
    with progress.step(f"score {len(entities)} entities", len(entities)) as advance:
        for start in range(0, max(len(entities), 1), block):
            part = entities.iloc[start : start + block].reset_index(drop=True)
            yield ranked(model, part, probabilities_of(build, model, part, source or rows_in_parts))
            advance(len(part))


def probabilities_of(build: Build, model: ChoiceModel, entities: pd.DataFrame, source: RowsOf) -> Float64:
    """Float64 [n, m]: calibrated probabilities of the entities' candidates, NaN for those that may not be ranked."""
    parts, start = [], 0
    for rows in source(build, model, entities):
        part = entities.iloc[start : start + len(rows)]
        parts.append(model.probabilities(rows, allowed(model, rows, build.catalog, part)))
        start += len(rows)
    return np.concatenate(parts)


def rows_of(build: Build, model: ChoiceModel, entities: pd.DataFrame) -> Rows:
    """Model rows of the entities, each from what was known at its `as_of`."""
    return stacked(list(rows_in_parts(build, model, entities)))


def rows_in_parts(build: Build, model: ChoiceModel, entities: pd.DataFrame) -> Iterator[Rows]:
    """As `rows_of`, in parts of `SCORED_TOGETHER`."""
    as_of = np.asarray(entities[AS_OF].astype("datetime64[us, UTC]").astype("int64"), dtype=np.float64) / 1e6
    waiting: list[Rows] = []
    for part, states in states_in_parts(build, entities, READ_TOGETHER):
        waiting.append(assemble(states, as_of[part], model.row_schema))
        if len(waiting) * READ_TOGETHER >= SCORED_TOGETHER:
            yield stacked(waiting)
            waiting = []
    if waiting:
        yield stacked(waiting)


def allowed(model: ChoiceModel, rows: Rows, catalog: Catalog, entities: pd.DataFrame) -> Bool:
    """bool [n, m]: the candidates of the model that may be ranked for each entity."""
    candidates = model.question.candidates
    if model.question.block == "channel":
        return np.ones((len(rows), len(candidates)), dtype=np.bool_)
    eligible = list(entities[ELIGIBLE]) if ELIGIBLE in entities else [None] * len(rows)
    positions = [catalog.product_ids.index(candidate) for candidate in candidates]
    return rankable(rows, catalog, eligible)[:, positions]


def ranked(model: ChoiceModel, entities: pd.DataFrame, probabilities: Float64) -> pd.DataFrame:
    """The frame of one block: one line per entity and candidate with a probability, best first."""
    table = ranked_lines(model, entities, probabilities)
    texts = pa.schema([(name, _plain(kind)) for name, kind in zip(table.column_names, table.schema.types, strict=True)])
    frame: pd.DataFrame = table.cast(texts).to_pandas()
    return frame


def ranked_lines(model: ChoiceModel, entities: pd.DataFrame, probabilities: Float64) -> pa.Table:
    """One line per entity and candidate with a probability (float64 [n, m], NaN = none), best first; texts that repeat
    are dictionaries."""
    place = ranks(probabilities, ~np.isnan(probabilities))  # [n, m], 0 = absent
    row, column = np.nonzero(place)
    rank = place[row, column]
    # A row's lines follow those of the rows before, each at its rank: nothing has to be sorted again.
    lines = np.count_nonzero(place, axis=1)
    line = (np.cumsum(lines) - lines)[row] + rank - 1
    candidate, score, rank_of = np.empty_like(column), np.empty(len(line)), np.empty_like(rank)
    candidate[line], score[line], rank_of[line] = column, probabilities[row, column], rank
    as_of = entities[AS_OF].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    question = model.question
    return pa.table(
        {
            CUSTOMER_ID: _repeated(row, entities[CUSTOMER_ID]),
            AS_OF: pa.array(as_of[row]).cast(pa.timestamp("us", tz="UTC")),
            "product_id" if question.block == "product" else "channel": _repeated(candidate, question.candidates),
            SCORE: score,
            RANK: rank_of,
        }
    )


def _repeated(index: npt.NDArray[np.int64], texts: Iterable[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(texts, pa.string()))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def write_scores(blocks: Iterator[pd.DataFrame], path: Path, scale: str = "") -> int:
    """Write blocks to a Parquet file, whole or not at all; the number of lines.

    scale: what the scores are ("probability", "uncalibrated"), kept as the file's metadata `nextbest.scores`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    lines = 0
    writer: pq.ParquetWriter | None = None
    try:
        for frame in blocks:
            table = pa.Table.from_pandas(frame, schema=_schema(frame), preserve_index=False)
            table = table.replace_schema_metadata({**(table.schema.metadata or {}), SCALE: scale}) if scale else table
            writer = writer or pq.ParquetWriter(draft, table.schema)
            writer.write_table(table)
            lines += len(frame)
        if writer is not None:
            writer.close()
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return lines


def _schema(frame: pd.DataFrame) -> pa.Schema:
    numbers = frame.select_dtypes("number").dtypes
    types = {AS_OF: pa.timestamp("us", tz="UTC")} | {name: pa.from_numpy_dtype(kind) for name, kind in numbers.items()}
    return pa.schema([(str(name), types.get(str(name), pa.string())) for name in frame.columns])


def _table(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{_RULE}; however there is no file {path}")
    try:
        if path.suffix.lower() == ".csv":
            # ids stay text ("007"), and a time keeps its zone until it is looked at
            texts = {name: pa.string() for name in (CUSTOMER_ID, AS_OF, ELIGIBLE)}
            options = csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
            return csv.read_csv(path, convert_options=options)
        return pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise InputError(f"{path} must be a Parquet or CSV file, however it cannot be read: {error}") from error


def _ids(column: pa.ChunkedArray, path: Path) -> pd.Series[Any]:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"{_RULE}; however in {path} customer_id is {column.type}")
    if column.null_count:
        raise InputError(f"{_RULE}; however in {path} customer_id is empty in {column.null_count} rows")
    return pd.Series(column.to_pylist(), dtype=object)


def _times(column: pa.ChunkedArray, path: Path) -> pd.Series[Any]:
    if column.null_count:
        raise InputError(f"{_RULE}; however in {path} as_of is empty in {column.null_count} rows")
    if pa.types.is_string(column.type):
        return _parsed(column.to_pandas(), path)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise InputError(f"{_RULE}; however in {path} as_of is {column.type}; write it as a UTC timestamp")
    micros = column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64()).to_numpy()
    return pd.Series(pd.to_datetime(micros, unit="us", utc=True)).astype("datetime64[us, UTC]")


def _parsed(texts: pd.Series[Any], path: Path) -> pd.Series[Any]:
    """Times written as text, as in CSV: ISO 8601 with a zone."""
    zoned = texts.str.contains(r"(?:Z|[+-]\d\d:?\d\d)\s*$", regex=True)
    times = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
    wrong = ~zoned | times.isna()
    if wrong.any():
        raise InputError(
            f"{_RULE}; however in {path} as_of is no time with zone in {int(wrong.sum())} rows, the first "
            f"{texts[wrong].iloc[0]!r}; write 2024-05-31T12:00:00Z"
        )
    return times.astype("datetime64[us, UTC]")


def _lists(column: pa.ChunkedArray, path: Path) -> list[frozenset[str] | None]:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_null(kind):
        values = column.cast(_STRINGS).to_pylist() if not pa.types.is_null(kind) else [None] * len(column)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [None if text is None else _split(text, path) for text in column.to_pylist()]
    else:
        raise InputError(f"{_RULE}; however in {path} eligible is {kind}")
    if any(None in ids for ids in values if ids is not None):
        raise InputError(f"{_RULE}; however in {path} an eligible list holds an empty id")
    sets: dict[frozenset[str], frozenset[str]] = {}  # equal ones are one object: a million customers have few different
    found = (None if ids is None else frozenset(ids) for ids in values)
    return [None if ids is None else sets.setdefault(ids, ids) for ids in found]


def _split(text: str, path: Path) -> list[str]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(";") if part.strip()]
    try:
        ids = json.loads(text)
    except ValueError as error:
        raise InputError(f"{_RULE}; however in {path} eligible is no list: {text!r} ({error})") from error
    if not all(isinstance(item, str) for item in ids):
        raise InputError(f"{_RULE}; however in {path} eligible holds something else than ids: {text!r}")
    return list(ids)


def _told(names: set[str], what: str) -> str:
    return f"{', '.join(sorted(names))} {what}. " if names else ""
