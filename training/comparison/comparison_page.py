"""The comparison of two runs as one HTML page: nothing is loaded, nothing runs, every number is in a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from markupsafe import Markup

from training import bootstrap, plots
from training.bootstrap import Interval
from training.comparison import comparison_numbers, comparison_words, metric_names, pooled
from training.comparison.compare_runs import (
    BETTER,
    LESS,
    MORE,
    UNSURE,
    WORSE,
    CandidateGap,
    Difference,
    GroupDifference,
    RunComparison,
)
from training.comparison.comparison_answers import answers
from training.comparison.comparison_numbers import interval_text, metric_text, minus, percent, points, ratios, spoken
from training.comparison.forest import Axis
from training.comparison.run_evidence import Evidence, GroupFairness
from training.metrics import LOWER_IS_BETTER
from training.monitoring.drift import SCORE, Drift
from training.page import render
from training.targeting import DECILES

KINDS = {BETTER: "good", WORSE: "bad", UNSURE: "unsure", MORE: "turned", LESS: "turned"}
FILTERS = {
    "kind": lambda finding: KINDS.get(finding, "unsure"),
    "signs": minus,
    "short": comparison_numbers.short,
    "plain": lambda name: name.replace("_", " "),
}
"""What the template calls by name."""
MOST_DRIFTS = 15
WIDEST = 1.5
"""Ratios are drawn up to so much from 1."""
SIDES = {True: "← less · more →", False: "← worse · better →"}


def page(found: RunComparison, evidence: Evidence) -> str:
    """The whole page, with its style and pictures inside."""
    values = dict(
        **comparison_words.told(found, evidence),
        answers=answers(found, evidence),
        question=found.question,
        run_id=found.challenger.id,
        other_id=found.champion.id,
        source=found.shared.source,
        resamples=(f"{bootstrap.RESAMPLES:,}", f"{pooled.RESAMPLES:,}"),
        primary=metric_names.label(found.primary),
        checks=evidence.verdict.checks if evidence.verdict else (),
        families=list(families(found)),
        slices=list(slices(found.groups)),
        figures=figures(found),
        candidates=candidates(found.candidates),
        deciles=deciles(found.differences),
        fair_groups=list(fair_groups(evidence.groups)),
        equal=equal_rates(evidence),
        drifts=drifts(evidence),
        costs=costs(evidence),
        policy=policy(evidence),
    )
    return render("comparison.html", values, filters=FILTERS)


def families(found: RunComparison) -> Iterable[dict[str, Any]]:
    """The tables of metrics, each with its rows and its scale."""
    for family in metric_names.families(found.differences):
        shown = [found.differences[name] for name in family.names]
        common = Axis.of(one.interval for one in shown)
        rows = [
            {
                **difference(one, Axis.of([one.interval]) if family.own_scale else common),
                "label": metric_names.label(one.metric),
                "meaning": metric_names.meaning(one.metric),
                "primary": one.metric == found.primary,
            }
            for one in shown
        ]
        neutral = all(name in metric_names.NEUTRAL for name in family.names)
        yield {**vars(family), "rows": rows, "sides": SIDES[neutral]}


def difference(one: Difference, axis: Axis) -> dict[str, Any]:
    """A row of numbers with its mark."""
    return {
        "challenger": metric_text(one.challenger),
        "champion": metric_text(one.champion),
        "difference": interval_text(one.interval),
        "mark": axis.mark(one.interval, one.metric in LOWER_IS_BETTER),
        "finding": one.finding,
        "spoken": f"difference {spoken(one.interval)}: {one.finding}",
    }


def slices(groups: Iterable[GroupDifference]) -> Iterable[dict[str, Any]]:
    """Groups by slice; those with enough rows share one scale, and the others are cut off at its ends."""
    shown = list(groups)
    axis = Axis.of(one.difference.interval for one in shown if not one.few)
    for name, members in groupby(shown, key=lambda one: one.name):
        rows = [
            {
                **difference(one.difference, axis),
                "group": one.group,
                "rows": f"{one.rows:,}",
                "rate": percent(one.rate),
                "few": one.few,
            }
            for one in members
        ]
        yield {"title": comparison_words.slice_title(name), "rows": rows}


def figures(found: RunComparison) -> list[dict[str, Any]]:
    """Calibration of both in one plot, gain of both in another."""
    said = dict(zip(("challenger", "champion"), found.shared.said, strict=True))
    rows = found.shared.challenger
    alt = "Reliability plot of both models: the mean probability of ten bins against the share that happened."
    gain = "Gain curves of both models: share of the take-ups found against share of the pairs reached."
    return [
        {
            "svg": Markup(plots.svg(plots.reliability_of_both(said, rows), "reliability", alt)),
            "caption": "Calibration: ten bins of equal mass each; on the line, as many take up as was predicted.",
        },
        {
            "svg": Markup(plots.svg(plots.gain_of_both(said, rows), "gain", gain)),
            "caption": "Gain: whoever writes to the best scored pairs first finds so many of the take-ups.",
        },
    ]


def candidates(gaps: Iterable[CandidateGap]) -> list[dict[str, Any]]:
    shown = list(gaps)
    axis = Axis.of(interval for one in shown for interval in (one.challenger, one.champion))
    return [
        {
            "candidate": one.candidate,
            "pairs": f"{one.pairs:,}",
            "rate": percent(one.rate),
            "challenger": points(one.challenger),
            "champion": points(one.champion),
            "first": axis.mark(one.challenger),
            "second": axis.mark(one.champion),
            "spoken": f"challenger {spoken(one.challenger)}, champion {spoken(one.champion)}",
        }
        for one in shown
    ]


def deciles(differences: Mapping[str, Difference]) -> list[dict[str, Any]]:
    """Lift within each tenth and capture up to it; empty where nothing was taken."""
    rows = []
    for decile in DECILES:
        lift, capture = (differences.get(f"{name}_by_decile_{decile}") for name in ("lift", "capture"))
        if lift is not None and capture is not None:
            rows.append(
                {
                    "decile": str(decile),
                    "lift": [f"{value:.2f}" for value in (lift.challenger, lift.champion)],
                    "capture": [percent(value) for value in (capture.challenger, capture.champion)],
                    "difference": points(capture.interval),
                }
            )
    return rows


def fair_groups(groups: Iterable[GroupFairness]) -> Iterable[dict[str, Any]]:
    """Groups by slice: how often each is targeted, what of its take-ups is reached, and whether it is calibrated."""
    shown = list(groups)
    both = [(one.challenger, one.champion) for one in shown]
    reach = Axis.of((side.rate_ratio for sides in both for side in sides), 1.0, WIDEST)
    truth = Axis.of((side.calibration for sides in both for side in sides), 1.0, WIDEST)
    for name, members in groupby(shown, key=lambda one: one.challenger.slice):
        yield {"title": comparison_words.slice_title(name), "rows": [_fair(one, reach, truth) for one in members]}


def _fair(one: GroupFairness, reach: Axis, truth: Axis) -> dict[str, Any]:
    sides, change = (one.challenger, one.champion), one.change
    return {
        "group": one.challenger.group,
        "rows": f"{one.challenger.rows:,}",
        "take_ups": f"{one.challenger.take_ups:,}",
        "rates": [percent(side.rate) for side in sides],
        "reached": [percent(change.reached), percent(change.other_reached)] if change else ["", ""],
        "change": ratios(change.ratio) if change else "too few to tell",
        "less": one.surely_less,
        "reach": [reach.mark(side.rate_ratio) for side in sides],
        "reach_spoken": "; ".join(f"{spoken(side.rate_ratio, plain=True)}" for side in sides),
        "calibration": [ratios(side.calibration) for side in sides],
        "truth": [truth.mark(side.calibration) for side in sides],
        "truth_spoken": "; ".join(f"{spoken(side.calibration, plain=True)}" for side in sides),
    }


def equal_rates(evidence: Evidence) -> list[dict[str, str]]:
    return [
        {
            "title": comparison_words.slice_title(one.challenger.slice),
            "now": percent(one.challenger.reached),
            "equally": percent(one.challenger.reached_equally),
            "challenger": points(one.challenger.difference),
            "champion": points(one.champion.difference),
        }
        for one in evidence.equal_rates
    ]


def drifts(evidence: Evidence) -> list[dict[str, Any]]:
    """What moved, most first; nothing where nothing did."""
    moved = [one for one in evidence.drifts or () if not math.isnan(one.psi) and round(one.psi, 3) and not one.moment]
    return [
        {
            "name": one.name,
            "psi": f"{one.psi:.3f}",
            "drifted": one.drifted,
            "word": _moved(one),
            "moved": one.most_moved,
        }
        for one in moved[:MOST_DRIFTS]
    ]


def _moved(one: Drift) -> str:
    """Columns of the rows drift; scores of two models are simply others."""
    if one.what == SCORE:
        return "differs" if one.drifted else "alike"
    return "drifted" if one.drifted else "no sure drift"


def costs(evidence: Evidence) -> list[dict[str, str]]:
    return [
        {
            "name": comparison_numbers.cost_name(one.name),
            "challenger": comparison_numbers.cost_text(one.name, one.challenger),
            "champion": comparison_numbers.cost_text(one.name, one.champion),
            "ratio": "" if math.isnan(one.ratio) else f"× {one.ratio:.2f}",
        }
        for one in evidence.costs
    ]


def policy(evidence: Evidence) -> list[dict[str, str]]:
    def text(one: Interval | None) -> str:
        if one is None:
            return "not estimated"
        return f"{one.mean:,.4g}" if math.isnan(one.low) else f"{one.mean:,.4g} [{one.low:,.4g}, {one.high:,.4g}]"

    return [
        {"name": one.name, "challenger": minus(text(one.challenger)), "champion": minus(text(one.champion))}
        for one in evidence.policy
    ]
