"""How metrics are called where people read them, what each says, and which belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training import breadth, metrics, targeting

NEUTRAL = frozenset({breadth.COVERAGE, breadth.GINI, breadth.NOVELTY})
"""Metrics of which neither more nor less is better in itself."""

LABELS = {
    metrics.HR_AT_1: ("HR@1", "something taken comes first"),
    metrics.HR_AT_3: ("HR@3", "something taken is among the first three"),
    metrics.MAP_AT_3: ("MAP@3", "how high up among the first three all that was taken stands"),
    metrics.MAP_AT_7: ("MAP@7", "how high up all that was taken stands"),
    metrics.NDCG_AT_3: ("NDCG@3", "gain of the first three, discounted by rank"),
    metrics.NDCG_AT_7: ("NDCG@7", "gain of the first seven, discounted by rank"),
    metrics.RECALL_AT_3: ("Recall@3", "share of what was taken among the first three"),
    metrics.RECALL_AT_7: ("Recall@7", "share of what was taken among the first seven"),
    metrics.MRR: ("MRR", "one over the rank of the first that was taken"),
    metrics.AUC: ("AUC", "a pair that happened scores above one that did not"),
    metrics.AUC_BY_CANDIDATE: ("AUC within a candidate", "the same among the pairs of one candidate"),
    targeting.PR_AUC: ("PR-AUC", "precision, averaged over what happened"),
    targeting.KS: ("KS", "largest distance of the two score distributions"),
    metrics.LOG_LOSS: ("Log-loss", "nats by which the outcome surprised; lower is better"),
    metrics.BRIER: ("Brier score", "squared error of the probabilities; lower is better"),
    metrics.ECE: ("ECE", "mean gap of probability and outcome in ten bins; lower is better"),
    metrics.WORST_GAP: ("Largest gap", "the worst of those ten bins; lower is better"),
    breadth.COVERAGE: ("Coverage", "share of the candidates that anybody is shown"),
    breadth.GINI: ("Exposure Gini", "0 = all are shown alike, 1 = always the same"),
    breadth.NOVELTY: ("Novelty", "how unpopular what is shown is, in bits"),
}
"""Metric → short name, and what it says."""


@dataclass(frozen=True)
class Family:
    """Metrics that answer one question. own_scale: they have different units, so each is drawn on its own."""

    title: str
    about: str
    names: tuple[str, ...]
    own_scale: bool = False


FAMILIES = (
    Family(
        "Ranking: is the right one on top?",
        "Of rows in which something was taken.",
        (
            *(metrics.HR_AT_1, metrics.HR_AT_3, metrics.MAP_AT_3, metrics.MAP_AT_7, metrics.NDCG_AT_3),
            *(metrics.NDCG_AT_7, metrics.RECALL_AT_3, metrics.RECALL_AT_7, metrics.MRR),
        ),
    ),
    Family(
        "Targeting: are takers told from the others?",
        "Of all pairs of customer and candidate.",
        (metrics.AUC, metrics.AUC_BY_CANDIDATE, targeting.PR_AUC, targeting.KS),
    ),
    Family(
        "Probabilities: are they right?",
        "Losses of the calibrated probabilities, and how far they are from what happened.",
        (metrics.LOG_LOSS, metrics.BRIER, metrics.ECE, metrics.WORST_GAP),
    ),
    Family(
        "Breadth: what would be shown?",
        "Of the first three of each row. Neither more nor less is better in itself.",
        (breadth.COVERAGE, breadth.GINI, breadth.NOVELTY),
        own_scale=True,
    ),
)
DECILES = tuple(f"{name}_by_decile_{decile}" for decile in targeting.DECILES for name in ("capture", "lift"))


def label(metric: str) -> str:
    """The short name; the metric's own where it has none."""
    return LABELS.get(metric, (metric.replace("_", " "), ""))[0]


def meaning(metric: str) -> str:
    return LABELS.get(metric, ("", ""))[1]


def families(present: Iterable[str]) -> tuple[Family, ...]:
    """The families that have a metric here; those that belong to none come last, under a title of their own."""
    names = list(present)
    known = {name for family in FAMILIES for name in family.names} | set(DECILES)
    other = Family("Other metrics", "", tuple(name for name in names if name not in known), own_scale=True)
    shown = (
        Family(one.title, one.about, tuple(name for name in one.names if name in names), one.own_scale)
        for one in (*FAMILIES, other)
    )
    return tuple(one for one in shown if one.names)
