"""Intervals as marks on a line, in percent of its width, so that they fit a phone and a page alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.bootstrap import Interval

ROOM = 1.06
"""Share of the largest bound up to which an axis reaches."""


@dataclass(frozen=True)
class Mark:
    """Percent of the width: the interval from low to high with its estimate; beyond: it reaches past the end."""

    low: float
    at: float
    high: float


@dataclass(frozen=True)
class Axis:
    """A line from centre - reach to centre + reach; the centre is where nothing differs."""

    reach: float
    centre: float = 0.0

    @classmethod
    def of(cls, found: Iterable[Interval], centre: float = 0.0, most: float = np.inf) -> Axis:
        """Symmetric, as far as the widest interval, at most `most`."""
        bounds = [abs(bound - centre) for one in found for bound in (one.low, one.mean, one.high)]
        known = [bound for bound in bounds if np.isfinite(bound)]
        return cls(min(max(known, default=0.0), most) * ROOM or 1.0, centre)

    def mark(self, one: Interval, mirrored: bool = False) -> Mark:
        """mirrored: less is drawn to the right, for metrics of which less is better."""
        low, at, high = (self._percent(value, mirrored) for value in (one.low, one.mean, one.high))
        return Mark(min(low, high), at, max(low, high))

    def _percent(self, value: float, mirrored: bool) -> float:
        if not np.isfinite(value):
            return 50.0
        share = (value - self.centre) / self.reach
        return round(float(50 + 50 * np.clip(-share if mirrored else share, -1, 1)), 2)
