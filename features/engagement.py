"""The engagement view: messages, reactions and visits per channel, and the customer's last three visits."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, VISITS, Event, Kind, Table
from features.folds import DAY, Codes, decay, encode, flat, fold, seconds, slugs, state_table
from features.importing import Bank
from features.schema import Column, Float64, State, View

NAME = "engagement"
TTL = timedelta(days=730)
SUMS = (
    ("sent", (Kind.SENT,), 30 * DAY),
    ("failed", (Kind.FAILED,), 90 * DAY),
    ("opened", (Kind.OPENED,), 90 * DAY),
    ("responded", (Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED), 90 * DAY),
    ("visits_week", tuple(VISITS), 7 * DAY),
    ("visits", tuple(VISITS), 90 * DAY),
)
LATEST = (
    ("sent_at", (Kind.SENT,)),
    ("responded_at", (Kind.OPENED, Kind.CLICKED, Kind.REPLIED, Kind.CONVERTED)),
    ("visit_at", tuple(VISITS)),
)
PER_CHANNEL = len(SUMS) + len(LATEST)
VISITS_BACK = 3
HISTORY = tuple(f"{part}_{back}" for back in range(1, VISITS_BACK + 1) for part in ("visit_at", "visit_channel"))

CHANNEL_NAMES = (
    *(f"{name}, decayed" for name, _, _ in SUMS),
    *(f"days since {name.removesuffix('_at')}" for name, _ in LATEST),
    "share of visits",
    "response rate, smoothed",
    *(f"was visit {back} back" for back in range(1, VISITS_BACK + 1)),
)
CUSTOMER_NAMES = (
    "messages, decayed",
    "visits, decayed",
    *(f"days since visit {n}" for n in (1, 2, 3)),
    "visit gap 1",
    "visit gap 2",
)
PRIOR_MESSAGES, PRIOR_RESPONSES = 10.0, 0.5
"""A response rate starts as if this many messages had brought this many responses."""


def view(catalog: Catalog) -> View:
    names = [name for name, _, _ in SUMS] + [name for name, _ in LATEST]
    columns = [Column(f"{channel}__{name}") for channel in slugs(catalog.channel_ids) for name in names]
    return View(NAME, "customer", TTL, (*columns, *(Column(f"{name}__all") for name in HISTORY)))


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of an event on a channel."""
    table = bank.tables[Table.TIMELINE]
    table = table.filter(pc.is_valid(table[Event.CHANNEL]))
    at, kind = seconds(table[EVENT_TIMESTAMP]), table[Event.KIND].to_numpy()
    customers, ids = encode(table[CUSTOMER_ID])
    channels = {channel: position for position, channel in enumerate(bank.catalog.channel_ids)}
    channel = np.array([channels[name] for name in table[Event.CHANNEL].to_pylist()], dtype=np.int64)
    events = np.arange(len(at))
    amounts = np.zeros((len(at), len(channels), len(SUMS)))
    for place, (_, kinds, _) in enumerate(SUMS):
        amounts[events, channel, place] = np.isin(kind, kinds)
    values = np.full((len(at), len(channels), len(LATEST)), np.nan)
    for place, (_, kinds) in enumerate(LATEST):
        hits = np.isin(kind, kinds)
        values[events[hits], channel[hits], place] = at[hits]
    visits = _last_visits(customers, at, channel, np.isin(kind, tuple(VISITS)))
    taus = [tau for _, _, tau in SUMS] * len(channels)
    changes = np.hstack([flat(values), visits])
    folded = fold(customers, at, flat(amounts), taus, changes)
    count, width = len(folded.at), len(channels) * len(LATEST)
    parts = [
        folded.sums.reshape(count, len(channels), len(SUMS)),
        folded.latest[:, :width].reshape(count, len(channels), len(LATEST)),
    ]
    numbers = np.hstack([flat(np.concatenate(parts, axis=2)), folded.latest[:, width:]])
    return state_table(view(bank.catalog), ids.take(pa.array(folded.entity)), folded.at, numbers)


def _last_visits(customers: Codes, at: Float64, channel: Codes, visited: np.ndarray) -> Float64:
    """Time and channel of the last three visits, [n, 6] in the order of HISTORY; NaN rows where nobody visited."""
    history = np.full((len(at), len(HISTORY)), np.nan)
    events = np.flatnonzero(visited)
    events = events[np.lexsort((at[events], customers[events]))]
    for back in range(VISITS_BACK):
        now, then = events[back:], events[: len(events) - back]
        same = customers[now] == customers[then]
        history[now[same], 2 * back] = at[then[same]]
        history[now[same], 2 * back + 1] = channel[then[same]]
    return history


def channel_block(state: State, as_of: Float64, channels: int) -> list[Float64]:
    """Columns [n, H] in the order of CHANNEL_NAMES; counts are 0 for a customer without events."""
    count = len(state.at)
    numbers = state.numbers[:, : channels * PER_CHANNEL].reshape(count, channels, PER_CHANNEL)
    age = np.nan_to_num(as_of - state.at)[:, None]
    counts = [np.nan_to_num(numbers[:, :, place]) * decay(age, tau) for place, (_, _, tau) in enumerate(SUMS)]
    since = [(as_of[:, None] - numbers[:, :, len(SUMS) + place]) / DAY for place in range(len(LATEST))]
    sent, responded, visits = counts[0], counts[3], counts[5]
    share = (visits + 1.0 / max(channels, 1)) / (visits.sum(axis=1, keepdims=True) + 1.0)
    rate = (responded + PRIOR_RESPONSES) / (sent + PRIOR_MESSAGES)
    visited = state.numbers[:, channels * PER_CHANNEL + 1 :: 2]
    was = [(visited[:, back, None] == np.arange(channels)).astype(np.float64) for back in range(VISITS_BACK)]
    return [*counts, *since, share, rate, *was]


def customer_block(state: State, as_of: Float64, block: list[Float64]) -> list[Float64]:
    """Columns [n] in the order of CUSTOMER_NAMES."""
    times = state.numbers[:, state.numbers.shape[1] - len(HISTORY) :: 2]
    since = [(as_of - times[:, back]) / DAY for back in range(VISITS_BACK)]
    gaps = [since[1] - since[0], since[2] - since[1]]
    return [block[0].sum(axis=1), block[5].sum(axis=1), *since, *gaps]
