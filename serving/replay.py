"""Making a recorded decision again, from what was known then, and comparing the two bit for bit.

A record brings its states and its question; the decision id determines the draw. What has to be the same as then are
the versions: models, policy, catalogue. Where one moved on there is nothing to compare, and the replay says which; the
features may have been built again since, because the record has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from features.views import views
from serving.decide import Decider
from serving.decision import Ask, Decision, Message
from serving.history import Past, RecordedPast
from serving.recorded import NotReadable, Recorded, unpack
from serving.route import decision_for

_OF_THE_LEDGER = frozenset({"recorded_at"})
"""What the ledger adds to a record."""


@dataclass(frozen=True)
class Replay:
    """replayed: whether the decision could be made again; `reason` says why not. equal: all of it, bit for bit.

    different: the record's fields that came out otherwise.
    """

    replayed: bool
    equal: bool = False
    different: tuple[str, ...] = ()
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "replayed": self.replayed,
            "equal": self.equal if self.replayed else None,
            "different": list(self.different),
            "reason": self.reason,
        }


def replay(record: bytes, decider: Decider) -> Replay:
    """Decide again what `record` (JSON, as the ledger keeps it) decided, and compare."""
    written: dict[str, Any] = orjson.loads(record)
    if written.get("forced"):
        return Replay(False, reason="not drawn: other decisions kept taking the last contact that a limit allows")
    try:
        again = decide_again(written, decider)
    except NotReadable as error:
        return Replay(False, reason=f"the features have changed: {error}")
    made: dict[str, Any] = orjson.loads(orjson.dumps(again.record()))
    moved = _moved(written["versions"], made["versions"])
    if moved:
        return Replay(False, reason=f"moved on since: {'; '.join(moved)}")
    names = (written.keys() | made.keys()) - _OF_THE_LEDGER
    # As text: 1 and 1.0, or 0.0 and -0.0, are equal as values.
    different = [name for name in sorted(names) if _text(written, name) != _text(made, name)]
    if different and written["versions"]["features"] != decider.features_version:
        return Replay(False, reason="the features were built again since, and what was counted in them changed")
    return Replay(True, not different, tuple(different))


def decide_again(written: Mapping[str, Any], decider: Decider) -> Decision:
    """The decision for the question in a parsed record on the record's states; NotReadable where they do not fit."""
    if written.get("features") is None:
        raise NotReadable("the record holds none")
    then = replace(
        decider,
        customers=Recorded(unpack(written["features"], views(decider.catalog, decider.attributes))),
        history=RecordedPast(Past.of(written["past"])),
        features_version=written["versions"]["features"],
    )
    return decision_for(then, ask_of(written), written["decision_id"])


def ask_of(written: Mapping[str, Any]) -> Ask:
    """The question in a parsed record."""
    asked = written["asked"]
    return Ask(
        customer_id=written["customer_id"],
        as_of=datetime.fromisoformat(written["as_of"]),
        eligible=None if asked["eligible"] is None else tuple(asked["eligible"]),
        channels=None if asked["channels"] is None else tuple(asked["channels"]),
        purpose=written["purpose"],
        language=asked["language"],
        message=Message(**asked["message"]) if asked.get("message") else None,
    )


def _moved(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, the versions that are no longer what they were."""
    found = []
    for name in sorted(then.keys() | now.keys()):
        before, present = then.get(name), now.get(name)
        if before == present:
            continue
        if isinstance(before, dict) and isinstance(present, dict):
            found += [f"{name} {moved}" for moved in _moved(before, present)]
        else:
            found.append(f"{name} was {before}, is {present}")
    return found


def _text(document: Mapping[str, Any], name: str) -> bytes | None:
    return orjson.dumps(document[name]) if name in document else None
