"""Metrics of choice models, the same names in every family.

Ranking metrics look at rows in which something that could be chosen was taken; each row counts once, a basket too.
All per-row metrics are float64 [n], NaN in rows that a metric does not judge: that is what intervals are drawn from.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from scipy.stats import rankdata

from features.schema import Bool, Float64
from serving.choice import ranks

Counts: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int_]]"
SMALLEST = 1e-15
"""Probabilities are kept this far from 0 and 1 before logarithms."""
BINS = 10

HR_AT_1 = "hr_at_1"
HR_AT_3 = "hr_at_3"
MAP_AT_3 = "map_at_3"
MAP_AT_7 = "map_at_7"
NDCG_AT_3 = "ndcg_at_3"
NDCG_AT_7 = "ndcg_at_7"
RECALL_AT_3 = "recall_at_3"
RECALL_AT_7 = "recall_at_7"
MRR = "mrr"
LOG_LOSS = "log_loss"
BRIER = "brier"
AUC = "auc"
AUC_BY_CANDIDATE = "auc_by_candidate"
ECE = "ece"
WORST_GAP = "worst_calibration_gap"
LOWER_IS_BETTER = frozenset({LOG_LOSS, BRIER, ECE, WORST_GAP})


def ranking(probabilities: Float64, available: Bool, taken: Bool) -> dict[str, Float64]:
    """HR@1, HR@3, MAP at 3 and 7, NDCG and recall at 3 and 7, and MRR per row.

    probabilities: [n, m]. available, taken: bool [n, m]. Ties are broken in candidate order, as they are when served.

    HR@k: is one of the taken among the first k. MAP@k: mean over the taken of the precision at their rank, up to rank
    k, divided by min(k, taken). Recall@k: share of the taken among the first k. NDCG@k: gains 1, discounts
    1 / log2(1 + rank), over the best possible (Järvelin and Kekäläinen 2002). MRR: 1 / rank of the first taken.
    """
    place = ranks(probabilities, available).astype(np.float64)  # [n, m], 0 = absent
    hit = taken & available & (place > 0)
    wanted = (taken & available).sum(axis=1)
    first = np.where(hit, place, np.inf).min(axis=1, initial=np.inf)
    judged = wanted > 0
    per_row = {
        HR_AT_1: (first <= 1).astype(np.float64),
        HR_AT_3: (first <= 3).astype(np.float64),
        MAP_AT_3: _average_precision(place, hit, wanted, 3),
        MAP_AT_7: _average_precision(place, hit, wanted, 7),
        NDCG_AT_3: _ndcg(place, hit, wanted, 3),
        NDCG_AT_7: _ndcg(place, hit, wanted, 7),
        RECALL_AT_3: (hit & (place <= 3)).sum(axis=1) / np.maximum(wanted, 1),
        RECALL_AT_7: (hit & (place <= 7)).sum(axis=1) / np.maximum(wanted, 1),
        MRR: 1 / first,
    }
    return {name: np.where(judged, values, np.nan) for name, values in per_row.items()}


def _ndcg(place: Float64, hit: Bool, wanted: Counts, k: int) -> Float64:
    """float64 [n]: discounted gain of the hits at rank <= k over that of the best order; 0 where nothing was taken."""
    best_places = np.arange(1, k + 1)[None, :] <= wanted[:, None]  # [n, k]
    ideal = (best_places / np.log2(1 + np.arange(1, k + 1))[None, :]).sum(axis=1)
    gained = np.where(hit & (place <= k), 1 / np.log2(1 + np.maximum(place, 1)), 0.0).sum(axis=1)
    return np.asarray(np.divide(gained, ideal, out=np.zeros(len(place)), where=wanted > 0))


def _average_precision(place: Float64, hit: Bool, wanted: Counts, k: int) -> Float64:
    """float64 [n]: sum over hits at rank <= k of (hits up to there / rank), over min(k, taken)."""
    total = np.zeros(len(place))
    found = np.zeros(len(place))
    for rank in range(1, k + 1):
        here = (hit & (place == rank)).any(axis=1)
        found += here
        total += np.where(here, found / rank, 0.0)
    return total / np.maximum(np.minimum(wanted, k), 1)


def choice_losses(probabilities: Float64, available: Bool, taken: Bool) -> dict[str, Float64]:
    """Log-loss and Brier score per row where exactly one candidate happens (no outside option), in nats.

    log-loss: -ln of the probability of what happened, normalised over what is available; the mean over several that
    happened at once. Brier: sum over candidates of (p - y)².
    """
    offered = np.where(available & ~np.isnan(probabilities), probabilities, 0.0)
    share = offered / np.maximum(offered.sum(axis=1, keepdims=True), SMALLEST)
    happened = (taken & available).astype(np.float64)
    happened /= np.maximum(happened.sum(axis=1, keepdims=True), 1)
    judged = happened.sum(axis=1) > 0
    loss = -(happened * np.log(np.clip(share, SMALLEST, 1))).sum(axis=1)
    brier = np.where(available, (share - happened) ** 2, 0.0).sum(axis=1)
    return {LOG_LOSS: np.where(judged, loss, np.nan), BRIER: np.where(judged, brier, np.nan)}


def pair_losses(probabilities: Float64, available: Bool, taken: Bool) -> dict[str, Float64]:
    """Log-loss and Brier score per row where each candidate happens or not: means over the row's available ones."""
    judged = available & ~np.isnan(probabilities)
    p = np.clip(np.where(judged, probabilities, 0.5), SMALLEST, 1 - SMALLEST)
    count = judged.sum(axis=1)
    loss = np.where(judged, -np.where(taken, np.log(p), np.log1p(-p)), 0.0).sum(axis=1)
    brier = np.where(judged, (p - taken) ** 2, 0.0).sum(axis=1)
    return {
        name: np.divide(values, count, out=np.full(len(p), np.nan), where=count > 0)
        for name, values in ((LOG_LOSS, loss), (BRIER, brier))
    }


def auc(scores: Float64, happened: Bool) -> float:
    """Probability that a pair that happened scores above one that did not, ties half; NaN with one class only.

    scores, happened: [k] pooled (row, candidate) pairs. Mann-Whitney U over ranks.
    """
    positives = int(happened.sum())
    negatives = len(happened) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(rankdata(scores)[happened].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def auc_of_sums(positive: Float64, negative: Float64) -> float:
    """The same from sums by tie, float64 [ties], best first: of what happened and of what did not."""
    both = positive.sum() * negative.sum()
    if not both:
        return float("nan")
    above = np.cumsum(positive) - positive / 2
    return float(negative @ above / both)


def auc_by_candidate(probabilities: Float64, available: Bool, taken: Bool) -> float:
    """Mean over candidates of the AUC within each, weighted by how often it happened.

    Unlike the pooled AUC, nothing is earned by knowing that one candidate is more usual than another.
    """
    judged = available & ~np.isnan(probabilities)
    found, weights = [], []
    for candidate in range(judged.shape[1]):
        rows = judged[:, candidate]
        value = auc(probabilities[rows, candidate], taken[rows, candidate])
        if not np.isnan(value):
            found.append(value)
            weights.append(int(taken[rows, candidate].sum()))
    return float(np.average(found, weights=weights)) if found else float("nan")


def reliability(scores: Float64, happened: Bool, bins: int = BINS) -> tuple[Float64, Float64, Float64]:
    """Mean score, share that happened and number of pairs, each float64 [b <= bins], in bins of equal mass.

    Pairs with one score stay together, as no order among them means anything.
    """
    if not len(scores):
        return np.array([]), np.array([]), np.array([])
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    borders = sorted_scores[np.arange(bins) * len(order) // bins]
    starts = np.unique(np.searchsorted(sorted_scores, borders))
    count = np.diff(np.concatenate([starts, [len(order)]])).astype(np.float64)
    mean = np.add.reduceat(sorted_scores, starts) / count
    share = np.add.reduceat(happened[order].astype(np.float64), starts) / count
    return mean, share, count


def calibration_gaps(scores: Float64, happened: Bool) -> dict[str, float]:
    """ECE (mass-weighted mean gap between score and outcome over ten bins of equal mass) and the largest gap."""
    mean, share, count = reliability(scores, happened)
    gaps = np.abs(mean - share)
    if not len(gaps):
        return {ECE: float("nan"), WORST_GAP: float("nan")}
    return {ECE: float(np.average(gaps, weights=count)), WORST_GAP: float(gaps.max())}
