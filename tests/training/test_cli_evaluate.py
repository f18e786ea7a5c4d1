"""`nextbest evaluate`: what it tells of served decisions, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from features.arbitration import FACTORS
from features.home import Home
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.ledger import SqliteLedger
from training.cli import nextbest

NOW = datetime(2024, 5, 1, tzinfo=UTC)
NEUTRAL = {
    "context": 1.0,
    "lever": 1.0,
    "response": 1.0,
    "cost": 0.0,
    "fatigue": 0.0,
    "benefit": 0.0,
    "disturbance": 0.0,
}


def served(number: int, *actions: tuple[str, dict[str, float]]) -> Decision:
    candidates = tuple(
        Candidate(Action("loan", channel, None, None), 1.0, {**NEUTRAL, **factors}) for channel, factors in actions
    )
    shares = (1 / (len(actions) + 1),) * (len(actions) + 1)
    return Decision(
        f"{number:032x}", Ask("anna", NOW), None, shares[0], 0.0, (*candidates, Candidate(None, 0.0)), shares,
        (), (), (), 0, (), Versions({}, "p", "f", "c"),
    )  # fmt: skip


def test_factors_tell_how_often_another_action_would_be_the_best_without_one(tmp_path: Path) -> None:
    # The first is decided by the channel, the second by what a take-up is worth.
    likelier = {"propensity": 0.1, "channel": 0.5, "value": 10.0}
    ledger = SqliteLedger(Home(tmp_path).ledger_path)
    ledger.record(served(1, ("sms", likelier), ("push", {**likelier, "channel": 0.4})), NOW, b"1")
    ledger.record(served(2, ("sms", likelier), ("push", {**likelier, "value": 30.0})), NOW, b"2")
    ledger.record(served(3), NOW, b"3")
    told = CliRunner().invoke(nextbest, ["evaluate", "factors", "--home", str(tmp_path), "--json"])
    ledger.close()
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["decisions"] == 2
    assert set(found["changed"]) == set(FACTORS)
    assert found["changed"]["value"] == 0.5
    assert found["changed"]["cost"] == 0.0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("factors",), "the ledger has none yet"),
        (("policy", "--target", "wishes"), "--target is one of champion, greedy, random, no-contact"),
        (("policy", "--target", "random"), "nextbest features build"),
    ],
)
def test_what_cannot_be_evaluated_is_wrong_input(words: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(nextbest, ["evaluate", *words, "--home", str(tmp_path / "home")])
    assert told.exit_code == 2
    assert complaint in told.stderr
