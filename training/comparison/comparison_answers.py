"""Six questions that a reviewer asks of a challenger, each with a short answer and what it rests on."""

from __future__ import annotations

import math

from training.comparison import metric_names
from training.comparison.compare_runs import BETTER, UNSURE, WORSE, RunComparison
from training.comparison.comparison_numbers import cost_text, interval_text, metric_text, ratios
from training.comparison.comparison_words import policy_told, slice_title
from training.comparison.run_evidence import Evidence, named, untraced
from training.metrics import ECE

ANSWERS = {BETTER: ("surely better", "good"), WORSE: ("surely worse", "bad"), UNSURE: ("not surely", "unsure")}


def answers(found: RunComparison, evidence: Evidence) -> list[dict[str, str]]:
    """Six questions that a reviewer asks."""
    return [
        {"question": question, "section": section, "answer": answer, "kind": kind, "evidence": text}
        for question, section, (answer, kind, text) in (
            ("Is it better?", "metrics", _better(found)),
            ("Is it calibrated?", "calibration", _calibrated(found)),
            ("Does it earn more?", "policy", _earns(evidence)),
            ("Is it fair?", "fairness", _fair(evidence)),
            ("Is it as fast?", "cost", _fast(evidence)),
            ("Can it be made again?", "lineage", _again(found)),
        )
    ]


def _better(found: RunComparison) -> tuple[str, str, str]:
    primary = found.differences[found.primary]
    shown = [one for family in metric_names.families(found.differences) for one in family.names]
    findings = [found.differences[name].finding for name in shown if name not in metric_names.NEUTRAL]
    counts = (
        f"of {len(findings)} metrics {findings.count(BETTER)} are surely better, {findings.count(WORSE)} surely worse"
    )
    text = f"{metric_names.label(primary.metric)} {interval_text(primary.interval)}; {counts}"
    return (*ANSWERS[primary.finding], text)


def _calibrated(found: RunComparison) -> tuple[str, str, str]:
    one = found.differences.get(ECE)
    if one is None:
        return "not known", "unsure", "no probability is judged in these rows"
    words = {BETTER: ("surely better", "good"), WORSE: ("surely worse", "bad"), UNSURE: ("as well", "good")}
    gaps = [side for side in found.candidates if side.challenger.above_zero or side.challenger.below_zero]
    apart = f"; {len(gaps)} of {len(found.candidates)} candidates have a sure gap" if found.candidates else ""
    text = f"ECE {metric_text(one.challenger)} against {metric_text(one.champion)}{apart}"
    return (*words[one.finding], text)


def _earns(evidence: Evidence) -> tuple[str, str, str]:
    known = [one for one in evidence.policy if one.name.endswith("_minus_champion") and one.challenger is not None]
    if not known or known[0].challenger is None:
        return "not known", "unsure", policy_told(evidence)
    gap = known[0].challenger
    text = f"{interval_text(gap)} per decision"
    if gap.above_zero or gap.below_zero:
        return (*ANSWERS[BETTER if gap.above_zero else WORSE], text)
    return (*ANSWERS[UNSURE], text)


def _fair(evidence: Evidence) -> tuple[str, str, str]:
    if not evidence.groups:
        return "not known", "unsure", "no group has enough rows"
    told = [one.change for one in evidence.groups if one.change is not None]
    if not told:
        return "not known", "unsure", "the champion targets too few of every group"
    lowest = min(told, key=lambda one: one.ratio.mean)
    less = sum(one.surely_less for one in evidence.groups)
    name = f"{slice_title(lowest.slice)} {lowest.group}"
    text = f"of {len(told)} groups the lowest, {name}, is targeted {ratios(lowest.ratio)} times as often"
    return (f"{less} {'group' if less == 1 else 'groups'} surely less", "warn", text) if less else ("yes", "good", text)


def _fast(evidence: Evidence) -> tuple[str, str, str]:
    known = {one.name: one for one in evidence.costs if not math.isnan(one.ratio)}
    one = known.get("latency_ms_p50")
    if one is None:
        return "not known", "unsure", "the runs did not both measure it"
    text = f"half of the answers within {cost_text(one.name, one.challenger)} against "
    text += cost_text(one.name, one.champion)
    if "model_bytes" in known:
        text += f"; size × {known['model_bytes'].ratio:.2f}"
    return (f"× {one.ratio:.2f}", "good" if one.ratio <= 1.5 else "bad", text)


def _again(found: RunComparison) -> tuple[str, str, str]:
    missing = untraced(found.challenger)
    if missing:
        return "not surely", "warn", f"not recorded: {named(missing)}"
    return (
        "yes",
        "good",
        f"code, packages, data, features and seed are recorded; nextbest rebuild {found.challenger.id}",
    )
