"""Candidates with a level and a slope of their own, drawn to what all have in common as far as they tell little.

Partial pooling by empirical Bayes: how much candidates differ beyond chance is a moment estimate (DerSimonian and Laird
1986, "Meta-analysis in clinical trials", Controlled Clinical Trials 7), and each is then fitted with that variance as
its prior. Where they do not differ beyond chance, the variance is 0 and all stay alike.
"""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float64

STEPS = 50
STEEPEST = float(np.log(3.0))
"""A slope is between a third and three times that of all."""
LEAST = 1e-9
"""Information below which a candidate tells nothing."""
WIDEST = (1.0, 0.1)
"""Variances of level and slope at most: few take-ups that happen to be separable prove little."""


def variance_between(estimate: Float64, information: Float64) -> float:
    """How much k true values differ, from their estimates [k] with variances 1 / information [k]."""
    known = information > LEAST
    if known.sum() < 2:
        return 0.0
    weight, values = information[known], estimate[known]
    spread = float(weight @ (values - np.average(values, weights=weight)) ** 2)
    scale = float(weight.sum() - (weight**2).sum() / weight.sum())
    return max(0.0, (spread - (known.sum() - 1)) / scale) if scale > 0 else 0.0


def by_candidate(logit: Float64, taken: Bool, weight: Float64) -> tuple[tuple[float, float], ...]:
    """(offset, slope) per candidate of binary outcomes; () where candidates do not differ beyond chance.

    logit: float64 [n, m] of all, NaN = does not count. taken: bool [n, m]. weight: float64 [n].
    """
    counted = np.isfinite(logit)
    known = np.where(counted, logit, 0.0)
    chance = 1 / (1 + np.exp(-known))
    spread = np.where(counted, weight[:, None] * chance * (1 - chance), 0.0)  # [n, m]
    missed = np.where(counted, weight[:, None] * (taken - chance), 0.0)
    level = spread.sum(axis=0)
    centre = (spread * known).sum(axis=0) / np.maximum(level, LEAST)  # [m]: there level and slope do not touch
    around = np.where(counted, known - centre, 0.0)
    turn = (spread * around**2).sum(axis=0)
    steps = (missed.sum(axis=0) / np.maximum(level, LEAST), (missed * around).sum(axis=0))
    of_levels = min(variance_between(steps[0], level), WIDEST[0])
    of_slopes = min(variance_between(steps[1] / np.maximum(turn, LEAST), turn), WIDEST[1])
    if of_levels == of_slopes == 0.0:
        return ()
    found = []
    for place in range(logit.shape[1]):
        rows = counted[:, place]
        raised, steeper = _own(
            around[rows, place], centre[place], taken[rows, place], weight[rows], of_levels, of_slopes
        )
        slope = float(np.exp(steeper))
        found.append((float(centre[place] + raised - slope * centre[place]), slope))
    return tuple(found)


def _own(
    around: Float64, centre: float, taken: Bool, weight: Float64, of_levels: float, of_slopes: float
) -> tuple[float, float]:
    """Level added and logarithm of the slope of one candidate, by Newton's method with Fisher's information."""
    theta = np.zeros(2)
    free = np.array([of_levels > 0, of_slopes > 0])
    ridge = 1.0 / np.where(free, [of_levels, of_slopes], 1.0)
    for _ in range(STEPS):
        slope = np.exp(theta[1])
        chance = 1 / (1 + np.exp(-(centre + theta[0] + slope * around)))
        design = np.column_stack([np.ones(len(around)), slope * around])  # [k, 2]
        gradient = np.einsum("ki,k->i", design, weight * (chance - taken)) + ridge * theta
        information = np.einsum("ki,kj,k->ij", design, design, weight * chance * (1 - chance)) + np.diag(ridge)
        step = np.clip(np.where(free, np.linalg.solve(information, np.where(free, gradient, 0.0)), 0.0), -1.0, 1.0)
        theta = theta - step
        theta[1] = np.clip(theta[1], -STEEPEST, STEEPEST)
        if np.abs(step).max() < 1e-8:
            break
    return float(theta[0]), float(theta[1])


def offsets(log_shares: Float64, chosen: Float64, weight: Float64) -> Float64 | None:
    """Offsets [m] of candidates of which one is chosen; None where they do not differ beyond chance.

    log_shares: float64 [n, m], NaN = not available. chosen: float64 [n, m], shares of the choice. weight: float64 [n].
    """
    available = np.isfinite(log_shares)
    known = np.where(available, log_shares, -np.inf)

    def shares(offset: Float64) -> Float64:
        raised = known + offset
        powers = np.exp(raised - raised.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    start = shares(np.zeros(log_shares.shape[1]))
    information = weight @ (start * (1 - start))
    gain = weight @ (chosen - start)
    between = min(variance_between(gain / np.maximum(information, LEAST), information), WIDEST[0])
    if between == 0.0:
        return None
    offset = np.zeros(log_shares.shape[1])
    for _ in range(STEPS):
        said = shares(offset)
        gradient = weight @ (said - chosen) + offset / between
        second = np.diag(weight @ said + 1 / between) - (said * weight[:, None]).T @ said
        step = np.clip(np.linalg.solve(second, gradient), -1.0, 1.0)
        offset = offset - step
        if np.abs(step).max() < 1e-8:
            break
    return offset
