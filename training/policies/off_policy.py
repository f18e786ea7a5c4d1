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

from features.errors import InputError
from features.schema import Float64
from training.bootstrap import Interval
from training.policies.decision_log import DecisionLog
from training.policies.overlap import Overlap
from training.policies.policy_interval import Parts, empirical_bernstein, intervals_of

GRID = 20
"""Values of τ and λ that are tried: quantiles of the weights."""
_LOGGED = "as logged"


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
        partly = int((log.per_decision(np.isnan(log.logged).astype(np.float64)) > 0).sum())
        lacks = f"knows the probability of the taken one only, for {partly:,} of {len(log):,} decisions"
        raise InputError(
            "mips needs an action feature and the logged probability of every candidate, however the log "
            f"{'has no feature' if log.feature is None else lacks}; leave mips out, or log them"
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


def possible(log: DecisionLog) -> list[str]:
    """The estimators that this log bears."""
    without = NEEDS_MODEL if log.predicted is None else frozenset()
    shared = log.feature is not None and log.fully_logged
    return [name for name in ESTIMATORS if name not in without and (name != "mips" or shared)]


@dataclass(frozen=True)
class Evaluated:
    """One estimator's answer: reward per decision. interval: see `intervals_of`; bernstein: empirical Bernstein.

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
    parts = {name: ESTIMATORS[name](log) for name in names} if not overlap.reasons else {}
    found = intervals_of({**parts, _LOGGED: _mean(log.reward)}, log.customer_id, seed)
    own = found.pop(_LOGGED)
    bernstein = {}
    if "ips" in parts and log.fully_logged:
        bernstein["ips"] = empirical_bernstein(parts["ips"].top, log.customer_id, _largest_contribution(log))
    estimates = {name: Evaluated(interval, bernstein.get(name)) for name, interval in found.items()}
    return Evaluation(overlap, estimates, own)


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
