"""What every champion has to be, whatever it replaces."""

from __future__ import annotations

import numpy as np

from features.schema import Float64
from training.bootstrap import Interval, paired
from training.evaluate import PRIOR, clearly_worse, judge, primary_metric
from training.predictions import Predictions
from training.promotion import calibrated
from training.promotion.candidate import CONSTANT_VALUE, Candidate
from training.promotion.leak import CARRIES, TELLS
from training.promotion.verdict import Check, check, not_counted

SHOWN = ".3g"
"""How intervals are told."""
OFF_BY = 1.5
"""Take-ups predicted over seen must not surely lie further than this factor from 1: overall and in a group."""
OFF_BY_IN_A_BIN = 2.0
"""The same within a tenth of the probabilities."""
LATENCY_MS = 20.0
"""Budget for one customer with all candidates. Every customer is the same work, so it is the median that tells of the
model; what the slowest of a hundred took tells of what else the machine did."""


def absolute(one: Candidate, seed: int) -> tuple[Check, ...]:
    """Every absolute check of one candidate."""
    if one.predictions is None:
        return (artefact(one), *better_than_constant(one), latency(one))
    data, name = one.predictions, one.name
    return (
        artefact(one),
        *sound(one),
        *calibration(data, name, seed),
        not_worse_than_prior(data, name, seed),
        latency(one),
    )


def sound(one: Candidate) -> tuple[Check, ...]:
    """What also has to hold of a champion, for others to be measured by it."""
    if one.predictions is None:
        return ()
    data, said = one.predictions, one.predictions.probabilities[one.name]
    return probabilities(data, said), rules(data, said), leak(one)


def artefact(one: Candidate) -> Check:
    """The model is whole and answers the question that it was judged on."""
    wrong = one.damage is not None
    return check("artefact", not wrong, float(wrong), 0, one.damage or "the files of the model are whole")


def probabilities(data: Predictions, said: Float64) -> Check:
    """Every candidate that may be chosen has a probability, and it is one."""
    asked = said[data.available]
    wrong = int((~(np.isfinite(asked) & (asked >= 0) & (asked <= 1))).sum())
    return check("probabilities", wrong == 0, wrong, 0, f"{wrong:,} of {len(asked):,} are no numbers from 0 to 1")


def rules(data: Predictions, said: Float64) -> Check:
    """Nothing is ranked that the customer holds or may not be offered."""
    broken = int((~np.isnan(said) & ~data.available).sum())
    return check("rules", broken == 0, broken, 0, f"{broken:,} held or ineligible candidates are ranked")


def calibration(data: Predictions, name: str, seed: int) -> list[Check]:
    """In the large, in the worst tenth of the probabilities and in the worst group.

    Where times have changed every model is off, the prior too: refused is only who surely is further off than it.
    """
    names = [name, PRIOR] if PRIOR in data.probabilities and name != PRIOR else [name]
    found = calibrated.levels(data, names, seed)
    return [
        _worst("calibration", found, names, found.overall, OFF_BY),
        _worst("calibration in bins", found, names, found.bins, OFF_BY_IN_A_BIN),
        _worst("calibration in groups", found, names, found.groups, OFF_BY),
    ]


def _worst(title: str, found: calibrated.Levels, names: list[str], places: list[int], allowed: float) -> Check:
    name = names[0]
    told = [place for place in places if not np.isnan(found.interval(name, place).mean)]
    if not told:
        return not_counted(title, "there are too few take-ups to tell")

    def weight(place: int) -> tuple[bool, float, float]:
        ratio = found.interval(name, place)
        surely = surely_beyond(ratio)
        return surely > np.log(allowed) and not excused(place), surely, abs(float(np.log(max(ratio.mean, 1e-9))))

    def excused(place: int) -> bool:
        beside = found.overall[0] if place in found.bins else place
        return names[1:] == [PRIOR] and not found.excess(name, place, PRIOR, beside).low > 1

    worst = max(told, key=weight)
    ratio, bad = found.interval(name, worst), weight(worst)[0]
    many = f", the worst of {len(told)}" if len(told) > 1 else ""
    reason = (
        f"{found.what(worst)} {ratio.told(SHOWN)}{many}; allowed is surely no further than 1/{allowed:g} to {allowed:g}"
    )
    if surely_beyond(ratio) > np.log(allowed) and not bad:
        reason += "; the prior is as far off, so the times have changed, not the model"
    return check(title, not bad, ratio.mean, allowed, reason)


def surely_beyond(ratio: Interval) -> float:
    """How far from 1 a ratio surely is, in logs: 0 where its interval holds 1."""
    if np.isnan(ratio.mean):
        return 0.0
    with np.errstate(divide="ignore"):
        return float(max(np.log(ratio.low), -np.log(ratio.high), 0.0))


def not_worse_than_prior(data: Predictions, name: str, seed: int) -> Check:
    """The primary metric, beside how often each candidate is chosen anyway."""
    title = "not worse than the prior"
    if name == PRIOR or PRIOR not in data.probabilities:
        return not_counted(title, "it is the prior" if name == PRIOR else "the run keeps no prior")
    metric = primary_metric(data)
    mine, prior = (judge(data.probabilities[one], data).per_row[metric] for one in (name, PRIOR))
    gap = paired({metric: mine}, {metric: prior}, data.customer_id, seed)[metric]
    return check(
        title, not clearly_worse(metric, gap), gap.mean, 0.0, f"{metric} minus that of the prior is {gap.told(SHOWN)}"
    )


def better_than_constant(one: Candidate) -> tuple[Check, ...]:
    """A policy that deviates from the best constant one is surely worth more; nothing for one that does not."""
    key = "test/dr_value_minus_best_constant"
    gap = Interval.logged(one.metrics, key)
    if one.policy_value == CONSTANT_VALUE or gap is None:
        return ()
    reason = f"{gap.told(SHOWN)} more per decision than the best constant one"
    return (check("better than a constant policy", gap.above_zero, gap.mean, 0.0, reason),)


def leak(one: Candidate) -> Check:
    """No columns tell the outcome by themselves while the model lives on them."""
    if one.is_prior:
        return check("leak", True, 0.0, TELLS, "a prior reads no column")
    if one.leaks is None:
        return not_counted("leak", "the run keeps no leak check")
    if not one.leaks.columns:
        return check("leak", True, 0.0, TELLS, "the rows have no columns")
    top = one.leaks.columns[0]
    told = f"{top.column!r} alone tells who takes {top.candidate} with an AUC of {top.auc:.3f}"
    if one.leaks.suspects:
        share = "an unknown share" if one.leaks.carried is None else f"{one.leaks.carried:.0%}"
        told += (
            f"; {len(one.leaks.suspects)} such columns tell {one.leaks.told:.0%} of all take-ups and carry {share} of "
            f"the gain, allowed is less than {TELLS:.0%} or less than {CARRIES:.0%}"
        )
    if one.leaks.known_before:
        told += f"; vouched for as known before the outcome: {', '.join(one.leaks.known_before)}"
    return check("leak", not one.leaks.found, one.leaks.told, TELLS, told)


def latency(one: Candidate) -> Check:
    """The usual answer stays within the budget."""
    measured = one.costs.get("latency_ms_p50")
    if measured is None:
        return not_counted("latency", "the run measured none")
    reason = f"half of the customers are scored within {measured:.3g} ms, allowed are {LATENCY_MS:g}"
    return check("latency", measured <= LATENCY_MS, measured, LATENCY_MS, reason)
