"""What two runs say beside their predictions: cost, policy value, drift, fairness, lineage, and the gate's verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import ArtefactError
from training.bootstrap import Interval
from training.comparison.compare_runs import RunComparison, in_order
from training.finished import FinishedRun
from training.monitoring import drift, reference
from training.monitoring.reference import Reference
from training.predictions import CHAMPION, MODEL
from training.promotion import fairness
from training.promotion.gate import Candidate, Verdict, judge_promotion

COST = "cost/"
BESIDE = "champion_"
"""How costs begin that a run measured of the champion of its time."""
LINEAGE = {
    "git_commit": "code (git commit)",
    "lock_sha256": "packages (SHA-256 of the lock file)",
    "nextbest.data": "data (fingerprint of the tables)",
    "nextbest.features": "features (fingerprint of the build)",
    "nextbest.row_schema": "row (fingerprint of its columns)",
}
"""Tag → what it pins down."""
DIRTY = "+changes"
"""What a commit carries when files differed from it."""
POLICY_VALUES = ("policy/", "test/dr_value")
"""How names of metrics begin that estimate what a policy earns."""
WITHHELD = "nextbest.policy_withheld"
"""Tag of a run whose log could not tell; it says why."""
_TWO = ("_low", "_high")


@dataclass(frozen=True)
class Fact:
    """One thing that each run tells in words; None where it tells nothing."""

    name: str
    challenger: str | None
    champion: str | None

    @property
    def differs(self) -> bool:
        return self.challenger != self.champion


@dataclass(frozen=True)
class Cost:
    """One measured cost of both; NaN where a run did not measure it."""

    name: str
    challenger: float
    champion: float

    @property
    def ratio(self) -> float:
        return self.challenger / self.champion if self.champion else math.nan


@dataclass(frozen=True)
class PolicyValue:
    """An estimate that a run keeps of what its policy earns, in currency per decision; NaN bounds: no interval."""

    name: str
    challenger: Interval | None
    champion: Interval | None


@dataclass(frozen=True)
class GroupFairness:
    """One group of a slice under both models. change: None where the champion targets too few of it to tell."""

    challenger: fairness.GroupFairness
    champion: fairness.GroupFairness
    change: fairness.RateChange | None

    @property
    def surely_less(self) -> bool:
        """Whether it is surely targeted less than four fifths as often as under the champion."""
        return self.change is not None and self.change.ratio.high < fairness.FOUR_FIFTHS


@dataclass(frozen=True)
class EqualRates:
    """What equal rates in a slice would cost under both models."""

    challenger: fairness.EqualRates
    champion: fairness.EqualRates


@dataclass(frozen=True)
class Evidence:
    """Everything but the metrics.

    verdict: None where a run lacks what the gate reads. drifts: None where a run keeps no reference. left_out: part →
    why it is empty.
    """

    verdict: Verdict | None
    costs: tuple[Cost, ...]
    policy: tuple[PolicyValue, ...]
    groups: tuple[GroupFairness, ...]
    equal_rates: tuple[EqualRates, ...]
    drifts: tuple[drift.Drift, ...] | None
    lineage: tuple[Fact, ...]
    params: tuple[Fact, ...]
    left_out: Mapping[str, str]


def evidence(found: RunComparison, seed: int) -> Evidence:
    """Collect it. A run of an older version keeps less: what is missing is said, not raised."""
    one, other = found.challenger, found.champion
    left_out: dict[str, str] = {}
    try:
        drifts = tuple(drift.between(*(Reference.load(_reference(run)) for run in (other, one))))
    except ArtefactError as error:
        drifts, left_out["drift"] = None, str(error)
    withheld = [f"{run.name}: {run.tags[WITHHELD]}" for run in (one, other) if WITHHELD in run.tags]
    if withheld:
        left_out["policy"] = "withheld, because the log cannot tell. " + "; ".join(withheld)
    groups, equal = fair(found, seed)
    try:
        verdict = judge_promotion(Candidate.of(one), Candidate.of(other), seed)
    except ArtefactError as error:
        verdict, left_out["verdict"] = None, str(error)
    return Evidence(
        verdict,
        costs(one, other),
        policy_values(one.metrics, other.metrics),
        groups,
        equal,
        drifts,
        facts({label: (one.tags.get(tag), other.tags.get(tag)) for tag, label in LINEAGE.items()}),
        facts({name: (one.params.get(name), other.params.get(name)) for name in {**one.params, **other.params}}),
        left_out,
    )


def fair(found: RunComparison, seed: int) -> tuple[tuple[GroupFairness, ...], tuple[EqualRates, ...]]:
    """Groups large enough under both models, and the price of equal rates, on the shared rows."""
    mine, theirs = found.shared.said
    rows = replace(found.shared.challenger, probabilities={MODEL: mine, CHAMPION: theirs})
    one, other = (
        {(group.slice, group.group): group for group in fairness.by_group(rows, seed, name)}
        for name in (MODEL, CHAMPION)
    )
    changes = {(one.slice, one.group): one for one in fairness.rate_changes(rows, MODEL, CHAMPION, seed)}
    places = {name: place for place, name in enumerate(rows.slices)}
    keys = sorted((key for key in one if key in other), key=lambda key: (places[key[0]], in_order(key[1])))
    groups = tuple(GroupFairness(one[key], other[key], changes.get(key)) for key in keys)
    both = (fairness.equal_rates(rows, seed, name) for name in (MODEL, CHAMPION))
    return groups, tuple(EqualRates(*pair) for pair in zip(*both, strict=True))


def costs(one: FinishedRun, other: FinishedRun) -> tuple[Cost, ...]:
    """Metrics under cost/ that either run has.

    Where the challenger's run timed this very champion beside its own model, those times count: both under one load.
    """
    mine, theirs = (_under(COST, run.metrics) for run in (one, other))
    beside = _under(BESIDE, mine) if one.params.get("champion_run") == other.id else {}
    mine, theirs = ({name: side[name] for name in side if not name.startswith(BESIDE)} for side in (mine, theirs))
    theirs |= beside
    return tuple(Cost(name, mine.get(name, math.nan), theirs.get(name, math.nan)) for name in sorted({*mine, *theirs}))


def _under(prefix: str, found: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def policy_values(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[PolicyValue, ...]:
    """Estimates of either run, with their intervals."""
    names = [name for name in {**one, **other} if name.startswith(POLICY_VALUES) and not name.endswith(_TWO)]
    return tuple(PolicyValue(name, _estimate(one, name), _estimate(other, name)) for name in sorted(names))


def facts(told: Mapping[str, tuple[str | None, str | None]]) -> tuple[Fact, ...]:
    """Facts, those that differ first."""
    found = [Fact(name, *both) for name, both in told.items()]
    return tuple(sorted(found, key=lambda fact: not fact.differs))


def untraced(run: FinishedRun) -> list[str]:
    """What keeps the run from being made again: lineage that is missing, code that was never committed."""
    missing = [label for tag, label in LINEAGE.items() if tag not in run.tags]
    if run.tags.get("git_commit", "").endswith(DIRTY):
        missing.append("code that differs from its commit")
    return missing


def named(names: Iterable[str]) -> str:
    """ "a, b and c" """
    *first, last = list(names)
    return f"{', '.join(first)} and {last}" if first else last


def _reference(run: FinishedRun) -> Path:
    return run.artefact(f"{reference.FOLDER}/{reference.FILE}")


def _estimate(metrics: Mapping[str, float], name: str) -> Interval | None:
    if name not in metrics:
        return None
    return Interval(metrics[name], *(metrics.get(f"{name}{end}", math.nan) for end in _TWO))
