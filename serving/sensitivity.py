"""Which factors decide: the share of decisions whose winner changes when one factor is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.arbitration import FACTORS
from features.schema import Float64
from serving.value import Factors


@dataclass(frozen=True)
class Sensitivity:
    """decisions: how many had a choice at all. changed: factor → share of them whose winner is another without it."""

    decisions: int
    changed: Mapping[str, float]


def sensitivity(choices: Iterable[Sequence[Mapping[str, float]]], off: Sequence[str] = ()) -> Sensitivity:
    """Drop one factor after the other from decisions as they were made; `off` were switched off from the start.

    choices: per decision, the factors of each of its actions. The winner is the action of the highest value, no contact
    (worth 0) among them; what was drawn does not matter.
    """
    counted = 0
    changes = dict.fromkeys((factor for factor in FACTORS if factor not in off), 0)
    for actions in choices:
        if not actions:
            continue
        counted += 1
        factors = Factors.stack(actions)
        before = _winner(factors.total(off))
        for factor in changes:
            changes[factor] += _winner(factors.total((*off, factor))) != before
    return Sensitivity(counted, {name: count / counted for name, count in changes.items()} if counted else {})


def recorded_factors(record: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """The factors of each action in a decision's record; none where it had no choice."""
    candidates: list[Mapping[str, Any]] = record["candidates"]
    return [candidate["factors"] for candidate in candidates if candidate["factors"] is not None]


def _winner(values: Float64) -> int:
    """Position of the best action; -1: no contact."""
    best = int(np.argmax(values))
    return best if values[best] > 0 else -1
