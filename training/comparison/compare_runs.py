"""Two finished runs of one model, side by side on rows that neither has learned from: what the report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.errors import InputError
from features.schema import Bool, Float64
from serving.question import Question
from training.bootstrap import Interval, intervals, paired
from training.comparison.metric_names import NEUTRAL
from training.comparison.pooled import pooled_differences
from training.comparison.shared_rows import SharedRows, shared_rows
from training.evaluate import Judged, judge, primary_metric
from training.finished import FinishedRun
from training.metrics import LOWER_IS_BETTER
from training.predictions import Predictions

FEWEST = 30
"""Rows below which a group is shown in grey: its interval is wide, and its bootstrap too optimistic."""
BETTER, WORSE, UNSURE, MORE, LESS = "surely better", "surely worse", "not sure", "surely more", "surely less"


@dataclass(frozen=True)
class Difference:
    """One metric of both, and the interval of challenger - champion."""

    metric: str
    challenger: float
    champion: float
    interval: Interval

    @property
    def finding(self) -> str:
        """What the interval says: better, worse, unsure; more or less where neither is better."""
        sure = (self.interval.above_zero, self.interval.below_zero)
        if self.metric in NEUTRAL:
            return MORE if sure[0] else LESS if sure[1] else UNSURE
        if self.metric in LOWER_IS_BETTER:
            sure = sure[::-1]
        return BETTER if sure[0] else WORSE if sure[1] else UNSURE


@dataclass(frozen=True)
class GroupDifference:
    """The primary metric in one group of a slice. rate: share of its judged rows in which something was taken."""

    name: str
    group: str
    rows: int
    customers: int
    rate: float
    difference: Difference

    @property
    def few(self) -> bool:
        return self.rows < FEWEST


@dataclass(frozen=True)
class CandidateGap:
    """One candidate: how often it was taken, and by how much each model expects more (+) or fewer (-) take-ups."""

    candidate: str
    pairs: int
    rate: float
    challenger: Interval
    champion: Interval


@dataclass(frozen=True)
class RunComparison:
    """Everything that the shared rows tell. differences: by metric; primary: the metric that families are chosen by."""

    challenger: FinishedRun
    champion: FinishedRun
    shared: SharedRows
    primary: str
    differences: Mapping[str, Difference]
    groups: tuple[GroupDifference, ...]
    candidates: tuple[CandidateGap, ...]

    @property
    def question(self) -> Question:
        return self.shared.challenger.question


def compare_runs(challenger: FinishedRun, champion: FinishedRun, seed: int) -> RunComparison:
    """Judge both on the rows that they share.

    Raises InputError for one run twice, runs that were asked different questions, and runs without a row that judges
    both.
    """
    if challenger.id == champion.id:
        raise InputError(f"two runs are compared, however both are {challenger.id}; name another one")
    shared = shared_rows(challenger, champion)
    judged = tuple(judge(said, shared.challenger) for said in shared.said)
    primary = primary_metric(shared.challenger)
    found = differences(judged, shared, seed)
    if primary not in found:
        raise InputError(
            f"runs are compared by {primary}, however none of the {len(shared.challenger):,} rows that both have is "
            "judged by it; train both on the same data with the same --until"
        )
    return RunComparison(
        challenger,
        champion,
        shared,
        primary,
        found,
        group_differences(judged, shared, primary, seed),
        candidate_gaps(shared, seed),
    )


def differences(judged: tuple[Judged, ...], shared: SharedRows, seed: int) -> dict[str, Difference]:
    """Every metric that is known of both: means over rows by the paired bootstrap, the others by resampling too."""
    one, other = judged
    customers = shared.challenger.customer_id
    found = pooled_differences(*shared.said, shared.challenger, seed)
    found |= paired(one.per_row, other.per_row, customers, seed)
    known = (name for name in one.values if np.isfinite([one.values[name], other.values[name]]).all())
    return {name: Difference(name, one.values[name], other.values[name], found[name]) for name in known}


def group_differences(
    judged: tuple[Judged, ...], shared: SharedRows, primary: str, seed: int
) -> tuple[GroupDifference, ...]:
    """The primary metric by group of each slice, one bootstrap for all; groups without a judged row are left out."""
    rows = shared.challenger
    both = [one.per_row[primary] for one in judged]
    gap = both[0] - both[1]
    inside = {
        (name, group): np.asarray(groups == group, np.bool_)
        for name, groups in rows.slices.items()
        for group in sorted(set(groups.tolist()), key=in_order)
    }
    found = intervals({_key(*key): np.where(here, gap, np.nan) for key, here in inside.items()}, rows.customer_id, seed)
    return tuple(
        GroupDifference(
            *key,
            rows=int((~np.isnan(gap[here])).sum()),
            customers=len(np.unique(rows.customer_id[here & ~np.isnan(gap)].astype(str))),
            rate=_rate(rows, here),
            difference=Difference(primary, _mean(both[0][here]), _mean(both[1][here]), found[_key(*key)]),
        )
        for key, here in inside.items()
        if not np.isnan(gap[here]).all()
    )


def candidate_gaps(shared: SharedRows, seed: int) -> tuple[CandidateGap, ...]:
    """Mean predicted probability - share that happened, by candidate, most usual first."""
    rows = shared.challenger
    judged = rows.available & rows.judged_for_probability[:, None]
    names = rows.question.candidates
    gaps = [
        intervals(
            {name: np.where(judged, said - rows.taken, np.nan)[:, place] for place, name in enumerate(names)},
            rows.customer_id,
            seed,
        )
        for said in shared.said
    ]
    found = [
        CandidateGap(
            name,
            int(judged[:, place].sum()),
            float(rows.taken[judged[:, place], place].mean()),
            gaps[0][name],
            gaps[1][name],
        )
        for place, name in enumerate(names)
        if judged[:, place].any()
    ]
    return tuple(sorted(found, key=lambda one: -one.rate))


def _rate(rows: Predictions, here: Bool) -> float:
    """Take-ups per row whose outcome could also be nothing; per row where that cannot be."""
    judged = here & rows.judged_for_probability
    return float(rows.taken[judged].any(axis=1).mean()) if judged.any() else float("nan")


def _mean(values: Float64) -> float:
    return float(np.nanmean(values))


def _key(name: str, group: str) -> str:
    return f"{name}\0{group}"


def in_order(group: str) -> tuple[int, float, str]:
    """Bands by their bounds, "below 30" first; words by the alphabet; what is unknown last."""
    words = group.split()
    if group == "unknown":
        return 2, 0.0, group
    try:
        number = float(words[1] if words[0] == "below" else words[0])
    except (ValueError, IndexError):
        return 1, 0.0, group
    return 0, number - (words[0] == "below") * 1e-9, group
