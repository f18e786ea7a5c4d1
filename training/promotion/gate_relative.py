"""What a challenger has to be beside the champion, in rows that neither has learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serving.question import Question
from serving.registry import misfit
from training import metrics
from training.bootstrap import Interval, paired
from training.evaluate import PRIOR, judge, primary_metric
from training.predictions import CHAMPION, MODEL, Predictions
from training.promotion import calibrated, fairness
from training.promotion.candidate import POLICY_VALUE, Candidate
from training.promotion.gate_absolute import SHOWN, sound
from training.promotion.verdict import Check, check, not_counted

MAY_LOSE = 0.25
"""Non-inferiority: the interval must not reach a loss of this share of the champion's lead over the prior, so that most
of what the champion is known to achieve is kept (the reasoning of ICH E10, 1.5.1.1). It is for rows that cannot tell:
who is surely worse by less is refused all the same, as nothing would be gained."""
LEAST_MARGIN = 0.002
"""The same, as a share of the champion's own value, where that lead is small."""
FURTHER_OFF = 1.25
"""Factor by which calibration may not surely be further off than the champion's, overall and in a group."""
SLOWER, SLOWER_MS = 1.5, 1.0
"""Times the champion's median latency; up to so many milliseconds nobody minds."""
LARGER, LARGER_BYTES = 2.0, 10_000_000
"""Times the champion's bytes; up to so many nobody minds."""
FEWEST_ROWS = 20
"""Shared rows that the metric judges: fewer tell nothing."""


def relative(challenger: Candidate, champion: Candidate, seed: int) -> tuple[Check, ...]:
    """Every check against the champion; a single one, not counted, where it is no measure."""
    why = no_measure(challenger, champion)
    if why is not None:
        return (not_counted("champion", f"{why}: what is measured alone decides"),)
    checks: list[Check] = []
    if challenger.predictions is not None and champion.predictions is not None:
        rows = shared(challenger, champion)
        checks += [primary(rows, seed)]
        if len(rows):
            checks += [*calibration(rows, seed), targeted_rates(rows, champion, seed)]
    checks += [latency(challenger, champion), size(challenger, champion)]
    return (*checks, policy_value(challenger, champion))


def no_measure(challenger: Candidate, champion: Candidate) -> str | None:
    """Why nothing is measured by this champion; None where it can be."""
    if challenger.schema is not None and champion.schema is not None:
        reason = misfit(champion.schema, challenger.schema)
        if reason:
            return f"the champion cannot read the present rows, it was {reason}"
    if challenger.predictions is not None and champion.predictions is not None:
        reason = other_question(champion.predictions.question, challenger.predictions.question)
        if reason:
            return reason
    unsound = [one for one in sound(champion) if one.passed is False]
    return f"the champion itself does not hold ({unsound[0].name}: {unsound[0].reason})" if unsound else None


def other_question(one: Question, other: Question) -> str | None:
    for part in ("candidates", "link", "outside", "horizon_days"):
        if getattr(one, part) != getattr(other, part):
            return f"the champion answers another question ({part.replace('_', ' ')} differ)"
    return None


def shared(challenger: Candidate, champion: Candidate) -> Predictions:
    """The challenger's test rows that the champion answers honestly, with its probabilities as CHAMPION.

    Those that the challenger's run kept of this very champion, and those that both runs were tested on.
    """
    mine, theirs = challenger.predictions, champion.predictions
    if mine is None or theirs is None:
        raise ValueError("rows are shared by runs with predictions, however one has none")
    said = np.full(mine.available.shape, np.nan)
    if CHAMPION in mine.probabilities and _asked_then(challenger, champion):
        said = mine.probabilities[CHAMPION].copy()
    here, there = mine.shared_with(theirs)
    same = (mine.available[here] == theirs.available[there]).all(axis=1)
    same &= np.isnan(said[here]).all(axis=1)
    said[here[same]] = theirs.probabilities[champion.name][there[same]]
    unknown = np.isnan(said)
    answered = ~unknown.all(axis=1) & ~(unknown & mine.available).any(axis=1)
    kept = {MODEL: mine.probabilities[MODEL], CHAMPION: said}
    if PRIOR in mine.probabilities:
        kept[PRIOR] = mine.probabilities[PRIOR]
    return replace(mine, probabilities=kept).take(answered)


def _asked_then(challenger: Candidate, champion: Candidate) -> bool:
    """Whether the champion that the challenger's run asked is this one."""
    params = challenger.params
    if champion.version is not None:
        return params.get("champion_version") == champion.version
    return params.get("champion_run") == champion.run_id


def primary(rows: Predictions, seed: int) -> Check:
    """Not surely worse, and non-inferior, in the metric that families are chosen by: the interval does not lie below
    zero, and stays within the margin."""
    title = "not worse than the champion"
    metric = primary_metric(rows) if len(rows) else ""
    per_row = {name: judge(said, rows).per_row[metric] for name, said in rows.probabilities.items()} if metric else {}
    judged = int((~np.isnan(per_row[MODEL])).sum()) if metric else 0
    if judged < FEWEST_ROWS:
        return check(
            title, False, np.nan, FEWEST_ROWS,
            f"at least {FEWEST_ROWS} rows that neither has learned from are needed, however there are {judged}; train "
            "on later rows, or on those of the champion",
        )  # fmt: skip
    sign = -1.0 if metric in metrics.LOWER_IS_BETTER else 1.0
    gap = paired({metric: sign * per_row[MODEL]}, {metric: sign * per_row[CHAMPION]}, rows.customer_id, seed)[metric]
    level = float(np.nanmean(per_row[CHAMPION]))
    lead = sign * (level - float(np.nanmean(per_row[PRIOR]))) if PRIOR in per_row else 0.0
    margin = max(MAY_LOSE * lead, LEAST_MARGIN * abs(level))
    told = (
        f"{metric}, better by {gap.told(SHOWN)} in {judged:,} rows; it may not surely be worse, and surely not lose "
        f"more than {margin:.3g}"
    )
    return check(title, gap.low >= -margin and gap.high >= 0, gap.mean, -margin, told)


def calibration(rows: Predictions, seed: int) -> list[Check]:
    """Not surely further off than the champion, overall and in the worst group."""
    found = calibrated.levels(rows, [MODEL, CHAMPION], seed)
    return [
        _further_off("calibration beside the champion", found, found.overall),
        _further_off("calibration in groups beside the champion", found, found.groups),
    ]


def _further_off(title: str, found: calibrated.Levels, places: list[int]) -> Check:
    told = [(found.excess(MODEL, place, CHAMPION, place), place) for place in places]
    told = [one for one in told if not np.isnan(one[0].mean)]
    if not told:
        return not_counted(title, "there are too few take-ups to tell")
    worst, place = max(told, key=lambda one: (one[0].low, one[0].mean))
    both = " and ".join(f"{found.interval(name, place).mean:.3g}" for name in (MODEL, CHAMPION))
    many = f", the worst of {len(told)}" if len(told) > 1 else ""
    reason = (
        f"{found.what(place)} {both} with the champion{many}: further off by a factor of {worst.told(SHOWN)}, "
        f"allowed is surely no more than {FURTHER_OFF:g}"
    )
    return check(title, worst.low <= FURTHER_OFF, worst.mean, FURTHER_OFF, reason)


def targeted_rates(rows: Predictions, champion: Candidate, seed: int) -> Check:
    """No group is targeted surely less than four fifths as often as under the champion.

    Excused is a group of which more take-ups are reached nevertheless (equal opportunity: Hardt, Price and Srebro 2016,
    "Equality of opportunity in supervised learning"): a better model wastes less on those who take less.
    """
    title = "targeted rates"
    if champion.is_prior:
        return not_counted(title, "the champion is a prior, which says the same of everyone and targets nobody")
    told = fairness.rate_changes(rows, MODEL, CHAMPION, seed)
    if not told:
        return not_counted(title, "no group has enough rows to tell")
    lost = [one for one in told if one.ratio.high < fairness.FOUR_FIFTHS and not one.reached > one.other_reached]
    worst = min(lost or told, key=lambda one: (one.ratio.high, one.ratio.mean))
    reason = (
        f"{worst.slice} {worst.group}, the worst of {len(told)} groups, is targeted {worst.ratio.told(SHOWN)} times as "
        f"often as under the champion, allowed is surely no less than {fairness.FOUR_FIFTHS:g}; of its take-ups "
        f"{worst.reached:.0%} are reached, under the champion {worst.other_reached:.0%}"
    )
    return check(title, not lost, worst.ratio.mean, fairness.FOUR_FIFTHS, reason)


def latency(challenger: Candidate, champion: Candidate) -> Check:
    """The median answer takes at most SLOWER times as long; side by side where the run measured both."""
    title = "latency beside the champion"
    mine = challenger.costs.get("latency_ms_p50")
    theirs = challenger.costs.get("champion_latency_ms_p50") if _asked_then(challenger, champion) else None
    theirs = champion.costs.get("latency_ms_p50") if theirs is None else theirs
    if champion.is_prior:
        return not_counted(title, "the champion is a prior, which reads nothing")
    if mine is None or theirs is None:
        return not_counted(title, "not both were measured")
    allowed = max(SLOWER * theirs, SLOWER_MS)
    told = (
        f"half of the customers are scored within {mine:.3g} ms, with the champion {theirs:.3g}, allowed {allowed:.3g}"
    )
    return check(title, mine <= allowed, mine, allowed, told)


def size(challenger: Candidate, champion: Candidate) -> Check:
    """It takes at most LARGER times the champion's bytes."""
    mine, theirs = (one.costs.get("model_bytes") for one in (challenger, champion))
    if mine is None or theirs is None:
        return not_counted("size", "not both were measured")
    allowed = max(LARGER * theirs, LARGER_BYTES)
    reason = f"{mine / 1e6:.3g} MB, the champion {theirs / 1e6:.3g} MB, allowed {allowed / 1e6:.3g} MB"
    return check("size", mine <= allowed, mine, allowed, reason)


def policy_value(challenger: Candidate, champion: Candidate) -> Check:
    """What its decisions are estimated to earn is not surely less, where both runs have such an estimate."""
    title = "policy value"
    paired_gap = Interval.logged(challenger.metrics, f"{POLICY_VALUE}_minus_champion")
    if paired_gap is not None:
        reason = f"{paired_gap.told(SHOWN)} more per decision than with the champion"
        return check(title, not paired_gap.below_zero, paired_gap.mean, 0.0, reason)
    one, other = (Interval.logged(each.metrics, each.policy_value) for each in (challenger, champion))
    if one is None or other is None:
        return not_counted(title, "not both runs have an estimate of it; one that was withheld is no evidence")
    reason = f"{one.told(SHOWN)} per decision, with the champion {other.told(SHOWN)}"
    return check(title, one.high >= other.low, one.mean - other.mean, 0.0, reason)
