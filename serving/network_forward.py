"""The forward pass of `serving.network.ChoiceNetwork` in plain numpy: the same formula, a few times faster for one
customer, whose numbers are too few to be worth what a torch operation costs to begin.

Everything that is multiplied with the same input lies in one matrix, and the missing-indicators' columns are kept apart
from those of the values, so that nothing is put together first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.schema import Float32, Float64


@dataclass(frozen=True)
class Layer:
    """Weights on standardised columns. known, missing: float64 [columns, out], of a value and of its being missing."""

    mean: Float64
    scale: Float64
    known: Float64
    missing: Float64
    bias: Float64
    farthest: float

    @classmethod
    def of(cls, state: Mapping[str, Float64], block: str, weight: Float64, bias: Float64, farthest: float) -> Layer:
        """weight: float64 [out, 2 · columns], the values' columns first."""
        columns = len(state[f"{block}.mean"])
        known, missing = weight[:, :columns].T, weight[:, columns:].T * state[f"{block}.sometimes_missing"][:, None]
        return cls(
            state[f"{block}.mean"],
            state[f"{block}.scale"],
            np.ascontiguousarray(known),
            np.ascontiguousarray(missing),
            bias,
            farthest,
        )

    def __call__(self, values: Float32) -> Float64:
        """values float32 [..., columns], NaN where unknown -> float64 [..., out]."""
        wide = values.astype(np.float64)
        unknown = np.isnan(wide)
        near = np.log1p(np.abs(wide))
        near = np.copysign(near, wide, out=near)  # sign(v) ln(1 + |v|)
        near -= self.mean
        near /= self.scale
        near = np.minimum(np.maximum(near, -self.farthest, out=near), self.farthest, out=near)
        near[unknown] = 0.0
        return near @ self.known + unknown.astype(np.float64) @ self.missing + self.bias


@dataclass(frozen=True)
class Forward:
    """Of m candidates: `customer` gives [m + 1 | hidden], the utilities of the customer alone and the tower's input."""

    customer: Layer
    candidate: Layer
    tower: Float64
    tower_bias: Float64
    after_tower: Float64
    identity: Float64
    match: Float64

    @classmethod
    def of(cls, state: Mapping[str, Float64], farthest: float) -> Forward:
        """state: the network's parameters and buffers by their names, float64."""
        own = np.concatenate([state["linear.weight"], state["tower.0.weight"]])
        own_bias = np.concatenate([state["prior"] + state["linear.bias"], state["tower.0.bias"]])
        after = np.concatenate([state["embedding.weight"], state["match_customer.weight"]])
        each, each_bias = state["match_candidate.weight"], state["match_candidate.bias"]
        return cls(
            Layer.of(state, "customer", own, own_bias, farthest),
            Layer.of(state, "candidate", each, each_bias, farthest),
            np.ascontiguousarray(state["tower.3.weight"].T),
            state["tower.3.bias"],
            np.ascontiguousarray(after.T),
            state["match_identity"],
            state["match.2.weight"][0],
        )

    def utilities(self, customer: Float32, candidates: Float32) -> Float64:
        """customer [n, C] and candidates [n, m, K], NaN where unknown -> log-utilities, float64 [n, m + 1]."""
        options = len(self.identity) + 1
        first = self.customer(customer)  # [n, m + 1 + hidden]
        h = np.maximum(np.maximum(first[:, options:], 0.0) @ self.tower + self.tower_bias, 0.0)  # [n, embedding]
        after = h @ self.after_tower  # [n, m + 1 + embedding]
        utilities = first[:, :options] + after[:, :options]  # [n, m + 1]
        meeting = self.candidate(candidates)  # [n, m, embedding]
        meeting += after[:, None, options:]
        meeting += self.identity
        utilities[:, :-1] += np.maximum(meeting, 0.0, out=meeting) @ self.match
        return utilities
