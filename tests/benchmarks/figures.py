"""What is said of measured numbers: percentiles, ratios over interleaved rounds with their spread, arrival times."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank); NaN of none.

    No value is made up between two measured ones: a p99 is a latency that somebody had.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a percentile's share lies in (0, 1], however it is {share}")
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered) - 1e-9) - 1]  # 0.07 * 100 is a little more than 7


@dataclass(frozen=True)
class Ratio:
    """A ratio over rounds: its median, and the least and the most of them."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{_short(self.median)} [{_short(self.least)}–{_short(self.most)}]"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, round by round: what slowed a whole round down is in both and goes out.

    ValueError where the rounds do not match.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"a ratio needs as many rounds of both, however they are {len(ours)} and {len(theirs)}")
    of_rounds = [one / other if other else math.nan for one, other in zip(ours, theirs, strict=True)]
    return Ratio(median(of_rounds), min(of_rounds), max(of_rounds))


def median(values: Sequence[float]) -> float:
    """The middle value, the mean of both middle ones where their number is even; NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times in seconds of a Poisson stream of `rate` per second: callers who do not wait for each other."""
    draws, times, now = random.Random(seed), [], 0.0
    while True:
        now += draws.expovariate(rate)
        if now >= seconds:
            return times
        times.append(now)


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, aligned so that it can be read as text too."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    wide = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in wide) + "|", *lines[1:]])


def shown(value: float, digits: int = 3) -> str:
    """Three significant digits, thousands with commas, a dash for what was not measured."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else _short(value)


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def flat(parts: Mapping[str, float]) -> dict[str, float]:
    """The same, rounded for a file that people read."""
    return {name: round(value, 6) for name, value in parts.items()}
