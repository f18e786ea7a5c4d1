"""What customers took up, whatever led to it, and what each take-up is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.columns import CUSTOMER_ID, Event, Kind, Table
from features.schema import Float64
from training.labels import AT, WHAT, positions, read, take_ups
from training.outcomes import Receipts

if TYPE_CHECKING:
    from features.importing import Bank

TAKE_UPS = "take-ups"
"""The unit where nothing tells what a take-up is worth."""


def taken_up(bank: Bank) -> pd.DataFrame:
    """What was taken up: `converted` events; openings of holdings where the log has none of those. Each in time order.

    customer_id, at, product (position, -1), value, and the decision_id that it names, itself or by its message.
    """
    columns = [CUSTOMER_ID, Event.PRODUCT_ID, Event.DECISION_ID, Event.MESSAGE_ID, Event.VALUE]
    told = read(bank, Table.TIMELINE, columns, {Kind.CONVERTED})
    if len(told):
        told[Event.DECISION_ID] = Receipts.of(bank).named(told)
        told["product"] = positions(told[Event.PRODUCT_ID], bank.catalog.product_ids)
        return told.sort_values(AT, kind="stable").reset_index(drop=True)
    return take_ups(bank).rename(columns={WHAT: "product"}).assign(**{Event.VALUE: np.nan})


def worths(bank: Bank, taken: pd.DataFrame) -> tuple[Float64, str]:
    """Worth of each take-up and its unit: its product's margin, else its value, else the mean margin; else 1 each."""
    margin = [product.margin for product in bank.catalog.products]
    declared = np.array([np.nan if one is None else one for one in (*margin, None)], np.float64)
    worth = declared[taken["product"].to_numpy(np.int64)]  # -1 is the last: not declared
    worth = np.where(np.isnan(worth), taken[Event.VALUE].astype("float64").to_numpy(), worth)
    if np.isnan(worth).all() and np.isnan(declared).all():
        return np.ones(len(taken)), TAKE_UPS
    usual = np.nanmean(declared) if not np.isnan(declared).all() else np.nanmean(worth)
    return np.where(np.isnan(worth), usual, worth), bank.catalog.currency
