"""Models side by side on the same rows: metrics of each, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from features.schema import Bool, Float64, Texts
from serving.question import Question
from training import metrics
from training.bootstrap import Interval, intervals, paired
from training.breadth import breadth
from training.dataset import Dataset
from training.targeting import targeting

PRIOR = "prior"
POPULARITY = "popularity"
CONSTANT = "constant"
PREVIOUS_CHANNEL = "previous_channel"
SMOOTHING = 20.0
"""Choices that the share of all channels counts for, in the share after one channel."""


class Judgeable(Protocol):
    """Rows with their outcomes: a Dataset, or the Predictions kept with a run."""

    @property
    def question(self) -> Question: ...
    @property
    def customer_id(self) -> Texts: ...
    @property
    def available(self) -> Bool: ...
    @property
    def taken(self) -> Bool: ...
    @property
    def judged_for_ranking(self) -> Bool: ...
    @property
    def judged_for_probability(self) -> Bool: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Judged:
    """One model on one set of rows: metric → value, and metric → float64 [n] for those that are means over rows."""

    values: Mapping[str, float]
    per_row: Mapping[str, Float64]


@dataclass(frozen=True)
class Comparison:
    """Several models on the same rows. differences: other → metric → interval of (model - other)."""

    judged: Mapping[str, Judged]
    differences: Mapping[str, Mapping[str, Interval]]
    rows: int

    def flat(self, name: str, prefix: str) -> dict[str, float]:
        """What to log for one model: `prefix/hr_at_3`, and `prefix/hr_at_3_minus_popularity` with `_low`, `_high`."""
        found = {f"{prefix}/{metric}": value for metric, value in self.judged[name].values.items()}
        found[f"{prefix}/rows"] = float(self.rows)
        for other, by_metric in self.differences.items():
            for metric, interval in by_metric.items():
                found |= interval.flat(f"{prefix}/{metric}_minus_{other}")
            found |= {f"{prefix}/{other}/{metric}": value for metric, value in self.judged[other].values.items()}
        return {key: value for key, value in found.items() if np.isfinite(value)}


def judge(probabilities: Float64, data: Judgeable) -> Judged:
    """All metrics of calibrated probabilities, float64 [n, m], on a dataset."""
    taken, per_row = data.taken, by_row(probabilities, data)
    for_ranking, for_probability = data.judged_for_ranking, data.judged_for_probability
    pairs = data.available & ~np.isnan(probabilities) & for_probability[:, None]
    scores, happened = probabilities[pairs], taken[pairs]
    values = means(per_row)
    values |= {metrics.AUC: metrics.auc(scores, happened), **metrics.calibration_gaps(scores, happened)}
    shown = for_probability[:, None] & data.available
    values[metrics.AUC_BY_CANDIDATE] = metrics.auc_by_candidate(probabilities, shown, taken)
    popularity = taken.sum(axis=0) / max(int(taken.sum()), 1)
    values |= targeting(scores, happened)
    values |= breadth(probabilities[for_ranking], data.available[for_ranking], popularity)
    return Judged(values, per_row)


def by_row(probabilities: Float64, data: Judgeable) -> dict[str, Float64]:
    """The metrics that are means over rows: float64 [n] each, NaN in rows that a metric does not judge."""
    ranking = metrics.ranking(probabilities, data.available, data.taken)
    per_row = {name: np.where(data.judged_for_ranking, values, np.nan) for name, values in ranking.items()}
    alone = data.question.link == "joint" and not data.question.outside
    losses = (metrics.choice_losses if alone else metrics.pair_losses)(probabilities, data.available, data.taken)
    return per_row | {name: np.where(data.judged_for_probability, values, np.nan) for name, values in losses.items()}


def means(per_row: Mapping[str, Float64]) -> dict[str, float]:
    return {name: float(np.nanmean(row)) if not np.isnan(row).all() else np.nan for name, row in per_row.items()}


def compare(
    name: str, probabilities: Mapping[str, Float64], data: Judgeable, seed: int, against: tuple[str, ...]
) -> Comparison:
    """Judge every model in `probabilities`; differences are those of `name` to each of `against`."""
    judged = {model: judge(values, data) for model, values in probabilities.items()}
    differences = {
        other: paired(judged[name].per_row, judged[other].per_row, data.customer_id, seed)
        for other in against
        if other in judged and other != name
    }
    return Comparison(judged, differences, len(data))


@dataclass(frozen=True)
class Judgement:
    """What models said of one part of the rows, each asked once and judged once.

    families: their names; counted: what counting alone says. said: float64 [n, m] of both, by name.
    differences: (model, other) → metric → interval of (model - other): of every family to every earlier one, and to
    counting.
    """

    families: tuple[str, ...]
    counted: tuple[str, ...]
    said: Mapping[str, Float64]
    judged: Mapping[str, Judged]
    differences: Mapping[tuple[str, str], Mapping[str, Interval]]
    rows: int

    @classmethod
    def of(cls, said: Mapping[str, Float64], counting: Mapping[str, Float64], data: Judgeable, seed: int) -> Judgement:
        """said: of every family, the prior first."""
        together = {**said, **counting}
        judged = {name: judge(values, data) for name, values in together.items()}
        return cls._between(tuple(said), tuple(counting), together, judged, data, seed)

    @classmethod
    def of_rows(cls, said: Mapping[str, Float64], data: Judgeable, seed: int, only: Collection[str]) -> Judgement:
        """Judged by the metrics `only`, means over rows: quicker, and all that a ladder asks for."""
        per_row = {
            name: {metric: values for metric, values in by_row(spoken, data).items() if metric in only}
            for name, spoken in said.items()
        }
        judged = {name: Judged(means(rows), rows) for name, rows in per_row.items()}
        return cls._between(tuple(said), (), said, judged, data, seed)

    @classmethod
    def _between(
        cls,
        names: tuple[str, ...],
        counted: tuple[str, ...],
        said: Mapping[str, Float64],
        judged: Mapping[str, Judged],
        data: Judgeable,
        seed: int,
    ) -> Judgement:
        pairs = [(one, other) for place, one in enumerate(names) for other in (*names[:place], *counted)]
        both = {
            (*pair, metric): judged[pair[0]].per_row[metric] - judged[pair[1]].per_row[metric]
            for pair in pairs
            for metric in judged[pair[0]].per_row
        }
        found = intervals(both, data.customer_id, seed)  # all with the same draws, which is what takes long
        differences: dict[tuple[str, str], dict[str, Interval]] = {pair: {} for pair in pairs}
        for (one, other, metric), interval in found.items():
            differences[one, other][metric] = interval
        return cls(names, counted, said, judged, differences, len(data))

    def difference(self, one: str, other: str) -> Mapping[str, Interval]:
        """Metric → interval of (one - other)."""
        if (one, other) in self.differences:
            return self.differences[one, other]
        return {metric: interval.negated for metric, interval in self.differences[other, one].items()}

    def rows_judged(self, metric: str) -> int:
        """In how many rows a metric that is a mean over rows could be taken."""
        return int((~np.isnan(self.judged[PRIOR].per_row[metric])).sum())

    def comparison(self, name: str) -> Comparison:
        """One family beside the prior and counting."""
        others = [other for other in (PRIOR, *self.counted) if other != name]
        judged = {one: self.judged[one] for one in (name, *others)}
        return Comparison(judged, {other: self.difference(name, other) for other in others}, self.rows)


def primary_metric(data: Judgeable) -> str:
    """The metric by which families are chosen.

    HR@3 where three are few of the candidates, MAP@7 where the order of a few candidates is the question, and the
    log-loss where nothing is ranked: channels, or one product at a time.
    """
    sizes = data.available[data.judged_for_ranking].sum(axis=1)
    usual = float(sizes.mean()) if len(sizes) and data.question.block == "product" else 0.0
    if usual > 2 * 3:
        return metrics.HR_AT_3
    return metrics.MAP_AT_7 if usual > 1.5 else metrics.LOG_LOSS


def better(metric: str, one: float, other: float) -> bool:
    """Whether `one` beats `other`; a NaN never does."""
    return bool(one < other if metric in metrics.LOWER_IS_BETTER else one > other)


def clearly_better(metric: str, difference: Interval) -> bool:
    """Whether the interval of (model - other) excludes zero on the good side."""
    return difference.below_zero if metric in metrics.LOWER_IS_BETTER else difference.above_zero


def clearly_worse(metric: str, difference: Interval) -> bool:
    """Whether the interval of (model - other) excludes zero on the bad side."""
    return difference.above_zero if metric in metrics.LOWER_IS_BETTER else difference.below_zero


def baselines(learned: Dataset, asked: Dataset) -> dict[str, Float64]:
    """What counting alone says of the rows of `asked`, float64 [n, m] each, learned from `learned`.

    popularity: raw counts, masked. constant: one share for everybody. previous_channel: shares after each channel.
    """
    taken = learned.spine.taken.astype(np.float64)
    if asked.question.block == "product":
        counts = taken[learned.judged_for_ranking].sum(axis=0) + 0.5
        per_row = taken[learned.judged_for_probability].sum(axis=1).mean() if learned.spine.outside.any() else 1.0
        shares = np.minimum(per_row * counts / counts.sum(), 1.0)  # order: the raw counts; level: take-ups per row
        return {POPULARITY: np.where(asked.available, shares, np.nan)}
    if asked.question.link == "each":
        rate = (taken.sum() + 0.5) / (learned.available.sum() + 1.0)
        return {CONSTANT: np.where(asked.available, rate, np.nan)}
    taken /= np.maximum(taken.sum(axis=1, keepdims=True), 1)
    share = (taken.sum(axis=0) + 0.5) / (taken.sum() + 0.5 * taken.shape[1])  # [m]
    after = np.stack(
        [taken[learned.spine.previous == channel].sum(axis=0) for channel in range(taken.shape[1])]
    )  # [m before, m next]
    smoothed = (after + SMOOTHING * share) / (after.sum(axis=1, keepdims=True) + SMOOTHING)
    previous = asked.spine.previous
    following = np.where(previous[:, None] >= 0, smoothed[np.maximum(previous, 0)], share[None, :])
    rules = {CONSTANT: np.broadcast_to(share, following.shape), PREVIOUS_CHANNEL: following}
    return {name: np.where(asked.available, values, np.nan) for name, values in rules.items()}
