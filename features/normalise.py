"""Bringing columns to the types of the import: ids and texts to string, times to microseconds UTC, numbers to float64.

What cannot be brought there is null afterwards and reported, value by value; a column of a wrong type is reported
whole.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.arrow import Column, column_of, kernels, mask_of
from features.problems import SHOWN, Problem, Rule, rows_of, shown_at
from features.schema import AttributeKind, Bool
from features.tables import ARROW_TYPES, TIME, FieldKind

_TIME_TEXT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
    r"(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)$"
)
_DATE_TEXT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_NUMBER_TEXT = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_NOT_FINITE_TEXT = r"^([Nn]a[Nn]|NAN|[+-]?([Ii]nf(inity)?|INF))$"

_EARLIEST = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)
_TOO_LATE = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Converted:
    """A column in its type, or None where it has a wrong one; what was wrong; which rows [n] became null by it."""

    values: Column | None
    problems: tuple[Problem, ...] = ()
    excused: Bool | None = None


@dataclass(frozen=True)
class _Place:
    table: str
    column: str

    def whole(self, rule: Rule, values: Column) -> Converted:
        """A column of a wrong type: all its values are wrong."""
        first = [f"row {row + 1}: {shown_at(values, row)} ({values.type})" for row in range(min(SHOWN, len(values)))]
        return Converted(None, (Problem(self.table, self.column, rule, len(values), tuple(first)),))

    def some(self, rule: Rule, bad: Bool, before: Column, after: Column) -> Converted:
        """A column in which the values marked `bad` [n] are wrong, and null in `after`."""
        if not bad.any():
            return Converted(after)
        problem = Problem(self.table, self.column, rule, *rows_of(bad, [(self.column, before)]))
        return Converted(after, (problem,), bad)


def convert(table: str, name: str, values: Column, kind: FieldKind, is_csv: bool) -> Converted:
    """Column `name` as the format's `kind`. In CSV, numbers and times are read from text."""
    place = _Place(table, name)
    values = plain(values)
    is_text = pa.types.is_string(values.type)
    if is_text and (broken := _not_utf8(values)) is not None:
        problem = Problem(table, name, Rule.UTF8, *rows_of(broken, [(name, values)]))
        return Converted(None, (problem,))
    if pa.types.is_null(values.type):
        empty = pa.nulls(len(values), ARROW_TYPES[kind])
        return Converted(pa.chunked_array([empty]))
    match kind:
        case "id" | "text":
            return Converted(values) if is_text else place.whole(Rule.TEXT, values)
        case "number":
            if is_text and is_csv:
                return _number_from_text(place, values)
            return Converted(number(values)) if is_number(values.type) else place.whole(Rule.NUMBER, values)
        case "time":
            if is_text and is_csv:
                return _time_from_text(place, values)
            zoned = pa.types.is_timestamp(values.type) and values.type.tz is not None
            return _in_range(place, values) if zoned else place.whole(Rule.TIME, values)


def classify(table: str, name: str, values: Column, is_csv: bool) -> tuple[AttributeKind, Converted]:
    """What a customer attribute holds, and its values in that kind's type.

    Text is a date only when every value is a day of the calendar written YYYY-MM-DD. CSV text is a number or a
    flag (true, false) only when every value is one; "007" is text, because as a number it would lose its zeros.
    A timestamp without a zone is accepted as a date while all its times are midnight.
    """
    place = _Place(table, name)
    values = plain(values)
    if pa.types.is_null(values.type):
        return "text", Converted(values.cast(pa.string()))
    if pa.types.is_string(values.type):
        if (broken := _not_utf8(values)) is not None:
            problem = Problem(table, name, Rule.UTF8, *rows_of(broken, [(name, values)]))
            return "text", Converted(None, (problem,))
        return _classify_text(place, values, is_csv)
    if pa.types.is_boolean(values.type):
        return "flag", Converted(values)
    if is_number(values.type):
        return "number", Converted(number(values))
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        return "date", _date(place, values)
    return "text", place.whole(Rule.ATTRIBUTE, values)


def _classify_text(place: _Place, values: Column, is_csv: bool) -> tuple[AttributeKind, Converted]:
    if values.null_count == len(values):
        return "text", Converted(values)
    if _all(kernels.match_substring_regex(values, _DATE_TEXT)) and not _off_calendar(values).any():
        return "date", Converted(values.cast(pa.date32()).cast(pa.timestamp("us")).cast(TIME))
    if is_csv:
        lower = kernels.utf8_lower(values)
        if _all(kernels.is_in(lower, value_set=pa.array(["true", "false"])), values):
            return "flag", Converted(kernels.if_else(values.is_valid(), kernels.equal(lower, "true"), None))
        numeric = kernels.match_substring_regex(values, _NUMBER_TEXT)
        either = kernels.or_(numeric, kernels.match_substring_regex(values, _NOT_FINITE_TEXT))
        if kernels.any(numeric).as_py() and _all(either):
            return "number", _number_from_text(place, values)
    return "text", Converted(values)


def plain(values: Column) -> Column:
    """Text of any layout (dictionary, large, view) as string; other dictionaries decoded."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    return values


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def number(values: Column) -> Column:
    """float64; integers beyond 2^53 are rounded. Adding 0 turns -0.0 into 0.0: equal numbers, equal bytes."""
    return kernels.add(values.cast(pa.float64(), safe=False), 0.0)


def _all(kept: Column, values: Column | None = None) -> bool:
    """True when no value is False; nulls of `values` do not count."""
    if values is not None:
        kept = kernels.or_(kept, values.is_null())
    return bool(kernels.all(kept).as_py())


def _not_utf8(values: Column) -> Bool | None:
    """Which rows [n] are not UTF-8; Arrow keeps such bytes from files as they are. None: all is well."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.binary()).to_pylist()
        return np.array([value is not None and not _decodes(value) for value in raw], dtype=np.bool_)
    return None


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _off_calendar(values: Column) -> Bool:
    """Which texts [n], that begin with YYYY-MM-DD, name no day of the calendar, as 2023-02-30."""
    days = kernels.utf8_slice_codeunits(values, 0, 10)
    wrong = [day for day in kernels.unique(days).to_pylist() if day is not None and not _is_day(day)]
    return mask_of(kernels.is_in(days, value_set=pa.array(wrong, pa.string()))) & mask_of(values.is_valid())


def _is_day(day: str) -> bool:
    try:
        dt.date.fromisoformat(day)
    except ValueError:
        return False
    return True


def _number_from_text(place: _Place, values: Column) -> Converted:
    reads = kernels.or_(
        kernels.match_substring_regex(values, _NUMBER_TEXT), kernels.match_substring_regex(values, _NOT_FINITE_TEXT)
    )
    after = number(kernels.if_else(reads, values, None).cast(pa.float64()))
    return place.some(Rule.NUMBER, mask_of(kernels.invert(reads)), values, after)


def _time_from_text(place: _Place, values: Column) -> Converted:
    bad = mask_of(kernels.invert(kernels.match_substring_regex(values, _TIME_TEXT)))
    off = np.zeros(len(bad), dtype=np.bool_)
    off[~bad] = _off_calendar(values.filter(pa.array(~bad)))
    readable = kernels.if_else(column_of(bad | off), None, values)
    whole_microseconds = kernels.replace_substring_regex(readable, r"(\.[0-9]{6})[0-9]+", r"\1")
    ranged = _in_range(place, whole_microseconds.cast(TIME))
    shaped = place.some(Rule.TIME, bad, values, values)
    dated = place.some(Rule.DATE, off, values, values)
    excused = bad | off if ranged.excused is None else bad | off | ranged.excused
    return Converted(ranged.values, shaped.problems + dated.problems + ranged.problems, excused)


def _in_range(place: _Place, values: Column) -> Converted:
    """Times of any unit and zone in microseconds UTC; those outside the range are sentinels, and null afterwards."""
    unit = values.type.unit
    values = values.cast(pa.timestamp(unit, tz="UTC"))
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    count = values.cast(pa.int64())
    earliest, too_late = (int(moment.timestamp()) * scale for moment in (_EARLIEST, _TOO_LATE))
    kept = kernels.and_(kernels.greater_equal(count, earliest), kernels.less(count, too_late))
    after = kernels.if_else(kept, values, None).cast(TIME, safe=False)
    return place.some(Rule.TIME_RANGE, mask_of(kernels.invert(kept)), values, after)


def _date(place: _Place, values: Column) -> Converted:
    """Dates and timestamps as timestamps in UTC, a date at its midnight."""
    if pa.types.is_timestamp(values.type):
        if values.type.tz is not None:
            return _fitting(place, values)
        midnight = values.cast(pa.date32()).cast(values.type)
        if not _all(kernels.equal(midnight, values)):
            return place.whole(Rule.TIME, values)
    return _fitting(place, values)


def _fitting(place: _Place, values: Column) -> Converted:
    """Cast to the time type; a value beyond the 290,000 years of microseconds makes the column a wrong type."""
    nanoseconds = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    zoned = pa.types.is_timestamp(values.type) and values.type.tz is not None
    try:
        # Only nanoseconds may lose digits, and only there is an overflow impossible.
        microseconds = values if zoned else values.cast(pa.timestamp("us"), safe=not nanoseconds)
        return Converted(microseconds.cast(TIME, safe=not nanoseconds))
    except pa.ArrowInvalid:
        return place.whole(Rule.ATTRIBUTE, values)
