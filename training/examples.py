"""Choices to learn from: rows, what could be chosen, what was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float32, Float64, Rows
from serving.question import masked_log_softmax


@dataclass(frozen=True)
class Examples:
    """n observed choices among m candidates and the outside option (last).

    available: bool [n, m + 1], what could be chosen.
    chosen: float32 [n, m + 1], the share of the choice that each option has; rows sum to 1 (products bought
        together share one choice, so that each purchase counts once).
    weight: float32 [n], at least 0.
    taken: bool [n, m], candidates taken at all within the horizon, for calibration; None = those that were
    chosen.
    at: float64 [n], time of the choice (seconds since 1970 UTC), for priors that forget; None = unknown.
    groups: [m], the group of each candidate as a number, for candidates without a history; none: all are one group.
    """

    rows: Rows
    available: Bool
    chosen: Float32
    weight: Float32
    taken: Bool | None = None
    at: Float64 | None = None
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.rows)
        if self.available.shape != self.chosen.shape or self.available.shape[:1] != (n,):
            raise ValueError(
                f"available and chosen are [{n}, m + 1], however they are {self.available.shape} and "
                f"{self.chosen.shape}"
            )
        if self.weight.shape != (n,) or not np.isfinite(self.weight).all() or (self.weight < 0).any():
            raise ValueError(f"weight is [{n}], finite and not negative, however it is {self.weight!r}")
        if (self.chosen < 0).any() or (self.chosen[~self.available] != 0).any():
            raise ValueError("chosen is not negative, and 0 for what was not available, however it is not")
        if n and np.abs(self.chosen.sum(axis=1) - 1).max() > 1e-4:
            raise ValueError("chosen sums to 1 in every row, however it does not")
        if self.taken is not None and self.taken.shape != (n, self.available.shape[1] - 1):
            raise ValueError(f"taken is [{n}, m], however it is {self.taken.shape}")
        if self.at is not None and self.at.shape != (n,):
            raise ValueError(f"at is [{n}], however it is {self.at.shape}")
        if self.groups and len(self.groups) != self.available.shape[1] - 1:
            raise ValueError(
                f"groups are of the {self.available.shape[1] - 1} candidates, however {self.groups} is not"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: npt.NDArray[np.int64] | Bool | slice) -> Examples:
        """The examples at `index`, in that order."""
        return Examples(
            self.rows.take(index),
            self.available[index],
            self.chosen[index],
            self.weight[index],
            None if self.taken is None else self.taken[index],
            None if self.at is None else self.at[index],
            self.groups,
        )


def log_loss(utilities: Float32 | Float64, examples: Examples) -> float:
    """Mean masked cross-entropy in nats per choice, weighted; utilities [n, m + 1]."""
    log_shares = masked_log_softmax(utilities, examples.available)  # [n, m + 1]
    losses = -(examples.chosen * np.where(examples.chosen > 0, log_shares, 0.0)).sum(axis=1)  # [n]
    return float(np.average(losses, weights=examples.weight))
