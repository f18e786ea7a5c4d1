"""The simulated timeline on its way to the file: collected out of order, written in order month by month."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose
from features.simulation.calendar import to_micros
from features.simulation.files import TableFile, ids, numbers, texts, timestamps

Field: TypeAlias = npt.NDArray[Any] | float | int

KINDS = tuple(Kind)
PURPOSES = tuple(Purpose)
MARKETING, SERVICE = PURPOSES.index(Purpose.MARKETING), PURPOSES.index(Purpose.SERVICE)
NONE = -1

_FIELDS: dict[str, tuple[type, float]] = {
    "at": (np.float64, 0.0),
    "customer": (np.int32, NONE),
    "kind": (np.int8, NONE),
    "channel": (np.int8, NONE),
    "purpose": (np.int8, NONE),
    "product": (np.int8, NONE),
    "content": (np.int16, NONE),
    "decision": (np.int32, NONE),
    "message": (np.int32, NONE),
    "propensity": (np.float64, np.nan),
    "value": (np.float64, np.nan),
}


class EventLog:
    """Collects events of many customers and writes those that no later event can precede."""

    def __init__(self, file: TableFile, catalog: Catalog, customer_ids: pa.Array, end: float, digits: int) -> None:
        self._file = file
        self._catalog = catalog
        self._customer_ids = customer_ids
        self._end = end
        self._digits = digits
        self._waiting: list[dict[str, npt.NDArray[Any]]] = []
        self.written = 0

    def add(self, kind: Kind, at: npt.NDArray[np.float64], customer: npt.NDArray[Any], **columns: Field) -> None:
        """Add one event per time in `at` (seconds). Events at or after the end of the calendar are not seen."""
        seen = at < self._end
        given: dict[str, Field] = {**columns, "at": at, "customer": customer, "kind": KINDS.index(kind)}
        chunk: dict[str, npt.NDArray[Any]] = {}
        for name, (dtype, missing) in _FIELDS.items():
            value = given.pop(name, missing)
            full = value if isinstance(value, np.ndarray) else np.full(len(at), value, dtype=dtype)
            chunk[name] = full[seen].astype(dtype, copy=False)
        if given:
            raise TypeError(f"unknown event columns: {sorted(given)}")
        self._waiting.append(chunk)

    def flush(self, before: float) -> None:
        """Write all events before that time as one row group, in order of time; none may be added there later."""
        if not self._waiting:
            return
        merged = {name: np.concatenate([chunk[name] for chunk in self._waiting]) for name in _FIELDS}
        due = merged["at"] < before
        self._waiting = [{name: values[~due] for name, values in merged.items()}]
        ready = np.flatnonzero(due)
        if len(ready) == 0 and self.written:
            return
        # Stable: events of one instant keep the order in which the simulation caused them.
        order = ready[np.argsort(merged["at"][ready], kind="stable")]
        self._file.write(self._table({name: values[order] for name, values in merged.items()}))
        self.written += len(order)

    def _table(self, event: dict[str, npt.NDArray[Any]]) -> pa.Table:
        catalog = self._catalog
        sequence = np.arange(self.written, self.written + len(event["at"]), dtype=np.int64)
        return pa.table(
            {
                Event.EVENT_ID: ids("e", sequence, 12),
                CUSTOMER_ID: texts(self._customer_ids, event["customer"]),
                EVENT_TIMESTAMP: timestamps(to_micros(event["at"])),
                Event.KIND: texts(KINDS, event["kind"]),
                Event.CHANNEL: texts(catalog.channel_ids, event["channel"]),
                Event.PURPOSE: texts(PURPOSES, event["purpose"]),
                Event.PRODUCT_ID: texts(catalog.product_ids, event["product"]),
                Event.CONTENT_ID: texts([content.id for content in catalog.contents], event["content"]),
                Event.DECISION_ID: ids("d", event["decision"].astype(np.int64), self._digits),
                Event.MESSAGE_ID: ids("m", event["message"].astype(np.int64), self._digits),
                Event.PROPENSITY: numbers(event["propensity"]),
                Event.VALUE: numbers(event["value"]),
            }
        )
