"""Quiet hours over every zone of the tz database and a year of hours, against a clock that is read minute by minute."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest

from serving.quiet_hours import next_allowed, zone_of

YEAR = 2024
START = datetime(YEAR, 1, 1, tzinfo=UTC)
HOURS = 366 * 24
MINUTES = (HOURS + 72) * 60
NIGHT, NOON = ("21:00", "08:00"), ("02:15", "14:30")
"""Wrapping midnight; not wrapping, and beginning inside the hour that most gaps skip and most folds repeat."""


def offsets(name: str) -> bytes:
    """UTC offsets of a zone in minutes at every quarter of an hour (zones change on no finer grid), int16."""
    zone, quarter = ZoneInfo(name), timedelta(minutes=15)
    found = np.empty(MINUTES // 15, dtype=np.int16)
    at, step = 0, 96
    while at < len(found):  # a day at a time where the day begins and ends alike
        first, last = (_offset(zone, START + quarter * place) for place in (at, at + step))
        if first == last:
            found[at : at + step] = first
        else:
            found[at : at + step] = [_offset(zone, START + quarter * place) for place in range(at, at + step)]
        at += step
    return found.tobytes()


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 60


def first_allowed(offset: bytes, quiet: tuple[str, str]) -> np.ndarray:
    """Per hour of the year, the first minute (since START) whose wall clock is outside the quiet hours."""
    minutes = np.arange(MINUTES)
    clock = (minutes + np.repeat(np.frombuffer(offset, dtype=np.int16), 15)) % 1440
    starts, ends = (int(text[:2]) * 60 + int(text[3:]) for text in quiet)
    inside = (clock >= starts) & (clock < ends) if starts < ends else (clock >= starts) | (clock < ends)
    following = np.minimum.accumulate(np.where(inside, MINUTES, minutes)[::-1])[::-1]
    return following[: HOURS * 60 : 60]


def test_no_send_inside_quiet_hours_and_none_dropped_in_any_zone_at_any_hour_of_a_year() -> None:
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name in sorted(available_timezones()):
        alike[offsets(name)].append(name)
    assert sum(map(len, alike.values())) == len(available_timezones()) > 500
    changes = sum(len(np.unique(np.frombuffer(offset, dtype=np.int16))) > 1 for offset in alike)
    assert changes > 20, "zones with daylight saving are among them"
    for offset, names in alike.items():
        zone = ZoneInfo(names[0])
        for quiet in (NIGHT, NOON):
            expected = first_allowed(offset, quiet)
            hours = np.arange(HOURS) * 60
            assert (next_allowed(START, zone, quiet) - START) == timedelta(minutes=int(expected[0]))
            # Hours that are asked within one quiet night have one answer; the last of the night is asked, too.
            turns = np.flatnonzero((np.diff(expected, append=-1) != 0) | (np.diff(expected, prepend=-1) != 0))
            asked = turns[(expected[turns] != hours[turns]) | (turns % 7 == 0)]
            found = [next_allowed(START + timedelta(hours=int(hour)), zone, quiet) for hour in asked]
            late = [int((moment - START) / timedelta(minutes=1)) for moment in found]
            assert np.array_equal(late, expected[asked]), names


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_every_single_hour_of_the_year_in_every_zone() -> None:
    """The same at full size: nothing is left out, neither names of one zone nor hours of one night."""
    asked = 0
    for name in sorted(available_timezones()):
        zone, offset = ZoneInfo(name), offsets(name)
        for quiet in (NIGHT, NOON):
            expected = first_allowed(offset, quiet)
            for hour in range(HOURS):
                found = next_allowed(START + timedelta(hours=hour), zone, quiet) - START
                assert found == timedelta(minutes=int(expected[hour])), (name, hour, quiet)
            asked += HOURS
    print(f"{asked:,} messages: none inside quiet hours, none dropped")


@pytest.mark.parametrize(
    ("zone", "at", "quiet", "expected"),
    [
        # The clock jumps from 02:00 to 03:00: quiet hours that end in the gap end with the jump.
        ("Europe/Berlin", "2024-03-31T00:30:00Z", ("01:00", "02:30"), "2024-03-31T01:00:00Z"),
        # Quiet hours wholly inside the gap do not happen.
        ("Europe/Berlin", "2024-03-31T01:00:00Z", ("02:10", "02:50"), "2024-03-31T01:00:00Z"),
        # The clock is set back from 03:00 to 02:00: quiet hours that ended at 02:30 begin again, and end again.
        ("Europe/Berlin", "2024-10-27T00:10:00Z", ("01:00", "02:30"), "2024-10-27T00:30:00Z"),
        ("Europe/Berlin", "2024-10-27T01:10:00Z", ("01:00", "02:30"), "2024-10-27T01:30:00Z"),
        # Set back to before quiet hours that began in the repeated hour: they have ended for a while.
        ("Europe/Berlin", "2024-10-27T00:40:00Z", ("02:30", "06:00"), "2024-10-27T01:00:00Z"),
        # Lord Howe moves by half an hour; Samoa skipped 30 December 2011.
        ("Australia/Lord_Howe", "2024-10-05T15:20:00Z", ("01:00", "02:15"), "2024-10-05T15:30:00Z"),
        ("Pacific/Apia", "2011-12-30T09:30:00Z", ("21:00", "08:00"), "2011-12-30T18:00:00Z"),
        # Inside, to the microsecond; at the end itself nothing is deferred.
        ("Asia/Shanghai", "2024-05-01T23:59:59.999999Z", ("21:00", "08:00"), "2024-05-02T00:00:00Z"),
        ("Asia/Shanghai", "2024-05-02T00:00:00Z", ("21:00", "08:00"), "2024-05-02T00:00:00Z"),
        ("Asia/Shanghai", "2024-05-02T13:00:00Z", ("21:00", "08:00"), "2024-05-03T00:00:00Z"),
        ("UTC", "2024-05-02T13:00:00Z", None, "2024-05-02T13:00:00Z"),
    ],
)
def test_quiet_hours_at_gaps_folds_and_edges(zone: str, at: str, quiet: tuple[str, str] | None, expected: str) -> None:
    found = next_allowed(datetime.fromisoformat(at), ZoneInfo(zone), quiet)
    assert found == datetime.fromisoformat(expected)


def test_quiet_hours_that_leave_one_minute_a_day_defer_and_never_drop() -> None:
    at = datetime(2024, 3, 30, 7, 0, tzinfo=UTC)  # 08:00 in Berlin, the next 07:59 comes with summer time
    assert next_allowed(at, ZoneInfo("Europe/Berlin"), ("08:00", "07:59")) == datetime(2024, 3, 31, 5, 59, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Europe", "../etc/passwd", "Europe/Atlantis", "", None, 3])
def test_what_names_no_zone_gives_none(name: object) -> None:
    assert zone_of(name) is None
