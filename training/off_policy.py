"""What a policy would have earned, from the log of another one: estimators, their intervals, one table.

Notation: x the situation, a the action taken with probability μ(a|x), r the reward, π the policy in question,
w = π(a|x) / μ(a|x), q(x, a) a model of the reward, V(x) = Σ_a π(a|x) q(x, a).

ips        mean of w·r                                             Horvitz and Thompson 1952
snips      Σ w·r / Σ w                                             Swaminathan and Joachims 2015
dm         mean of V(x)                                            the model alone
dr         mean of V(x) + w·(r − q(x, a))                          Dudík, Langford and Li 2011
switch-dr  as dr, with the correction only where w <= τ            Wang, Agarwal and Dudík 2017
dros       as dr, with w replaced by λ·w / (w² + λ)                Su, Dimakopoulou, Krishnamurthy and Dudík 2020
mips       mean of w(x, e)·r, w(x, e) = π(e|x) / μ(e|x), e the     Saito and Joachims 2022
           action's feature

τ and λ are chosen from the data: least sum of estimated variance and squared estimated bias (Su et al. 2020, sec. 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.errors import InputError
from features.schema import Float64, Texts
from training.bootstrap import LEVEL, RESAMPLES, Interval
from training.decision_log import DecisionLog
from training.overlap import Overlap

GRID = 20
"""Values of τ and λ that are tried: quantiles of the weights."""


@dataclass(frozen=True)
class Parts:
    """An estimate as a ratio of sums over decisions: value = Σ top / Σ bottom; float64 [n] each."""

    top: Float64
    bottom: Float64

    @property
    def value(self) -> float:
        return float(self.top.sum() / self.bottom.sum())


Estimator = Callable[[DecisionLog], Parts]


def ips(log: DecisionLog) -> Parts:
    return _mean(log.weight * log.reward)


def snips(log: DecisionLog) -> Parts:
    return Parts(log.weight * log.reward, log.weight)


def dm(log: DecisionLog) -> Parts:
    return _mean(_expected(log))


def dr(log: DecisionLog) -> Parts:
    return _mean(_expected(log) + log.weight * _residual(log))


def switch_dr(log: DecisionLog) -> Parts:
    return _tuned(log, lambda limit: np.where(log.weight <= limit, log.weight, 0.0), np.unique)


def dros(log: DecisionLog) -> Parts:
    return _tuned(log, lambda shrink: shrink * log.weight / (log.weight**2 + shrink), np.square)


def mips(log: DecisionLog) -> Parts:
    if log.feature is None or not log.fully_logged:
        raise InputError(
            "mips needs an action feature and the logged probability of every candidate, however the log "
            f"{'has no feature' if log.feature is None else 'knows the probability of the taken one only'}; "
            "leave mips out, or log them"
        )
    same = log.feature == log.feature[log.chosen][log.decision]  # [m] candidates that share the taken one's feature
    shared = [log.per_decision(np.where(same, policy, 0.0)) for policy in (log.target, log.logged)]
    return _mean(shared[0] / shared[1] * log.reward)


ESTIMATORS: Mapping[str, Estimator] = {
    "ips": ips,
    "snips": snips,
    "dm": dm,
    "dr": dr,
    "switch-dr": switch_dr,
    "dros": dros,
    "mips": mips,
}
NEEDS_MODEL = frozenset({"dm", "dr", "switch-dr", "dros"})


@dataclass(frozen=True)
class Evaluated:
    """One estimator's answer: reward per decision. interval: bootstrap by customer; bernstein: empirical Bernstein.

    `bernstein` is None for ratios and wherever the largest possible contribution is not known.
    """

    interval: Interval
    bernstein: tuple[float, float] | None


@dataclass(frozen=True)
class Evaluation:
    """estimates is empty, with the reasons in overlap.reasons, where the log does not bear them."""

    overlap: Overlap
    estimates: Mapping[str, Evaluated]
    logged_value: Interval


def evaluate(log: DecisionLog, names: Sequence[str], seed: int) -> Evaluation:
    """All named estimators on one log, or none of them where overlap fails. InputError for an impossible estimator."""
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown:
        raise InputError(f"estimators are {', '.join(ESTIMATORS)}, however {', '.join(unknown)} was asked for")
    overlap = Overlap.of(log)
    own = _interval(_mean(log.reward), log.customer_id, seed)
    if overlap.reasons:
        return Evaluation(overlap, {}, own)
    estimates = {}
    for name in names:
        parts = ESTIMATORS[name](log)
        bound = _largest_contribution(log) if name == "ips" and log.fully_logged else None
        bernstein = None if bound is None else empirical_bernstein(parts.top, log.customer_id, bound)
        estimates[name] = Evaluated(_interval(parts, log.customer_id, seed), bernstein)
    return Evaluation(overlap, estimates, own)


def empirical_bernstein(values: Float64, customer_id: Texts, bound: float) -> tuple[float, float]:
    """Interval for a mean, right for any sample size (Maurer and Pontil 2009, theorem 4, both sides).

    values: float64 [n] in -bound..bound. Customers are the independent units: a customer's values count as their sum.
    """
    codes, customers = pd.factorize(customer_id)
    count = len(customers)
    if count < 2:
        return -bound, bound
    per_customer = np.bincount(codes, weights=values) * count / len(values)  # [c], their mean is that of the values
    reach = 2.0 * bound * np.bincount(codes).max() * count / len(values)
    doubt = np.log(2.0 / ((1.0 - LEVEL) / 2.0))
    half = np.sqrt(2.0 * per_customer.var(ddof=1) * doubt / count) + 7.0 * reach * doubt / (3.0 * (count - 1))
    mean = float(per_customer.mean())
    return max(mean - half, -bound), min(mean + half, bound)


def _mean(values: Float64) -> Parts:
    return Parts(values, np.ones(len(values)))


def _expected(log: DecisionLog) -> Float64:
    """V(x), float64 [n]."""
    return log.per_decision(log.target * _model(log))


def _residual(log: DecisionLog) -> Float64:
    """r − q(x, a), float64 [n]."""
    return np.asarray(log.reward - _model(log)[log.chosen])


def _model(log: DecisionLog) -> Float64:
    if log.predicted is None:
        raise InputError(
            f"{', '.join(sorted(NEEDS_MODEL))} need a model of the reward, however the log has no predicted rewards; "
            "give it some, or ask for ips, snips or mips"
        )
    return log.predicted


def _tuned(log: DecisionLog, shrunk: Callable[[float], Float64], scale: Callable[[Float64], Float64]) -> Parts:
    """DR with shrunk weights, by the parameter of least estimated variance + bias²."""
    expected, residual, n = _expected(log), _residual(log), len(log)
    quantiles = np.quantile(log.weight[log.weight > 0], np.linspace(0.05, 1.0, GRID))
    best: tuple[float, Float64] | None = None
    for parameter in np.unique(scale(quantiles)):
        weight = shrunk(float(parameter))
        values = expected + weight * residual
        bias = float(np.mean((log.weight - weight) * residual))
        error = float(values.var(ddof=1)) / n + bias**2
        if best is None or error < best[0]:
            best = error, values
    return _mean(best[1] if best else expected)


def _largest_contribution(log: DecisionLog) -> float:
    """No decision could have contributed more to IPS than this: the largest weight of any candidate, times reward."""
    tried = log.logged > 0
    return float((log.target[tried] / log.logged[tried]).max() * np.abs(log.reward).max())


def _interval(parts: Parts, customer_id: Texts, seed: int) -> Interval:
    """Percentile bootstrap of a ratio of sums; customers are drawn, with Poisson(1) weights."""
    codes, customers = pd.factorize(customer_id)
    top = np.bincount(codes, weights=parts.top, minlength=len(customers))
    bottom = np.bincount(codes, weights=parts.bottom, minlength=len(customers))
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        weight = generator.poisson(1.0, len(customers))
        below = float(weight @ bottom)
        if below:
            drawn.append(float(weight @ top) / below)
    if not drawn:
        return Interval(parts.value, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(parts.value, float(low), float(high))
