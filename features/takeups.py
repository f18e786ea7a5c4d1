"""Take-ups: who took which product when, told once although two tables may tell it."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from features.arrow import kernels
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Table
from features.importing import Bank

SAME_TAKE_UP_DAYS = 1
"""A conversion and an opening of one customer and product this close together are one take-up."""

_QUERY = f"""
with meant as (
    select decision_id, min(product_id) as product_id
    from timeline where kind = '{Kind.DECIDED}' and decision_id is not null
    group by decision_id having count(distinct product_id) = 1
),
told as (
    select c.customer_id, c.event_timestamp, coalesce(c.product_id, meant.product_id) as product_id,
        c.decision_id, c.message_id, c.event_id
    from timeline c left join meant on meant.decision_id = c.decision_id
    where c.kind = '{Kind.CONVERTED}' and coalesce(c.product_id, meant.product_id) is not null
),
opened as (select customer_id, event_timestamp, product_id from holdings where action = 'opened'),
conversions as (
    select t.customer_id, t.product_id, t.decision_id, t.message_id, t.event_id, t.event_timestamp as told_at,
        coalesce(max(o.event_timestamp), t.event_timestamp) as event_timestamp
    from told t left join opened o
        on o.customer_id = t.customer_id and o.product_id = t.product_id and o.event_timestamp <= t.event_timestamp
        and date_diff('microsecond', o.event_timestamp, t.event_timestamp) <= {SAME_TAKE_UP_DAYS} * 86400000000
    group by t.customer_id, t.product_id, t.decision_id, t.message_id, t.event_id, t.event_timestamp
),
openings as (
    select customer_id, event_timestamp, product_id, null::varchar as decision_id, null::varchar as message_id,
        null::varchar as event_id, event_timestamp as told_at
    from opened where event_timestamp > (
        select min(known.event_timestamp) from customers known where known.customer_id = opened.customer_id
    )
),
untold as (
    select * from openings o where not exists (
        select 1 from told t
        where t.customer_id = o.customer_id and t.product_id = o.product_id
        and abs(date_diff('microsecond', t.event_timestamp, o.event_timestamp))
            <= {SAME_TAKE_UP_DAYS} * 86400000000
    )
),
ranked as (
    select *, row_number() over (
        partition by customer_id, event_timestamp, product_id
        order by decision_id is null, told_at, decision_id desc, message_id is null, event_id
    ) as place
    from (select * from conversions union all by name select * from untold)
)
select customer_id, event_timestamp, product_id, decision_id, message_id, event_id
from ranked where place = 1 order by event_timestamp, customer_id, product_id
"""


def take_ups(bank: Bank) -> pa.Table:
    """What `find_take_ups` finds, found once for a bank."""
    return bank.take_ups


def find_take_ups(bank: Bank) -> pa.Table:
    """Columns customer_id, event_timestamp (µs UTC), product_id, decision_id, message_id, event_id, in order of time.

    A take-up is a `converted` event with a product, or an `opened` holding that no conversion within a day tells; the
    ids are those of the conversion, null where it names none or there is none. A conversion that names no product did
    what its decision was for. One that `holdings` knows up to a day
    before its conversion counts at the earlier time: a row asked between the two would already see the holding, and
    the answer with it. What a customer holds from the moment we know them was not taken up: it is where their history
    begins.
    """
    with duckdb.connect() as connection:
        connection.execute("set time zone 'UTC'")
        connection.register("timeline", _told(bank))
        connection.register("holdings", bank.tables[Table.HOLDINGS])
        connection.register("customers", bank.tables[Table.CUSTOMERS].select(["customer_id", "event_timestamp"]))
        found = connection.sql(_QUERY).to_arrow_table()
    timestamps = found["event_timestamp"].cast(pa.timestamp("us", tz="UTC"))
    return found.set_column(1, "event_timestamp", timestamps)


def _told(bank: Bank) -> pa.Table:
    """The events that the query reads, of a log that is mostly others: conversions, and the decisions of those that
    name no product."""
    columns = (CUSTOMER_ID, EVENT_TIMESTAMP, Event.KIND, Event.PRODUCT_ID)
    columns = (*columns, Event.DECISION_ID, Event.MESSAGE_ID, Event.EVENT_ID)
    told = bank.columns(Table.TIMELINE, columns, {Kind.CONVERTED})
    unnamed = told.filter(kernels.is_null(told[Event.PRODUCT_ID]))[Event.DECISION_ID].combine_chunks()
    if not len(unnamed):
        return told
    decided = bank.columns(Table.TIMELINE, columns, {Kind.DECIDED})
    return pa.concat_tables([told, decided.filter(kernels.is_in(decided[Event.DECISION_ID], unnamed))])
