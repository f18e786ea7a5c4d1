"""Tables of back-off counts: how much more often than expected each option was chosen in each cell of a key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float32, Float64
from serving.count_keys import Codes, Key
from serving.question import masked_log_softmax
from training.examples import Examples

STEPS, TOLERANCE = 6, 0.01
"""Newton steps of a table at most, and the mean step at which it stays."""


def counted(key: Key, codes: Codes, examples: Examples, utilities: Float32) -> tuple[Float32, Float32]:
    """The key's table, and the utilities [n, m + 1] with what it says; codes: of the key, [n] or [n, m].

    ln((W + s) / (E + s)) is where the likelihood with its gamma prior is greatest, as long as everything can be chosen:
    then saying more of one option says as much less of the others. Where something cannot, that is only the first step,
    and diagonal Newton steps follow (as in `pairs.MaskedSoftmax`, p (1 - p) k / (k - 1) with k options available).
    """
    strength = key.strength
    cells = Cells.of(key, codes, examples)
    chosen = cells.summed(examples.chosen)
    expected = cells.summed(probabilities_of(utilities, examples))
    table = np.log((chosen + strength) / (expected + strength))
    k = examples.available.sum(axis=1, keepdims=True)
    factor = np.where(k > 1, k / np.maximum(k - 1, 1), 1.0)  # [n, 1]
    for _ in range(STEPS):
        probabilities = probabilities_of(utilities + key.looked_up(table, codes), examples)
        slope = chosen + strength - cells.summed(probabilities) - strength * np.exp(table)
        bend = cells.summed(probabilities * (1 - probabilities) * factor) + strength * np.exp(table)
        step = np.clip(slope / bend, -1.0, 1.0)
        table += step
        if not expected.any() or np.average(np.abs(step), weights=expected) < TOLERANCE:
            break
    said = table.astype(np.float32)
    return said, utilities + key.looked_up(said, codes)


@dataclass(frozen=True)
class Cells:
    """Which cell of a key's table each available option of a row counts in.

    used: bool [n, w], the first w options of the rows where they are available. cell: int64 [k], theirs. weight:
    float64 [n, 1], mean 1. shape: of the table.
    """

    used: Bool
    cell: Codes
    weight: Float64
    shape: tuple[int, int]

    @classmethod
    def of(cls, key: Key, codes: Codes, examples: Examples) -> Cells:
        shape = key.shape(examples.available.shape[1] - 1)
        used = examples.available[:, : (shape[1] if key.of_customer else codes.shape[1])]
        cell = (codes[:, None] if key.of_customer else codes) * shape[1]
        if key.by_candidate:
            cell = cell + np.arange(used.shape[1])
        weight = examples.weight[:, None].astype(np.float64) / mean_weight(examples.weight)
        return cls(used, np.broadcast_to(cell, used.shape)[used], weight, shape)

    def summed(self, values: Float32 | Float64) -> Float64:
        """Weighted sums of [n, m + 1] per cell."""
        mass = (values[:, : self.used.shape[1]] * self.weight)[self.used]
        size = self.shape[0] * self.shape[1]
        return np.bincount(self.cell, weights=mass, minlength=size).astype(np.float64).reshape(self.shape)


def probabilities_of(utilities: Float32 | Float64, examples: Examples) -> Float64:
    return np.exp(masked_log_softmax(utilities, examples.available))


def mean_weight(weight: Float32) -> float:
    """Mean of the weights above 0: what one choice counts for, so that strengths have a meaning."""
    return float(weight[weight > 0].mean()) if (weight > 0).any() else 1.0
