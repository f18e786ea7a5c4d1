"""The ladder of families: prior, counts, each of the learners, ensemble. A rung has to earn its place.

Whoever is held is the prior at first. Rung by rung, a family takes over only where the interval of its difference to
the one that is held, paired by customer, excludes zero on the primary metric; else the one below stays. Every learner
is tried in turn: the one that looks best need not be the one that is surely better.

The validation rows are asked first. Where they are few, they often cannot tell: then, if something is to be gained, all
rungs are tried once more, from the prior up, on more rows (`cross_fit`), and those decide. Steps that the validation
rows took by luck are taken back by this, and no rung gets two chances. One word the validation rows keep: they are the
newest, and whom they show to be surely worse than the one that is held does not take over, whatever held before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from features.errors import InputError
from training.bootstrap import Interval
from training.evaluate import PRIOR, Judgement, clearly_better, clearly_worse
from training.metrics import LOWER_IS_BETTER

FILE = "ladder/ladder.json"
COUNTS, ENSEMBLE = "counts", "ensemble"
ON_VALID = "the validation rows"
WORTH = 0.1
"""A rung that may bring at most this share of what the held family has over the prior is not worth more fits."""


@dataclass(frozen=True)
class Step:
    """One rung against the one that was held. difference: of the metric on the rows judged; newest: on test.

    denied: what the validation rows said where more rows were for the rung and they were surely against it.
    """

    family: str
    held: str
    metric: str
    value: float
    held_value: float
    difference: Interval
    newest: Interval
    promoted: bool
    denied: Interval | None = None

    @property
    def told(self) -> str:
        """ "counts over prior: +0.0303 [+0.0211, +0.0407]"."""
        if self.denied is not None:
            gaps = f"{self.difference.told()}, yet {self.denied.told()} on {ON_VALID}"
            return f"{self.family} surely not over {self.held} any more: {gaps}"
        verb = "over" if self.promoted else "not surely over"
        return f"{self.family} {verb} {self.held}: {self.difference.told()}"

    @property
    def at_best(self) -> float:
        """By how much the rung may be better, in units of the metric: the better end of the interval."""
        return -self.difference.low if self.metric in LOWER_IS_BETTER else self.difference.high


@dataclass(frozen=True)
class Evidence:
    """What families said of rows, and of which. how: in words, after "on"; rows: in which the metric could be taken."""

    judged: Judgement
    how: str = ON_VALID


More = Callable[[], Evidence]
"""Judges the families on more rows; InputError where that cannot be done."""


@dataclass(frozen=True)
class Ladder:
    """How a family was chosen. best: what the ladder ended with, before anything else had a say.

    steps: those that decided, on `rows` rows in which the metric could be taken, `judged_on` says which. on_valid: the
    steps on the validation rows where others decided, else empty. not_more: why there were no more rows to ask.
    """

    family: str
    reason: str
    best: str
    steps: tuple[Step, ...]
    judged_on: str = ON_VALID
    rows: int = 0
    on_valid: tuple[Step, ...] = ()
    not_more: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    def flat(self) -> dict[str, float]:
        """As metrics of a run: `ladder/counts_minus_prior/hr_at_3` with `_low` and `_high`, on the rows that decided.

        ladder/rows: how many; ladder/cross_fitted: 1 where they are not the validation rows alone.
        """
        found = {"ladder/rows": float(self.rows), "ladder/cross_fitted": float(bool(self.on_valid))}
        for step in self.steps:
            found |= step.difference.flat(f"ladder/{step.family}_minus_{step.held}/{step.metric}")
        return {name: value for name, value in found.items() if value == value}  # a NaN cannot be logged


def climb(asked: str, valid: Judgement, test: Judgement, metric: str, more: More | None = None) -> Ladder:
    """The family to register and why. asked: a family by name, which is registered; or "all", and the ladder decides.

    more: asked where the validation rows do not decide. Test never picks a winner, but it may stop one: where times
    have changed so much that the winner is surely worse than the prior on the newest rows, the prior is what may be
    shipped.
    """
    evidence, not_more = Evidence(valid), ""
    steps, on_valid = tried(valid, test, metric), tuple[Step, ...]()
    if asked == "all" and more is not None and worth_asking(steps, valid, metric):
        try:
            evidence = more()
        except InputError as error:
            not_more = str(error)
        else:
            steps, on_valid = tried(evidence.judged, test, metric, valid), steps
    rows = evidence.judged.rows_judged(metric)
    held = held_after(steps)
    told = f"{metric} on {evidence.how}, {'; '.join(step.told for step in steps)}"
    family, reason = held, told
    if asked != "all":
        family, reason = asked, "asked for"
    elif held == PRIOR:
        reason = f"no family is surely better than the prior: {told}"
    else:
        newest = test.difference(held, PRIOR)[metric]
        if clearly_worse(metric, newest):
            family = PRIOR
            reason = f"{told}; yet {held} is surely worse than the prior on the newest rows, {newest.told()}"
    return Ladder(family, reason, held, steps, evidence.how, rows, on_valid, not_more)


def tried(judged: Judgement, test: Judgement, metric: str, newer: Judgement | None = None) -> tuple[Step, ...]:
    """Every rung against the one that is held by then. newer: of rows that may deny what those of `judged` show."""
    held, steps = PRIOR, list[Step]()
    for family in rungs(judged):
        difference = judged.difference(family, held)[metric]
        value, below = (judged.judged[name].values[metric] for name in (family, held))
        newest = test.difference(family, held)[metric]
        promoted, denied = clearly_better(metric, difference), None
        if newer is not None and promoted and clearly_worse(metric, newer.difference(family, held)[metric]):
            promoted, denied = False, newer.difference(family, held)[metric]
        steps.append(Step(family, held, metric, value, below, difference, newest, promoted, denied))
        held = family if promoted else held
    return tuple(steps)


def rungs(judged: Judgement) -> Sequence[str]:
    """The families above the prior, lowest first; learners as they were fitted."""
    learners = [name for name in judged.families if name not in (PRIOR, COUNTS, ENSEMBLE)]
    return [name for name in (COUNTS, *learners, ENSEMBLE) if name in judged.families]


def held_after(steps: Sequence[Step]) -> str:
    return next((step.family for step in reversed(steps) if step.promoted), PRIOR)


def worth_asking(steps: Sequence[Step], judged: Judgement, metric: str) -> bool:
    """Whether a rung that was not taken may bring more than a little; one that is surely worse brings nothing."""
    held = held_after(steps)
    lead = 0.0 if held == PRIOR else abs(judged.difference(held, PRIOR)[metric].mean)
    return any(not step.promoted and step.at_best > WORTH * lead for step in steps)
