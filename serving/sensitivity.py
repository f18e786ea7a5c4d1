"""Which factors decide: the share of decisions whose winner changes when one factor is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.arbitration import FACTORS
from features.schema import Float64
from serving.decision import Candidate, Decision
from serving.value import Factors


@dataclass(frozen=True)
class Sensitivity:
    """decisions: how many had a choice at all. changed: factor → share of them whose winner is another without it."""

    decisions: int
    changed: Mapping[str, float]


def sensitivity(decisions: Iterable[Decision], off: Sequence[str] = ()) -> Sensitivity:
    """Drop one factor after the other from decisions as they were made; `off` were switched off from the start.

    The winner is the action of the highest value, no contact (worth 0) among them; what was drawn does not matter.
    """
    counted = 0
    changes = dict.fromkeys((factor for factor in FACTORS if factor not in off), 0)
    for decision in decisions:
        actions = [candidate for candidate in decision.candidates if candidate.action is not None]
        if not actions:
            continue
        counted += 1
        factors = Factors.stack([_factors(candidate) for candidate in actions])
        before = _winner(factors.total(off))
        for factor in changes:
            changes[factor] += _winner(factors.total((*off, factor))) != before
    return Sensitivity(counted, {name: count / counted for name, count in changes.items()} if counted else {})


def _winner(values: Float64) -> int:
    """Position of the best action; -1: no contact."""
    best = int(np.argmax(values))
    return best if values[best] > 0 else -1


def _factors(candidate: Candidate) -> Mapping[str, float]:
    if candidate.factors is None:
        raise ValueError(f"sensitivity needs the factors of every action, however {candidate.action} has none")
    return candidate.factors
