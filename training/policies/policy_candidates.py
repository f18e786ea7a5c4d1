"""The candidates of decisions: what the policy in question would do with each, and with what chance it was done then.

A decision of the home's own ledger has a record with the propensity of every candidate. With those, what the target
would do and the log never tried is known, and the actions may share a feature (mips). Of other decisions only the
taken action's propensity is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from features.columns import CUSTOMER_ID
from features.schema import Float64, Int64
from serving.decision import Decision
from training.policies.decision_log import SUM_TOLERANCE, DecisionLog
from training.policies.policy_cases import NO_CONTACT, Cases, Key

FEATURES: Mapping[str, Callable[[Key], object]] = {
    "channel": lambda key: key[1],
    "product": lambda key: key[0],
    "product-channel": lambda key: key[:2],
}
"""What the actions of one class share, for mips; no contact is a class of its own."""

Distribution: TypeAlias = Mapping[Key, float]
"""Action → propensity, of every candidate of one decision."""


def recorded(record: Mapping[str, Any]) -> tuple[str, Distribution]:
    """The id of a decision and the propensities of its candidates, by its record in the ledger."""
    chances: dict[Key, float] = {}
    for one in record["candidates"]:
        key = NO_CONTACT if one["channel"] is None else (one["product_id"], one["channel"], one["content_id"])
        chances[key] = chances.get(key, 0.0) + one["propensity"]
    return record["decision_id"], chances


@dataclass(frozen=True)
class Options:
    """The candidates of one decision: their keys, the target's probabilities, and what was expected to be earned."""

    keys: Sequence[Key]
    target: Float64
    expected: Float64


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


def pooled(chances: Distribution) -> Distribution:
    """The same of a recorded decision's propensities."""
    found: dict[Key, float] = {}
    for key, chance in chances.items():
        pair = (key[0], key[1], None)
        found[pair] = found.get(pair, 0.0) + chance
    return found


def set_against(
    found: Cases,
    options: Sequence[Options],
    whole: bool,
    logged: Mapping[str, Distribution] | None = None,
    feature: Callable[[Key], object] = FEATURES["channel"],
) -> DecisionLog:
    """One log of all decisions. What was a candidate then but is none any more is one that the target never takes.

    logged: decision id → propensity of every candidate; of other decisions only that of the taken one is known.
    """
    counts, taken, target, chances, expected, classes = [], [], [], [], [], []
    rows = zip(found.taken, options, found.frame["decision_id"], found.frame["propensity"], strict=True)
    for key, one, decision, propensity in rows:
        wanted = (key[0], key[1], None) if whole else key
        then = (logged or {}).get(decision, {})
        # A record that says otherwise than the timeline is of another decision: it is not used.
        complete = abs(then.get(wanted, -1.0) - propensity) <= SUM_TOLERANCE
        keys = list(dict.fromkeys([*one.keys, wanted, *(then if complete else ())]))
        extra = np.zeros(len(keys) - len(one.keys))
        place = keys.index(wanted)
        counts.append(len(keys))
        taken.append(place)
        target.append(np.append(one.target, extra))
        expected.append(np.append(one.expected, extra))
        known = np.array([then.get(key, 0.0) if complete else np.nan for key in keys])
        known[place] = propensity
        chances.append(known)
        classes += [feature(key) for key in keys]
    return DecisionLog(
        customer_id=found.frame[CUSTOMER_ID].to_numpy(dtype=object),
        reward=found.frame["reward"].to_numpy(np.float64),
        candidates=np.array(counts, dtype=np.int64),
        taken=np.array(taken, dtype=np.int64),
        logged=np.concatenate(chances),
        target=np.concatenate(target),
        predicted=np.concatenate(expected),
        feature=_codes(classes),
    )


def _codes(classes: Sequence[object]) -> Int64:
    """Int64 [m]: one number per distinct class."""
    number = {name: place for place, name in enumerate(dict.fromkeys(classes))}
    return np.array([number[name] for name in classes], dtype=np.int64)
