"""What monitoring found, in words: the headline, and one answer to each question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.monitoring.decay import CONTACTS, Decay
from training.monitoring.drift import SCORE, Drift

if TYPE_CHECKING:
    from training.monitoring.monitor import Monitored

GOOD, BAD, WARN, UNSURE = "good", "bad", "warn", "unsure"
SHARE_DEGRADED = 0.01
"""Of decisions: more that rest on less than they should are worth a look."""


def headline(found: Monitored) -> str:
    """ "Three features and one score have drifted" """
    drifted = [one for one, _ in found.drifted]
    scores = sum(one.what == SCORE for one in drifted)
    names = [(len(drifted) - scores, "feature"), (scores, "score")]
    parts = [f"{count} {name}{'s' if count != 1 else ''}" for count, name in names if count]
    told = f"{' and '.join(parts)} {'has' if len(drifted) == 1 else 'have'} drifted" if parts else ""
    off = [one.what for one in found.decay if one.alarms]
    if off:
        told += f"{', and ' if told else ''}probabilities of {' and '.join(off)} are off"
    if not told and not found.drift:
        return "Nothing could be compared: there is no champion with a reference"
    return (told[0].upper() + told[1:]) if told else "Nothing has drifted"


def lead(found: Monitored) -> str:
    """What was looked at."""
    models = ", ".join(f"{name} version {version}" for name, version in found.versions.items()) or "no champion"
    return (
        f"{found.decisions:,} served decisions about {found.customers:,} customers, "
        f"{found.since:%-d %B %Y} to {found.until:%-d %B %Y}; {models}"
    )


def answers(found: Monitored) -> list[dict[str, str]]:
    """One row per question: question, answer, kind (for its colour), evidence, section."""
    rows = [_drift_answer(found, False), _drift_answer(found, True)]
    rows += [_decay_answer(one) for one in found.decay]
    rows += [_arms_answer(found), _coverage_answer(found), _degraded_answer(found), _underserved_answer(found)]
    return [dict(zip(("question", "answer", "kind", "evidence", "section"), row, strict=True)) for row in rows]


def interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _drift_answer(found: Monitored, score: bool) -> tuple[str, str, str, str, str]:
    question = f"Are {'scores' if score else 'features'} as they were when the model was judged?"
    every = [one for columns in found.drift.values() for one in columns]
    watched = [one for one in every if (one.what == SCORE) == score and one.psi == one.psi]
    drifted = [one for one, _ in found.drifted if (one.what == SCORE) == score]
    names = len({one.name for one in watched})
    if not watched:
        return question, "cannot tell", UNSURE, "; ".join(found.not_compared.values()) or "too few rows", "drift"
    if drifted:
        worst = drifted[0]
        told = f"{len(drifted)} of {names} moved; most {worst.name}, PSI {worst.psi:.2f} ({worst.most_moved})"
        return question, "no", BAD, told, "drift"
    return question, "yes", GOOD, f"none of {names} moved; {_largest(watched)}", "drift"


def _largest(watched: Sequence[Drift]) -> str:
    tested = [one for one in watched if not one.why_not]
    if not tested:
        return "what moved always moves, or may be chance"
    largest = max(tested, key=lambda one: one.psi)
    return f"the largest PSI is {largest.psi:.2f}, of {largest.name}"


def _decay_answer(one: Decay) -> tuple[str, str, str, str, str]:
    of_contacts = one.what == CONTACTS
    question = (
        "Do as many take up through a message as was expected?"
        if of_contacts
        else "Do as many take up a product as its probability says?"
    )
    whole = one.whole
    told = (
        f"{whole.observed:,} take-ups, {whole.expected:,.1f} expected: ratio {whole.value:.2f}, "
        f"95 % interval {interval(whole.low, whole.high)}"
    )
    if one.alarms:
        return question, "no", BAD, told, "calibration"
    if whole.expected < 1 or whole.pairs == 0:
        return (
            question,
            "too early",
            UNSURE,
            f"{one.open:,} decisions still wait for their window to close",
            "calibration",
        )
    return question, "yes" if whole.low <= 1 <= whole.high else "nearly", GOOD, told, "calibration"


def _arms_answer(found: Monitored) -> tuple[str, str, str, str, str]:
    question = "Does the agent bring more take-ups than the other arms?"
    readings = found.arms.readings
    if not readings:
        waiting = f"; {found.arms.open:,} customers' windows are open" if found.arms.open else ""
        return question, "no experiment", UNSURE, f"fewer than two arms have outcomes{waiting}", "arms"
    sure = {name: one.lift for name, one in readings.items() if one.lift is not None}
    if not sure:
        powers = ", ".join(f"{name.replace('_', ' ')} {one.power:.0%}" for name, one in readings.items())
        return question, "too small to tell", UNSURE, f"power against {powers}", "arms"
    told = "; ".join(
        f"over {name.replace('_', ' ')} {one.value:+.0%} ({one.low:+.0%} to {one.high:+.0%})"
        for name, one in sure.items()
    )
    if all(one.low > 0 for one in sure.values()):
        return question, "yes", GOOD, told, "arms"
    return question, "no" if any(one.high < 0 for one in sure.values()) else "not surely", WARN, told, "arms"


def _coverage_answer(found: Monitored) -> tuple[str, str, str, str, str]:
    parts = {one.part: one for one in found.coverage}
    told = ", ".join(f"{one.used} of {len(one.counts)} {name}" for name, one in parts.items() if one.counts)
    whole = all(one.used == len(one.counts) for one in parts.values())
    gini = parts["products"].exposure_gini
    uneven = f"; exposure Gini of products {gini:.2f}" if gini == gini else ""
    return "How much of the catalogue is used?", "all of it" if whole else "a part", UNSURE, told + uneven, "coverage"


def _degraded_answer(found: Monitored) -> tuple[str, str, str, str, str]:
    share = found.degraded_decisions / found.decisions
    question = "Do decisions rest on all they should?"
    if not found.degraded_decisions:
        return question, "yes", GOOD, "no decision was degraded", "degraded"
    why = next(iter(found.degraded))
    kind = WARN if share > SHARE_DEGRADED else UNSURE
    return question, f"{share:.1%} do not", kind, f"{found.degraded_decisions:,} decisions, mostly: {why}", "degraded"


def _underserved_answer(found: Monitored) -> tuple[str, str, str, str, str]:
    one = found.underserved
    question = "Who is under-served, and by which layer?"
    if not one.total:
        return question, "nobody", GOOD, f"every one of {one.customers:,} customers has a likely action", "underserved"
    by_layer = {layer: one.none[layer] + one.tiny[layer] for layer in one.none}
    worst = max(by_layer, key=lambda layer: by_layer[layer])
    told = f"{one.total:,} of {one.customers:,} customers, most by {worst} ({by_layer[worst]:,})"
    return question, f"{one.total / one.customers:.1%}", UNSURE, told, "underserved"
