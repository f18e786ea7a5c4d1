"""What a policy would have earned on a bank's own log: the served decision, made again for every logged one.

Each logged decision is made again by the very `Decider` that serves, on what was known of the customer then. Its
propensities, or what a simpler policy would do with its candidates, are set against the logged ones; the estimators are
those of `training.off_policy`.
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
from features.progress import SILENT, Progress
from features.schema import Float64, States
from serving.decide import Decider
from serving.decision import Ask, Decision
from serving.history import Past, RecordedPast, Response, contacts, responses
from serving.lookup import imported_only
from serving.recorded import Recorded
from training.decision_log import DecisionLog
from training.labels import AT, as_times
from training.policy_cases import NO_CONTACT, Cases, Key
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


@dataclass(frozen=True)
class Options:
    """The candidates of one decision: their keys, the target's probabilities, and what was expected to be earned."""

    keys: Sequence[Key]
    target: Float64
    expected: Float64


def policy_log(
    build: Build, decider: Decider, found: Cases, target: str, seed: int, progress: Progress = SILENT
) -> DecisionLog:
    """The log with the target's probabilities and a cross-fitted reward model; InputError for an unknown target."""
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, however it is {target!r}")
    from features.store import history  # imports Feast, seconds

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
    log = set_against(found, [without_contents(one) for one in options] if whole else options, whole)
    return replace(log, predicted=_predicted(log, build, seed))


def again(decider: Decider, states: States, past: Past, ask: Ask) -> Decision:
    """The decision on states and a past that are given; drawn with an id of its own, which decides nothing here."""
    then = replace(decider, customers=Recorded(states), history=RecordedPast(past), merge=imported_only)
    return then.decide(ask, "0" * 32)


def options_of(decision: Decision, target: Float64) -> Options:
    """The candidates of a decision with the target's probabilities; expected: money, without the customer's side."""
    keys: list[Key] = []
    expected = []
    for candidate in decision.candidates:
        action, factors = candidate.action, candidate.factors or {}
        keys.append(NO_CONTACT if action is None else (action.product_id, action.channel, action.content_id))
        taken = min(factors.get("propensity", 0) * factors.get("channel", 0) * factors.get("response", 0), 1.0)
        expected.append(taken * factors.get("value", 0) - factors.get("cost", 0))
    return Options(keys, target, np.array(expected))


def without_contents(options: Options) -> Options:
    """The same where the log does not tell contents: those of one product and channel count as one candidate."""
    found: dict[Key, list[float]] = {}
    for key, probability, expected in zip(options.keys, options.target, options.expected, strict=True):
        of_pair = found.setdefault((key[0], key[1], None), [0.0, expected])
        of_pair[0] += float(probability)
    return Options(list(found), *(np.array([of_pair[place] for of_pair in found.values()]) for place in (0, 1)))


def set_against(found: Cases, options: Sequence[Options], whole: bool) -> DecisionLog:
    """One log of all decisions. What was taken but is no candidate any more is one that the target never takes."""
    counts, taken, target, logged, expected = [], [], [], [], []
    for key, one, propensity in zip(found.taken, options, found.frame["propensity"], strict=True):
        wanted = (key[0], key[1], None) if whole else key
        keys = [*one.keys] if wanted in one.keys else [*one.keys, wanted]
        extra = len(keys) - len(one.keys)
        place = keys.index(wanted)
        counts.append(len(keys))
        taken.append(place)
        target.append(np.append(one.target, np.zeros(extra)))
        expected.append(np.append(one.expected, np.zeros(extra)))
        known = np.full(len(keys), np.nan)
        known[place] = propensity
        logged.append(known)
    return DecisionLog(
        customer_id=found.frame[CUSTOMER_ID].to_numpy(dtype=object),
        reward=found.frame["reward"].to_numpy(np.float64),
        candidates=np.array(counts, dtype=np.int64),
        taken=np.array(taken, dtype=np.int64),
        logged=np.concatenate(logged),
        target=np.concatenate(target),
        predicted=np.concatenate(expected),
    )


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
