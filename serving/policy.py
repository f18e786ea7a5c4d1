"""The choice among feasible actions, with the exact probability of each.

    softmax    base(a) ∝ exp(−gap(a) / (τ · gain))
    squarecb   base(a) = 1 / (K + γ · gap(a) / gain) for all but the best, which has the rest: inverse-gap weighting
               (Abe & Long 1999; Foster & Rakhlin 2020, "Beyond UCB", algorithm 1)

over K feasible actions, no contact among them; gap(a) = max v − v(a), gain = max v − v(no contact). Values are measured
against what there is to gain, so that τ and γ mean the same in every currency; with nothing to gain the base is all on
the best. Then

    propensity(a) = floor + (1 − |S| · floor) · (m · base(a) + (1 − m) · best(a))   for a in S, else 0;  floor = ε / K

Without a budget S is everything and m = 1. With one, the expected loss Σ propensity(a) · gap(a) of a decision never
exceeds it: S is the largest set of the best actions whose floors alone stay within the budget, and m, in which the loss
is linear, spends what is left. So an action is either explored, with at least the floor, which bounds the weights of
off-policy estimates (Horvitz–Thompson) by K / ε, or not at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from features.errors import InputError
from features.schema import Bool, Float64

METHODS = ("softmax", "squarecb")


@dataclass(frozen=True)
class Policy:
    """temperature: τ ≥ 0, share of the gain (0: always the best). epsilon: ε in [0, 1]. gamma: γ > 0.

    loss_budget: most that exploring may cost per decision, expected, in the unit of the values; inf: no limit.
    """

    temperature: float = 0.05
    epsilon: float = 0.05
    method: str = "softmax"
    gamma: float = 1000.0
    loss_budget: float = np.inf

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be a finite number >= 0, however it is {self.temperature}")
        if not 0 <= self.epsilon <= 1:
            raise InputError(f"epsilon must lie in [0, 1], however it is {self.epsilon}")
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, however it is {self.method!r}")
        if not (np.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"gamma must be a finite number > 0, however it is {self.gamma}")
        if not self.loss_budget >= 0:
            raise InputError(f"loss_budget must be a number >= 0 or inf, however it is {self.loss_budget}")

    @property
    def version(self) -> str:
        shape = f"temperature={self.temperature:g}" if self.method == "softmax" else f"gamma={self.gamma:g}"
        budget = "" if np.isinf(self.loss_budget) else f" loss_budget={self.loss_budget:g}"
        return f"{self.method}-epsilon/1 {shape} epsilon={self.epsilon:g}{budget}"

    def floor(self, actions: int) -> float:
        """The least propensity of an explored action among `actions` feasible ones."""
        return self.epsilon / actions

    def propensities(self, values: Float64, no_contact: float = 0.0) -> Float64:
        """Float64 [K] that sums to 1; values: float64 [K], finite, one unit; no_contact: the value of no contact."""
        top = _top(values)
        gap, gain = top - values, top - no_contact
        floor = self.floor(len(values))
        if self.loss_budget == np.inf:  # S is everything and m is 1
            mixed = self._base(gap, gain)
            mixed *= max(1.0 - len(values) * floor, 0.0)
            mixed += floor
            mixed /= np.add.reduce(mixed)
            return mixed
        explored = self._explored(gap, floor)
        kept = gap[explored]  # [S]
        rest = max(1.0 - len(kept) * floor, 0.0)
        base, best = self._base(kept, gain), _best(kept)
        cost = rest * float(base @ kept)
        left = max(self.loss_budget - floor * float(kept.sum()), 0.0)
        share = 1.0 if cost <= left else left / cost
        mixed = np.zeros(len(values))
        mixed[explored] = floor + rest * (share * base + (1.0 - share) * best)
        mixed /= mixed.sum()
        return mixed

    def _explored(self, gap: Float64, floor: float) -> Bool:
        """Bool [K]: the best actions, as many as the budget lets have the floor."""
        order = np.argsort(gap, kind="stable")
        with np.errstate(invalid="ignore"):  # a floor of 0 costs nothing, whatever the gap
            spent = np.cumsum(floor * gap[order] if floor > 0 else np.zeros(len(gap)))
        explored = np.zeros(len(gap), dtype=np.bool_)
        explored[order[spent <= self.loss_budget]] = True
        return explored

    def _base(self, gap: Float64, gain: float) -> Float64:
        """Float64 [S], a distribution; gap: [S], >= 0, one of them 0."""
        if gain <= 0 or (self.method == "softmax" and self.temperature == 0):
            return _best(gap)
        with np.errstate(over="ignore"):  # a gap that is infinitely many temperatures wide weighs nothing
            if self.method == "softmax":
                weight = gap / -gain
                weight /= self.temperature
                np.exp(weight, out=weight)
                weight /= np.add.reduce(weight)
                return np.asarray(weight)
            base = 1.0 / (len(gap) + self.gamma * (gap / gain))
        base[int(np.argmin(gap))] += 1.0 - base.sum()
        return np.asarray(base)


def greedy(values: Float64) -> Float64:
    """Float64 [K]: all on the best, evenly where several are; the choice where nothing may be explored. ValueError
    unless all values are finite."""
    return _best(_top(values) - values)


def _top(values: Float64) -> float:
    """The best value; ValueError unless all are finite."""
    if not len(values) or np.count_nonzero(np.isfinite(values)) < len(values):
        raise ValueError(f"propensities need at least one value, all finite, however they are {values}")
    return float(np.maximum.reduce(values))


def _best(gap: Float64) -> Float64:
    weight = (gap == 0).astype(np.float64)
    return np.asarray(weight / weight.sum())


def draw(propensities: Float64, decision_id: str) -> int:
    """The index drawn for this decision: the same id always draws the same, so that a decision can be replayed."""
    return int(_steps(propensities).searchsorted(uniform(f"action\x00{decision_id}"), side="right"))


def uniform(text: str) -> float:
    """A number in [0, 1) that the text alone determines: the first 53 bits of its SHA-256."""
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def _steps(propensities: Float64) -> Float64:
    steps: Float64 = np.add.accumulate(propensities)
    # Rounding may leave the last step just below 1; an index beyond the end must be impossible, and so must an
    # action of probability zero at the end.
    steps[-1 if propensities[-1] else int(np.flatnonzero(propensities)[-1]) :] = 1.0
    return steps
