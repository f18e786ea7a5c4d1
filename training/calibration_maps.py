"""The maps from raw to calibrated probabilities, each fitted on evidence that the scorer has not learned from.

Which of them is used is chosen in `training.fit_calibration`. What they are is said in `serving.calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from features.schema import Bool, Float64, Int64, Texts
from serving.calibration import SMALLEST, Calibration, beta_terms, sharpen
from training import shrunken

FEWEST = 30
"""Take-ups and their absences (or choices, for a temperature) below which nothing can be said: scores stay scores."""

RIDGE = np.array([10.0, 10.0, 1.0])
"""Penalties on ln a, ln b and c: few positives move the shape little, the level more; many do as they please."""

STEPS = 100
LOWEST, HIGHEST = 0.2, 5.0
"""Bounds of a, b and t."""

FLAT = 1e-6
"""How much, in logits, an isotonic map rises from block to block where the rate stays the same: ties stay apart."""
MOST_BLOCKS, TAKEN_PER_BLOCK = 50, 20
"""Blocks that an isotonic map starts from, and take-ups that each has on average at least."""


@dataclass(frozen=True)
class Evidence:
    """n rows, m candidates. raw: float64 [n, m], NaN = does not count. taken: bool [n, m]. chosen: float64 [n, m].

    weight: float64 [n], mean 1. customer: [n]. alone: one of the candidates is always chosen.
    """

    raw: Float64
    taken: Bool
    chosen: Float64
    weight: Float64
    customer: Texts
    alone: bool

    def take(self, rows: Int64 | Bool) -> Evidence:
        return replace(
            self,
            raw=self.raw[rows],
            taken=self.taken[rows],
            chosen=self.chosen[rows],
            weight=self.weight[rows],
            customer=self.customer[rows],
        )

    @property
    def counted(self) -> Bool:
        return np.isfinite(self.raw)

    @property
    def told(self) -> str:
        if self.alone:
            return f"{len(self.raw)} choices"
        positives = int(self.taken[self.counted].sum())
        return f"{positives} taken, {int(self.counted.sum()) - positives} not taken"

    @property
    def few(self) -> bool:
        positives = int(self.taken[self.counted].sum())
        return min(len(self.raw) if self.alone else positives, int(self.counted.sum()) - positives) < FEWEST

    def losses(self, said: Float64) -> Float64:
        """Log-loss per row of calibrated probabilities [n, m], over the mean number of pairs of a row; float64 [n]."""
        inside = np.clip(np.where(self.counted, said, 0.5), SMALLEST, 1 - SMALLEST)
        if self.alone:
            return np.asarray(-self.weight * (self.chosen * np.log(inside)).sum(axis=1))
        pairs = np.where(self.taken, np.log(inside), np.log1p(-inside)) * self.counted
        return np.asarray(-self.weight * pairs.sum(axis=1) / self.counted.sum(axis=1).mean())


def _identity(evidence: Evidence) -> Calibration:
    return Calibration("identity")


def _beta(evidence: Evidence) -> Calibration:
    counted = evidence.counted
    weight = np.broadcast_to(evidence.weight[:, None], counted.shape)[counted]
    return Calibration("beta", beta_parameters(evidence.raw[counted], evidence.taken[counted], weight))


def _isotonic(evidence: Evidence) -> Calibration:
    counted = evidence.counted
    weight = np.broadcast_to(evidence.weight[:, None], counted.shape)[counted]
    knots = isotonic_knots(evidence.raw[counted], evidence.taken[counted], weight)
    return Calibration("isotonic", knots) if knots else Calibration("identity")


def _temperature(evidence: Evidence) -> Calibration:
    return Calibration("temperature", (_best_temperature(evidence),))


def _pooled(base: Callable[[Evidence], Calibration]) -> Callable[[Evidence], Calibration]:
    """The map `base`, and on top of it each candidate's own level and slope as far as its take-ups tell.

    Only where two candidates at least have FEWEST take-ups: else nothing can be told of how candidates differ.
    """

    def fitted(evidence: Evidence) -> Calibration:
        common = base(evidence)
        if (evidence.taken.sum(axis=0) >= FEWEST).sum() < 2:
            return common
        said = np.clip(common.apply(evidence.raw), SMALLEST, 1 - SMALLEST)
        if evidence.alone:
            found = shrunken.offsets(np.log(said), evidence.chosen, evidence.weight)
            return common if found is None else replace(common, by_candidate=tuple((float(b), 1.0) for b in found))
        logit = np.log(said) - np.log1p(-said)
        return replace(common, by_candidate=shrunken.by_candidate(logit, evidence.taken, evidence.weight))

    return fitted


MAPS: Mapping[str, Callable[[Evidence], Calibration]] = {
    "identity": _identity,
    "beta": _beta,
    "isotonic": _isotonic,
    "beta by candidate": _pooled(_beta),
}
"""From the plainest on."""
TEMPERATURES: Mapping[str, Callable[[Evidence], Calibration]] = {
    "identity": _identity,
    "temperature": _temperature,
    "temperature by candidate": _pooled(_temperature),
}


def beta_parameters(probabilities: Float64, taken: Bool, weight: Float64) -> tuple[float, float, float]:
    """(a, b, c) of [k] probabilities by penalised likelihood, a and b above 0 by construction.

    Newton's method on (ln a, ln b, c) with Fisher's information, halving steps that do not pay.
    """
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
        gradient = np.einsum("ki,k->i", design, weight * (fitted - taken)) + RIDGE * theta
        # einsum, as BLAS would start threads for three columns, which on busy cores wait for each other
        information = np.einsum("ki,kj,k->ij", design, design, weight * fitted * (1 - fitted)) + np.diag(RIDGE)
        step = np.linalg.solve(information, gradient)
        size, before = 1.0, loss(theta)
        while True:
            tried = theta - size * step
            tried[:2] = np.clip(tried[:2], low, high)
            paid = loss(tried) <= before
            if paid or size < 1e-6:
                break
            size /= 2
        moved = float(np.abs(tried - theta).max())
        theta = tried if paid else theta
        if moved < 1e-6 or not paid:
            break
    a, b = (float(value) for value in np.exp(theta[:2]))
    return a, b, float(theta[2])


def isotonic_knots(probabilities: Float64, taken: Bool, weight: Float64) -> tuple[float, ...]:
    """Knots (x1, …, xk, y1, …, yk) of [k] probabilities, logits both; () where the rate does not rise at all.

    Blocks of equal size, ties together, their rates pooled until none falls; each rate is drawn to that of all by one
    row's worth, so that none is 0 or 1.
    """
    from sklearn.isotonic import isotonic_regression

    blocks = int(np.clip(taken.sum() // TAKEN_PER_BLOCK, 2, MOST_BLOCKS))
    borders = np.unique(np.quantile(probabilities, np.arange(1, blocks) / blocks))
    block = np.searchsorted(borders, probabilities, side="right")
    count = len(borders) + 1
    mass = np.bincount(block, weight, count)
    kept = mass > 0
    base = float(weight @ taken) / float(weight.sum())
    rate = (np.bincount(block, weight * taken, count)[kept] + base) / (mass[kept] + 1)
    logit = beta_terms(probabilities).sum(axis=-1)
    centre = np.bincount(block, weight * logit, count)[kept] / mass[kept]
    level = isotonic_regression(rate, sample_weight=mass[kept])
    if level[-1] - level[0] < FLAT:
        return ()
    rising = np.log(level) - np.log1p(-level) + FLAT * np.arange(len(level))
    return (*(float(value) for value in centre), *(float(value) for value in rising))


def _best_temperature(evidence: Evidence) -> float:
    """The temperature of lowest log-loss, by golden section over its logarithm (the loss is unimodal there)."""

    def loss(log_t: float) -> float:
        sharpened = np.clip(np.nan_to_num(sharpen(evidence.raw, float(np.exp(log_t))), nan=1.0), SMALLEST, None)
        losses = (evidence.chosen * np.log(sharpened)).sum(axis=1)
        return float(-(evidence.weight @ losses) + RIDGE[0] * log_t**2 / 2)

    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(STEPS // 2):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
