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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache, partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from features import habits
from features.catalog import Catalog
from features.columns import Purpose
from features.schema import Bool, Float64, States
from features.times import micros, part_of_day
from serving.decision import Decision, Hop
from serving.quiet_hours import Quiet, next_allowed
from serving.registry import TIMING_MODEL
from serving.timing import Outlook, Prospect, TimingModel, slot_of

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
_SPANS = 1_024
"""Spans that are kept with what the model says of them."""
_HALF_LIFE_US = HALF_LIFE / timedelta(microseconds=1)


@dataclass(frozen=True)
class Deferring:
    """Puts a moment in a channel's quiet hours off to their end. quiet: channel → its quiet hours, None without."""

    zone: ZoneInfo
    quiet: Mapping[str, Quiet | None]

    def __call__(self, channel: str, moment: datetime) -> datetime:
        """The first moment from there on at which the rules allow the channel; UTC."""
        return next_allowed(moment, self.zone, self.quiet[channel])


class Grid(NamedTuple):
    """Moments in order, UTC, with their slots of the customer's week and parts of the day in the model's zone."""

    moments: tuple[datetime, ...]
    slots: tuple[int, ...]
    parts: tuple[int, ...]

    @classmethod
    def of(cls, moments: Sequence[datetime], zone: ZoneInfo, own: ZoneInfo) -> Grid:
        """zone: the customer's; own: the model's."""
        slots = tuple(slot_of(moment, zone) for moment in moments)
        return cls(tuple(moments), slots, tuple(part_of_day(moment, own) for moment in moments))


class _Span(NamedTuple):
    """The full hours to choose from, put off to where quiet hours allow them, where several may coincide.

    They are the same for everybody of a zone who is asked about within an hour. first: the first of them before it is
    put off, UTC. many: so many. now: slot and part of the day of an earlier moment that is there too.
    """

    first: datetime
    many: int
    zone: ZoneInfo
    quiet: Quiet | None
    now: tuple[int, int] | None


class _Chances(NamedTuple):
    """What is the same for everybody of a span. at_us: float64 [k], microseconds since 1970 UTC, 0 for the moment of
    `now`. known: bool [c, k], hours that were tried before, and the first."""

    moments: tuple[datetime, ...]
    at_us: Float64
    prospect: Prospect
    known: Bool


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
        versions = decision.versions.beside(self.versions)
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
        at = defer(channel, since)
        span = self._span(self.model, since, at, zone, defer.quiet[channel])
        chances = self._chances(self.model.places[channel], span)
        waits = chances.at_us - micros(since)  # [k]
        if span.now:
            waits[0] = micros(at) - micros(since)
        waits /= _HALF_LIFE_US
        values = _values(self.model, chances, customer)[0] * 0.5**waits
        best = int(values.argmax()) - (span.now is not None)
        return at if best < 0 else chances.moments[best]

    def order(
        self, channels: Sequence[str], start: datetime, customer: Outlook | None, zone: ZoneInfo
    ) -> tuple[str, ...]:
        """`channels` by the value of their best hour within the horizon; equal ones, and all without a model, stay."""
        if self.model is None or customer is None or not channels:
            return tuple(channels)
        span = self._span(self.model, start, start.astimezone(UTC), zone, None)
        best = _values(self.model, self._chances(None, span), customer).max(axis=1).tolist()  # [H]
        places = self.model.places
        return tuple(sorted(channels, key=lambda channel: -best[places[channel]]))

    def delay(self, channel: str) -> timedelta:
        """How long a hop on this channel is waited for."""
        if self.model is None:
            return UNKNOWN_DELAY
        return self.model.patience[channel]

    def _span(self, model: TimingModel, since: datetime, at: datetime, zone: ZoneInfo, quiet: Quiet | None) -> _Span:
        """The moments to choose from: `at`, and every later full hour within the horizon of `since`, put off.

        What is put off stays in order, so `at` is no later than any of them.
        """
        first = _first_hour(since, zone)
        count = bisect.bisect_right(_day(first, zone), since.astimezone(UTC) + HORIZON)
        alone = at != _put_off(first, count, zone, quiet)[0]
        return _Span(first, count, zone, quiet, (slot_of(at, zone), part_of_day(at, model.zone)) if alone else None)

    @cached_property
    def _chances(self) -> Callable[[int | None, _Span], _Chances]:
        assert self.model, "without one no hour is looked for"
        return lru_cache(maxsize=_SPANS)(partial(_of_all, self.model))


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
def _put_off(first: datetime, count: int, zone: ZoneInfo, quiet: Quiet | None) -> tuple[datetime, ...]:
    """`count` full hours from `first`, put off to where quiet hours allow them."""
    return tuple(sorted({next_allowed(moment, zone, quiet) for moment in _day(first, zone)[:count]}))


def _of_all(model: TimingModel, place: int | None, span: _Span) -> _Chances:
    """What is the same for everybody of a span, on one channel or (None) on all."""
    grid = Grid.of(_put_off(span.first, span.many, span.zone, span.quiet), span.zone, model.zone)
    at_us = [micros(moment) for moment in grid.moments]
    slots, parts = grid.slots, grid.parts
    if span.now:
        at_us, slots, parts = [0, *at_us], (span.now[0], *slots), (span.now[1], *parts)
    prospect = model.prospect(place, slots, parts)
    known = prospect.tried >= LEAST_TRIED
    known[:, 0] = True
    return _Chances(grid.moments, np.array(at_us, np.float64), prospect, known)


def _values(model: TimingModel, chances: _Chances, customer: Outlook) -> Float64:
    """Float64 [c, k]: P(delivered, noticed and answered), sent at each moment of a span.

    0 at moments, but for the first, whose hour was hardly ever tried.
    """
    return np.where(chances.known, model.reached(chances.prospect, customer), 0.0)


def at_once(catalog: Catalog, channel: str, purpose: str) -> bool:
    """Whether no better hour is looked for: a duty does not wait, and on an inbound channel the customer is there."""
    return purpose == Purpose.MANDATORY or channel in catalog.inbound


def deferring(catalog: Catalog, zone: ZoneInfo, purpose: str) -> Deferring:
    """Puts moments off for the catalogue's channels; a duty ignores quiet hours."""
    quiet = catalog.quiet_hours
    return Deferring(zone, dict.fromkeys(quiet) if purpose == Purpose.MANDATORY else quiet)
