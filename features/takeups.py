"""Take-ups: who took which product when, told once although two tables may tell it."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from features.columns import Kind, Table
from features.importing import Bank

SAME_TAKE_UP_DAYS = 1
"""A conversion and an opening of one customer and product this close together are one take-up."""

_QUERY = f"""
with conversions as (
    select customer_id, event_timestamp, product_id, decision_id
    from timeline where kind = '{Kind.CONVERTED}' and product_id is not null
),
openings as (
    select customer_id, event_timestamp, product_id, null::varchar as decision_id
    from holdings where action = 'opened'
    and event_timestamp > (
        select min(known.event_timestamp) from customers known where known.customer_id = holdings.customer_id
    )
),
untold as (
    select * from openings o where not exists (
        select 1 from conversions c
        where c.customer_id = o.customer_id and c.product_id = o.product_id
        and abs(date_diff('microsecond', c.event_timestamp, o.event_timestamp))
            <= {SAME_TAKE_UP_DAYS} * 86400000000
    )
)
select customer_id, event_timestamp, product_id, max(decision_id) as decision_id
from (select * from conversions union all select * from untold)
group by customer_id, event_timestamp, product_id
order by event_timestamp, customer_id, product_id
"""


def take_ups(bank: Bank) -> pa.Table:
    """Columns customer_id, event_timestamp (µs UTC), product_id, decision_id (null: on their own), in order of time.

    A take-up is a `converted` event with a product, or an `opened` holding that no conversion within a day tells.
    What a customer holds from the moment we know them was not taken up: it is where their history begins.
    """
    with duckdb.connect() as connection:
        connection.execute("set time zone 'UTC'")
        connection.register("timeline", bank.tables[Table.TIMELINE])
        connection.register("holdings", bank.tables[Table.HOLDINGS])
        connection.register("customers", bank.tables[Table.CUSTOMERS].select(["customer_id", "event_timestamp"]))
        found = connection.sql(_QUERY).to_arrow_table()
    timestamps = found["event_timestamp"].cast(pa.timestamp("us", tz="UTC"))
    return found.set_column(1, "event_timestamp", timestamps)
