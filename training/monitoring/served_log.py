"""Marketing decisions as the ledger remembers them: what monitoring looks at, and the rows that they were made on.

A record brings the states it was decided on, so its row is built again by the one row builder, to the last bit, without
asking any store. Decisions for a given message, and service or mandatory ones, are left out: nothing was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from features.assemble import assemble
from features.columns import Purpose
from features.schema import Int64, Rows, RowSchema, State, States, View
from features.times import micros
from serving.recorded import NotReadable, unpack
from training.labels import DAY
from training.policies.policy_cases import NO_CONTACT, Key

WEEK = 7 * DAY
_ACTION = ("product_id", "channel", "content_id")


@dataclass(frozen=True)
class Decided:
    """One decision. at: µs. action: NO_CONTACT where nobody was contacted.

    expected: P(take-up through it) of the action as it was valued, NaN where nothing was. worth: value of the best
    candidate, no contact being worth 0. offered: products among the candidates → P(take-up) as served. removed:
    subject, id and rule of what was not possible. reasons: rules. features: the packed states, None: none.
    """

    decision_id: str
    customer_id: str
    at: int
    arm: str
    action: Key
    expected: float
    worth: float
    offered: Mapping[str, float]
    removed: tuple[tuple[str, str, str], ...]
    reasons: tuple[str, ...]
    degraded: tuple[str, ...]
    features: Mapping[str, Any] | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Decided:
        """From a parsed record of the ledger."""
        chosen = record["action"] or dict.fromkeys(_ACTION)
        candidates: Sequence[Mapping[str, Any]] = record["candidates"]
        taken = next((one for one in candidates if all(one[name] == chosen[name] for name in _ACTION)), None)
        action = (chosen["product_id"], chosen["channel"], chosen["content_id"])
        return cls(
            record["decision_id"],
            record["customer_id"],
            micros(datetime.fromisoformat(record["as_of"])),
            record["arm"],
            action if record["action"] else NO_CONTACT,
            _expected(None if taken is None else taken["factors"]),
            max((one["value"] for one in candidates), default=0.0),
            {one["product_id"]: one["factors"]["propensity"] for one in candidates if one["factors"]},
            tuple((one["subject"], one["id"], one["rule"]) for one in record["removed"]),
            tuple(reason["rule"] for reason in record["reasons"]),
            tuple(record["degraded_because"]),
            record.get("features"),
        )


def _expected(factors: Mapping[str, float] | None) -> float:
    """P(product) × P(channel works) × response, at most 1, as `serving.value` multiplies them."""
    if factors is None:
        return float("nan")
    return min(factors["propensity"] * factors["channel"] * factors["response"], 1.0)


def decided(record: Mapping[str, Any]) -> Decided | None:
    """What a parsed record says of a marketing decision; None where it is none."""
    chosen = record["purpose"] == Purpose.MARKETING and not record["asked"].get("message")
    return Decided.of(record) if chosen else None


def in_order(found: Iterable[Decided | None]) -> list[Decided]:
    """Marketing decisions, oldest first."""
    return sorted((one for one in found if one is not None), key=lambda one: (one.at, one.decision_id))


def newest_of_each(found: Sequence[Decided]) -> list[Decided]:
    """The last decision about each customer: one observation each. found: oldest first."""
    return list({one.customer_id: one for one in found}.values())


@dataclass(frozen=True)
class ServedRows:
    """The rows of decisions. of: int64 [n], the decision that each row belongs to. unreadable: reason → decisions."""

    rows: Rows
    of: Int64
    unreadable: Mapping[str, int]


def rows_of(found: Sequence[Decided], views: Sequence[View], schema: RowSchema) -> ServedRows:
    """The rows on which these were decided, as a model with this schema reads them."""
    states: list[States] = []
    kept: list[int] = []
    why: dict[str, int] = {}
    for place, one in enumerate(found):
        try:
            if one.features is None:
                raise NotReadable("the record holds no features")
            states.append(unpack(one.features, views))
            kept.append(place)
        except NotReadable as error:
            why[str(error)] = why.get(str(error), 0) + 1
    as_of = np.array([found[place].at for place in kept], dtype=np.float64) / 1e6
    return ServedRows(assemble(_stacked(states, views), as_of, schema), np.array(kept, dtype=np.int64), why)


def _stacked(states: Sequence[States], views: Sequence[View]) -> States:
    """States of one customer each as states of n."""
    return {
        view.name: State(
            np.concatenate([np.empty(0), *(one[view.name].at for one in states)]),
            np.concatenate([np.empty((0, len(view.numbers))), *(one[view.name].numbers for one in states)]),
            np.concatenate([np.empty((0, len(view.texts)), object), *(one[view.name].texts for one in states)]),
        )
        for view in views
    }


def weekly(at: Int64, end: int) -> Int64:
    """int64 [n]: the µs at which the week of each moment (µs) began; weeks count back from `end`."""
    return np.asarray(end - ((end - at) // WEEK + 1) * WEEK, dtype=np.int64)
