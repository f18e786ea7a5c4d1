"""Many customers read from the packed online store's file: one row each, all their views side by side.

A row per customer and view is most of what reading them costs, so SQLite joins them. Each row says whose it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from features.packing import Unpacking
from features.schema import State, States, View

_COLUMNS = 3
"""Of each view: event time, numbers, texts."""


def query(numbers: Sequence[int], customers: int) -> str:
    """The question for the views of these numbers, with a place and a key per customer as its parameters.

    A row has the place, then event time (microseconds since 1970 UTC), numbers and texts of each view, null where the
    customer is unknown in it.
    """
    columns = "".join(f", s{number}.event_us, s{number}.numbers, s{number}.texts" for number in numbers)
    joins = "".join(
        f" LEFT JOIN states s{number} ON s{number}.key = asked.key AND s{number}.view_id = {number}"
        for number in numbers
    )
    values = ", ".join(["(?, ?)"] * customers)
    return f"WITH asked (place, key) AS (VALUES {values}) SELECT place{columns} FROM asked{joins}"


def states(views: Sequence[View], rows: Sequence[tuple[Any, ...]]) -> States:
    """The states of n customers, whose rows these are, in the order of their places 0 … n - 1."""
    place, *columns = zip(*rows, strict=True)
    found: dict[str, State] = {}
    for view, at in zip(views, range(0, len(columns), _COLUMNS), strict=True):
        told: list[Sequence[Any]] = [place, *columns[at : at + _COLUMNS]]
        if None in told[1]:
            known = [event is not None for event in told[1]]
            told = [list(itertools.compress(column, known)) for column in told]
        found[view.name] = Unpacking(*told).state(view, len(rows))
    return found
