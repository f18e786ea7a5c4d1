"""The engagement view: messages, reactions and visits per channel, the customer's last visits and messages."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import VISITS, Kind
from features.folds import DAY, decay, slugs, zero_where_missing
from features.importing import Bank
from features.joins import Layout
from features.schema import Column, Float64, State, View
from features.touches import Folding, Occurrence, Touch, fold_timeline

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
VISITS_BACK = 3
MESSAGES_BACK = 5
KEPT = (("visit", tuple(VISITS), VISITS_BACK), ("message", (Kind.SENT,), MESSAGES_BACK))
"""Of these the newest are kept one by one, with their channels; at equal times the later channel counts as newer."""

CHANNEL_NAMES = (
    *(f"{name}, decayed" for name, _, _ in SUMS),
    *(f"days since {name.removesuffix('_at')}" for name, _ in LATEST),
    "share of visits",
    "response rate, smoothed",
    *(f"was visit {back} back" for back in range(1, VISITS_BACK + 1)),
    "unanswered messages",
)
_TAUS = np.array([tau for _, _, tau in SUMS])
_COUNTS = slice(0, len(SUMS))
_SINCE = slice(_COUNTS.stop, _COUNTS.stop + len(LATEST))
_SHARE, _RATE, _UNANSWERED = _SINCE.stop, _SINCE.stop + 1, -1
_WAS = slice(_RATE + 1, _RATE + 1 + VISITS_BACK)
CUSTOMER_NAMES = (
    "messages, decayed",
    "visits, decayed",
    *(f"days since visit {n}" for n in (1, 2, 3)),
    "visit gap 1",
    "visit gap 2",
    "unanswered messages, all channels",
)
PRIOR_MESSAGES, PRIOR_RESPONSES = 10.0, 0.5
"""A response rate starts as if this many messages had brought this many responses."""


def view(catalog: Catalog) -> View:
    channels = slugs(catalog.channel_ids)
    names = [f"{channel}__{name}" for part in (SUMS, LATEST) for channel in channels for name, *_ in part]
    kept = [
        f"{name}_{part}_{back}__all"
        for name, _, most in KEPT
        for back in range(1, most + 1)
        for part in ("at", "channel")
    ]
    return View(NAME, "customer", TTL, tuple(Column(name) for name in (*names, *kept)))


def folding(catalog: Catalog) -> Folding:
    """Events on a channel of the catalogue count, each for its channel."""
    channels = len(catalog.channels)
    layout = Layout(
        taus=tuple(tau for _, _, tau in SUMS) * channels,
        times=len(LATEST) * channels,
        kept=tuple((1, most) for _, _, most in KEPT),
    )

    def touch(event: Occurrence) -> Touch:
        if event.channel is None or event.channel < 0:
            return Touch()
        sums, times = event.channel * len(SUMS), layout.sums + event.channel * len(LATEST)
        return Touch(
            tuple(sums + place for place, (_, kinds, _) in enumerate(SUMS) if event.kind in kinds),
            tuple(times + place for place, (_, kinds) in enumerate(LATEST) if event.kind in kinds),
            tuple(
                (layout.pair(block, 0), event.channel)
                for block, (_, kinds, _) in enumerate(KEPT)
                if event.kind in kinds
            ),
        )

    return Folding(layout, touch)


def states(bank: Bank) -> pa.Table:
    """One row per customer and time of an event that counts on a channel."""
    return fold_timeline(bank, view(bank.catalog), folding(bank.catalog))


def channel_block(state: State, as_of: Float64, channels: int) -> Float64:
    """Float64 [n, H, k], columns in the order of CHANNEL_NAMES; counts are 0 for a customer without events."""
    count, split = len(state.at), channels * len(SUMS)
    sums = state.numbers[:, :split].reshape(count, channels, len(SUMS))
    latest = state.numbers[:, split : split + channels * len(LATEST)].reshape(count, channels, len(LATEST))
    age = zero_where_missing(as_of - state.at)[:, None, None]
    block = np.empty((count, channels, len(CHANNEL_NAMES)))
    block[:, :, _COUNTS] = zero_where_missing(sums) * decay(age, _TAUS)
    block[:, :, _SINCE] = (as_of[:, None, None] - latest) / DAY
    sent, responded, visits = block[:, :, 0], block[:, :, 3], block[:, :, 5]
    block[:, :, _SHARE] = (visits + 1.0 / max(channels, 1)) / (visits.sum(axis=1, keepdims=True) + 1.0)
    block[:, :, _RATE] = (responded + PRIOR_RESPONSES) / (sent + PRIOR_MESSAGES)
    each = np.arange(channels)
    _, visited = _kept(state, "visit")
    block[:, :, _WAS] = visited[:, None, :] == each[:, None]
    sent_at, sent_by = _kept(state, "message")
    waiting = ~(sent_at <= np.fmax.reduce(latest[:, :, 1], axis=1, initial=-np.inf)[:, None])  # [n, K]
    (waiting[:, None, :] & (sent_by[:, None, :] == each[:, None])).sum(axis=2, out=block[:, :, _UNANSWERED])
    return block


def customer_block(state: State, as_of: Float64, block: Float64) -> Float64:
    """Float64 [n, k], columns in the order of CUSTOMER_NAMES, from the channel block."""
    times, _ = _kept(state, "visit")
    told = np.empty((len(state.at), len(CUSTOMER_NAMES)))
    block[:, :, 0].sum(axis=1, out=told[:, 0])
    block[:, :, 5].sum(axis=1, out=told[:, 1])
    since = told[:, 2 : 2 + VISITS_BACK]
    np.divide(as_of[:, None] - times, DAY, out=since)
    np.subtract(since[:, 1:], since[:, :-1], out=told[:, 2 + VISITS_BACK : -1])
    block[:, :, _UNANSWERED].sum(axis=1, out=told[:, -1])
    return told


def _kept(state: State, which: str) -> tuple[Float64, Float64]:
    """Times and channels [n, K] of the newest of a kind, newest first; NaN where there were fewer."""
    start = state.numbers.shape[1] - sum(2 * most for _, _, most in KEPT)
    for name, _, most in KEPT:
        if name == which:
            return state.numbers[:, start : start + 2 * most : 2], state.numbers[:, start + 1 : start + 2 * most : 2]
        start += 2 * most
    raise KeyError(which)
