"""The one row builder: states of a customer, brought to the moment of the question, become a model row.

Training, batch scoring and the live endpoint all call `assemble`; there is no other way to a row.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from features import consent, engagement, holdings, market, profile, purchases, transactions
from features.columns import EVENT_TIMESTAMP, Purpose, Table
from features.folds import DAY, seconds
from features.importing import Bank
from features.schema import Bool, Float32, Float64, Rows, RowSchema, State, States

MODULES = (profile, holdings, transactions, engagement, purchases, consent, market)
CALENDAR_NAMES = ("hour of day", "hour of day, sine", "hour of day, cosine", "weekday", "day of month")
PRODUCT_NAMES = (
    "held",
    "days since opened",
    *purchases.PRODUCT_NAMES,
    *market.PRODUCT_NAMES,
)
_BOUGHT = slice(2, 2 + len(purchases.PRODUCT_NAMES))
_TTLS = np.array([[module.TTL.total_seconds()] for module in MODULES])
LARGEST = float(np.finfo(np.float32).max)
THURSDAY = 3
"""Weekday of 1 January 1970."""
FEW = 32
FLAT_PRODUCTS = 40
"""Up to this many products, what is held and bought of each also stands in the customer block, so that a model can
learn which product leads to which."""


def row_schema(bank: Bank, until: datetime | None = None) -> RowSchema:
    """The schema of rows of this bank; vocabularies hold only values known at `until` (None: all)."""
    known = np.ones(bank.tables[Table.CUSTOMERS].num_rows, dtype=bool)
    if until is not None:
        known = seconds(bank.tables[Table.CUSTOMERS][EVENT_TIMESTAMP]) <= until.timestamp()
    words = profile.vocabularies(bank, known)
    catalog = bank.catalog
    flat_products = catalog.product_ids if len(catalog.product_ids) <= FLAT_PRODUCTS else ()
    return RowSchema(
        products=catalog.product_ids,
        holdable=tuple(product.holdable for product in catalog.products),
        channels=catalog.channel_ids,
        attributes=bank.attributes,
        vocabularies=words,
        time_zone=catalog.time_zone,
        customer_names=(
            *profile.customer_names(bank.attributes, words),
            *CALENDAR_NAMES,
            *transactions.CUSTOMER_NAMES,
            "products held",
            *purchases.CUSTOMER_NAMES,
            *engagement.CUSTOMER_NAMES,
            *consent.CUSTOMER_NAMES,
            *(
                f"{product}: {name}"
                for name in ("held", "times bought", "days since bought")
                for product in flat_products
            ),
            *(f"{channel}: {name}" for name in engagement.CHANNEL_NAMES for channel in catalog.channel_ids),
        ),
        product_names=PRODUCT_NAMES,
        channel_names=engagement.CHANNEL_NAMES,
    )


def assemble(states: States, as_of: Float64, schema: RowSchema) -> Rows:
    """Model rows of n customers, each at its own moment.

    states: view name → State of n entities; as_of: float64 [n], seconds since 1970 UTC.
    A state older than its view's time to live, or younger than `as_of`, counts as unknown; consent never expires and
    a refusal holds even for a moment before it.
    """
    # Whole blocks at a time and few calls: for one customer it is the calls that cost.
    fresh = _trusted(states, as_of)
    count, products, channels = len(as_of), len(schema.products), len(schema.channels)
    held = holdings.held(fresh[holdings.NAME], products)
    product = np.empty((count, products, len(PRODUCT_NAMES)))
    product[:, :, 0] = held
    product[:, :, 1] = (as_of[:, None] - holdings.opened_at(fresh[holdings.NAME], products)) / DAY
    bought = purchases.product_block(fresh[purchases.NAME], as_of, products)
    product[:, :, _BOUGHT] = bought
    product[:, :, _BOUGHT.stop :] = market.product_block(fresh[market.NAME], as_of, products)
    contacts = engagement.channel_block(fresh[engagement.NAME], as_of, channels)
    flat = (held, bought[:, :, purchases.TIMES_BOUGHT], bought[:, :, purchases.SINCE_BOUGHT])
    customer = (
        profile.customer_block(fresh[profile.NAME], as_of, schema),
        calendar(as_of, schema.time_zone),
        transactions.customer_block(fresh[transactions.NAME], as_of),
        held.sum(axis=1, keepdims=True),
        purchases.customer_block(bought),
        engagement.customer_block(fresh[engagement.NAME], as_of, contacts),
        consent.customer_block(fresh[consent.NAME], as_of),
        *(flat if products <= FLAT_PRODUCTS else ()),
        contacts.transpose(0, 2, 1).reshape(count, len(engagement.CHANNEL_NAMES) * channels),
    )
    return Rows(
        customer=_float32(np.concatenate(customer, axis=1)),
        product=_float32(product),
        channel=_float32(contacts),
        held=held == 1.0,
        opted_out=consent.refused(states[consent.NAME], channels, Purpose.MARKETING),
        schema=schema,
    )


def calendar(as_of: Float64, time_zone: str) -> Float64:
    """Local hour, weekday (Monday = 0) and day of month: float64 [n, k], columns in the order of CALENDAR_NAMES."""
    local = as_of + _utc_offset(as_of, time_zone)
    days = np.floor(local / DAY)
    hour = (local - days * DAY) / 3_600
    dates = days.astype(np.int64).astype("datetime64[D]")
    angle = 2 * np.pi * hour / 24
    block = np.empty((len(as_of), len(CALENDAR_NAMES)))
    block[:, 0] = hour
    np.sin(angle, out=block[:, 1])
    np.cos(angle, out=block[:, 2])
    block[:, 3] = (days + THURSDAY) % 7
    block[:, 4] = (dates - dates.astype("datetime64[M]")).astype(np.int64) + 1.0
    return block


def _utc_offset(as_of: Float64, time_zone: str) -> Float64:
    """Seconds by which local time is ahead of UTC at each moment, [n]; one customer must not pay for pandas."""
    if len(as_of) <= FEW:
        zone = ZoneInfo(time_zone)
        offsets = (datetime.fromtimestamp(moment, zone).utcoffset() for moment in as_of.tolist())
        return np.array([offset.total_seconds() for offset in offsets if offset is not None])
    moments = pd.DatetimeIndex(np.floor(as_of).astype(np.int64).astype("datetime64[s]"), tz="UTC")
    local = moments.tz_convert(time_zone).tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    return np.asarray(local - np.floor(as_of), dtype=np.float64)


def _trusted(states: States, as_of: Float64) -> States:
    """The states of all views of a row; those that are too old, or younger than the moment, without what they say."""
    age = as_of - np.stack([states[module.NAME].at for module in MODULES])  # [views, n]
    unknown: Bool = ~((age >= 0) & (age <= _TTLS))
    some: list[bool] = np.logical_or.reduce(unknown, axis=1).tolist()
    return {
        module.NAME: _without(states[module.NAME], unknown[view]) if some[view] else states[module.NAME]
        for view, module in enumerate(MODULES)
    }


def _without(state: State, unknown: Bool) -> State:
    numbers, texts = state.numbers.copy(), state.texts.copy()
    numbers[unknown] = np.nan
    texts[unknown] = None
    return State(np.where(unknown, np.nan, state.at), numbers, texts)


def _float32(block: Float64) -> Float32:
    """The block as contiguous float32; values beyond float32 become its largest."""
    return np.minimum(np.maximum(block, -LARGEST), LARGEST).astype(np.float32, order="C")
