"""Times as whole microseconds, the resolution of every table, store and log here."""

from __future__ import annotations

from datetime import UTC, datetime


def micros(time: datetime) -> int:
    """Microseconds since 1970 UTC of a time with zone, exactly: a float of seconds cannot hold them."""
    since = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
