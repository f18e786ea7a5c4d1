"""Quiet hours in the customer's own zone: a message inside them is deferred to their end, never dropped."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Quiet = tuple[str, str]
"""("21:00", "08:00"): quiet from the first to before the second, local wall-clock time; may wrap midnight."""

_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)


def is_quiet(local: datetime, quiet: Quiet) -> bool:
    """Whether this wall-clock time lies in the quiet hours."""
    starts, ends = _times(quiet)
    now = local.time()
    return starts <= now < ends if starts < ends else now >= starts or now < ends


def next_allowed(at: datetime, zone: ZoneInfo, quiet: Quiet | None) -> datetime:
    """The first moment from `at` on (with a zone) whose wall-clock time in `zone` is not quiet, in UTC.

    The clock is followed from one change of the zone's offset to the next. So where the clock jumps over the end of
    the quiet hours they end with the jump; where it is set back into them they begin again, and where it is set back
    before them they have ended.
    """
    moment = at.astimezone(UTC)
    if quiet is None or not is_quiet(moment.astimezone(zone), quiet):
        return moment
    # Whoever is asked about within an hour waits for the same end, unless quiet hours begin or end in it.
    end = _since_hour(moment.replace(minute=0, second=0, microsecond=0), zone, quiet)
    return end if end > moment else _followed(moment, zone, quiet)


@lru_cache(maxsize=4_096)
def _since_hour(hour: datetime, zone: ZoneInfo, quiet: Quiet) -> datetime:
    """`next_allowed` of a full hour, UTC."""
    return _followed(hour, zone, quiet)


def _followed(moment: datetime, zone: ZoneInfo, quiet: Quiet) -> datetime:
    """The first moment from this one on that is not quiet, by the clock; UTC."""
    _, ends = _times(quiet)
    while True:
        local = moment.astimezone(zone)
        if not is_quiet(local, quiet):
            return moment
        wall = local.replace(tzinfo=None)
        end = datetime.combine(wall.date(), ends)
        end += timedelta(days=end <= wall)
        moment = _change_before(moment, moment + (end - wall), zone)


def zone_of(name: object) -> ZoneInfo | None:
    """The zone of that name; None where there is none, or the value is no name."""
    return _zone(name) if isinstance(name, str) else None


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: "Europe" is a folder of zones
        return None


def _change_before(start: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """The first moment in (start, end] with another UTC offset than at `start`; `end` where there is none.

    No zone has ever changed its offset twice within an hour.
    """
    offset = start.astimezone(zone).utcoffset()
    before = start
    while before < end:
        after = min(before + _HOUR, end)
        if after.astimezone(zone).utcoffset() != offset:
            while after - before > _MICROSECOND:
                middle = before + (after - before) // 2
                if middle.astimezone(zone).utcoffset() == offset:
                    before = middle
                else:
                    after = middle
            return after
        before = after
    return end


@lru_cache(maxsize=256)
def _times(quiet: Quiet) -> tuple[time, time]:
    return time.fromisoformat(quiet[0]), time.fromisoformat(quiet[1])
