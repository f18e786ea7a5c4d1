"""Times as whole microseconds, the resolution of every table, store and log here, and the parts of the day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(time: datetime) -> int:
    """Microseconds since 1970 UTC of a time with zone, exactly: a float of seconds cannot hold them."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(micros: int) -> datetime:
    """The time in UTC of microseconds since 1970, exactly."""
    return _EPOCH + timedelta(microseconds=micros)


HOURS_PER_PART = 3
PARTS = 24 // HOURS_PER_PART
"""The day is counted in parts of three hours, in the catalogue's zone."""


def part_of_day(at: datetime, zone: ZoneInfo) -> int:
    """The part of the day in which a moment lies, 0…7."""
    return at.astimezone(zone).hour // HOURS_PER_PART
