"""The order of a run as it is kept with it: with the bank's data and features, all that is needed to make it again.

order/order.json            model, family, horizon_days, until, seed, split, attribution, tune, and how many entities
order/entities.parquet      the rows that were asked for, where some were: customer_id, as_of and, where given, eligible
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import AS_OF, CUSTOMER_ID, ELIGIBLE
from features.errors import ArtefactError, InputError
from serving.batch import read_entities
from training.plan import Order

if TYPE_CHECKING:
    from training.finished import FinishedRun
    from training.track import Run

FOLDER = "order"
ORDER_FILE = "order.json"
ENTITIES_FILE = "entities.parquet"


def keep_order(run: Run, order: Order) -> None:
    """Keep the order as artefacts of the run."""
    with tempfile.TemporaryDirectory() as folder:
        save_order(order, Path(folder))
        run.folder(Path(folder), FOLDER)


def order_of(found: FinishedRun) -> Order:
    """The order of a finished run; ArtefactError where it keeps none that this version reads."""
    return load_order(found.artefact(FOLDER))


def save_order(order: Order, folder: Path) -> None:
    """Write the files into an existing folder."""
    plain: dict[str, Any] = {field.name: getattr(order, field.name) for field in fields(order)}
    plain["until"] = None if order.until is None else order.until.isoformat()
    plain["entities"] = None if order.entities is None else len(order.entities)
    (folder / ORDER_FILE).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if order.entities is not None:
        pq.write_table(_table(order.entities), folder / ENTITIES_FILE, compression="zstd")


def load_order(folder: Path) -> Order:
    """What `save_order` wrote; ArtefactError where it is missing, damaged or of another version."""
    try:
        plain: dict[str, Any] = json.loads((folder / ORDER_FILE).read_text(encoding="utf-8"))
        rows = plain["entities"]
        plain["entities"] = None if rows is None else read_entities(folder / ENTITIES_FILE)
        plain["until"] = None if plain["until"] is None else datetime.fromisoformat(plain["until"])
        order = Order(**plain)
    except (OSError, KeyError, TypeError, ValueError, InputError) as error:
        raise ArtefactError(f"{folder} holds no order that this version reads: {error!r}; train again") from error
    if order.entities is not None and len(order.entities) != rows:
        raise ArtefactError(f"the order names {rows} entities, however {folder} holds {len(order.entities)}")
    return order


def _table(entities: pd.DataFrame) -> pa.Table:
    columns = {
        CUSTOMER_ID: pa.array(entities[CUSTOMER_ID], pa.string()),
        AS_OF: pa.array(entities[AS_OF], pa.timestamp("us", "UTC")),
    }
    if ELIGIBLE in entities:
        lists = [None if ids is None else sorted(ids) for ids in entities[ELIGIBLE]]
        columns[ELIGIBLE] = pa.array(lists, pa.list_(pa.string()))
    return pa.table(columns)
