"""What is wrong with a bank data directory: one `Problem` per broken rule and column, however many rows break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from features.arrow import Column
from features.schema import Bool

Severity = Literal["error", "note"]

SHOWN = 5
"""How many of the rows that break a rule are shown."""

_LONGEST = 80
"""Characters of a value that are shown; a template or a binary blob would fill the screen."""


class Rule(StrEnum):
    """The rules of the input format (DATA.md), as claims about good data."""

    FOLDER = "the bank data directory is a folder"
    FILE = "a table is one file"
    READABLE = "the file can be read"
    PRESENT = "the table is there"
    ROWS = "the table has rows"
    COLUMN = "the column is there"
    KNOWN_COLUMN = "the column is in the format"
    ONE_COLUMN = "a column name occurs once"
    NAMED_COLUMN = "a column has a name"
    TEXT = "is text"
    UTF8 = "text is UTF-8"
    NUMBER = "is a number"
    TIME = "is a time with a zone"
    TIME_RANGE = "a time lies from 1900 to 2199"
    DATE = "a date is in the calendar"
    ATTRIBUTE = "an attribute is a number, flag, date or text"
    VALUE = "a value is there"
    NOT_A_WORD = "a missing value is null, not a word for it"
    FINITE = "a number is finite"
    PROPENSITY = "a propensity lies in (0, 1]"
    ACTION = "an action is opened or closed"
    KIND = "the kind of event is in the format"
    PURPOSE = "the purpose is in the format"
    PRODUCT = "the product is in the catalogue"
    CHANNEL = "the channel is in the catalogue"
    CONTENT = "the content is in the catalogue"
    CUSTOMER = "the customer is in the customers table"
    ONE_STATE = "a customer has one row per time"
    ONE_EVENT = "an event_id names one event"
    CATALOG_TABLES = "is a list of tables"
    CATALOG_VALUE = "a value of the right type is there"
    CATALOG_ID = "an id occurs once"
    TIME_ZONE = "a time zone is known"
    QUIET_HOURS = 'quiet hours are two different times of day, as in ["21:00", "08:00"]'
    TEMPLATE = "a template prints, filters and chooses, nothing else"
    GROUP = "the group is of a product in the catalogue"
    POLICY_KIND = "the kind of a policy is known"
    POLICY_KEY = "a key of a policy belongs to its kind"
    POLICY_VALUE = "a value of a policy fits its key"
    POLICY_TARGET = "a policy is about one channel, product or group, or about everything"
    POLICY_ATTRIBUTE = "an attribute of a policy is one of the customers, of a fitting kind"
    REPEATED_EVENT = "an event that arrived twice is read once"
    EARLY = "an event comes after the customer is known"
    SAME_MOMENT = "a product opened and closed at one moment is read as closed, then opened"
    EXTRA_FILE = "a file outside the format is ignored"
    EXTRA_KEY = "a key outside the format is ignored"


@dataclass(frozen=True)
class Problem:
    """A rule that is broken, or, with severity "note", something a reader should know.

    table: a table's name, "catalog", or a file name. column: None where the whole table or file is meant;
    in the catalogue "section.key". rows: how many rows (in the catalogue: entries) break the rule; 0 where
    rows cannot be counted. first: at most `SHOWN` of them; row 1 is the first below the header.
    """

    table: str
    column: str | None
    rule: str
    rows: int
    first: tuple[str, ...] = ()
    severity: Severity = "error"

    def as_json(self) -> dict[str, Any]:
        """The problem as JSON-ready values."""
        return {**asdict(self), "rule": str(self.rule), "table": str(self.table), "first": list(self.first)}

    @property
    def place(self) -> str:
        return self.table if self.column is None else f"{self.table}.{self.column}"


def show(value: object) -> str:
    """A value for people: texts quoted, null said, long ones cut."""
    plain = value.as_py() if isinstance(value, pa.Scalar) else value
    if plain is None:
        return "null"
    text = repr(plain) if isinstance(plain, str | bytes | list | dict) else str(plain)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def rows_of(bad: Bool, columns: Sequence[tuple[str, Column]]) -> tuple[int, tuple[str, ...]]:
    """How many rows are marked in `bad` [n], and the first of them with their values in `columns`."""
    rows = np.flatnonzero(bad)
    shown = []
    for row in rows[:SHOWN].tolist():
        values = [shown_at(column, row) for _, column in columns]
        if len(columns) > 1:
            values = [f"{name}={value}" for (name, _), value in zip(columns, values, strict=True)]
        shown.append(f"row {row + 1}: {', '.join(values)}")
    return len(rows), tuple(shown)


def shown_at(column: Column, row: int) -> str:
    """The value of `column` at `row`, counted from 0, for people."""
    try:
        return show(column[row])
    except (ValueError, OverflowError):  # text that is not UTF-8, a time beyond year 9999
        odd = column.slice(row, 1)
        return repr(odd.cast(pa.binary() if pa.types.is_string(odd.type) else pa.int64())[0].as_py())


def format_problems(problems: Sequence[Problem]) -> str:
    """The problems as text for a terminal: errors first, each with its first rows, then a count."""
    if not problems:
        return "no problems"
    ordered = sorted(problems, key=lambda problem: problem.severity != "error")
    lines = []
    for problem in ordered:
        count = "" if problem.rows == 0 else f" ({_counted(problem.rows, 'row')})"
        lines.append(f"{problem.severity:<5}  {problem.place}: {problem.rule}{count}")
        lines += [f"         {line}" for line in problem.first]
        if problem.rows > len(problem.first) > 0:
            lines.append(f"         … and {problem.rows - len(problem.first):,} more")
    errors = sum(problem.severity == "error" for problem in problems)
    lines.append(f"{_counted(errors, 'error')}, {_counted(len(problems) - errors, 'note')}")
    return "\n".join(lines)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
