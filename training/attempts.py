"""Attempts: every marketing message sent, when, by which channel, what became of it, and the customer's habits then.

Only attempts whose response window had closed at the end of the data: one that may still be noticed was not ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from features import habits, hours
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, REACTIONS, Event, Kind, Table
from features.habits import Habits
from features.packing import seconds, unknown
from features.schema import Bool, Float64, Int64, State, Texts, View
from features.times import HOURS_PER_PART
from training.labels import ANSWERS, AT, NO_OFFERS, WHAT, ModelNotPossible, positions, read

if TYPE_CHECKING:
    from features.importing import Bank


@dataclass(frozen=True)
class Attempts:
    """n messages in order of sending. customer_id: object [n]. sent, closes: int64 [n], µs.

    channel: int64 [n]; slot: int64 [n], local hour of the week of sending; part: int64 [n], part of the day.
    delivered, noticed, answered: bool [n], within the window; the later includes the earlier.
    reported: bool [n], False where the channel reports neither delivery nor failure: arrival is then taken for granted.
    delay: float64 [n], seconds from sending to being noticed, NaN where it was not.
    habits: of the customer just before the message, as they were known then.
    """

    customer_id: Texts
    sent: Int64
    closes: Int64
    channel: Int64
    slot: Int64
    part: Int64
    delivered: Bool
    noticed: Bool
    answered: Bool
    reported: Bool
    delay: Float64
    habits: Habits

    def __len__(self) -> int:
        return len(self.sent)

    def take(self, index: Int64) -> Attempts:
        values = {name: value[index] for name, value in vars(self).items() if name != "habits"}
        return Attempts(**values, habits=Habits(self.habits.outcomes[index], self.habits.parts[index]))


def attempts(bank: Bank, end: int, window: int) -> Attempts:
    """The attempts of a bank that was cut at `end`; window, end: µs. Raises ModelNotPossible."""
    log = _log(bank)
    sent = log[log[Event.KIND] == Kind.SENT].drop_duplicates(["key", WHAT])
    sent = sent[sent[AT] + window <= end].reset_index(drop=True)
    settled = log[log[Event.KIND].isin((Kind.DELIVERED, Kind.FAILED))]
    reported = sent[WHAT].isin(settled[WHAT].unique()).to_numpy()
    answered = _first(log, sent, ANSWERS, window)
    noticed = _first(log, sent, REACTIONS, window)
    arrived = ~np.isnan(_first(log, sent, {Kind.DELIVERED}, window)) | ~np.isnan(noticed) | ~reported
    if not reported.any() or np.isnan(noticed).all():
        raise ModelNotPossible(
            "send-time learns from marketing messages with receipts (delivered or failed) and reactions whose response "
            f"window has closed; however of {len(sent)} sent {int(reported.sum())} are on channels with receipts and "
            f"{int((~np.isnan(noticed)).sum())} were reacted to"
        )
    at = sent[AT].to_numpy(np.int64)
    local = pd.DatetimeIndex(pd.to_datetime(at, unit="us", utc=True)).tz_convert(ZoneInfo(bank.catalog.time_zone))
    hour = local.hour.to_numpy(np.int64)
    return Attempts(
        customer_id=sent[CUSTOMER_ID].to_numpy(dtype=object),
        sent=at,
        closes=at + window,
        channel=sent[WHAT].to_numpy(np.int64),
        slot=local.dayofweek.to_numpy(np.int64) * 24 + hour,
        part=hour // HOURS_PER_PART,
        delivered=arrived,
        noticed=~np.isnan(noticed),
        answered=~np.isnan(answered),
        reported=reported,
        delay=(noticed - at) / 1e6,
        habits=habits_before(bank, sent[CUSTOMER_ID].to_numpy(dtype=object), at - 1),
    )


def habits_before(bank: Bank, customer_id: Texts, as_of: Int64) -> Habits:
    """The habits of customers [n] as of µs [n], from the views that are served, joined point in time."""
    states = {
        module.NAME: _before(module.view(bank.catalog), module.states(bank), customer_id, as_of)
        for module in (habits, hours)
    }
    return habits.habits(states, seconds(as_of), len(bank.catalog.channels))


def _before(view: View, table: pa.Table, customer_id: Texts, as_of: Int64) -> State:
    state = unknown(view, len(as_of))
    known = pd.DataFrame(
        {
            CUSTOMER_ID: table[CUSTOMER_ID].to_pandas().astype(object),
            AT: table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(),
            "state": np.arange(table.num_rows),
        }
    ).sort_values(AT, kind="stable")
    asked = pd.DataFrame({CUSTOMER_ID: customer_id, AT: as_of, "row": np.arange(len(as_of))})
    found = pd.merge_asof(asked.sort_values(AT, kind="stable"), known, on=AT, by=CUSTOMER_ID).dropna(subset=["state"])
    row, place = found["row"].to_numpy(np.int64), found["state"].to_numpy(np.int64)
    state.at[row] = seconds(table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy())[place]
    for column, name in enumerate(view.numbers):
        state.numbers[row, column] = table[name].to_numpy()[place]
    return state


def _log(bank: Bank) -> pd.DataFrame:
    """Events of marketing messages in order of time: what names their message in `key`, their channel in WHAT."""
    columns = [CUSTOMER_ID, Event.KIND, Event.CHANNEL, Event.PURPOSE]
    kinds = {Kind.SENT, Kind.DELIVERED, Kind.FAILED, *REACTIONS}
    names = [Event.MESSAGE_ID, Event.DECISION_ID, Event.EVENT_ID]
    log = read(bank, Table.TIMELINE, [*columns, *names], kinds)
    log["key"] = log[Event.MESSAGE_ID].fillna(log[Event.DECISION_ID]).fillna(log[Event.EVENT_ID])
    log[WHAT] = positions(log[Event.CHANNEL], bank.catalog.channel_ids)
    log = log[(log[WHAT] >= 0) & ~log[Event.PURPOSE].isin(NO_OFFERS)]
    return log.sort_values([AT, "key"], kind="stable").reset_index(drop=True)


def _first(log: pd.DataFrame, sent: pd.DataFrame, kinds: Any, window: int) -> Float64:
    """µs of the first event of these kinds within the window of each sent message; NaN where there is none."""
    asked = pd.DataFrame({"key": sent["key"], WHAT: sent[WHAT], "sent": sent[AT], "row": np.arange(len(sent))})
    pairs = asked.merge(log.loc[log[Event.KIND].isin(kinds), ["key", WHAT, AT]], on=["key", WHAT])
    pairs = pairs[(pairs[AT] >= pairs["sent"]) & (pairs[AT] <= pairs["sent"] + window)]
    found = np.full(len(sent), np.nan)
    first = pairs.groupby("row")[AT].min()
    found[first.index.to_numpy(np.int64)] = first.to_numpy(np.float64)
    return found
