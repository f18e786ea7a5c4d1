"""The moments at which a message may be sent, with what the timing model says of them before it is known for whom.

These are the first moment that the rules allow and the local full hours that begin within the horizon, each put off to
where quiet hours allow it. They are the same for everybody of a zone who is asked about within an hour, and so are the
log-odds of their slots: both are worked out once. How long each is waited for is not, so a moment is looked up by its
hour first, and by itself only where many come to the same one: where the hop before left at a full hour.
"""

from __future__ import annotations

import bisect
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from features.schema import Float64
from features.times import micros, part_of_day
from serving.quiet_hours import Quiet, next_allowed
from serving.timing import Hours, TimingModel, slot_of

HORIZON = timedelta(hours=24)
"""How far ahead a better hour is looked for."""
HALF_LIFE = timedelta(days=7)
"""A message that waits this long is worth half: needs fade."""
LEAST_TRIED = 10.0
"""Messages of the channel around an hour of the day before that hour is looked for."""
_HOUR = timedelta(hours=1)
_HALF_LIFE_US = HALF_LIFE / timedelta(microseconds=1)
_DAYS = 4_096
"""Days that are kept, by the zone and hour that they begin with."""
_KEPT = 1_024
"""Spans, and prospects, that are kept of each model."""


class Prospect(NamedTuple):
    """k moments in order, UTC, and what of a message's worth is left if it waits for them.

    weights: float64 [c, k], ½^(wait / half-life); 0 at moments, but for the first, whose hour was hardly ever tried.
    """

    moments: tuple[datetime, ...]
    hours: Hours
    weights: Float64


class _Span(NamedTuple):
    """Moments that everybody of an hour has in common. at_us: float64 [k], microseconds since 1970 UTC; where the first
    moment is everybody's own it is not among `moments`, and 0 here. known: float64 [c, k], 1 or 0."""

    moments: tuple[datetime, ...]
    at_us: Float64
    hours: Hours
    known: Float64


class Prospects:
    """Of one model. Safe in many threads."""

    def __init__(self, model: TimingModel) -> None:
        self._model = model
        self._span = lru_cache(_KEPT)(self._same_for_all)
        self._kept = lru_cache(_KEPT)(self._of)

    def since(self, place: int, since: datetime, zone: ZoneInfo, quiet: Quiet | None) -> Prospect:
        """The moments from `since` on for the channel at `place` of the model's."""
        # Hops that follow one at a full hour begin at full seconds, which many have in common; now is nobody else's.
        return (self._of if since.microsecond else self._kept)(place, since, zone, quiet)

    def _of(self, place: int, since: datetime, zone: ZoneInfo, quiet: Quiet | None) -> Prospect:
        at = next_allowed(since, zone, quiet)
        span, alone = self._at(place, since, at, zone, quiet)
        since_us = micros(since)
        waits = span.at_us - since_us  # [k], whole numbers below 2^53
        if alone:
            waits[0] = micros(at) - since_us
        waits /= _HALF_LIFE_US
        return Prospect((at, *span.moments) if alone else span.moments, span.hours, span.known * 0.5**waits)

    def unweighted(self, since: datetime, zone: ZoneInfo) -> tuple[Hours, Float64]:
        """The hours from `since` on for all channels, quiet or not, and float64 [H, k]: 1 where they were tried."""
        span, _ = self._at(None, since, since.astimezone(UTC), zone, None)
        return span.hours, span.known

    def _at(
        self, place: int | None, since: datetime, at: datetime, zone: ZoneInfo, quiet: Quiet | None
    ) -> tuple[_Span, bool]:
        """The span of `since`, and whether `at`, the first moment allowed, is none of its own.

        What is put off stays in order, so `at` is no later than any of them.
        """
        first = _first_hour(since, zone)
        many = bisect.bisect_right(_day(first, zone), since.astimezone(UTC) + HORIZON)
        moments = _put_off(first, many, zone, quiet)
        now = None if moments[0] == at else (slot_of(at, zone), part_of_day(at, self._model.zone))
        return self._span(place, moments, zone, now), now is not None

    def _same_for_all(
        self, place: int | None, moments: tuple[datetime, ...], zone: ZoneInfo, now: tuple[int, int] | None
    ) -> _Span:
        """now: slot and part of the day of a moment before the others. place None: all channels."""
        early = [] if now is None else [now]
        slots = [*(slot for slot, _ in early), *(slot_of(moment, zone) for moment in moments)]
        parts = [*(part for _, part in early), *(part_of_day(moment, self._model.zone) for moment in moments)]
        at_us = [*(0 for _ in early), *map(micros, moments)]
        hours = self._model.hours(place, slots, parts)
        known = (self._model.tried[hours.asked, slots] >= LEAST_TRIED).astype(np.float64)
        known[:, 0] = 1.0
        return _Span(moments, np.array(at_us, np.float64), hours, known)


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
    into = timedelta(0, local.second, local.microsecond, 0, local.minute)
    return moment.astimezone(UTC) + _HOUR - into


@lru_cache(maxsize=_DAYS)
def _day(first: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The local full hours of a horizon that begins with the full hour `first`."""
    return tuple(hours(first, zone))


@lru_cache(maxsize=_DAYS)
def _put_off(first: datetime, many: int, zone: ZoneInfo, quiet: Quiet | None) -> tuple[datetime, ...]:
    """So many full hours from `first`, put off to where quiet hours allow them, where several may coincide."""
    return tuple(sorted({next_allowed(moment, zone, quiet) for moment in _day(first, zone)[:many]}))
