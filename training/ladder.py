"""The ladder of families: prior, counts, the better of the learners, ensemble. A rung has to earn its place.

Whoever is held is the prior at first. Rung by rung, a family takes over only where the interval of its difference to
the one that is held, paired by customer, excludes zero on the primary metric on valid; else the one below stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from training.bootstrap import Interval
from training.evaluate import PRIOR, Judgement, better, clearly_better, clearly_worse

FILE = "ladder/ladder.json"
COUNTS, ENSEMBLE = "counts", "ensemble"
LEARNERS = "learners"
"""The rung of every family that is none of the others: the best of them on valid stands for it."""


@dataclass(frozen=True)
class Step:
    """One rung against the one that was held. difference: of the metric on valid; newest: the same on test."""

    family: str
    held: str
    metric: str
    value: float
    held_value: float
    difference: Interval
    newest: Interval
    promoted: bool

    @property
    def told(self) -> str:
        """ "counts over prior: +0.0303 [+0.0211, +0.0407]"."""
        verb = "over" if self.promoted else "not surely over"
        return f"{self.family} {verb} {self.held}: {self.difference.told()}"


@dataclass(frozen=True)
class Ladder:
    """How a family was chosen. best: what the ladder ended with, before anything else had a say."""

    family: str
    reason: str
    best: str
    steps: tuple[Step, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    def flat(self) -> dict[str, float]:
        """As metrics of a run: `ladder/counts_minus_prior/hr_at_3` with `_low` and `_high`, on valid."""
        found: dict[str, float] = {}
        for step in self.steps:
            found |= step.difference.flat(f"ladder/{step.family}_minus_{step.held}/{step.metric}")
        return {name: value for name, value in found.items() if value == value}  # a NaN cannot be logged


def climb(asked: str, valid: Judgement, test: Judgement, metric: str) -> Ladder:
    """The family to register and why. asked: a family by name, which is registered; or "all", and the ladder decides.

    Test never picks a winner, but it may stop one: where times have changed so much that the winner is surely worse
    than the prior on the newest rows, the prior is what may be shipped.
    """
    held, steps = PRIOR, list[Step]()
    for family in rungs(valid, metric):
        difference = valid.difference(family, held)[metric]
        value, below = (valid.judged[name].values[metric] for name in (family, held))
        newest = test.difference(family, held)[metric]
        promoted = clearly_better(metric, difference)
        steps.append(Step(family, held, metric, value, below, difference, newest, promoted))
        held = family if promoted else held
    told = f"{metric} on the validation rows, {'; '.join(step.told for step in steps)}"
    if asked != "all":
        return Ladder(asked, "asked for", held, tuple(steps))
    if held == PRIOR:
        return Ladder(PRIOR, f"no family is surely better than the prior: {told}", held, tuple(steps))
    newest = test.difference(held, PRIOR)[metric]
    if clearly_worse(metric, newest):
        worse = f"yet {held} is surely worse than the prior on the newest rows, {newest.told()}"
        return Ladder(PRIOR, f"{told}; {worse}", held, tuple(steps))
    return Ladder(held, told, held, tuple(steps))


def rungs(valid: Judgement, metric: str) -> Sequence[str]:
    """The families above the prior, lowest first: of the learners only the best on valid."""
    values: Mapping[str, float] = {name: valid.judged[name].values[metric] for name in valid.families}
    learners = [name for name in values if name not in (PRIOR, COUNTS, ENSEMBLE)]
    best = learners[:1]
    for name in learners[1:]:
        best = [name] if better(metric, values[name], values[best[0]]) else best
    order = [COUNTS, *best, ENSEMBLE]
    return [name for name in order if name in values]
