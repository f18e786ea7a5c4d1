"""The choice among feasible actions, with the exact probability of each.

propensity(a) = (1 − ε) · softmax(v(a) / (τ · gain)) + ε / K,  gain = max v − v(no contact)

over the K feasible actions, no contact among them. Values are measured against what there is to gain, so that τ means
the same in every currency and a few very costly actions do not blur the choice among good ones; with nothing to gain
the softmax is its limit, all on the best. Every action keeps at least the floor ε / K, which bounds the weights of
off-policy estimates (Horvitz–Thompson) by K / ε.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from features.errors import InputError
from features.schema import Float64


@dataclass(frozen=True)
class Policy:
    """temperature: τ ≥ 0, share of the gain (0: always the best). epsilon: ε in [0, 1]."""

    temperature: float = 0.05
    epsilon: float = 0.05

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be a finite number >= 0, however it is {self.temperature}")
        if not 0 <= self.epsilon <= 1:
            raise InputError(f"epsilon must lie in [0, 1], however it is {self.epsilon}")

    @property
    def version(self) -> str:
        return f"softmax-epsilon/1 temperature={self.temperature:g} epsilon={self.epsilon:g}"

    def floor(self, actions: int) -> float:
        """The least propensity among `actions` feasible actions."""
        return self.epsilon / actions

    def propensities(self, values: Float64, no_contact: float = 0.0) -> Float64:
        """Float64 [K] that sums to 1; values: float64 [K], finite, one unit; no_contact: the value of no contact."""
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"propensities need at least one value, all finite, however they are {values}")
        gap = values - values.max()  # [K], <= 0
        gain = float(values.max()) - no_contact
        if gain > 0 and self.temperature > 0:
            with np.errstate(over="ignore"):  # a gap that is infinitely many temperatures wide weighs nothing
                weight = np.exp(gap / gain / self.temperature)
        else:
            weight = (gap == 0).astype(np.float64)  # the softmax's limit: uniform over the best
        mixed: Float64 = (1 - self.epsilon) * weight / weight.sum() + self.epsilon / len(values)
        mixed /= mixed.sum()
        return mixed


def draw(propensities: Float64, decision_id: str) -> int:
    """The index drawn for this decision: the same id always draws the same, so that a decision can be replayed."""
    return int(np.searchsorted(_steps(propensities), uniform(decision_id), side="right"))


def uniform(decision_id: str) -> float:
    """A number in [0, 1) that the decision id alone determines: the first 53 bits of its SHA-256."""
    digest = hashlib.sha256(f"action\x00{decision_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def _steps(propensities: Float64) -> Float64:
    steps: Float64 = np.cumsum(propensities)
    # Rounding may leave the last step just below 1; an index beyond the end must be impossible, and so must an
    # action of probability zero at the end.
    steps[int(np.flatnonzero(propensities)[-1]) :] = 1.0
    return steps
