"""How much more or less is taken of late than a model says, per candidate, from outcomes that closed since its fit.

The log-odds l of a (row, candidate) pair become l + b + b_j, as in `online_bias`: b of all candidates, b_j of candidate
j. Here the whole of the new outcomes is known at once, so that the state is that of the highest penalised likelihood:
outcomes weigh 0.5^(age / HALF_LIFE_DAYS), by when their window closed, and the same ridge holds b and b_j at 0, "the
model is right", where little is known. A candidate of which nothing is known moves with all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float64, Int64
from serving.calibration import SMALLEST, shifted
from training.labels import DAY
from training.online_bias import RIDGE_ALL, RIDGE_CANDIDATE

HALF_LIFE_DAYS = 30.0
"""After which an outcome counts half."""
FEWEST = 20
"""New take-ups to learn from, and as many later ones to be judged on: below, chance is all there is."""
BLOCKS = 10
"""In which later rows are judged: each by a bias of all that had closed when it began."""
NORMAL_95 = 1.959964
_STEPS, _ENOUGH = 50, 1e-10


@dataclass(frozen=True)
class Bias:
    """shifts: float64 [m], b + b_j, of log-odds. errors: float64 [m], their standard deviations."""

    shifts: Float64
    errors: Float64

    @property
    def low(self) -> Float64:
        return self.shifts - NORMAL_95 * self.errors

    @property
    def high(self) -> Float64:
        return self.shifts + NORMAL_95 * self.errors


def fit_bias(said: Float64, taken: Bool, weight: Float64) -> Bias:
    """The bias of rows: what the model said ([n, m], NaN = not available), what was taken, and how much a row counts.

    Errors are those of the normal approximation at the optimum, where rows are independent.
    """
    known = ~np.isnan(said)
    inside = np.clip(np.where(known, said, 0.5), SMALLEST, 1 - SMALLEST)
    logit = np.log(inside) - np.log1p(-inside)  # [n, m]
    counted = np.where(known, weight[:, None], 0.0)
    ridge = np.array([RIDGE_ALL, *[RIDGE_CANDIDATE] * said.shape[1]])
    state = np.zeros(len(ridge))  # b, b_1 .. b_m
    information = np.diag(ridge)
    for _ in range(_STEPS):
        now = np.exp(-np.logaddexp(0.0, -(logit + state[0] + state[1:])))
        slope = (counted * (taken - now)).sum(axis=0)  # [m]
        curvature = (counted * now * (1 - now)).sum(axis=0)
        information = np.diag(ridge + np.array([curvature.sum(), *curvature]))
        information[0, 1:] = information[1:, 0] = curvature
        step = np.linalg.solve(information, np.array([slope.sum(), *slope]) - ridge * state)
        state = state + step / max(1.0, float(np.abs(step).max()))  # no leap beyond what the curvature can tell
        if np.abs(step).max() < _ENOUGH:
            break
    spread = np.linalg.inv(information)
    variance = spread[0, 0] + np.diag(spread)[1:] + 2 * spread[0, 1:]
    return Bias(state[0] + state[1:], np.sqrt(variance))


def weights(closes: Int64, now: int) -> Float64:
    """Float64 [n]: how much outcomes count at `now`, by when their windows closed (µs)."""
    return np.asarray(0.5 ** ((now - closes) / (HALF_LIFE_DAYS * DAY)))


@dataclass(frozen=True)
class Walked:
    """said: float64 [n, m], by a bias of what had closed before; NaN where too little had. judged: bool [n], others."""

    said: Float64
    judged: Bool


def walk(said: Float64, taken: Bool, teaches: Bool, as_of: Int64, closes: Int64) -> Walked:
    """Score rows before their outcomes are used, in order of time. teaches: bool [n], rows that a bias is learned from.

    Judged are rows from the moment on at which FEWEST take-ups had closed. as_of, closes: µs.
    """
    found = np.full_like(said, np.nan)
    wins = np.sort(closes[teaches & taken.any(axis=1)])
    judged = np.zeros(len(said), np.bool_) if len(wins) < FEWEST else as_of >= wins[FEWEST - 1]
    asked = as_of[judged] if judged.any() else as_of[:0]
    borders = np.unique(np.quantile(asked, np.arange(BLOCKS) / BLOCKS, method="lower")) if len(asked) else asked
    for place, begin in enumerate(borders):
        rows = judged & (as_of >= begin)
        if place + 1 < len(borders):
            rows &= as_of < borders[place + 1]
        known = teaches & (closes <= begin)
        bias = fit_bias(said[known], taken[known], weights(closes[known], int(begin)))
        found[rows] = shifted(said[rows], bias.shifts)
    return Walked(found, np.asarray(judged, np.bool_))
