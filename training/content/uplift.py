"""Uplift of a binary treatment: how much more a customer does because of it. T-, X- and DR-learner on LightGBM.

Notation: x what is known, w treated or not, y the outcome, e(x) = P(w = 1 | x), μ_w(x) = E[y | x, w].

t   τ(x) = μ_1(x) − μ_0(x), one model per arm                                        Künzel et al. 2019, sec. 2
x   τ_1 fits y − μ_0(x) among the treated, τ_0 fits μ_1(x) − y among the others;
    τ(x) = e(x)·τ_0(x) + (1 − e(x))·τ_1(x)                                           Künzel et al. 2019, sec. 2
dr  τ fits μ_1 − μ_0 + (w − e)/(e·(1 − e))·(y − μ_w), μ and e from the other half    Kennedy 2020, algorithm 1

Künzel, Sekhon, Bickel and Yu 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning"; Kennedy 2020, "Towards optimal doubly robust estimation of heterogeneous causal effects".

Propensities that a log knows are used as they are. Where it does not, they are estimated on other customers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import lightgbm
import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from features.errors import InputError
from features.schema import Bool, Float32, Float64, Int64, Texts

FOLDS = 3
ROUNDS = 60
FEWEST = 20
"""Rows of each arm that a learner needs in what it learns from."""
CLIP = 0.01
"""Propensities are kept this far from 0 and 1: beyond, one row would speak for a hundred others."""
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1,
    "num_leaves": 8,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}

Effect: TypeAlias = Callable[[Float32], Float64]
"""From rows float32 [k, C] to their uplift, float64 [k], in the unit of the outcome."""
Learner: TypeAlias = "Callable[[Trial, int], Effect]"


@dataclass(frozen=True)
class Trial:
    """n rows of a treatment and its control.

    x: float32 [n, C], NaN = missing. treated: bool [n]. outcome: float64 [n]. propensity: float64 [n], the probability
    of being treated (not of what was done); None: not known, it is estimated. customer_id: [n].
    """

    x: Float32
    treated: Bool
    outcome: Float64
    propensity: Float64 | None
    customer_id: Texts

    def __post_init__(self) -> None:
        n = len(self.x)
        lengths = [len(part) for part in (self.treated, self.outcome, self.customer_id)]
        if any(length != n for length in lengths) or (self.propensity is not None and len(self.propensity) != n):
            raise ValueError(f"all parts of a trial have {n} rows, however they have {lengths}")
        if not np.isfinite(self.outcome).all():
            raise InputError("outcomes are finite, however some are not; leave those rows out")
        known = self.propensity
        if known is not None and not ((known > 0) & (known < 1)).all():
            raise InputError(
                "propensities lie between 0 and 1, both excluded, however some do not; a row that could only be "
                "treated, or never, tells of no uplift: leave it out"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Int64 | Bool) -> Trial:
        known = None if self.propensity is None else self.propensity[index]
        return Trial(self.x[index], self.treated[index], self.outcome[index], known, self.customer_id[index])


@dataclass(frozen=True)
class Uplift:
    """What learners said of rows that they had not seen. effects: learner → float64 [n]; propensity: float64 [n]."""

    effects: Mapping[str, Float64]
    propensity: Float64


def cross_fitted(trial: Trial, names: Sequence[str], seed: int, folds: int = FOLDS) -> Uplift:
    """Each row's uplift by models of other customers. Raises InputError where an arm has too few rows to learn from."""
    unknown = [name for name in names if name not in LEARNERS]
    if unknown:
        raise InputError(f"learners are {', '.join(LEARNERS)}, however {', '.join(unknown)} was asked for")
    known = replace(trial, propensity=propensities(trial, seed, folds))
    effects = {name: np.full(len(trial), np.nan) for name in names}
    for learned, asked in parts(trial.customer_id, folds, seed):
        for name in names:
            effects[name][asked] = LEARNERS[name](known.take(learned), seed)(trial.x[asked])
    assert known.propensity is not None
    return Uplift(effects, known.propensity)


def propensities(trial: Trial, seed: int, folds: int = FOLDS) -> Float64:
    """float64 [n] in CLIP..1 − CLIP: those of the trial, else estimated for each row on other customers."""
    if trial.propensity is not None:
        return trial.propensity
    found: Float64 = np.full(len(trial), np.nan)
    for learned, asked in parts(trial.customer_id, folds, seed):
        found[asked] = _fit(trial.x[learned], trial.treated[learned].astype(np.float64), seed, "binary")(trial.x[asked])
    return np.asarray(np.clip(found, CLIP, 1.0 - CLIP))


def t_learner(trial: Trial, seed: int) -> Effect:
    """The difference of two models, one per arm."""
    treated, control = _arms(trial)
    one, none = (_fit(arm.x, arm.outcome, seed) for arm in (treated, control))
    return lambda x: one(x) - none(x)


def x_learner(trial: Trial, seed: int) -> Effect:
    """Each arm's differences from the other's model, weighed by the propensity: right where one arm is small."""
    treated, control = _arms(trial)
    one, none = (_fit(arm.x, arm.outcome, seed) for arm in (treated, control))
    of_treated = _fit(treated.x, treated.outcome - none(treated.x), seed)
    of_control = _fit(control.x, one(control.x) - control.outcome, seed)
    share = _fit(trial.x, _known(trial), seed)

    def effect(x: Float32) -> Float64:
        weight = np.clip(share(x), 0.0, 1.0)
        return np.asarray(weight * of_control(x) + (1.0 - weight) * of_treated(x))

    return effect


def dr_learner(trial: Trial, seed: int) -> Effect:
    """Doubly robust pseudo-outcomes of each half by models of the other, regressed on what is known."""
    effects = []
    for learned, asked in parts(trial.customer_id, 2, seed):
        treated, control = _arms(trial.take(learned))
        half = trial.take(asked)
        mean_one, mean_none = (_fit(arm.x, arm.outcome, seed)(half.x) for arm in (treated, control))
        share = _known(half)
        seen = np.where(half.treated, mean_one, mean_none)
        correction = (half.treated - share) / (share * (1.0 - share)) * (half.outcome - seen)
        effects.append(_fit(half.x, mean_one - mean_none + correction, seed))
    return lambda x: np.asarray(np.mean([effect(x) for effect in effects], axis=0))


LEARNERS: Mapping[str, Learner] = {"t": t_learner, "x": x_learner, "dr": dr_learner}


def parts(customer_id: Texts, folds: int, seed: int) -> Iterator[tuple[Int64, Int64]]:
    """(learned, asked) positions of each fold; no customer is on both sides. InputError with too few customers."""
    groups, customers = pd.factorize(customer_id)
    if len(customers) < folds:
        raise InputError(
            f"cross-fitting needs at least {folds} customers, however there are {len(customers)}; bring more"
        )
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for learned, asked in splitter.split(groups, groups=groups):
        yield np.asarray(learned, dtype=np.int64), np.asarray(asked, dtype=np.int64)


def _arms(trial: Trial) -> tuple[Trial, Trial]:
    treated, control = trial.take(trial.treated), trial.take(~trial.treated)
    if min(len(treated), len(control)) < FEWEST:
        raise InputError(
            f"uplift needs at least {FEWEST} rows of each arm to learn from, however there are {len(treated)} treated "
            f"and {len(control)} others; bring a longer log"
        )
    return treated, control


def _known(trial: Trial) -> Float64:
    if trial.propensity is None:
        raise ValueError("a learner is given propensities; estimate them with `propensities` first")
    return trial.propensity


def _fit(x: Float32, y: Float64, seed: int, objective: str = "regression") -> Effect:
    """Boosted trees of the mean of y; one leaf where there are too few rows for a split."""
    settings = {
        **SETTINGS,
        "objective": objective,
        "min_data_in_leaf": int(np.clip(len(y) // 50, 5, 1000)),
        "seed": seed,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y, free_raw_data=True), num_boost_round=ROUNDS)
    threads = int(SETTINGS["num_threads"])
    return lambda rows: np.asarray(booster.predict(rows, num_threads=threads), dtype=np.float64)
