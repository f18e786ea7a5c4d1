"""What the tables say happened, as arrays ordered by customer and time: take-ups, touches, messages and their answers.

Everything here is cut at a moment first: a fact after it does not exist. Times are int64 microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, VISITS, Event, Kind, Purpose, Table
from features.errors import InputError
from features.schema import Int64
from features.takeups import take_ups as take_up_table

if TYPE_CHECKING:
    from features.importing import Bank

DAY = 86_400_000_000
"""Microseconds."""
FOREVER = np.iinfo(np.int64).max // 4
ANSWERS = frozenset({Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED})
"""What counts as "the channel worked". Opening is left out: voice, SMS and branch cannot report it."""
NO_OFFERS = frozenset({Purpose.SERVICE, Purpose.MANDATORY})
MESSAGE_COLUMNS = (
    Event.EVENT_ID,
    Event.KIND,
    Event.CHANNEL,
    Event.PURPOSE,
    Event.PRODUCT_ID,
    Event.MESSAGE_ID,
    Event.DECISION_ID,
)
AT = "at"
WHAT = "what"


class ModelNotPossible(InputError):
    """These tables do not hold what the model learns from; the text says what is missing."""


def as_times(at: Int64) -> pd.Series[Any]:
    """int64 [n] µs → timestamps with microseconds, UTC: what Feast's point-in-time join wants."""
    return pd.Series(pd.to_datetime(at, unit="us", utc=True)).astype("datetime64[us, UTC]")


def cut(bank: Bank, until: int) -> Bank:
    """The bank as it was known at `until` (µs): every row later than that is gone."""
    if last_fact(bank) <= until:
        return bank
    return bank.cut(until)


def read(bank: Bank, table: Table, columns: Sequence[str], kinds: Collection[Kind] | None = None) -> pd.DataFrame:
    """Columns of a table, with their time as int64 µs in column `at`; of the timeline, only events of these kinds."""
    found = bank.columns(table, [*columns, EVENT_TIMESTAMP], kinds)
    at = found[EVENT_TIMESTAMP].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    frame: pd.DataFrame = found.select(list(columns)).to_pandas()
    frame[AT] = at.to_numpy()
    return frame


def last_fact(bank: Bank) -> int:
    """µs of the newest event of any table: where the data ends."""
    if bank.newest is None:
        raise ModelNotPossible("there is no fact in any table; bring `customers` and at least one table of events")
    return bank.newest


def told_until(bank: Bank, end: int) -> int:
    """µs until which all take-ups are told, so that "nothing" can be learned: where the bank's tables end, or `end`.

    A ledger goes on after them and knows only what it is sent; it counts where it alone tells of take-ups.
    """
    if not bank.served.known.num_rows:
        return end
    own = bank.before_ledger()
    return min(end, last_fact(own)) if take_up_table(own).num_rows else end


def first_known(bank: Bank) -> pd.Series[int]:
    """Per customer id (sorted), the µs of the first fact about them in any table."""
    ids, at = bank.first_known
    return pd.Series(at, pd.Index(ids, name=CUSTOMER_ID), name=AT)


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
    """Every take-up once, in order of time: customer_id, at, what (product position), and the ids of its conversion.

    decision_id, message_id, event_id: None where it names none, or where a holding tells it.
    """
    table = take_up_table(bank)
    ids = [Event.DECISION_ID, Event.MESSAGE_ID, Event.EVENT_ID]
    frame = table.select([CUSTOMER_ID, Event.PRODUCT_ID, *ids]).to_pandas()
    frame[AT] = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    frame[WHAT] = positions(frame[Event.PRODUCT_ID], bank.catalog.product_ids)
    columns = [CUSTOMER_ID, AT, WHAT, *ids]
    found: pd.DataFrame = frame[columns].sort_values([AT, CUSTOMER_ID, WHAT], kind="stable").reset_index(drop=True)
    return found


def touches(bank: Bank) -> pd.DataFrame:
    """Visits and calls on a channel of the catalogue: customer_id, at, what (channel position)."""
    frame = read(bank, Table.TIMELINE, [CUSTOMER_ID, Event.CHANNEL], VISITS)
    frame[WHAT] = positions(frame[Event.CHANNEL], bank.catalog.channel_ids)
    return frame.loc[frame[WHAT] >= 0, [CUSTOMER_ID, AT, WHAT]].reset_index(drop=True)


def messages(bank: Bank) -> pd.DataFrame:
    """Marketing messages that arrived: customer_id, at (sent), arrived, what (channel), product_id, and their ids.

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
    columns = [CUSTOMER_ID, AT, "arrived", WHAT, Event.PRODUCT_ID, Event.MESSAGE_ID, Event.DECISION_ID]
    return arrived[columns].sort_values([AT, CUSTOMER_ID, WHAT], kind="stable").reset_index(drop=True)


def answered(
    bank: Bank, sent: pd.DataFrame, closes: Int64, credited: Mapping[str, str] | None = None
) -> npt.NDArray[np.bool_]:
    """bool [n]: was message i (a row of `messages`) clicked, replied to or followed by a take-up by `closes` (µs)?

    An answer belongs to its message_id; one without belongs to its decision's messages on its channel. A take-up counts
    once: where it belongs to messages on several channels, for the last. credited: event_id of take-ups that name
    neither → the decision that they were attributed to.
    """
    columns = [Event.EVENT_ID, Event.KIND, Event.CHANNEL, Event.MESSAGE_ID, Event.DECISION_ID]
    answers = read(bank, Table.TIMELINE, columns, ANSWERS)
    answers[WHAT] = positions(answers[Event.CHANNEL], bank.catalog.channel_ids)
    if credited:
        free = answers[Event.MESSAGE_ID].isna() & answers[Event.DECISION_ID].isna()
        decision = answers.loc[free, Event.EVENT_ID].map(credited)
        answers.loc[free, Event.DECISION_ID] = decision
        answers.loc[decision.dropna().index, WHAT] = -1  # where it was taken up says nothing of what led to it
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
    pairs = pairs[same_channel & (pairs[AT] >= pairs["sent"]) & (pairs[AT] <= pairs["closes"])]
    once = pairs[Event.KIND] == Kind.CONVERTED
    last = pairs[once].sort_values(["sent", "row"], kind="stable").drop_duplicates(Event.EVENT_ID, keep="last")
    found = np.zeros(len(sent), dtype=np.bool_)
    found[np.concatenate([pairs.loc[~once, "row"], last["row"]]).astype(np.int64)] = True
    return found
