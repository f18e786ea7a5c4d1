"""Opportunity prices: what one more message on a channel would have earned elsewhere in the campaign.

A campaign writes them, the real-time decision subtracts them from the value of an action, so that a customer who comes
up by chance is contacted only where the contact earns more than what it takes away from those the campaign has planned.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ArtefactError
from features.home import replace_text
from features.schema import Float64

FILE = "prices.json"
"""In the home."""


@dataclass(frozen=True)
class Prices:
    """channels: price of one message by channel id, at least 0, in `unit`; the same on each day of the campaign.

    unit: what values count in, the catalogue's currency or "take-ups". budget: price of one unit of the campaign's
    budget, already part of the channels' prices. They hold from `starts` to before `ends`; outside they are zero.
    """

    unit: str
    starts: datetime
    ends: datetime
    channels: Mapping[str, float]
    budget: float = 0.0

    def __post_init__(self) -> None:
        for name, price in (*self.channels.items(), ("the budget", self.budget)):
            if not (math.isfinite(price) and price >= 0):
                raise ValueError(f"prices are finite and at least 0, however that of {name} is {price}")
        if self.starts.tzinfo is None or self.ends.tzinfo is None or not self.starts < self.ends:
            raise ValueError(
                f"prices hold from a time with zone to a later one, however from {self.starts} to {self.ends}"
            )

    @property
    def version(self) -> str:
        """16 hex digits that change with everything in here."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def of(self, channels: Sequence[str], moment: datetime) -> Float64:
        """Float64 [H]: the price of a message on each channel at this moment; a channel without one is free."""
        if not self.starts <= moment < self.ends:
            return np.zeros(len(channels))
        return np.array([self.channels.get(channel, 0.0) for channel in channels], dtype=np.float64)

    def to_json(self) -> str:
        document = {
            "unit": self.unit,
            "starts": self.starts.astimezone(UTC).isoformat(),
            "ends": self.ends.astimezone(UTC).isoformat(),
            "channels": dict(self.channels),
            "budget": self.budget,
        }
        return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)

    def write(self, home: Path) -> Path:
        """Write the file in the home, whole or not at all; the server reads it when it starts."""
        path = home / FILE
        replace_text(path, self.to_json() + "\n")
        return path

    @classmethod
    def read(cls, home: Path, unit: str) -> Prices | None:
        """The prices in the home; None where no campaign was planned. ArtefactError for a damaged file, and for one
        that counts in something else than `unit`."""
        path = home / FILE
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        again = "plan the campaign again, or remove the file"
        try:
            raw: dict[str, Any] = json.loads(text)
            found = cls(
                str(raw["unit"]),
                datetime.fromisoformat(raw["starts"]),
                datetime.fromisoformat(raw["ends"]),
                {str(channel): float(price) for channel, price in raw["channels"].items()},
                float(raw["budget"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"{path} holds no prices ({error!r}); {again}") from error
        if found.unit != unit:
            raise ArtefactError(f"the prices in {path} count in {found.unit}, however values count in {unit}; {again}")
        return found
