"""What a policy would have earned on a bank's own log: the served decision, made again for every logged one.

Each logged decision is made again by the very `Decider` that serves, on what was known of the customer then. Its
propensities, or what a simpler policy would do with its candidates, are set against the logged ones; the estimators are
those of `training.policies.off_policy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from features.columns import AS_OF, CUSTOMER_ID
from features.errors import InputError
from features.history import history
from features.progress import SILENT, Progress
from features.schema import Float64, States
from serving.decide import Decider
from serving.decision import Ask, Decision
from serving.history import Past, RecordedPast, Response, contacts, responses
from serving.lookup import imported_only
from serving.recorded import Recorded
from training.labels import AT, as_times
from training.policies.decision_log import DecisionLog
from training.policies.policy_candidates import (
    FEATURES,
    Distribution,
    options_of,
    pooled,
    set_against,
    without_contents,
)
from training.policies.policy_cases import Cases
from training.spine import JUST_BEFORE

if TYPE_CHECKING:
    from features.home import Build
    from serving.caps import Contact

FOLDS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _served(decision: Decision) -> Float64:
    return np.array(decision.propensities)


def _greedy(decision: Decision) -> Float64:
    best = int(np.argmax([candidate.value for candidate in decision.candidates]))
    return np.asarray(np.arange(len(decision.candidates)) == best, dtype=np.float64)


def _random(decision: Decision) -> Float64:
    return np.full(len(decision.candidates), 1.0 / len(decision.candidates))


def _silence(decision: Decision) -> Float64:
    return np.array([float(candidate.action is None) for candidate in decision.candidates])


TARGETS: Mapping[str, Callable[[Decision], Float64]] = {
    "champion": _served,
    "greedy": _greedy,
    "random": _random,
    "no-contact": _silence,
}
"""Policies that can be asked about → probabilities of the candidates of a decision. champion: as it is served, with its
exploration and arms; greedy: always its best action; random: any of its candidates alike."""


def policy_log(
    build: Build,
    decider: Decider,
    found: Cases,
    target: str,
    seed: int,
    progress: Progress = SILENT,
    logged: Mapping[str, Distribution] | None = None,
    feature: str = "channel",
) -> DecisionLog:
    """The log with the target's probabilities and a cross-fitted reward model; InputError for an unknown target.

    logged: decision id → its whole distribution, where it is known. feature: one of FEATURES.
    """
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, however it is {target!r}")
    frame = found.frame
    as_of = frame[AT].to_numpy(np.int64) - JUST_BEFORE
    states = history(build, pd.DataFrame({CUSTOMER_ID: frame[CUSTOMER_ID], AS_OF: as_times(as_of)}), progress)
    pasts = Pasts.of(build)
    options = []
    with progress.step(f"decide again {len(found)} times", len(found)) as advance:
        for row, (customer, at) in enumerate(zip(frame[CUSTOMER_ID], as_of.tolist(), strict=True)):
            decision = again(decider, {name: state.take(np.array([row])) for name, state in states.items()},
                             pasts.at(customer, at), Ask(customer, _EPOCH + timedelta(microseconds=at)))  # fmt: skip
            options.append(options_of(decision, TARGETS[target](decision)))
            advance(1)
    whole = any(key[1] is not None and key[2] is None for key in found.taken)
    known = {name: pooled(chances) for name, chances in (logged or {}).items()} if whole else (logged or {})
    log = set_against(
        found, [without_contents(one) for one in options] if whole else options, whole, known, FEATURES[feature]
    )
    return replace(log, predicted=_predicted(log, build, seed))


def again(decider: Decider, states: States, past: Past, ask: Ask) -> Decision:
    """The decision on states and a past that are given; drawn with an id of its own, which decides nothing here."""
    then = replace(decider, customers=Recorded(states), history=RecordedPast(past), merge=imported_only)
    return then.decide(ask, "0" * 32)


def _predicted(log: DecisionLog, build: Build, seed: int) -> Float64:
    """Float64 [m]: rewards as a ridge regression on what the decider expected, fitted on other customers' decisions."""
    expected = log.predicted if log.predicted is not None else np.zeros(int(log.candidates.sum()))
    groups = pd.factorize(log.customer_id)[0]
    folds = min(FOLDS, int(groups.max()) + 1)
    if folds < 2:
        return expected
    inputs = np.stack([expected, np.maximum(expected, 0.0), (expected == 0.0).astype(np.float64)], axis=1)
    predicted = np.zeros(len(expected))
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    for learned, asked in splitter.split(log.reward, groups=groups):
        model = Ridge(alpha=1.0).fit(inputs[log.chosen[learned]], log.reward[learned])
        rows = np.isin(log.decision, asked)
        predicted[rows] = model.predict(inputs[rows])
    return predicted


@dataclass(frozen=True)
class Pasts:
    """Contacts and responses of the imported timeline by customer, in the order of time."""

    contacts: Mapping[str, Sequence[Contact]]
    responses: Mapping[str, Sequence[Response]]

    @classmethod
    def of(cls, build: Build) -> Pasts:
        made: dict[str, list[Contact]] = {}
        for contact in contacts(build.bank):
            made.setdefault(contact.customer_id, []).append(contact)
        return cls(made, responses(build.bank))

    def at(self, customer_id: str, at_us: int) -> Past:
        """What the rules may know of the customer at that moment."""
        made = self.contacts.get(customer_id, ())
        said = self.responses.get(customer_id, ())
        return Past(
            tuple(contact for contact in made if contact.at_us <= at_us),
            tuple(response for response in said if response.at_us <= at_us),
        )
