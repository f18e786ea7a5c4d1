"""Fit the map from raw to calibrated probabilities, on examples that the scorer has not learned from.

Which map is chosen by cross-fitting over customers: each map is fitted on four fifths of them and judged on the rest,
so the choice, and what is told of its quality, come from customers that the map has not seen. From the plainest map on,
another one is taken where its cross-fitted log-loss is lower by more than its standard error (the one-standard-error
rule, Breiman et al. 1984, "Classification and Regression Trees", 3.4.3): so no map is worse than none at all.

A map that differs by candidate changes who comes first. Better probabilities on all days may be a worse order at the
moment of a purchase: on real baskets the log-loss fell and so did HR@3, by 0.015. So such a map is taken only where the
order of what was taken, cross-fitted too, is no worse than before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from features.schema import Bool, Float64, Int64, Texts
from serving.calibration import SMALLEST, Calibration, beta_terms, sharpen
from serving.choice import Question, Scorer
from training import metrics, shrunken
from training.bootstrap import intervals
from training.dataset import Dataset
from training.examples import Examples
from training.stable import hashes

FEWEST = 30
"""Take-ups and their absences (or choices, for a temperature) below which nothing can be said: scores stay scores."""

FOLDS = 5
MOST_PAIRS = 400_000
"""Evenly spaced rows with about so many pairs are enough: the maps have few parameters."""

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


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and how well its kind does for customers that it was not fitted on.

    numbers: log_loss, ece and worst_gap, cross-fitted; the same of the raw scores with _raw; log_loss_minus_raw with
    _low and _high, by customer. Empty where there is too little evidence.
    """

    calibration: Calibration
    numbers: Mapping[str, float] = field(default_factory=dict)


def fit_calibration(
    question: Question, scorer: Scorer, examples: Examples, customers: Texts | None = None
) -> Calibration:
    """The calibration of `calibrate` alone."""
    return calibrate(question, scorer, examples, customers).calibration


def calibrate(
    question: Question,
    scorer: Scorer,
    examples: Examples,
    customers: Texts | None = None,
    ranked: Dataset | None = None,
) -> Calibrated:
    """Calibration of `scorer` on `examples`, later in time than those it learned from. customers: [n]; None: one a row.

    Where "none of them" is an answer: maps of (probability, taken) over the available candidates of the rows that
    could choose it (of all rows where none could). Elsewhere: temperatures, which keep the sum at 1. Kind "none" where
    there is too little evidence; `Calibration.evidence` says so. ranked: rows of the same time whose order counts.
    """
    evidence = _evidence(question, scorer, examples, customers)
    if evidence.few:
        told = f"{evidence.told}: fewer than {FEWEST}"
        return Calibrated(Calibration("none", evidence=told))
    maps = TEMPERATURES if evidence.alone else MAPS
    fold = _folds(evidence.customer)
    found = {name: [_fitted(one, evidence.take(fold != part)) for part in range(FOLDS)] for name, one in maps.items()}
    said = {name: _said(found[name], evidence.raw, fold) for name in maps}
    losses = {name: evidence.losses(values) for name, values in said.items()}
    best = _chosen(losses, evidence.customer)
    if best in BY_CANDIDATE and ranked is not None and _order_suffers(found[best], question, scorer, ranked):
        best = _chosen({name: loss for name, loss in losses.items() if name not in BY_CANDIDATE}, evidence.customer)
    numbers = _numbers(evidence, said[best], losses[best], losses["identity"])
    gain = f"cross-fitted log-loss {numbers['log_loss']:.5f}, {numbers['log_loss_raw']:.5f} raw"
    return Calibrated(replace(maps[best](evidence), evidence=f"{evidence.told}; {gain}"), numbers)


def _folds(customers: Texts) -> Int64:
    """Which fold each customer is in, int64 [n]; not by the hash that parts customers into train, valid and test."""
    ids = np.char.add("fold ", customers.astype(str)).astype(object)
    return (hashes(ids) % np.uint64(FOLDS)).astype(np.int64)


def _fitted(fit: Callable[[Evidence], Calibration], evidence: Evidence) -> Calibration:
    return Calibration("identity") if evidence.few else fit(evidence)


def _said(found: Sequence[Calibration], raw: Float64, fold: Int64) -> Float64:
    """What each fold's calibration says of its own rows, float64 [n, m]."""
    said = np.full(raw.shape, np.nan)
    for part, calibration in enumerate(found):
        said[fold == part] = calibration.apply(raw[fold == part])
    return said


def _order_suffers(found: Sequence[Calibration], question: Question, scorer: Scorer, rows: Dataset) -> bool:
    """Whether what was taken stands lower than by the raw scores, for customers that each map was not fitted on."""
    raw = question.probabilities(scorer.utilities(rows.rows), rows.available)
    said = _said(found, raw, _folds(rows.customer_id))
    before, after = (metrics.ranking(values, rows.available, rows.taken) for values in (raw, said))
    return any(np.nansum(after[name] - before[name]) < 0 for name in ORDER)


def _evidence(question: Question, scorer: Scorer, examples: Examples, customers: Texts | None) -> Evidence:
    customers = np.arange(len(examples)).astype(str) if customers is None else customers
    alone = question.link == "joint" and not question.outside
    asked = np.arange(len(examples))
    if question.outside and examples.available[:, -1].any():
        asked = np.flatnonzero(examples.available[:, -1])
    asked = asked[:: max(1, int(examples.available[asked, :-1].sum()) // MOST_PAIRS)]
    examples, customers = examples.take(asked), customers[asked]
    raw = question.probabilities(scorer.utilities(examples.rows), examples.available[:, :-1])  # [n, m]
    told = (examples.weight > 0) & (np.isfinite(raw).sum(axis=1) >= (2 if alone else 1))
    taken = examples.chosen[:, :-1] > 0 if examples.taken is None else examples.taken
    weight = examples.weight.astype(np.float64)
    weight = weight / weight[told].mean() if told.any() else weight
    chosen = examples.chosen[:, :-1].astype(np.float64)
    return Evidence(raw, taken & np.isfinite(raw), chosen, weight, customers, alone).take(told)


def _chosen(losses: Mapping[str, Float64], customers: Texts) -> str:
    """From the first map on, each that beats the one chosen before it by more than the standard error."""
    codes, found = pd.factorize(customers)
    best = next(iter(losses))
    for name, loss in losses.items():
        gain = np.bincount(codes, weights=losses[best] - loss, minlength=len(found))
        error = float(np.sqrt(((gain - gain.mean()) ** 2).sum()))
        best = name if gain.sum() > max(error, 0.0) else best
    return best


def _numbers(evidence: Evidence, said: Float64, loss: Float64, raw_loss: Float64) -> dict[str, float]:
    counted = evidence.counted
    happened = evidence.taken[counted]
    numbers = {"log_loss": float(loss.mean()), "log_loss_raw": float(raw_loss.mean())}
    for suffix, values in (("", said), ("_raw", evidence.raw)):
        gaps = metrics.calibration_gaps(values[counted], happened)
        numbers |= {f"{name}{suffix}": gap for name, gap in gaps.items()}
    gap = intervals({"log_loss_minus_raw": loss - raw_loss}, evidence.customer, 0)["log_loss_minus_raw"]
    return numbers | gap.flat("log_loss_minus_raw")


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
BY_CANDIDATE = ("beta by candidate",)
"""Those that change the order of candidates, and what their order is judged by."""
ORDER = (metrics.HR_AT_3, metrics.MAP_AT_7)
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
