"""Many customers read from the packed online store's file: SQLite lays all their rows end to end and hands over one.

Rows that Python takes one by one, with an object for every number, time and text, cost more than finding them. So what
is fixed in width is joined as it is, and whose it is and how long stands in a number beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import TypeAlias

import numpy as np
import orjson

from features.errors import ArtefactError
from features.packing import damaged, seconds, unknown
from features.schema import Float64, Int64, State, States, Texts, View

Joined: TypeAlias = tuple[bytes | None, str | None, str | None, str | None]
"""Of all rows their numbers, end to end; where each belongs; event times (microseconds since 1970 UTC); texts, in JSON.
None where there is no row."""

_PLACE, _VIEW = 40, 24
"""Where a row belongs, in bits: place << 40 | number of its view << 24 | bytes of its numbers."""
_FLOAT64 = np.dtype("<f8")


def query(numbers: Sequence[int], customers: int) -> str:
    """The question for the views of these numbers, with a place and a key per customer as its parameters.

    Its one row is `Joined`, in whatever order, the same in all columns.
    """
    values = ", ".join(["(?, ?)"] * customers)
    # The plus keeps SQLite from looking for each view apart: a customer's rows lie side by side.
    views = f"+states.view_id IN ({', '.join(map(str, numbers))})"
    belongs = f"(asked.place << {_PLACE}) + (states.view_id << {_VIEW}) + length(states.numbers)"
    return (
        f"WITH asked (place, key) AS (VALUES {values}) "
        f"SELECT CAST(group_concat(states.numbers, '') AS BLOB), group_concat({belongs}), "
        "group_concat(states.event_us), group_concat(states.texts) "
        f"FROM asked CROSS JOIN states ON states.key = asked.key WHERE {views}"
    )


@cache
def possible() -> bool:
    """Whether this SQLite joins blocks of numbers as they are: old ones end each at its first byte of 0."""
    connection = sqlite3.connect(":memory:")
    try:
        blocks = "(SELECT x'0001' AS block UNION ALL SELECT x'00FF')"
        found = connection.execute(f"SELECT CAST(group_concat(block, '') AS BLOB) FROM {blocks}").fetchone()
    finally:
        connection.close()
    return sorted(found[0]) == [0, 0, 1, 255]


def states(views: Mapping[int, View], row: Joined, n: int) -> States:
    """The states of n customers in the views of these numbers; those without a row are unknown.

    Raises ArtefactError where a row does not hold what its view does.
    """
    raw, belongs, events, texts = row
    code, event_us = _whole(belongs), _whole(events)
    place, number, length = code >> _PLACE, code >> _VIEW & 0xFFFF, code & 0xFFFFFF
    start = (np.cumsum(length) - length) // _FLOAT64.itemsize
    of_view = {view: np.flatnonzero(number == one) for one, view in views.items()}
    for view, rows in of_view.items():
        wrong = length[rows] != len(view.numbers) * _FLOAT64.itemsize
        if wrong.any():
            raise damaged(view, int(np.count_nonzero(wrong)), length[rows][wrong][0] / _FLOAT64.itemsize)
    blocks = np.frombuffer(raw or b"", _FLOAT64)
    words = _words(of_view, texts, len(code))
    found: dict[str, State] = {}
    for view, rows in of_view.items():
        given = State(seconds(event_us[rows]), _blocks(blocks, start[rows], len(view.numbers)), words[view.name])
        where = place[rows]
        if len(where) == n and (where[1:] > where[:-1]).all():  # everybody, in order
            found[view.name] = given
            continue
        state = found[view.name] = unknown(view, n)
        state.at[where], state.numbers[where], state.texts[where] = given.at, given.numbers, given.texts
    return found


def _whole(numbers: str | None) -> Int64:
    """Whole numbers with commas between them."""
    return np.array(orjson.loads(f"[{numbers or ''}]"), np.int64)


def _blocks(numbers: Float64, start: Int64, width: int) -> Float64:
    """The `width` numbers from each start on, [k, width]."""
    if not (len(start) and width):
        return np.empty((len(start), width))
    return np.lib.stride_tricks.sliding_window_view(numbers, width)[start]


def _words(of_view: Mapping[View, Int64], texts: str | None, n: int) -> dict[str, Texts]:
    """By view the texts of its rows, object [k, width]: those of all rows that have any lie one behind the other."""
    told = orjson.loads(f"[{texts or ''}]")
    with_texts = np.zeros(n, np.bool_)
    for view, rows in of_view.items():
        with_texts[rows] = bool(view.texts)
    behind = np.cumsum(with_texts) - 1
    whole = len(told) == np.count_nonzero(with_texts)
    found: dict[str, Texts] = {}
    for view, rows in of_view.items():
        width = len(view.texts)
        of_rows = [told[place] for place in behind[rows].tolist()] if width and whole else []
        if width and not (whole and set(map(len, of_rows)) <= {width}):
            raise ArtefactError(
                f"packed rows of view {view.name!r} must hold {width} texts each, however some of {len(rows)} do not; "
                "the online store is damaged, build the features again"
            )
        found[view.name] = np.empty((len(rows), width), dtype=object)
        found[view.name].ravel()[:] = list(chain.from_iterable(of_rows))
    return found
