"""The spine of channel-choice.

message    outbound logs: 1 µs before a message was sent, its channel alone against no answer. Only messages that
           arrived: a message that was suppressed or failed was never answered "no".
touch      inbound logs: at each touch, by which channel the customer comes next. Open until they come.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from features.columns import CUSTOMER_ID, Event
from features.schema import Int64, Texts
from training.attribution import LAST_TOUCH
from training.labels import AT, FOREVER, WHAT, Events, ModelNotPossible, answered, messages, positions, touches
from training.outcomes import credited, offers, windows
from training.spine import CAP, JUST_BEFORE, Spine, moments, rows_of

if TYPE_CHECKING:
    from features.importing import Bank

ChannelSource = Literal["messages", "touches"]


def channel_source(bank: Bank) -> ChannelSource:
    """Which rows these tables (cut at the end of learning) are learned from; raises ModelNotPossible."""
    sent = messages(bank)
    if sent[WHAT].nunique() >= 2 and answered(bank, sent, np.full(len(sent), FOREVER)).any():
        return "messages"
    came = touches(bank)
    if came[WHAT].nunique() >= 2 and came.duplicated(CUSTOMER_ID).any():
        return "touches"
    raise ModelNotPossible(
        "channel-choice learns from answered marketing messages that arrived on at least two channels, or from visits "
        f"and calls of the same customers on at least two; however messages arrived on {sent[WHAT].nunique()} and "
        f"customers came by {came[WHAT].nunique()}"
    )


def channel_spine(
    bank: Bank,
    source: ChannelSource,
    end: int,
    horizon: int,
    entities: pd.DataFrame | None = None,
    since: int = 0,
    cap: int = 2 * CAP,
    attribution: str = LAST_TOUCH,
) -> Spine:
    """Rows with since <= as_of whose outcome was known by `end`. Times µs; the bank holds nothing later than `end`."""
    if source == "messages":
        sent = message_rows(bank, end, horizon, attribution)
        spine = sent if entities is None else next_message(sent, entities)
    elif entities is None:
        came = touches(bank).drop_duplicates([CUSTOMER_ID, AT])
        spine = next_touch(bank, came[CUSTOMER_ID].to_numpy(dtype=object), came[AT].to_numpy(np.int64))
    else:
        spine = next_touch(bank, *_asked(entities))
    spine = spine.take(spine.as_of >= since)
    return spine.capped(cap).sorted() if entities is None else spine


def message_rows(bank: Bank, end: int, horizon: int, attribution: str = LAST_TOUCH) -> Spine:
    """One row per marketing message that arrived and whose response window (`horizon`, or its product's) has closed."""
    sent = messages(bank)
    closes = sent["arrived"].to_numpy(np.int64) + message_windows(bank, sent, horizon)
    label = np.zeros((len(sent), len(bank.catalog.channels)), dtype=np.bool_)
    offered = label.copy()
    rows, channel = np.arange(len(sent)), sent[WHAT].to_numpy(np.int64)
    label[rows, channel] = answered(bank, sent, closes, credited(bank, horizon, attribution))
    offered[rows, channel] = True
    as_of = sent[AT].to_numpy(np.int64) - JUST_BEFORE
    customer_id = sent[CUSTOMER_ID].to_numpy(dtype=object)
    spine = rows_of("message", customer_id, as_of, closes, label, outside=True, offered=offered)
    closed = closes <= end
    return spine.take(closed, {"the response window was still open": int((~closed).sum())})


def message_windows(bank: Bank, sent: pd.DataFrame, horizon: int) -> Int64:
    """int64 [n]: µs in which each message (a row of `messages`) may be answered; its product may be its decision's."""
    decided = offers(bank).dropna(subset=[Event.DECISION_ID]).drop_duplicates(Event.DECISION_ID)
    named = positions(sent[Event.PRODUCT_ID], bank.catalog.product_ids)
    meant = sent[Event.DECISION_ID].map(decided.set_index(Event.DECISION_ID)[WHAT]).fillna(-1).to_numpy(np.int64)
    # The last is for messages about no product.
    return np.append(windows(bank, horizon), horizon)[np.where(named >= 0, named, meant)]


def next_message(sent: Spine, entities: pd.DataFrame) -> Spine:
    """Per entity, the first message sent to the customer after `as_of`, seen from `as_of`. sent: see `message_rows`."""
    events = Events.of(
        pd.Index(np.unique(sent.customer_id)),
        pd.DataFrame({CUSTOMER_ID: sent.customer_id, AT: sent.as_of + JUST_BEFORE, WHAT: np.arange(len(sent))}),
    )
    customer_id, as_of = _asked(entities)
    following = events.following(customer_id, as_of)
    found = following >= 0
    spine = sent.take(events.what[following[found]], {"no message followed": int((~found).sum())})
    return replace(spine, as_of=as_of[found])


def next_touch(bank: Bank, customer_id: Texts, as_of: Int64) -> Spine:
    """Per (customer, moment), the channel of the first touch strictly after; several at one time count alike."""
    came = touches(bank)
    events = Events.of(pd.Index(np.unique(came[CUSTOMER_ID].to_numpy(dtype=object))), came)
    following = events.following(customer_id, as_of)
    found = following >= 0
    customer_id, as_of, following = customer_id[found], as_of[found], following[found]
    closes = events.at[following]
    row, event = events.within(customer_id, closes - 1, closes)
    label = np.zeros((len(as_of), len(bank.catalog.channels)), dtype=np.bool_)
    label[row, events.what[event]] = True
    start, stop = events.ranges(customer_id, np.full(len(as_of), -FOREVER), as_of)
    previous = np.where(stop > start, events.what[np.maximum(stop - 1, 0)], -1)
    spine = rows_of("touch", customer_id, as_of, closes, label, outside=False)
    return replace(spine, previous=previous, left_out={"no touch followed": int((~found).sum())})


def _asked(entities: pd.DataFrame) -> tuple[Texts, Int64]:
    return entities[CUSTOMER_ID].to_numpy(dtype=object), moments(entities)
