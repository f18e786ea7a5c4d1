"""What a policy over contents is worth on a log by lot, against which others, and whether that may be claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from features.schema import Bool, Float64, Int64, Texts
from serving.content_model import Arms, best_first
from training.bootstrap import Interval, intervals
from training.content.content_log import ContentLog
from training.policies.overlap import FEWEST_EFFECTIVE

CONSTANT, PERSONAL, SILENT_POLICY = "constant", "personal", "no_contact"
MASS = (0.75, 1.33)
"""Between which the mean weight of a policy's own decisions must lie; it is 1 where the log supports all of them."""
FEW_ARMS = 8
"""Tried arms up to which every single one is a rival."""


def doubly_robust(log: ContentLog, rewards: Float64, weight: Float64, chosen: Int64) -> Float64:
    """Doubly robust scores, float64 [n], whose mean is the value of taking `chosen`; rewards: q, float64 [n, K + 1]."""
    row = np.arange(len(log))
    expected, seen = rewards[row, chosen], rewards[row, log.arm]
    matched = weight * (log.arm == chosen)
    total = float(matched.sum())
    if total == 0:
        return np.asarray(expected)
    return np.asarray(expected + len(log) / total * matched * (log.reward - seen))


def support(log: ContentLog, weight: Float64, chosen: Int64) -> tuple[float, float]:
    """Effective number, (Σw)² / Σw², and mean weight of the logged decisions that did what is chosen."""
    matched = weight * (log.arm == chosen)
    squares = float((matched**2).sum())
    return (float(matched.sum()) ** 2 / squares if squares else 0.0), float(matched.mean())


def verdict(extra: Interval, usual: Interval, size: float, mass: float, rounds: int, unit: str) -> tuple[bool, str]:
    """Whether to deviate from the constant policy, and why."""
    told = f"{extra.mean:+.4g} [{extra.low:+.4g}, {extra.high:+.4g}] {unit} per decision on {usual.mean:.4g}"
    if rounds == 0:
        return False, "no tree foretells take-ups better than the rates of the contents: everybody gets the same order"
    if size < FEWEST_EFFECTIVE:
        return False, (
            f"withheld: the log did what the personal policy would do as often as {size:.0f} decisions; at least "
            f"{FEWEST_EFFECTIVE:.0f} are needed"
        )
    if not MASS[0] <= mass <= MASS[1]:
        return False, (
            f"withheld: the mean weight of what the personal policy would do is {mass:.2f}, not 1; the log never tries "
            "much of it, or its propensities are not those with which was decided"
        )
    if not extra.above_zero:
        return False, f"the personal policy is not surely better than the best constant one: {told}"
    return True, f"the personal policy is surely better than the best constant one: {told}"


def rivals(leading: Sequence[Float64], available: Bool, arms: Arms) -> dict[str, Int64]:
    """Constant policies that may be the best: name → int64 [n], the arm that each customer gets.

    leading: values of all arms, float64 [K + 1], as different parts of the log tell them. available: bool [n, K + 1].
    """
    names = (*arms.contents, SILENT_POLICY)
    tops = {names[int(np.argmax(np.where(arms.tried, values, -np.inf)))] for values in leading}
    if arms.tried.sum() <= FEW_ARMS:
        tops |= {name for name, tried in zip(names, arms.tried, strict=True) if tried}
    found = {}
    for top in sorted(tops - {SILENT_POLICY}):
        values = arms.value.copy()
        values[names.index(top)] = np.inf
        found[f"{top} first"] = best_first(values, available)
    return found


def least_sure_first(extra: Mapping[str, Float64], customer_id: Texts, seed: int) -> dict[str, Interval]:
    """Intervals of each difference, float64 [n], the one with the lowest lower bound first."""
    return dict(sorted(intervals(extra, customer_id, seed).items(), key=lambda item: item[1].low))
