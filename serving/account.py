"""The account of a recorded decision, for people: what was known, what was possible, and what would have changed it.

features      per view: how old it was, and what it said
candidates    every action that passed the rules, with its value, its factors and its propensity
removed       everything that did not pass, and the rule that said so
runner_up     the best candidate besides the chosen one
would_change  the smallest changes of value that make another action the best, and, where the decision can be made
              again, the rules without which a better one would have been possible
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from features.views import views
from serving.decide import Decider
from serving.recorded import shown
from serving.replay import Replay, decide_again, replay

_RESTRICTIONS = {"not_eligible": "eligible", "not_allowed": "channels"}
"""Rules that a request makes, and the field by which it does."""


def account(record: bytes, decider: Decider) -> dict[str, Any]:
    """The record (JSON, as the ledger keeps it) with its states unpacked, the runner-up and what a value decides."""
    written: dict[str, Any] = orjson.loads(record)
    as_of = datetime.fromisoformat(written["as_of"]).timestamp()
    packed = written.get("features")
    chosen, runner_up = _places(written)
    candidates = written["candidates"]
    return {
        **written,
        "features": None if packed is None else shown(packed, views(decider.catalog, decider.attributes), as_of),
        "runner_up": None if runner_up is None else candidates[runner_up],
        "would_change": _by_value(candidates, chosen),
    }


def replayed_account(record: bytes, decider: Decider) -> dict[str, Any]:
    """The account with the outcome of the replay and, where it could be made again, the rules that decided."""
    found: Replay = replay(record, decider)
    document = account(record, decider)
    changes = document["would_change"]
    if found.replayed:
        changes = [*changes, *_by_rule(orjson.loads(record), decider)]
    return {**document, "would_change": changes, "replay": found.document()}


def _places(written: Mapping[str, Any]) -> tuple[int, int | None]:
    """Positions of the chosen candidate and of the best other one, None where there is no other."""
    candidates: list[dict[str, Any]] = written["candidates"]
    action = written["action"] or {"product_id": None, "channel": None, "content_id": None}
    chosen = next(
        place
        for place, candidate in enumerate(candidates)
        if all(candidate[name] == action[name] for name in ("product_id", "channel", "content_id"))
    )
    others = [place for place in range(len(candidates)) if place != chosen]
    return chosen, max(others, key=lambda place: candidates[place]["value"], default=None)


def _by_value(candidates: Sequence[Mapping[str, Any]], chosen: int) -> list[dict[str, Any]]:
    """How much more each product's best action would have to be worth to be the best; smallest change first.

    Where the best was not chosen, that it was left to chance is what decided.
    """
    best = max(range(len(candidates)), key=lambda place: candidates[place]["value"])
    top = candidates[best]["value"]
    changes = []
    if candidates[chosen]["value"] < top:
        changes.append(
            {
                "change": "exploration",
                "reason": "drawn to learn from; the policy's best action was another one",
                "by": top - candidates[chosen]["value"],
                "instead": _name(candidates[best]),
            }
        )
    others = [candidate for place, candidate in enumerate(candidates) if place != best]
    nearest: dict[str | None, Mapping[str, Any]] = {}
    for candidate in sorted(others, key=lambda candidate: -candidate["value"]):
        nearest.setdefault(candidate["product_id"], candidate)
    changes += [
        {
            "change": "value",
            "reason": "worth this much more, it would be the best action",
            "by": top - candidate["value"],
            "instead": _name(candidate),
        }
        for candidate in nearest.values()
    ]
    return changes


def _by_rule(written: Mapping[str, Any], decider: Decider) -> list[dict[str, Any]]:
    """Better actions that one restriction of the request, or one declared policy, kept out: decided again without."""
    top = max(candidate["value"] for candidate in written["candidates"])
    changes = []
    for rule in dict.fromkeys(removed["rule"] for removed in written["removed"]):
        if rule in _RESTRICTIONS:
            freed = {**written, "asked": {**written["asked"], _RESTRICTIONS[rule]: None}}
            again = decide_again(freed, decider)
        elif any(policy["id"] == rule for policy in decider.catalog.policies):
            others = tuple(policy for policy in decider.catalog.policies if policy["id"] != rule)
            again = decide_again(written, replace(decider, catalog=replace(decider.catalog, policies=others)))
        else:
            continue
        best = max(again.candidates, key=lambda candidate: candidate.value)
        if best.action is not None and best.value > top:
            changes.append(
                {
                    "change": "rule",
                    "rule": rule,
                    "reason": "without this rule alone there was a better action",
                    "by": best.value - top,
                    "instead": {
                        "product_id": best.action.product_id,
                        "channel": best.action.channel,
                        "content_id": best.action.content_id,
                    },
                }
            )
    return changes


def _name(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    """The action of a candidate; None: no contact."""
    if candidate["channel"] is None:
        return None
    return {name: candidate[name] for name in ("product_id", "channel", "content_id")}
