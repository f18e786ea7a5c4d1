"""What the bank's own log says of its contacts: how many, and what followed them, per product and channel.

Counts only: what they mean for the worth of an action is `serving.value`'s affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from features.arrow import column_of
from features.catalog import Catalog
from features.columns import Event, Kind, Purpose, Table
from features.importing import Bank
from features.schema import Float64
from features.takeups import take_ups

_QUERY = f"""
with keeps_receipts as (select served, true as yes from timeline where kind = '{Kind.SENT}' group by served),
sent as (
    select decision_id, any_value(product_id) as product_id, any_value(channel) as channel
    from timeline left join keeps_receipts using (served)
    where kind = case when yes then '{Kind.SENT}' else '{Kind.DECIDED}' end
        and decision_id is not null and channel is not null
        and coalesce(purpose, '{Purpose.MARKETING}') = '{Purpose.MARKETING}'
    group by decision_id
),
followed as (
    select decision_id, kind, product_id from timeline
    where kind in ('{Kind.CONVERTED}', '{Kind.OPTED_OUT}') and decision_id is not null
)
select sent.product_id, sent.channel, count(*) as contacts,
    count(*) filter (where exists (select 1 from followed f where f.decision_id = sent.decision_id
        and f.kind = '{Kind.CONVERTED}' and f.product_id = sent.product_id)) as converted,
    count(*) filter (where exists (select 1 from followed f where f.decision_id = sent.decision_id
        and f.kind = '{Kind.OPTED_OUT}')) as opted_out
from sent group by sent.product_id, sent.channel
"""

_COLUMNS = (Event.EVENT_ID, Event.KIND, Event.DECISION_ID, Event.PRODUCT_ID, Event.CHANNEL, Event.PURPOSE)
_KINDS = (Kind.SENT, Kind.DECIDED, Kind.CONVERTED, Kind.OPTED_OUT)
"""Of the timeline, what the query reads."""


@dataclass(frozen=True)
class Evidence:
    """Counts over the whole log, float64. P products, H channels, in the catalogue's order.

    contacts: [P, H] marketing messages sent; decided contacts, where the log tells of nothing being sent (the bank's
    own log and the ledger's each for themselves). converted:
    [P, H] of them, how many led to a take-up of that product (the conversion names the decision). sent: [H] messages
    with or without a product. opted_out: [H] of those, how many were answered by an opt-out. take_ups: [P] however they
    came about, what a product model has learned from.
    """

    contacts: Float64
    converted: Float64
    sent: Float64
    opted_out: Float64
    take_ups: Float64

    @classmethod
    def none(cls, catalog: Catalog) -> Evidence:
        """Nothing was ever seen."""
        products, channels = len(catalog.products), len(catalog.channels)
        pairs = np.zeros((products, channels))
        return cls(pairs, pairs, np.zeros(channels), np.zeros(channels), np.zeros(products))


def evidence(bank: Bank) -> Evidence:
    """Count what the timeline and the holdings of a bank tell."""
    timeline = bank.columns(Table.TIMELINE, _COLUMNS, _KINDS)
    served = column_of(bank.served.among(timeline[Event.EVENT_ID]))
    with duckdb.connect() as connection:
        connection.register("timeline", timeline.append_column("served", served))
        found: pd.DataFrame = connection.sql(_QUERY).df()
    products = {name: place for place, name in enumerate(bank.catalog.product_ids)}
    channels = {name: place for place, name in enumerate(bank.catalog.channel_ids)}
    product = found["product_id"].map(products).to_numpy(dtype=np.float64)  # NaN: a message about no product
    channel = found["channel"].map(channels).to_numpy(dtype=np.int64)
    named = np.isfinite(product)
    cell = product[named].astype(np.int64), channel[named]

    def per_pair(column: str) -> Float64:
        total = np.zeros((len(products), len(channels)))
        np.add.at(total, cell, found[column].to_numpy(np.float64)[named])
        return total

    def per_channel(column: str) -> Float64:
        return np.bincount(channel, found[column].to_numpy(np.float64), minlength=len(channels)).astype(np.float64)

    taken = np.array([products[name] for name in take_ups(bank)["product_id"].to_pylist()], dtype=np.int64)
    return Evidence(
        contacts=per_pair("contacts"),
        converted=per_pair("converted"),
        sent=per_channel("contacts"),
        opted_out=per_channel("opted_out"),
        take_ups=np.bincount(taken, minlength=len(products)).astype(np.float64),
    )
