"""When the chosen action is sent, and what follows if it does not get through: a chain of channels, one at a time.

The propensity is that of the action; its time and the chain follow from it without a draw. A hop that failed, or that
has not arrived by its deadline, gives way to the next; one that arrived ends the chain, noticed or not, as it is the
one contact that the limits allowed: never two at once, never a broadcast. The deadline is when nine in ten of those who
ever notice have done so: by then there is little left to wait for.

send_at = argmax of  P(delivered) · P(noticed) · P(answered) · ½^(wait / half-life)

over the first moment that the rules allow and the hours that begin within the horizon, each put off to where they
allow it; of equal ones the earliest. Hours at which the channel has hardly ever been tried are not looked for: nothing
is known of them but what is known of the others. Without a model it is as soon as the rules allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from features import habits
from features.catalog import Catalog
from features.columns import Purpose
from features.habits import Habits
from features.schema import Float64, States
from features.times import part_of_day
from serving.decision import Decision, Hop
from serving.quiet_hours import next_allowed
from serving.registry import TIMING_MODEL
from serving.timing import TimingModel, slot_of

HORIZON = timedelta(hours=24)
"""How far ahead a better hour is looked for."""
HALF_LIFE = timedelta(days=7)
"""A message that waits this long is worth half: needs fade."""
PATIENCE = timedelta(days=7)
"""A chain takes up no further channel later than this after its start."""
MOST_HOPS = 3
"""Channels in a chain, the action's own included."""
LEAST_TRIED = 10.0
"""Messages of the channel around an hour of the day before that hour is looked for."""
UNKNOWN_DELAY = timedelta(hours=48)
"""The time that a hop is given where no model says how soon messages are noticed."""

Defer = Callable[[str, datetime], datetime]
"""(channel, moment) → the first moment from there on at which the rules allow that channel; UTC."""


@dataclass(frozen=True)
class Scheduler:
    """Turns a choice into times. version: of the model; missing: why there is none."""

    model: TimingModel | None = None
    version: str = ""
    missing: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """The timing model and its version; empty without one."""
        return {} if self.model is None else {TIMING_MODEL: self.version}

    def timed(self, decision: Decision, catalog: Catalog, states: States, zone: ZoneInfo) -> Decision:
        """The same choice with its time and chain, which follow from it: nothing is drawn, no propensity changes.

        states: all views of this one customer. zone: the customer's own.
        """
        if decision.action is None:
            return decision
        ask, channel = decision.ask, decision.action.channel
        moment = np.array([ask.as_of.timestamp()])
        mine = habits.habits(states, moment, len(catalog.channels))
        others = self.order(decision.fallback_channels, ask.as_of, mine, zone)
        defer = deferring(catalog, zone, ask.purpose)
        chain = self.chain(ask.as_of, (channel, *others), mine, zone, defer, at_once(catalog, channel, ask.purpose))
        versions = replace(decision.versions, models={**decision.versions.models, **self.versions})
        return replace(decision, fallback_channels=others, chain=chain, versions=versions)

    def chain(
        self, start: datetime, channels: Sequence[str], customer: Habits, zone: ZoneInfo, defer: Defer, soonest: bool
    ) -> tuple[Hop, ...]:
        """The hops over `channels` in their order, from `start`; each begins at the deadline of the one before.

        customer: the habits of this one. soonest: do not look for a better hour.
        """
        hops: list[Hop] = []
        since = start
        for channel in channels[:MOST_HOPS]:
            send_at = self.best(channel, since, customer, zone, defer, soonest)
            if hops and send_at - hops[0].send_at > PATIENCE:
                break
            hops.append(Hop(channel, send_at, send_at + self.delay(channel)))
            since = hops[-1].deadline
        return tuple(hops)

    def best(
        self, channel: str, since: datetime, customer: Habits, zone: ZoneInfo, defer: Defer, soonest: bool
    ) -> datetime:
        """The best allowed moment to send from `since` on."""
        if self.model is None or soonest:
            return defer(channel, since)
        moments = sorted({defer(channel, moment) for moment in hours(since, zone)})  # put off, hours coincide
        waits = np.array([moment - since for moment in moments]) / HALF_LIFE  # [k]
        values = self.values(self.model, [channel], moments, customer, zone)[0] * 0.5 ** waits.astype(np.float64)
        return moments[int(np.argmax(values))]

    def order(self, channels: Sequence[str], start: datetime, customer: Habits, zone: ZoneInfo) -> tuple[str, ...]:
        """`channels` by the value of their best hour within the horizon; equal ones, and all without a model, stay."""
        if self.model is None or not channels:
            return tuple(channels)
        best = self.values(self.model, channels, hours(start, zone), customer, zone).max(axis=1)  # [c]
        return tuple(channels[place] for place in np.argsort(-best, kind="stable"))

    def values(
        self, model: TimingModel, channels: Sequence[str], moments: Sequence[datetime], customer: Habits, zone: ZoneInfo
    ) -> Float64:
        """Float64 [c, k]: P(delivered, noticed and answered) by each channel, sent at each moment.

        0 at moments, but for the first, whose hour was hardly ever tried.
        """
        own = ZoneInfo(model.time_zone)
        slots = np.array([slot_of(moment, zone) for moment in moments])
        parts = np.array([part_of_day(moment, own) for moment in moments])
        places = np.array([model.channels.index(channel) for channel in channels])
        channel, slot, part = np.repeat(places, len(slots)), np.tile(slots, len(places)), np.tile(parts, len(places))
        row = np.zeros(len(slot), dtype=np.int64)
        chances = model.chances(channel, slot, part, Habits(customer.outcomes[row], customer.parts[row]))
        known = (model.tried[channel, slot] >= LEAST_TRIED).reshape(len(places), len(slots))
        known[:, 0] = True
        return np.where(known, chances.prod(axis=1).reshape(known.shape), 0.0)

    def delay(self, channel: str) -> timedelta:
        """How long a hop on this channel is waited for."""
        if self.model is None:
            return UNKNOWN_DELAY
        return timedelta(seconds=round(float(self.model.delays[self.model.channels.index(channel)])))


ALL_ALIKE = Scheduler()
"""Without a model."""


def hours(since: datetime, zone: ZoneInfo) -> list[datetime]:
    """`since` and every local full hour after it within the horizon, in UTC: no clock change skips or repeats one."""
    moments = [since.astimezone(UTC)]
    while True:
        local = moments[-1].astimezone(zone)
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        following = moments[-1] + timedelta(hours=1) - into
        if following - moments[0] > HORIZON:
            return moments
        moments.append(following)


def at_once(catalog: Catalog, channel: str, purpose: str) -> bool:
    """Whether no better hour is looked for: a duty does not wait, and on an inbound channel the customer is there."""
    inbound = {one.id for one in catalog.channels if one.direction == "inbound"}
    return purpose == Purpose.MANDATORY or channel in inbound


def deferring(catalog: Catalog, zone: ZoneInfo, purpose: str) -> Defer:
    """Puts a moment in a channel's quiet hours off to their end; a duty ignores them."""
    quiet = {one.id: None if purpose == Purpose.MANDATORY else one.quiet_hours for one in catalog.channels}
    return lambda channel, moment: next_allowed(moment, zone, quiet[channel])
