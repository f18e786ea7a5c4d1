"""Metrics that are no mean over rows, under weights of customers: how sure is a difference of two AUCs, or of two ECEs?

A resample of the bootstrap gives every customer a weight (training/bootstrap.py). For whole weights each value here is,
exactly, what `judge` says of rows repeated so often; scores are sorted once, so a resample costs a few cumulated sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.schema import Bool, Float64, Int64
from serving.choice import ranks
from training import breadth, metrics, targeting
from training.bootstrap import Interval, percentile, weights
from training.evaluate import Judgeable

RESAMPLES = 400
"""Fewer than for means, as each costs milliseconds: the bounds of a 95 % interval move by a few hundredths of it."""


@dataclass(frozen=True)
class Sorted:
    """Pairs of customer and candidate, best first. row: int64 [k], happened: bool [k], starts: int64 [ties]."""

    row: Int64
    scores: Float64
    happened: Bool
    starts: Int64

    @classmethod
    def of(cls, probabilities: Float64, taken: Bool, judged: Bool) -> Sorted:
        """The judged pairs of [n, m]."""
        rows, columns = np.nonzero(judged)
        scores = probabilities[rows, columns]
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        starts = np.flatnonzero(np.diff(scores, prepend=np.nan) != 0)
        return cls(rows[order].astype(np.int64), scores, taken[rows, columns][order], starts.astype(np.int64))

    def sums(self, weights: Float64) -> tuple[Float64, Float64, Float64]:
        """Weight of each pair [k], and of what happened and what did not within each tie [ties]."""
        weight = weights[self.row]
        happened = np.where(self.happened, weight, 0.0)
        if not len(self.starts):
            return weight, np.array([]), np.array([])
        total = np.add.reduceat(weight, self.starts)
        positive = np.add.reduceat(happened, self.starts)
        return weight, positive, total - positive


@dataclass(frozen=True)
class Pooled:
    """One model on n rows, ready to be judged under many weights of the rows."""

    pairs: Sorted
    by_candidate: tuple[Sorted, ...]
    available: Bool
    shown: Bool
    taken: Bool
    for_ranking: Bool

    @classmethod
    def of(cls, probabilities: Float64, data: Judgeable) -> Pooled:
        judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
        place = ranks(probabilities, data.available)
        columns = np.arange(judged.shape[1])
        return cls(
            Sorted.of(probabilities, data.taken, judged),
            tuple(Sorted.of(probabilities, data.taken, judged & (columns == one)) for one in columns),
            data.available,
            (place >= 1) & (place <= breadth.SHOWN),
            data.taken,
            data.judged_for_ranking,
        )

    def values(self, weights: Float64) -> dict[str, float]:
        """Metric → value, named as `judge` does. weights: float64 [n], whole numbers, how often each row counts."""
        weight, positive, negative = self.pairs.sums(weights)
        found = {
            metrics.AUC: metrics.auc_of_sums(positive, negative),
            metrics.AUC_BY_CANDIDATE: self._auc_by_candidate(weights),
        }
        found |= _targeting(positive, negative)
        found |= _gaps(self.pairs, weight)
        return found | self._breadth(weights)

    def _auc_by_candidate(self, weights: Float64) -> float:
        sums = [one.sums(weights)[1:] for one in self.by_candidate]
        found = [(metrics.auc_of_sums(positive, negative), positive.sum()) for positive, negative in sums]
        known = [(value, weight) for value, weight in found if not np.isnan(value)]
        weighed = sum(weight for _, weight in known)
        return float(sum(value * weight for value, weight in known) / weighed) if known else float("nan")

    def _breadth(self, weights: Float64) -> dict[str, float]:
        """As `training.breadth`, of the rows whose ranking is judged."""
        ranked = np.where(self.for_ranking, weights, 0.0)
        exposure, offered, taken = ranked @ self.shown, ranked @ self.available, weights @ self.taken
        names = (breadth.COVERAGE, breadth.GINI, breadth.NOVELTY)
        if not exposure.any():
            return dict.fromkeys(names, float("nan"))
        popularity = taken / max(taken.sum(), 1)
        surprise = -np.log2(np.maximum(popularity, 1 / (2 * ranked.sum())))
        anywhere = exposure[offered > 0]
        told = float((anywhere > 0).mean()), breadth.gini(anywhere), float(exposure @ surprise / exposure.sum())
        return dict(zip(names, told, strict=True))


def pooled_differences(
    challenger: Float64, champion: Float64, data: Judgeable, seed: int, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Intervals of challenger - champion for every metric of `Pooled.values`, customers drawn as in the bootstrap.

    challenger, champion: float64 [n, m], calibrated. The mean is the difference on the rows themselves.
    """
    both = Pooled.of(challenger, data), Pooled.of(champion, data)
    codes, customers = pd.factorize(data.customer_id)
    plain = _minus(*(one.values(np.ones(len(data))) for one in both))
    drawn = [
        _minus(*(one.values(weight[codes]) for one in both))
        for block in weights(len(customers), seed, resamples)
        for weight in block
    ]
    return {name: percentile(np.array([mean, *(one[name] for one in drawn)])) for name, mean in plain.items()}


def _minus(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one[name] - other[name] for name in one}


def _targeting(positive: Float64, negative: Float64) -> dict[str, float]:
    """Captures and lifts by decile, PR-AUC and KS from sums [ties], best first: as `training.targeting`."""
    found, missed = np.cumsum(positive), np.cumsum(negative)
    happened, not_happened = positive.sum(), negative.sum()
    everything = happened + not_happened
    captured = np.full(11, np.nan)
    if happened:
        reached = np.concatenate([[0.0], (found + missed) / everything])
        share = np.concatenate([[0.0], found / happened])
        captured = np.interp(np.arange(11) / 10, reached, share)
        captured[0] = 0.0
    values = {f"capture_by_decile_{decile}": float(captured[decile]) for decile in targeting.DECILES}
    lifts = 10 * np.diff(captured)
    values |= {f"lift_by_decile_{decile}": float(lifts[decile - 1]) for decile in targeting.DECILES}
    if not happened or not not_happened:
        return values | {targeting.PR_AUC: float("nan"), targeting.KS: float("nan")}
    precision = np.divide(found, found + missed, out=np.zeros(len(found)), where=found + missed > 0)
    values[targeting.PR_AUC] = float(positive @ precision / happened)
    values[targeting.KS] = float(np.abs(found / happened - missed / not_happened).max())
    return values


def _gaps(pairs: Sorted, weight: Float64) -> dict[str, float]:
    """ECE and the largest gap in bins of equal mass: as `metrics.calibration_gaps` of pairs repeated `weight` times."""
    counted = weight[::-1]  # lowest score first, as the bins are made
    inside = np.cumsum(counted)
    if not len(inside) or not inside[-1]:
        return {metrics.ECE: float("nan"), metrics.WORST_GAP: float("nan")}
    positions = np.arange(metrics.BINS) * int(inside[-1]) // metrics.BINS
    scores = pairs.scores[::-1]
    borders = scores[np.searchsorted(inside, positions, side="right")]
    starts = np.unique(np.searchsorted(scores, borders))
    count = np.add.reduceat(counted, starts)
    gap = np.add.reduceat(counted * (scores - pairs.happened[::-1]), starts)
    gaps = np.abs(np.divide(gap, count, out=np.zeros(len(gap)), where=count > 0))
    return {metrics.ECE: float(np.average(gaps, weights=count)), metrics.WORST_GAP: float(gaps.max())}
