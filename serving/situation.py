"""What a rule may look at: one customer at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from features.columns import Purpose
from serving.history import Past

Value = str | int | float | bool


@dataclass(frozen=True)
class Situation:
    """as_of: the moment of the question, with its zone. zone: the customer's. held: None = not known."""

    as_of: datetime
    zone: ZoneInfo
    purpose: Purpose
    customer: Mapping[str, Value] = field(default_factory=dict)
    """Attributes by name, unknown ones absent; dates as 2024-05-31."""
    held: frozenset[str] | None = frozenset()
    past: Past = field(default_factory=Past)

    def amount(self, attribute: str) -> float | None:
        """A number as it is, a date as the years completed since on the customer's present day; None: unknown."""
        value = self.customer.get(attribute)
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, str):
            return float(_years(date.fromisoformat(value), self.as_of.astimezone(self.zone).date()))
        return float(value)


def _years(since: date, until: date) -> int:
    """Completed years; who was born on 29 February is a year older on 1 March of other years."""
    return until.year - since.year - ((until.month, until.day) < (since.month, since.day))
