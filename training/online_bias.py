"""A fast online bias: corrects served probabilities by recent known outcomes, between two fits of a model.

The log-odds l of a (decision, candidate) pair become l + b + b_j: b of all candidates, b_j of candidate j, how much
more or less is taken of late than the model says. A logistic regression that forgets: each known outcome moves the
state by Newton's step over exponentially forgotten Fisher information (McCormick, Raftery, Madigan and Burd 2012,
"Dynamic logistic regression and dynamic model averaging for binary classification", Biometrics 68, section 2; the
forgetting factor is 0.5^(1 / half-life) per decision). A ridge that is not forgotten holds the state at 0, "the model
is right", where nothing is known.
"""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float64, Int64

HALF_LIFE = 800.0
"""Decisions after which an outcome counts half."""
RIDGE_ALL, RIDGE_CANDIDATE = 1.0, 5.0
"""Fisher information that "the model is right" is worth: of b, of each b_j."""
SMALLEST = 1e-9
"""Probabilities are kept this far from 0 and 1 before logarithms."""


class OnlineBias:
    """The state over m candidates; the order of `learn` and `apply` is the caller's, and so is what is known when."""

    def __init__(self, candidates: int, half_life: float = HALF_LIFE) -> None:
        """half_life: in decisions, above 0."""
        if not half_life > 0:
            raise ValueError(f"a half-life is above 0 decisions, however it is {half_life}")
        self.kept = 0.5 ** (1.0 / half_life)
        self.state = np.zeros(1 + candidates)  # b, b_1 .. b_m
        self.ridge = np.diag([RIDGE_ALL, *[RIDGE_CANDIDATE] * candidates])
        self.information = self.ridge.copy()

    def apply(self, probabilities: Float64) -> Float64:
        """Corrected probabilities, float64 [m], of the model's [m]; NaN (not available) stays NaN."""
        logit = _logit(probabilities) + self.state[0] + self.state[1:]
        return np.asarray(1 / (1 + np.exp(-logit)))

    def learn(self, probabilities: Float64, taken: Bool) -> None:
        """Learn from one decision: what the model said ([m], NaN = not available) and what was taken (bool [m])."""
        judged = np.flatnonzero(~np.isnan(probabilities))
        if not len(judged):
            return
        design = np.zeros((len(judged), len(self.state)))  # [k, 1 + m]
        design[:, 0] = 1.0
        design[np.arange(len(judged)), 1 + judged] = 1.0
        said = self.apply(probabilities)[judged]
        forgotten = 1 - self.kept
        curvature = (design * (said * (1 - said))[:, None]).T @ design
        self.information = self.kept * self.information + curvature + forgotten * self.ridge
        slope = design.T @ (taken[judged] - said) - forgotten * (self.ridge @ self.state)
        self.state = self.state + np.linalg.solve(self.information, slope)


def corrected(probabilities: Float64, taken: Bool, known: Int64, half_life: float = HALF_LIFE) -> Float64:
    """Each decision's probabilities after the outcomes that were known by then, float64 [n, m].

    probabilities: [n, m] as the model served them, in order of time. known: int64 [n], never falling, at most the
    row's own position: the first known[i] outcomes are known when row i is decided; later ones are not looked at.
    """
    if (known > np.arange(len(known))).any() or (np.diff(known) < 0).any():
        raise ValueError("known outcomes are earlier ones, and are never forgotten again, however `known` says else")
    online = OnlineBias(probabilities.shape[1], half_life)
    found = np.empty_like(probabilities)
    learned = 0
    for row in range(len(probabilities)):
        while learned < known[row]:
            online.learn(probabilities[learned], taken[learned])
            learned += 1
        found[row] = online.apply(probabilities[row])
    return found


def _logit(probabilities: Float64) -> Float64:
    inside = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(inside) - np.log1p(-inside))
