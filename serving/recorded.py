"""What was known of one customer when a decision was made, kept with its record so that it can be made again.

The online store keeps only the newest state of a customer, so a record brings its own. Per view: the time of the state,
its numbers as base64 of little-endian float64 (exact to the last bit, NaN included), its texts as they are.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.schema import Float64, State, States, View

_FLOAT64 = np.dtype("<f8")


class NotReadable(ValueError):
    """A record whose states were written for other views than these."""


@dataclass(frozen=True)
class Recorded:
    """States that answer instead of the online store: always the same customer's."""

    states: States

    def read(self, customer_ids: Sequence[str]) -> States:
        if len(customer_ids) != 1:
            raise ValueError(f"a record is about one customer, however {len(customer_ids)} are asked for")
        return self.states


def pack(states: States) -> dict[str, Any]:
    """The states of one customer as JSON-ready values."""
    return {
        name: {
            "at": None if math.isnan(state.at[0]) else float(state.at[0]),
            "numbers": base64.b64encode(state.numbers[0].astype(_FLOAT64).tobytes()).decode(),
            "texts": list(state.texts[0]),
        }
        for name, state in states.items()
    }


def outline(states: States) -> tuple[dict[str, Any], list[Float64]]:
    """As `pack`, but for the numbers: JSON-ready values that say how many there are of each view, and they apart."""
    found = {}
    for name, state in states.items():
        at = state.at.item()
        found[name] = {
            "at": None if math.isnan(at) else at,
            "numbers": state.numbers.shape[1],
            "texts": state.texts[0].tolist(),
        }
    return found, [state.numbers[0] for state in states.values()]


def filled_in(outlined: Mapping[str, Any], numbers: bytes) -> dict[str, Any]:
    """What `pack` makes of states, from their outline and their numbers as little-endian float64."""
    found = {}
    for name, entry in outlined.items():
        size = entry["numbers"] * _FLOAT64.itemsize
        found[name] = {**entry, "numbers": base64.b64encode(numbers[:size]).decode()}
        numbers = numbers[size:]
    return found


def unpack(packed: Mapping[str, Any], views: Sequence[View]) -> States:
    """The states that `pack` was given; NotReadable where they are not of these views."""
    if packed.keys() != {view.name for view in views}:
        raise NotReadable(f"the record holds views {sorted(packed)}, now they are {sorted(v.name for v in views)}")
    states = {}
    for view in views:
        entry = packed[view.name]
        numbers = np.frombuffer(base64.b64decode(entry["numbers"]), _FLOAT64)
        if (len(numbers), len(entry["texts"])) != (len(view.numbers), len(view.texts)):
            raise NotReadable(f"the record holds view {view.name!r} with other columns than now")
        texts = np.empty((1, len(view.texts)), dtype=object)
        texts[0] = entry["texts"]
        at = math.nan if entry["at"] is None else entry["at"]
        states[view.name] = State(np.array([at], np.float64), numbers[None, :].astype(np.float64), texts)
    return states


def shown(packed: Mapping[str, Any], views: Sequence[View], as_of: float) -> list[dict[str, Any]]:
    """The states for people, a view each: how old it was at `as_of` (seconds since 1970) and what it said.

    age_seconds is null where nothing was known, negative where the state is younger than the question. Values without
    names (the views have changed since) are left out.
    """
    try:
        states: States = unpack(packed, views)
    except NotReadable:
        return [{"view": name, **_age(entry["at"], as_of), "values": None} for name, entry in packed.items()]
    return [
        {"view": view.name, **_age(packed[view.name]["at"], as_of), "values": _values(view, states[view.name])}
        for view in views
    ]


def _age(at: float | None, as_of: float) -> dict[str, Any]:
    return {"at": at, "age_seconds": None if at is None else as_of - at}


def _values(view: View, state: State) -> dict[str, Any]:
    """Known values by column name; what is missing is left out."""
    numbers = dict(zip(view.numbers, state.numbers[0].tolist(), strict=True))
    texts = dict(zip(view.texts, state.texts[0].tolist(), strict=True))
    known: dict[str, Any] = {name: value for name, value in numbers.items() if not math.isnan(value)}
    return known | {name: value for name, value in texts.items() if value is not None}
