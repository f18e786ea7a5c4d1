"""The labels as they are kept with a run: which decision was a row, what it was labelled, and by what evidence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.columns import CUSTOMER_ID, Event
from features.tables import TIME
from training.attribution import CLOSES
from training.labels import AT, WHAT
from training.outcomes import OPEN, SERVED, Outcomes

if TYPE_CHECKING:
    from training.track import Run

FOLDER = "labels"
LABELS_FILE = "labels.parquet"
ATTRIBUTION_FILE = "attribution.json"
SCHEMA = pa.schema(
    {
        Event.DECISION_ID: pa.string(),
        CUSTOMER_ID: pa.string(),
        Event.PRODUCT_ID: pa.string(),
        Event.CHANNEL: pa.string(),
        "decided_at": TIME,
        "closes_at": TIME,
        SERVED: pa.bool_(),
        Event.PROPENSITY: pa.float64(),
        "label": pa.bool_(),
        "left_out": pa.string(),
        "taken_at": TIME,
        "evidence_event_id": pa.string(),
        "credit": pa.float64(),
        "attribution": pa.string(),
        "known_since": TIME,
        "corrected": pa.bool_(),
    }
)
"""One line per decision, those that are no rows too.

served: it is the ledger's own. label: null where it is no row, and `left_out` says why. evidence_event_id: null, with
taken_at, where a holding tells of the take-up. credit: the share of its channel by the rule `attribution`. corrected:
it had been a "no" from closes_at until known_since, when its take-up became known.
"""


def label_table(found: Outcomes, products: Sequence[str]) -> pa.Table:
    """The labels of `found` as a table of SCHEMA; products: the catalogue's ids."""
    offers = found.offers
    row = offers["left_out"].isna()
    taken = row & offers["label"]
    known = offers["known_since"].where(row)
    frame = pd.DataFrame(
        {
            Event.DECISION_ID: offers[Event.DECISION_ID],
            CUSTOMER_ID: offers[CUSTOMER_ID],
            Event.PRODUCT_ID: np.array(products, dtype=object)[offers[WHAT].to_numpy(np.int64)],
            Event.CHANNEL: offers[Event.CHANNEL],
            "decided_at": offers[AT],
            "closes_at": offers[CLOSES],
            SERVED: offers[SERVED],
            Event.PROPENSITY: offers[Event.PROPENSITY],
            "label": offers["label"].astype("boolean").where(row),
            "left_out": offers["left_out"],
            "taken_at": offers["taken_at"].where(taken),
            "evidence_event_id": offers["evidence"].where(taken),
            "credit": offers["credit"].where(taken),
            "attribution": found.rule,
            "known_since": known,
            "corrected": offers["corrected"] & row,
        }
    )
    columns = [_typed(frame[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _typed(values: pd.Series, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values.astype("Int64"), pa.int64()).cast(kind)
    return pa.array(values, kind, from_pandas=True)


def keep_labels(run: Run, found: Outcomes, products: Sequence[str]) -> None:
    """Keep the labels and what the rule of attribution estimated as artefacts of the run, and count them."""
    table = label_table(found, products)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / LABELS_FILE, compression="zstd")
        evidence = {"rule": found.rule, **found.attributed.evidence}
        text = json.dumps(evidence, indent=1, ensure_ascii=False)
        (Path(folder) / ATTRIBUTION_FILE).write_text(text + "\n", encoding="utf-8")
        run.folder(Path(folder), FOLDER)
    offers = found.offers[found.offers["left_out"].isna()]
    run.params(
        {
            "decisions": len(found.offers),
            "decisions_labelled": len(offers),
            "decisions_taken": int(offers["label"].sum()),
            "decisions_corrected": int(offers["corrected"].sum()),
        }
    )


def notes(found: Outcomes) -> tuple[str, ...]:
    """What to tell a person about decisions that are no rows for good."""
    counts = found.offers["left_out"].value_counts()
    return tuple(f"{count} decisions are no rows: {why}" for why, count in counts.items() if why != OPEN)
