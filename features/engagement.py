"""The engagement view: messages, reactions and visits per channel, the customer's last visits and messages."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from features.catalog import Catalog
from features.columns import VISITS, Kind
from features.folds import DAY, slugs
from features.importing import Bank
from features.joins import Layout
from features.row_plan import Part, Source
from features.schema import Bool, Column, Float64, View
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

DERIVED_NAMES = (
    "share of visits",
    "response rate, smoothed",
    *(f"was visit {back} back" for back in range(1, VISITS_BACK + 1)),
    "unanswered messages",
)
CHANNEL_NAMES = (
    *(f"{name}, decayed" for name, _, _ in SUMS),
    *(f"days since {name.removesuffix('_at')}" for name, _ in LATEST),
    *DERIVED_NAMES,
)
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


def source(channels: int) -> Source:
    """Each of SUMS and LATEST over the channels, [n, H]; times and channels of the newest of each KEPT, [n, K]."""
    sums, per = channels * len(SUMS), len(LATEST)
    parts = [Part(name, "count", range(at, sums, len(SUMS)), tau) for at, (name, _, tau) in enumerate(SUMS)]
    start = sums + channels * per
    parts += [Part(name, "since", range(sums + at, start, per), DAY) for at, (name, _) in enumerate(LATEST)]
    for name, _, most in KEPT:
        stop = start + 2 * most
        parts += [Part(f"{name} was", "since", range(start, stop, 2), DAY)]
        parts += [Part(f"{name} by", "number", range(start + 1, stop, 2))]
        start = stop
    return Source(NAME, TTL, start, tuple(parts))


def waiting(responded_at: Float64, sent_at: Float64, sent_by: Bool) -> Float64:
    """Float64 [n, H]: of the newest messages, those since which the customer has not responded on any channel.

    responded_at: [n, H]; sent_at: [n, MESSAGES_BACK], seconds since 1970; sent_by: bool [n, MESSAGES_BACK, H].
    """
    answered = sent_at <= np.fmax.reduce(responded_at, axis=1, keepdims=True, initial=-np.inf)
    unanswered = sent_by > answered[:, :, None]  # so it is, and not answered
    return np.asarray(np.add.reduce(unanswered, axis=1, dtype=np.float64))


def shares(visits: Float64, all_visits: Float64) -> Float64:
    """Each channel's share of all visits, smoothed, [n, H]. visits: [n, H]; all_visits: [n, 1]."""
    return np.asarray((visits + 1.0 / max(visits.shape[1], 1)) / (all_visits + 1.0))


def rates(responded: Float64, sent: Float64) -> Float64:
    """Responses per message, smoothed, [n, H]."""
    return np.asarray((responded + PRIOR_RESPONSES) / (sent + PRIOR_MESSAGES))
