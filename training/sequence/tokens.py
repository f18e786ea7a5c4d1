"""What happened to each customer as tokens: events of the timeline, holdings and transactions, in one order.

The order is that in which facts became known: what a row may know is then a prefix of its customer's tokens, and a
model that never looks ahead along this order cannot look ahead in time. Imported history counts as known when it
happened, as in the features; events of the ledger from the moment recorded there, if that is later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from features.columns import CREATED_TIMESTAMP, CUSTOMER_ID, Event, Holding, Kind, Table, Transaction
from features.schema import Float64, Int64, Texts
from training.labels import AT, positions, read

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.importing import Bank

HOLDING_OPENED, HOLDING_CLOSED, TRANSACTION = "holding opened", "holding closed", "transaction"
KINDS = (*(str(kind) for kind in Kind), HOLDING_OPENED, HOLDING_CLOSED, TRANSACTION)
KNOWN = "known"
AMOUNT = "amount"
_COLUMNS = (CUSTOMER_ID, AT, KNOWN, Event.KIND, Event.CHANNEL, Event.PRODUCT_ID, Transaction.CATEGORY, AMOUNT)


@dataclass(frozen=True)
class Tokens:
    """n tokens, in order of customer, then of when they became known, then of when they happened.

    customers: [c], sorted ids. owner: int64 [n], position in them. at, known: int64 [n], µs, known >= at. kind,
    channel, product: int64 [n], position in KINDS and in the catalogue, -1 none. category: object [n], None where there
    is none. amount: float64 [n], catalogue currency, NaN none.
    """

    customers: pd.Index[Any]
    owner: Int64
    at: Int64
    known: Int64
    kind: Int64
    channel: Int64
    product: Int64
    category: Texts
    amount: Float64

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def of(cls, bank: Bank) -> Tokens:
        """The tokens of all that a bank's tables tell."""
        frame = pd.concat([_timeline(bank), _holdings(bank), _transactions(bank)], ignore_index=True)
        return cls.of_frame(frame, bank.catalog)

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, catalog: Catalog) -> Tokens:
        """frame: columns customer_id, at, known (µs), kind, channel, product_id, category, amount.

        Tokens of one moment keep the order of the frame.
        """
        customers = pd.Index(np.unique(frame[CUSTOMER_ID].to_numpy(dtype=object).astype(str)).astype(object))
        owner = customers.get_indexer(pd.Index(frame[CUSTOMER_ID])).astype(np.int64)
        at = frame[AT].to_numpy(np.int64)
        known = np.maximum(frame[KNOWN].to_numpy(np.int64), at)
        order = np.lexsort((at, known, owner))
        category = frame[Transaction.CATEGORY].to_numpy(dtype=object).copy()
        category[pd.isna(category)] = None
        return cls(
            customers,
            owner[order],
            at[order],
            known[order],
            positions(frame[Event.KIND], KINDS)[order],
            positions(frame[Event.CHANNEL], catalog.channel_ids)[order],
            positions(frame[Event.PRODUCT_ID], catalog.product_ids)[order],
            category[order],
            frame[AMOUNT].to_numpy(np.float64)[order],
        )

    def known_to(self, customer_id: Texts, as_of: Int64) -> tuple[Int64, Int64]:
        """Per row, the tokens [start, stop) of its customer that were known at `as_of` (int64 [n], µs)."""
        owner = self.customers.get_indexer(pd.Index(customer_id)).astype(np.int64)
        moments = np.unique(self.known)  # ranks of times keep (owner, time) in one sortable int64
        width = len(moments) + 1
        keys = self.owner * width + np.searchsorted(moments, self.known)
        start = np.searchsorted(keys, owner * width)
        stop = np.searchsorted(keys, owner * width + np.searchsorted(moments, as_of, side="right"))
        unknown = owner < 0
        return np.where(unknown, 0, start).astype(np.int64), np.where(unknown, 0, stop).astype(np.int64)


def _timeline(bank: Bank) -> pd.DataFrame:
    columns = [CUSTOMER_ID, Event.EVENT_ID, Event.KIND, Event.CHANNEL, Event.PRODUCT_ID, Event.VALUE]
    frame = read(bank, Table.TIMELINE, columns)
    told = bank.served.known
    created = pd.Series(
        told[CREATED_TIMESTAMP].cast(pa.int64()).to_numpy(), index=told[Event.EVENT_ID].to_pylist(), dtype="int64"
    )
    frame[KNOWN] = frame[Event.EVENT_ID].map(created).fillna(frame[AT]).astype("int64") if len(created) else frame[AT]
    frame[AMOUNT] = frame[Event.VALUE]
    return _complete(frame)


def _holdings(bank: Bank) -> pd.DataFrame:
    frame = read(bank, Table.HOLDINGS, [CUSTOMER_ID, Holding.PRODUCT_ID, Holding.ACTION])
    names = {Holding.OPENED: HOLDING_OPENED, Holding.CLOSED: HOLDING_CLOSED}
    frame[Event.KIND] = frame[Holding.ACTION].map(names)
    return _complete(frame)


def _transactions(bank: Bank) -> pd.DataFrame:
    frame = read(bank, Table.TRANSACTIONS, [CUSTOMER_ID, Transaction.AMOUNT, Transaction.CATEGORY])
    frame[Event.KIND] = TRANSACTION
    return _complete(frame)


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    if KNOWN not in frame:
        frame[KNOWN] = frame[AT]
    complete: pd.DataFrame = frame.reindex(columns=list(_COLUMNS))
    types = dict.fromkeys(_COLUMNS, "object") | {AT: "int64", KNOWN: "int64", AMOUNT: "float64"}
    return complete.astype(types)
