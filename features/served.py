"""What the ledger of served decisions recorded, joined to the timeline that the bank brought.

Both are one timeline then, and everything that reads it learns from served decisions too. The ids of the ledger's own
events are kept beside it, with the time at which each became known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from features.arrow import Column, column_of, kernels, mask_of, take
from features.catalog import Catalog
from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, Event, Table
from features.errors import InputError
from features.schema import Bool
from features.tables import SORT_KEYS, TIME, arrow_schema

SERVED_SCHEMA = pa.schema([*arrow_schema(Table.TIMELINE), pa.field(CREATED_TIMESTAMP, TIME)])
"""Of a ledger's events: the columns of the timeline, and when each became known."""
_KNOWN_SCHEMA = pa.schema([SERVED_SCHEMA.field(Event.EVENT_ID), SERVED_SCHEMA.field(CREATED_TIMESTAMP)])


@dataclass(frozen=True)
class Served:
    """The events of a bank's timeline that come from the ledger.

    known: columns event_id and created_timestamp, ordered by event_id. left_out: reason → events of the ledger that the
    timeline could not take in.
    """

    known: pa.Table = field(default_factory=_KNOWN_SCHEMA.empty_table)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.known.num_rows or self.left_out)

    def among(self, events: Column) -> Bool:
        """bool [n]: which of these event ids are the ledger's."""
        return mask_of(kernels.is_in(events, value_set=self.known[Event.EVENT_ID].combine_chunks()))

    def left_of(self, timeline: pa.Table) -> pa.Table:
        """What the bank itself told of a timeline."""
        if not self.known.num_rows:
            return timeline
        return timeline.filter(column_of(~self.among(timeline[Event.EVENT_ID])))


def join_served(timeline: pa.Table, events: pa.Table, customers: pa.Table, catalog: Catalog) -> tuple[pa.Table, Served]:
    """The timeline with the ledger's events in it, sorted, and which they are.

    events: of SERVED_SCHEMA, else InputError. Left out are events that the bank's own timeline tells under the same id,
    and, counted, those about customers, products, channels and contents that tables and catalogue do not know.
    """
    if events.schema != SERVED_SCHEMA:
        raise InputError(
            f"events of a ledger must have the columns {', '.join(SERVED_SCHEMA.names)} with their types, however they "
            f"have {', '.join(f'{column.name} {column.type}' for column in events.schema)}"
        )
    wanted = ~mask_of(kernels.is_in(events[Event.EVENT_ID], value_set=timeline[Event.EVENT_ID].combine_chunks()))
    left_out: dict[str, int] = {}
    for name, ids, reason in (
        (CUSTOMER_ID, kernels.unique(customers[CUSTOMER_ID]), "about customers that the tables do not know"),
        (Event.PRODUCT_ID, _ids(catalog.product_ids), "about products that the catalogue no longer has"),
        (Event.CHANNEL, _ids(catalog.channel_ids), "about channels that the catalogue no longer has"),
        (Event.CONTENT_ID, _ids(one.id for one in catalog.contents), "about contents that the catalogue no longer has"),
    ):
        unknown = mask_of(events[name].is_valid()) & ~mask_of(kernels.is_in(events[name], value_set=ids)) & wanted
        if unknown.any():
            left_out[reason] = int(unknown.sum())
        wanted &= ~unknown
    if not wanted.any():
        return timeline, Served(left_out=left_out)
    taken = events.filter(column_of(wanted))
    joined = pa.concat_tables([timeline, taken.drop_columns([CREATED_TIMESTAMP])]).combine_chunks()
    order = kernels.sort_indices(joined, sort_keys=SORT_KEYS[Table.TIMELINE]).to_numpy().astype(np.int64)
    known = taken.select(_KNOWN_SCHEMA.names).sort_by(Event.EVENT_ID).combine_chunks()
    return take(joined, order), Served(known, left_out)


def _ids(values: Iterable[str]) -> pa.Array:
    return pa.array(list(values), pa.string())
