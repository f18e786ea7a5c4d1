"""Fit the map from raw to calibrated probabilities, on examples that the scorer has not seen."""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float64
from serving.calibration import SMALLEST, Calibration, beta_terms, sharpen
from serving.choice import Question, Scorer
from training.examples import Examples

FEWEST = 30
"""Positives and negatives (or choices, for a temperature) below which raw probabilities are left as they are."""

RIDGE = np.array([10.0, 10.0, 1.0])
"""Penalties on ln a, ln b and c: few positives move the shape little, the level more; many do as they please."""

STEPS = 100
LOWEST, HIGHEST = 0.2, 5.0
"""Bounds of a, b and t."""


def fit_calibration(question: Question, scorer: Scorer, examples: Examples) -> Calibration:
    """Calibration of `scorer` on `examples`, later in time than those it learned from.

    Where "none of them" is an answer: beta calibration of (probability, taken) over the available candidates
    of the rows that could choose it (of all rows where none could). Elsewhere: a temperature, which keeps the
    sum at 1. Identity where there is too little evidence; `Calibration.evidence` says so.
    """
    if question.outside and examples.available[:, -1].any():
        examples = examples.take(examples.available[:, -1])
    available = examples.available[:, :-1]
    raw = question.probabilities(scorer.utilities(examples.rows), available)  # [n, m]
    if question.link == "joint" and not question.outside:
        return _temperature(raw, examples)
    taken = examples.chosen[:, :-1] > 0 if examples.taken is None else examples.taken
    counted = available & np.isfinite(raw) & (examples.weight > 0)[:, None]
    weight = np.broadcast_to(examples.weight[:, None], raw.shape)[counted].astype(np.float64)
    return _beta(raw[counted], taken[counted], weight)


def _beta(probabilities: Float64, taken: Bool, weight: Float64) -> Calibration:
    """Beta calibration of [k] probabilities by penalised likelihood, a and b above 0 by construction.

    Newton's method on (ln a, ln b, c) with Fisher's information, halving steps that do not pay.
    """
    positives = int(taken.sum())
    evidence = f"{positives} taken, {len(taken) - positives} not taken"
    if min(positives, len(taken) - positives) < FEWEST:
        return Calibration("identity", evidence=f"{evidence}: fewer than {FEWEST}, left as they are")
    weight = weight / weight.mean()
    terms = beta_terms(probabilities)  # [k, 2]

    def loss(theta: Float64) -> float:
        logit = theta[2] + terms @ np.exp(theta[:2])
        return float(weight @ (np.logaddexp(0.0, logit) - taken * logit) + theta @ (RIDGE * theta) / 2)

    theta = np.zeros(3)
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(STEPS):
        slopes = terms * np.exp(theta[:2])  # [k, 2], derivative of the logit by ln a and ln b
        design = np.column_stack([slopes, np.ones(len(slopes))])  # [k, 3]
        fitted = np.exp(-np.logaddexp(0.0, -(theta[2] + slopes.sum(axis=1))))
        gradient = design.T @ (weight * (fitted - taken)) + RIDGE * theta
        information = (design * (weight * fitted * (1 - fitted))[:, None]).T @ design + np.diag(RIDGE)
        step = np.linalg.solve(information, gradient)
        size = 1.0
        while True:
            tried = theta - size * step
            tried[:2] = np.clip(tried[:2], low, high)
            if loss(tried) <= loss(theta) or size < 1e-6:
                break
            size /= 2
        moved = float(np.abs(tried - theta).max())
        theta = tried if loss(tried) <= loss(theta) else theta
        if moved < 1e-8:
            break
    a, b = (float(value) for value in np.exp(theta[:2]))
    return Calibration("beta", (a, b, float(theta[2])), evidence)


def _temperature(raw: Float64, examples: Examples) -> Calibration:
    """The temperature of lowest log-loss, by golden section over its logarithm (the loss is unimodal there)."""
    counted = (np.isfinite(raw).sum(axis=1) >= 2) & (examples.weight > 0)
    evidence = f"{int(counted.sum())} choices"
    if counted.sum() < FEWEST:
        return Calibration("identity", evidence=f"{evidence}: fewer than {FEWEST}, left as they are")
    chosen = examples.chosen[counted, :-1].astype(np.float64)
    weight = examples.weight[counted] / examples.weight[counted].mean()
    shares = raw[counted]

    def loss(log_t: float) -> float:
        sharpened = np.clip(np.nan_to_num(sharpen(shares, float(np.exp(log_t))), nan=1.0), SMALLEST, None)
        return float(-(weight @ (chosen * np.log(sharpened)).sum(axis=1)) + RIDGE[0] * log_t**2 / 2)

    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(STEPS // 2):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return Calibration("temperature", (float(np.exp((low + high) / 2)),), evidence)
