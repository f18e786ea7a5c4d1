"""A log of decisions with their propensities, beside what another policy would have done: what off-policy reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.errors import InputError
from features.schema import Bool, Float64, Int64, Texts

SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DecisionLog:
    """n logged decisions; their m candidates lie one decision after the other, no contact among them.

    customer_id: [n]. reward: float64 [n]. candidates: int64 [n], how many each decision had. taken: int64 [n], position
    of the taken candidate within its decision. logged, target: float64 [m], probability of each candidate under the
    policy that decided and under the one in question; `logged` is NaN where only the taken one's is known.
    predicted: float64 [m], expected reward by a model that has not seen these rewards; None: no model.
    feature: int64 [m], class of the action, such as its channel, through which alone the reward is taken to depend on
    the action; None: none is claimed.
    """

    customer_id: Texts
    reward: Float64
    candidates: Int64
    taken: Int64
    logged: Float64
    target: Float64
    predicted: Float64 | None = None
    feature: Int64 | None = None

    def __post_init__(self) -> None:
        n, m = len(self.reward), int(self.candidates.sum())
        rules = {
            f"customer_id, candidates and taken have one entry per decision ({n})": all(
                len(part) == n for part in (self.customer_id, self.candidates, self.taken)
            ),
            f"logged, target, predicted and feature have one entry per candidate ({m})": all(
                len(part) == m for part in (self.logged, self.target, self.predicted, self.feature) if part is not None
            ),
            "there is a decision": n > 0,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if not broken:
            broken = self._wrong_values()
        if broken:
            raise InputError(f"a decision log must keep: {'; '.join(broken)}; correct the log")

    def _wrong_values(self) -> list[str]:
        known = self.logged[~np.isnan(self.logged)]
        rules = {
            "taken names one of the decision's candidates": bool(
                ((self.taken >= 0) & (self.taken < self.candidates)).all()
            ),
            "rewards are finite": bool(np.isfinite(self.reward).all()),
            "predicted rewards are finite": self.predicted is None or bool(np.isfinite(self.predicted).all()),
            "probabilities lie in 0..1": _is_probability(known) and _is_probability(self.target),
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            return broken
        logged = self.per_decision(self.logged)
        rules = {
            "the taken candidate's logged probability is known and above 0": bool((self.logged[self.chosen] > 0).all()),
            "target probabilities of a decision sum to 1": _is_one(self.per_decision(self.target)),
            "logged probabilities of a decision sum to 1 where all are known": _is_one(logged[~np.isnan(logged)]),
        }
        return [rule for rule, kept in rules.items() if not kept]

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def starts(self) -> Int64:
        """int64 [n]: where each decision's candidates begin."""
        return np.concatenate([[0], np.cumsum(self.candidates)[:-1]]).astype(np.int64)

    @cached_property
    def chosen(self) -> Int64:
        """int64 [n]: position of the taken candidate among all m."""
        return np.asarray(self.starts + self.taken, dtype=np.int64)

    @cached_property
    def decision(self) -> Int64:
        """int64 [m]: which decision each candidate belongs to."""
        return np.repeat(np.arange(len(self)), self.candidates)

    @cached_property
    def weight(self) -> Float64:
        """float64 [n]: importance weight π(a|x) / μ(a|x) of the taken candidate."""
        return np.asarray(self.target[self.chosen] / self.logged[self.chosen])

    @property
    def fully_logged(self) -> bool:
        """Whether the probabilities of all candidates are known."""
        return not np.isnan(self.logged).any()

    def per_decision(self, values: Float64) -> Float64:
        """float64 [n]: sums of [m] values over the candidates of each decision."""
        return np.asarray(np.add.reduceat(values, self.starts))

    def only(self, kept: Bool) -> DecisionLog:
        """The decisions of which `kept`, bool [n], is true; InputError where none is."""
        among = kept[self.decision]
        return DecisionLog(
            self.customer_id[kept],
            self.reward[kept],
            self.candidates[kept],
            self.taken[kept],
            self.logged[among],
            self.target[among],
            None if self.predicted is None else self.predicted[among],
            None if self.feature is None else self.feature[among],
        )


def _is_probability(values: Float64) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _is_one(sums: Float64) -> bool:
    return bool((np.abs(sums - 1.0) <= SUM_TOLERANCE).all())
