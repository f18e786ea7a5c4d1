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

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from features import habits
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import Float64, States
from features.times import part_of_day
from serving.decision import Decision, Hop
from serving.quiet_hours import Quiet, next_allowed
from serving.registry import TIMING_MODEL
from serving.timing import Outlook, TimingModel, slot_of

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
_DAYS = 4_096
"""Days that are kept, by the zone and hour that they begin with."""


@dataclass(frozen=True)
class Deferring:
    """Puts a moment in a channel's quiet hours off to their end. quiet: channel → its quiet hours, None without."""

    zone: ZoneInfo
    quiet: Mapping[str, Quiet | None]

    def __call__(self, channel: str, moment: datetime) -> datetime:
        """The first moment from there on at which the rules allow the channel; UTC."""
        return next_allowed(moment, self.zone, self.quiet[channel])


@dataclass(frozen=True)
class Grid:
    """Moments in order, UTC, with their slots of the customer's week and parts of the day in the model's zone."""

    moments: tuple[datetime, ...]
    slots: tuple[int, ...]
    parts: tuple[int, ...]

    @classmethod
    def of(cls, moments: Iterable[datetime], zone: ZoneInfo, own: ZoneInfo) -> Grid:
        """zone: the customer's; own: the model's."""
        kept = tuple(moments)
        return cls(
            kept,
            tuple(slot_of(moment, zone) for moment in kept),
            tuple(part_of_day(moment, own) for moment in kept),
        )

    def including(self, moment: datetime, zone: ZoneInfo, own: ZoneInfo) -> Grid:
        """The same with this moment among them."""
        place = bisect.bisect_left(self.moments, moment)
        if place < len(self.moments) and self.moments[place] == moment:
            return self
        one = Grid.of([moment], zone, own)
        both = zip(vars(self).values(), vars(one).values(), strict=True)
        return Grid(*((*many[:place], *single, *many[place:]) for many, single in both))


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
        mine = None
        if self.model:
            mine = self.model.outlook(habits.habits(states, moment, len(catalog.channels)))
        others = self.order(decision.fallback_channels, ask.as_of, mine, zone)
        defer = deferring(catalog, zone, ask.purpose)
        chain = self.chain(ask.as_of, (channel, *others), mine, zone, defer, at_once(catalog, channel, ask.purpose))
        versions = replace(decision.versions, models={**decision.versions.models, **self.versions})
        return decision.but(fallback_channels=others, chain=chain, versions=versions)

    def chain(
        self,
        start: datetime,
        channels: Sequence[str],
        customer: Outlook | None,
        zone: ZoneInfo,
        defer: Deferring,
        soonest: bool,
    ) -> tuple[Hop, ...]:
        """The hops over `channels` in their order, from `start`; each begins at the deadline of the one before.

        customer: what the model says of this one. soonest: do not look for a better hour.
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
        self, channel: str, since: datetime, customer: Outlook | None, zone: ZoneInfo, defer: Deferring, soonest: bool
    ) -> datetime:
        """The best allowed moment to send from `since` on."""
        if self.model is None or customer is None or soonest:
            return defer(channel, since)
        grid = _allowed(since, defer(channel, since), zone, self.model.zone, defer.quiet[channel])
        waits = np.array([(moment - since) / HALF_LIFE for moment in grid.moments])  # [k]
        values = self.values(self.model, [channel], grid, customer)[0] * 0.5**waits
        return grid.moments[int(np.argmax(values))]

    def order(
        self, channels: Sequence[str], start: datetime, customer: Outlook | None, zone: ZoneInfo
    ) -> tuple[str, ...]:
        """`channels` by the value of their best hour within the horizon; equal ones, and all without a model, stay."""
        if self.model is None or customer is None or not channels:
            return tuple(channels)
        grid = _allowed(start, start.astimezone(UTC), zone, self.model.zone, None)
        best = self.values(self.model, channels, grid, customer).max(axis=1)  # [c]
        return tuple(channels[place] for place in np.argsort(-best, kind="stable"))

    def values(self, model: TimingModel, channels: Sequence[str], grid: Grid, customer: Outlook) -> Float64:
        """Float64 [c, k]: P(delivered, noticed and answered) by each channel, sent at each moment of the grid.

        0 at moments, but for the first, whose hour was hardly ever tried.
        """
        channel = np.array([model.channels.index(name) for name in channels])[:, None]  # [c, 1]
        slot, part = np.array(grid.slots), np.array(grid.parts)  # [k] each
        delivered, noticed, answered = model.stages(channel, slot, customer.posterior[:, channel], customer.lift[part])
        known = model.tried[channel, slot] >= LEAST_TRIED
        known[:, 0] = True
        return np.where(known, delivered * noticed * answered, 0.0)

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
    following = _first_hour(since, zone)
    while following - moments[0] <= HORIZON:
        moments.append(following)
        following = _first_hour(following, zone)
    return moments


def _first_hour(moment: datetime, zone: ZoneInfo) -> datetime:
    """The first local full hour after a moment, UTC."""
    local = moment.astimezone(zone)
    into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return moment.astimezone(UTC) + timedelta(hours=1) - into


@lru_cache(maxsize=_DAYS)
def _day(first: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The local full hours of a horizon that begins with the full hour `first`."""
    return tuple(hours(first, zone))


@lru_cache(maxsize=_DAYS)
def _put_off(first: datetime, count: int, zone: ZoneInfo, own: ZoneInfo, quiet: Quiet | None) -> Grid:
    """`count` full hours from `first`, put off to where quiet hours allow them, where several may coincide.

    They are the same for everybody of a zone who is asked about within an hour.
    """
    moments = sorted({next_allowed(moment, zone, quiet) for moment in _day(first, zone)[:count]})
    return Grid.of(moments, zone, own)


def _allowed(since: datetime, at: datetime, zone: ZoneInfo, own: ZoneInfo, quiet: Quiet | None) -> Grid:
    """The moments to choose from: `at`, and every later full hour within the horizon of `since`, put off."""
    first = _first_hour(since, zone)
    count = bisect.bisect_right(_day(first, zone), since.astimezone(UTC) + HORIZON)
    return _put_off(first, count, zone, own, quiet).including(at, zone, own)


def at_once(catalog: Catalog, channel: str, purpose: str) -> bool:
    """Whether no better hour is looked for: a duty does not wait, and on an inbound channel the customer is there."""
    return purpose == Purpose.MANDATORY or any(
        one.id == channel and one.direction == "inbound" for one in catalog.channels
    )


def deferring(catalog: Catalog, zone: ZoneInfo, purpose: str) -> Deferring:
    """Puts moments off for the catalogue's channels; a duty ignores quiet hours."""
    quiet = {one.id: None if purpose == Purpose.MANDATORY else one.quiet_hours for one in catalog.channels}
    return Deferring(zone, quiet)
