"""What the comparison page says in words: its headline, the short answers, and what each part found."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from training.comparison import metric_names
from training.comparison.compare_runs import BETTER, FEWEST, UNSURE, WORSE, Difference, RunComparison
from training.comparison.comparison_numbers import interval_text, metric_text, minus
from training.comparison.run_evidence import Evidence, Fact, named, untraced
from training.slices import HISTORY

WORDS = {BETTER: "The challenger is surely better", WORSE: "The challenger is surely worse", UNSURE: "No sure winner"}


def told(found: RunComparison, evidence: Evidence) -> dict[str, Any]:
    """Every text of the page that is not a row of a table."""
    primary = found.differences[found.primary]
    return {
        "title": f"{found.question.model}: {found.challenger.name} against {found.champion.name}",
        "headline": headline(primary),
        "lead": lead(found, primary),
        "verdict": verdict(evidence),
        "sides": sides(found),
        "rows_told": rows_told(found),
        "left_out": [(why, count) for why, count in found.shared.left_out.items() if count],
        "warnings": warnings(found, evidence),
        "groups_told": groups_told(found),
        "policy_told": policy_told(evidence),
        "fairness_told": fairness_told(evidence),
        "drift_told": drift_told(evidence),
        "lineage_told": lineage_told(found, evidence),
        "lineage": {"title": "Lineage", "about": "What each run was made of.", "facts": evidence.lineage},
        "params": {"title": "Parameters", "about": "What each run was told and chose.", "facts": evidence.params},
    }


def headline(primary: Difference) -> str:
    values = f"{metric_text(primary.challenger)} against {metric_text(primary.champion)}"
    return f"{WORDS[primary.finding]}: {metric_names.label(primary.metric)} {values}"


def lead(found: RunComparison, primary: Difference) -> str:
    name = metric_names.label(primary.metric)
    return (
        f"Challenger “{found.challenger.name}” minus champion “{found.champion.name}”: "
        f"{interval_text(primary.interval)} {name} ({metric_names.meaning(primary.metric)}), 95 % interval, on the "
        f"same {len(found.shared.challenger):,} rows of {found.shared.customers:,} customers."
    )


def verdict(evidence: Evidence) -> dict[str, Any]:
    """The gate's word, and what it refused for."""
    judged = evidence.verdict
    if judged is None:
        why = evidence.left_out.get("verdict", "it was not asked")
        return {"kind": "unsure", "title": "The gate was not asked", "text": f"Because {why}.", "refusals": ()}
    counted = [check for check in judged.checks if check.passed is not None]
    aside = f"; {len(judged.not_counted)} could not be counted" if judged.not_counted else ""
    if judged.passed:
        text = f"All {len(counted)} checks that counted hold{aside}."
        return {"kind": "good", "title": "The gate lets the challenger through", "text": text, "refusals": ()}
    text = f"{len(judged.refusals)} of {len(counted)} checks refuse{aside}."
    return {"kind": "bad", "title": "The gate refuses the challenger", "text": text, "refusals": judged.refusals}


def sides(found: RunComparison) -> list[Fact]:
    """Who is compared."""
    both = found.challenger, found.champion
    sources = {
        "Run": [f"{run.name} ({run.id[:8]})" for run in both],
        "Family": [run.params.get("chosen_family", "not recorded") for run in both],
        "Chosen because": [run.tags.get("nextbest.reason", "not recorded") for run in both],
        "Learned from": [_rows(run.params.get("rows_train")) for run in both],
        "Data up to": [_day(run.params.get("until")) for run in both],
    }
    return [Fact(name, *(minus(value) for value in values)) for name, values in sources.items()]


def rows_told(found: RunComparison) -> str:
    shared = found.shared
    first, last = shared.span
    judged = int(shared.challenger.judged_for_ranking.sum())
    return (
        f"{len(shared.challenger):,} rows of {shared.customers:,} customers, {first:%d %B %Y} to {last:%d %B %Y}, "
        f"are judged: {judged:,} for the order of {len(found.question.candidates)} candidates, "
        f"{int(shared.challenger.judged_for_probability.sum()):,} for probabilities within "
        f"{found.question.horizon_days:g} days. They are {shared.source}."
    )


def warnings(found: RunComparison, evidence: Evidence) -> list[str]:
    """What limits every number of the page."""
    shared, told = found.shared, []
    judged = int((shared.challenger.judged_for_ranking | shared.challenger.judged_for_probability).sum())
    if judged < FEWEST:
        told.append(f"Only {judged} rows are judged: too few to say much; intervals of so few are too narrow.")
    left = sum(shared.left_out.values())
    if left > len(shared.challenger):
        told.append(f"More rows are left out ({left:,}) than are compared ({len(shared.challenger):,}).")
    differing = [one.name for one in evidence.lineage if one.differs and one.name.startswith(("data", "features"))]
    if differing:
        told.append(f"The runs differ in their {named(differing)}: this compares data and models, not models alone.")
    return told


def groups_told(found: RunComparison) -> str:
    findings = [one.difference.finding for one in found.groups]
    chance = len(findings) * 0.025
    told = (
        f"Of {len(findings)} groups {findings.count(BETTER)} are surely better, {findings.count(WORSE)} surely worse; "
        f"chance alone would find about {chance:.0f} of each. Take-up: share of rows in which something was taken."
    )
    cold = [one for one in found.groups if (one.name, one.group) == (HISTORY, "holds nothing")]
    if cold:
        one = cold[0]
        told += (
            f" Cold customers, who hold nothing yet ({one.rows:,} rows): {interval_text(one.difference.interval)}, "
            f"{one.difference.finding}."
        )
    return told


def policy_told(evidence: Evidence) -> str:
    if "policy" in evidence.left_out:
        return evidence.left_out["policy"]
    if evidence.policy:
        return "Estimates from logged decisions, per decision, with 95 % intervals where there are any."
    return "Neither run keeps an off-policy estimate; nextbest evaluate policy makes one from logged decisions."


def fairness_told(evidence: Evidence) -> str:
    if not evidence.groups:
        return "No group has enough rows to tell."
    less = sum(one.surely_less for one in evidence.groups)
    return (
        f"Targeted is one row in five, by its best probability. {less} of {len(evidence.groups)} groups "
        f"{'is' if less == 1 else 'are'} surely targeted less than four fifths as often as under the champion "
        "(marked). A better model may well target a group less and still reach more of its take-ups: both are told."
    )


def drift_told(evidence: Evidence) -> str:
    if evidence.drifts is None:
        return f"Not known: {evidence.left_out['drift']}."
    columns = [one for one in evidence.drifts if one.what == "feature" and not one.moment]
    scores = [one for one in evidence.drifts if one.what == "score"]
    moved = [sum(one.drifted for one in part) for part in (columns, scores)]
    largest = max((one.psi for one in columns if not math.isnan(one.psi)), default=0.0)
    return (
        f"{moved[0]} of {len(columns)} columns drifted (PSI from 0.1 on, not by chance); the largest PSI of a column "
        f"is {largest:.3f}. {moved[1]} of {len(scores)} scores differ as much, as two models may on equal rows."
    )


def lineage_told(found: RunComparison, evidence: Evidence) -> str:
    differing = [one.name for one in (*evidence.lineage, *evidence.params) if one.differs]
    told = f"The runs differ in {named(differing)}." if differing else "The runs differ in nothing that is recorded."
    missing = untraced(found.challenger)
    return f"{told} Of the challenger is not recorded: {named(missing)}." if missing else told


def slice_title(name: str) -> str:
    """A slice as a heading: words for underscores, and the unit where the bands are years since a date."""
    title = name.replace("_", " ").capitalize()
    if name == HISTORY:
        return f"{title} (cold customers hold nothing)"
    return f"{title}, years ago" if name.endswith(("_date", "_on", "_since")) else title


def _rows(count: str | None) -> str:
    return f"{int(count):,} rows" if count and count.isdigit() else "not recorded"


def _day(moment: str | None) -> str:
    try:
        return f"{datetime.fromisoformat(moment or ''):%d %B %Y, %H:%M} UTC"
    except ValueError:
        return "not recorded"
