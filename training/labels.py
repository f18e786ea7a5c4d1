"""What the tables say happened, as arrays ordered by customer and time: take-ups, touches, messages and their answers.

Everything here is cut at a moment first: a fact after it does not exist. Times are int64 microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, VISITS, Event, Holding, Kind, Purpose, Table
from features.errors import InputError
from features.schema import Int64
from features.takeups import SAME_TAKE_UP_DAYS
from features.takeups import take_ups as take_up_table

if TYPE_CHECKING:
    from features.importing import Bank

DAY = 86_400_000_000
"""Microseconds."""
FOREVER = np.iinfo(np.int64).max // 4
SAME_TAKE_UP = SAME_TAKE_UP_DAYS * DAY
"""Microseconds between the two tables' record of one take-up, at most."""
ANSWERS = frozenset({Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED})
"""What counts as "the channel worked". Opening is left out: voice, SMS and branch cannot report it."""
NO_OFFERS = frozenset({Purpose.SERVICE, Purpose.MANDATORY})
MESSAGE_COLUMNS = (Event.EVENT_ID, Event.KIND, Event.CHANNEL, Event.PURPOSE, Event.MESSAGE_ID, Event.DECISION_ID)
AT = "at"
WHAT = "what"


class ModelNotPossible(InputError):
    """These tables do not hold what the model learns from; the text says what is missing."""


def as_times(at: Int64) -> pd.Series[Any]:
    """int64 [n] µs → timestamps with microseconds, UTC: what Feast's point-in-time join wants."""
    return pd.Series(pd.to_datetime(at, unit="us", utc=True)).astype("datetime64[us, UTC]")


def cut(bank: Bank, until: int) -> Bank:
    """The bank as it was known at `until` (µs): every row later than that is gone."""
    limit = pa.scalar(until, pa.timestamp("us", tz="UTC"))
    tables = {name: table.filter(pc.less_equal(table[EVENT_TIMESTAMP], limit)) for name, table in bank.tables.items()}
    return replace(bank, tables=tables)


def read(bank: Bank, table: Table, columns: Sequence[str], kinds: Collection[Kind] | None = None) -> pd.DataFrame:
    """Columns of a table, with their time as int64 µs in column `at`; of the timeline, only events of these kinds."""
    found = bank.tables[table]
    if kinds is not None:
        wanted = pa.array([str(kind) for kind in kinds], found.schema.field(Event.KIND).type)
        found = found.filter(pc.is_in(found[Event.KIND], wanted))
    at = found[EVENT_TIMESTAMP].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    frame: pd.DataFrame = found.select(list(columns)).to_pandas()
    frame[AT] = at.to_numpy()
    return frame


def last_fact(bank: Bank) -> int:
    """µs of the newest event of any table: where the data ends."""
    newest = [
        pc.max(table[EVENT_TIMESTAMP]).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
        for table in bank.tables.values()
        if table.num_rows
    ]
    if not newest:
        raise ModelNotPossible("there is no fact in any table; bring `customers` and at least one table of events")
    return int(max(newest))


def first_known(bank: Bank) -> pd.Series[int]:
    """Per customer id (sorted), the µs of the first fact about them in any table."""
    frames = [read(bank, table, [CUSTOMER_ID]) for table in bank.tables]
    return pd.concat(frames).groupby(CUSTOMER_ID, sort=True)[AT].min()


@dataclass(frozen=True)
class Events:
    """n events, ordered by owner, then time.

    owner: int64 [n], position of the customer in `customers`. at: int64 [n], µs. what: int64 [n], product or channel.
    """

    customers: pd.Index[Any]
    owner: Int64
    at: Int64
    what: Int64

    @classmethod
    def of(cls, customers: pd.Index[Any], frame: pd.DataFrame) -> Events:
        owner = customers.get_indexer(pd.Index(frame[CUSTOMER_ID])).astype(np.int64)
        at, what = frame[AT].to_numpy(np.int64), frame[WHAT].to_numpy(np.int64)
        order = np.lexsort((what, at, owner))
        return cls(customers, owner[order], at[order], what[order])

    def __len__(self) -> int:
        return len(self.at)

    def ranges(self, customer_id: npt.NDArray[np.object_], after: Int64, upto: Int64) -> tuple[Int64, Int64]:
        """Per row, the events [start, stop) of that customer with after < at <= upto."""
        owner = self.customers.get_indexer(pd.Index(customer_id)).astype(np.int64)
        moments = np.unique(self.at)  # ranks of times keep (owner, time) in one sortable int64
        width = len(moments) + 1
        keys = self.owner * width + np.searchsorted(moments, self.at, side="left")

        def position(limit: Int64) -> Int64:
            return np.searchsorted(keys, owner * width + np.searchsorted(moments, limit, side="right")).astype(np.int64)

        start = position(after)
        return start, np.maximum(position(upto), start)

    def within(self, customer_id: npt.NDArray[np.object_], after: Int64, upto: Int64) -> tuple[Int64, Int64]:
        """Pairs (row, event): every event of the row's customer with after < at <= upto."""
        start, stop = self.ranges(customer_id, after, upto)
        count = stop - start
        row = np.repeat(np.arange(len(start), dtype=np.int64), count)
        offset = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        return row, np.repeat(start, count) + offset

    def following(self, customer_id: npt.NDArray[np.object_], after: Int64) -> Int64:
        """Per row, the customer's first event strictly after; -1 where there is none."""
        start, stop = self.ranges(customer_id, after, np.full(len(after), FOREVER))
        return np.where(stop > start, start, -1)


def positions(values: pd.Series[Any], names: Sequence[str]) -> Int64:
    """Position of each value in `names`; -1 where it is none of them, or missing."""
    return pd.Index(list(names), dtype=object).get_indexer(pd.Index(values.astype(object))).astype(np.int64)


def take_ups(bank: Bank) -> pd.DataFrame:
    """Every take-up once: customer_id, at, what (product position), decision_id (None where on its own).

    A take-up that `holdings` knows up to a day before its `converted` event counts at the earlier time: a row asked
    just before the conversion would already see the holding, and the answer with it.
    """
    table = take_up_table(bank)
    frame = table.select([CUSTOMER_ID, Event.PRODUCT_ID, Event.DECISION_ID]).to_pandas()
    frame[AT] = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    frame[WHAT] = positions(frame[Event.PRODUCT_ID], bank.catalog.product_ids)
    holdings = read(bank, Table.HOLDINGS, [CUSTOMER_ID, Holding.PRODUCT_ID, Holding.ACTION])
    opened = holdings[holdings[Holding.ACTION] == Holding.OPENED].sort_values(AT, kind="stable")
    seen = pd.merge_asof(
        frame.sort_values(AT, kind="stable"),
        opened[[CUSTOMER_ID, Holding.PRODUCT_ID, AT]].assign(seen=opened[AT]),
        on=AT,
        by=[CUSTOMER_ID, Holding.PRODUCT_ID],
        tolerance=SAME_TAKE_UP,
    )
    seen[AT] = seen["seen"].fillna(seen[AT]).astype("int64")
    columns = [CUSTOMER_ID, AT, WHAT, Event.DECISION_ID]
    return seen[columns].sort_values([AT, CUSTOMER_ID, WHAT], kind="stable").reset_index(drop=True)


def decisions(bank: Bank) -> pd.DataFrame:
    """Offers of a product: customer_id, at, what, decision_id; as far as the log says, they reached the customer.

    Service and mandatory contacts are no offers; a decision whose message failed was never answered "no".
    """
    kinds = (Kind.DECIDED, Kind.DELIVERED, Kind.FAILED)
    columns = [CUSTOMER_ID, Event.KIND, Event.PURPOSE, Event.PRODUCT_ID, Event.DECISION_ID]
    log = read(bank, Table.TIMELINE, columns, kinds)
    ids = {kind: set(log.loc[log[Event.KIND] == kind, Event.DECISION_ID].dropna()) for kind in kinds}
    log[WHAT] = positions(log[Event.PRODUCT_ID], bank.catalog.product_ids)
    offers = log[
        (log[Event.KIND] == Kind.DECIDED)
        & (log[WHAT] >= 0)
        & ~log[Event.PURPOSE].isin(NO_OFFERS)
        & ~log[Event.DECISION_ID].isin(ids[Kind.FAILED] - ids[Kind.DELIVERED])
    ]
    return offers[[CUSTOMER_ID, AT, WHAT, Event.DECISION_ID]].reset_index(drop=True)


def touches(bank: Bank) -> pd.DataFrame:
    """Visits and calls on a channel of the catalogue: customer_id, at, what (channel position)."""
    frame = read(bank, Table.TIMELINE, [CUSTOMER_ID, Event.CHANNEL], VISITS)
    frame[WHAT] = positions(frame[Event.CHANNEL], bank.catalog.channel_ids)
    return frame.loc[frame[WHAT] >= 0, [CUSTOMER_ID, AT, WHAT]].reset_index(drop=True)


def messages(bank: Bank) -> pd.DataFrame:
    """Marketing messages that arrived: customer_id, at (sent), arrived, what (channel), message_id, decision_id.

    A channel that reports neither `delivered` nor `failed` is taken at its word: there, sent counts as arrived.
    """
    columns = [CUSTOMER_ID, *MESSAGE_COLUMNS]
    log = read(bank, Table.TIMELINE, columns, (Kind.SENT, Kind.DELIVERED, Kind.FAILED))
    log[WHAT] = positions(log[Event.CHANNEL], bank.catalog.channel_ids)
    log = log[(log[WHAT] >= 0) & ~log[Event.PURPOSE].isin(NO_OFFERS)].sort_values(AT, kind="stable")
    log["key"] = log[Event.MESSAGE_ID].fillna(log[Event.DECISION_ID]).fillna(log[Event.EVENT_ID])
    was_sent = log[Event.KIND] == Kind.SENT
    silent = ~log[WHAT].isin(log.loc[~was_sent, WHAT].unique())
    arrived = log[(log[Event.KIND] == Kind.DELIVERED) | (was_sent & silent)].drop_duplicates(["key", WHAT])
    sent = log[was_sent].groupby(["key", WHAT])[AT].min().rename("sent").reset_index()
    arrived = arrived.rename(columns={AT: "arrived"}).merge(sent, on=["key", WHAT], how="left")
    arrived[AT] = arrived["sent"].fillna(arrived["arrived"]).astype("int64")
    columns = [CUSTOMER_ID, AT, "arrived", WHAT, Event.MESSAGE_ID, Event.DECISION_ID]
    return arrived[columns].sort_values([AT, CUSTOMER_ID, WHAT], kind="stable").reset_index(drop=True)


def answered(bank: Bank, sent: pd.DataFrame, closes: Int64) -> npt.NDArray[np.bool_]:
    """bool [n]: was message i (a row of `messages`) clicked, replied to or followed by a take-up by `closes` (µs)?

    An answer belongs to its message_id; one without belongs to its decision's messages on its channel.
    """
    answers = read(bank, Table.TIMELINE, [Event.CHANNEL, Event.MESSAGE_ID, Event.DECISION_ID], ANSWERS)
    answers[WHAT] = positions(answers[Event.CHANNEL], bank.catalog.channel_ids)
    asked = pd.DataFrame({"row": np.arange(len(sent)), "sent": sent[AT], "channel_sent": sent[WHAT], "closes": closes})
    asked = asked.join(sent[[Event.MESSAGE_ID, Event.DECISION_ID]])
    named = answers.dropna(subset=[Event.MESSAGE_ID])
    rest = answers[answers[Event.MESSAGE_ID].isna()].dropna(subset=[Event.DECISION_ID])
    pairs = pd.concat(
        [
            asked.drop(columns=Event.DECISION_ID).merge(named, on=Event.MESSAGE_ID).assign(**{WHAT: -1}),
            asked.drop(columns=Event.MESSAGE_ID).merge(rest, on=Event.DECISION_ID),
        ]
    )
    same_channel = (pairs[WHAT] < 0) | (pairs[WHAT] == pairs["channel_sent"])
    in_time = (pairs[AT] >= pairs["sent"]) & (pairs[AT] <= pairs["closes"])
    found = np.zeros(len(sent), dtype=np.bool_)
    found[pairs.loc[same_channel & in_time, "row"].to_numpy(np.int64)] = True
    return found
