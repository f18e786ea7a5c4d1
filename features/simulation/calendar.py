"""The simulated calendar: time is float64 seconds since 2024-01-01 00:00 UTC, the bank lives in Asia/Shanghai."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float64

Ints: TypeAlias = npt.NDArray[np.int64]
Micros: TypeAlias = npt.NDArray[np.int64]

DAY = 86_400.0
TIME_ZONE = "Asia/Shanghai"
START = datetime(2024, 1, 1, tzinfo=UTC)
START_SECONDS = START.timestamp()
LOCAL_OFFSET = 8 * 3600.0
"""Asia/Shanghai has had no daylight saving time since 1991, so a constant is exact for this calendar."""


def month_starts(months: int) -> Float64:
    """Starts (UTC) of `months` calendar months and the end of the last one: float64 [months + 1], seconds."""
    starts = [datetime(START.year + m // 12, 1 + m % 12, 1, tzinfo=UTC) for m in range(months + 1)]
    return np.array([(start - START).total_seconds() for start in starts])


def month_of(when: Float64, starts: Float64) -> Ints:
    """Index of the month that holds each time; times outside the calendar count to its first or last month."""
    found = np.searchsorted(starts, when, side="right") - 1
    return np.clip(found, 0, len(starts) - 2).astype(np.int64)


def local_hour(when: Float64) -> Float64:
    """Hour of the day in the bank's zone, 0 <= hour < 24, with its fraction."""
    return ((when + LOCAL_OFFSET) % DAY) / 3600.0


def is_weekend(when: Float64) -> Bool:
    """True on Saturdays and Sundays of the bank's zone. 2024-01-01 is a Monday."""
    return np.asarray(np.floor((when + LOCAL_OFFSET) / DAY) % 7 >= 5)


def at_local(day: Float64, hour: Float64) -> Float64:
    """The time of local `hour` on the calendar's local day number `day` (0 = 2024-01-01)."""
    return np.floor(day) * DAY + hour * 3600.0 - LOCAL_OFFSET


def to_micros(when: Float64) -> Micros:
    """Microseconds since 1970 UTC, cut to milliseconds as a bank's systems log them."""
    return (np.rint((START_SECONDS + when) * 1000.0)).astype(np.int64) * 1000


def from_epoch(epoch_seconds: Float64) -> Float64:
    """Simulated time of seconds since 1970 UTC."""
    return epoch_seconds - START_SECONDS
