"""A policy learned from a randomised log: which content for whom, or none, and whether it surely earns more.

constant   everybody gets the first that may be sent to them of one order of all arms, by what each earns on average
personal   everybody gets what trees expect to earn the most with them

Both are learned on some customers and judged on others, fold by fold, by the doubly robust value

    V(π) = mean of q(x, π(x)) + n / (Σ w·1{a = π(x)}) · w·1{a = π(x)}·(r − q(x, a))        Dudík, Langford and Li 2011

with q by the trees of the other folds and w of `content_arms`; the correction is self-normalised. The personal policy
deviates from the constant one only for customers who are expected to earn a margin more by it, the margin whose lower
bound was best on the other folds.

Which constant policy is the best is not known either, so the personal one has to be surely better than each that may
be it: the best of every fold and of all rows, no contact, and where there are few arms every single one, as far as the
log did it often enough. It is taken only where all intervals of V(personal) − V(constant), by customer, lie above zero
(an intersection-union test: Berger 1982), and where the log did what it would do often enough for the intervals to be
believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.catalog import Catalog
from features.progress import SILENT, Progress
from features.schema import Bool, Float64, Int64, Rows
from serving.content_model import ContentModel, best_first, gain
from training.bootstrap import Interval, intervals
from training.content.content_arms import arms_of, weights
from training.content.content_log import ContentLog
from training.content.content_value import (
    CONSTANT,
    PERSONAL,
    SILENT_POLICY,
    doubly_robust,
    least_sure_first,
    rivals,
    support,
    verdict,
)
from training.content.fit_content import boost, rounds_of
from training.content.uplift import parts
from training.policies.overlap import FEWEST_EFFECTIVE

FOLDS = 4
DEVIATE = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Shares of the customers, those with the largest expected gain, for whom a margin lets the policy deviate."""
SURE = 1.0
"""Standard errors below its mean at which the gain of a margin is looked at when one is chosen."""


@dataclass(frozen=True)
class Learned:
    """What came of it. model: to be registered. values: policy → doubly robust value per decision, on other customers.

    gains: rival → what the personal policy is worth more than it; the least sure first, which is `gain`. chances: out
    of fold, float64 [n, K + 1] of `personal` and `constant`; rewards: of `personal`. weight: float64 [n]. chosen:
    policy → int64 [n], the arm that it takes. size, mass: effective number and mean weight of the decisions that did
    what the personal policy does.
    """

    model: ContentModel
    reason: str
    rounds: int
    values: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    chances: Mapping[str, Float64]
    rewards: Float64
    weight: Float64
    chosen: Mapping[str, Int64]
    size: float
    mass: float

    @property
    def personal(self) -> bool:
        return self.model.booster is not None

    @property
    def rival(self) -> str:
        """The constant policy that the personal one is least surely better than: what counts as the best constant."""
        return next(iter(self.gains))

    @property
    def gain(self) -> Interval:
        """What the personal policy is worth more than its rival."""
        return self.gains[self.rival]


def learn(
    log: ContentLog, rows: Rows, available: Bool, catalog: Catalog, seed: int, progress: Progress = SILENT
) -> Learned:
    """Learn and judge both policies and make the model of the better one on all rows. available: bool [n, K + 1]."""
    n, count = available.shape
    with progress.step("weigh the log"):
        weight = weights(log, rows, seed)
        everything = arms_of(log, weight, catalog)
    with progress.step("choose how long to boost"):
        rounds = rounds_of(log, rows, weight, catalog, seed)
    chances = {PERSONAL: np.zeros((n, count)), CONSTANT: np.zeros((n, count))}
    rewards = np.zeros((n, count))
    chosen = {name: np.full(n, count - 1) for name in (CONSTANT, PERSONAL, SILENT_POLICY)}
    tried = available & everything.tried
    gains_of = np.zeros(n)
    leading: list[Float64] = []
    with progress.step("learn and judge", FOLDS) as advance:
        for learned, asked in parts(log.customer_id, FOLDS, seed):
            arms = arms_of(log.take(learned), weight[learned], catalog)
            booster = boost(log.take(learned), rows.take(learned), arms, rounds, seed)
            may, part = tried[asked] & arms.tried, rows.take(asked)
            model = ContentModel(arms, rows.schema, booster, threads=2)
            ask = may.copy()
            ask[np.arange(len(asked)), log.arm[asked]] = True  # q of what was done, whatever may be done now
            chances[PERSONAL][asked] = model.chances(part, ask)
            chances[CONSTANT][asked] = arms.rate
            rewards[asked] = chances[PERSONAL][asked] * arms.worth - arms.cost
            leading.append(arms.value)
            chosen[CONSTANT][asked] = best_first(arms.value, may)
            chosen[PERSONAL][asked] = best_first(rewards[asked], may)
            gains_of[asked] = gain(rewards[asked], arms.value, may)
            advance(1)
    margin = cautious(log, rewards, weight, chosen, gains_of, seed)
    leading.append(everything.value)
    against = chosen | {
        name: arm
        for name, arm in rivals(leading, tried, everything).items()
        if support(log, weight, arm)[0] >= FEWEST_EFFECTIVE  # of others the log cannot say what they are worth
    }
    scores = {name: doubly_robust(log, rewards, weight, arm) for name, arm in against.items()}
    values = intervals(scores, log.customer_id, seed)
    gains = least_sure_first({name: scores[PERSONAL] - one for name, one in scores.items() if name != PERSONAL},
                             log.customer_id, seed)  # fmt: skip
    size, mass = support(log, weight, chosen[PERSONAL])
    rival = next(iter(gains))
    deviates, reason = verdict(gains[rival], values[rival], size, mass, rounds, log.unit)
    model = ContentModel(everything, rows.schema)
    if deviates:
        with progress.step("fit again on all rows"):
            model = ContentModel(everything, rows.schema, boost(log, rows, everything, rounds, seed), margin)
    return Learned(model, reason, rounds, values, gains, chances, rewards, weight, chosen, size, mass)


def cautious(
    log: ContentLog, rewards: Float64, weight: Float64, chosen: dict[str, Int64], gains: Float64, seed: int
) -> float:
    """Keep the personal choice, in place, only where the expected gain exceeds a margin; the margin for all rows.

    gains: float64 [n], expected. Each fold takes the margin that did best on the other folds.
    """
    margins = np.append(0.0, np.quantile(gains, 1.0 - np.array(DEVIATE[1:])))
    choices = [np.where(gains > one, chosen[PERSONAL], chosen[CONSTANT]) for one in margins]
    usual = doubly_robust(log, rewards, weight, chosen[CONSTANT])
    extra = np.stack(
        [doubly_robust(log, rewards, weight, choice) - usual for choice in choices], axis=1
    )  # [n, margins]

    def best(index: Int64) -> int:
        mean, error = extra[index].mean(axis=0), extra[index].std(axis=0) / len(index) ** 0.5
        return int(np.argmax(mean - SURE * error))

    for others, asked in parts(log.customer_id, FOLDS, seed):
        chosen[PERSONAL][asked] = choices[best(others)][asked]
    return float(margins[best(np.arange(len(log)))])
