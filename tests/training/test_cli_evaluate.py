"""`nextbest evaluate`: what it tells of served decisions, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from features.arbitration import FACTORS
from features.home import Home
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.entries import Entry
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
    ledger.record(Entry.of(served(1, ("sms", likelier), ("push", {**likelier, "channel": 0.4})), NOW, b"1"))
    ledger.record(Entry.of(served(2, ("sms", likelier), ("push", {**likelier, "value": 30.0})), NOW, b"2"))
    ledger.record(Entry.of(served(3), NOW, b"3"))
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
        (("policy", "--feature", "mood"), "--feature is one of channel, product, product-channel"),
        (("policy", "--served", "--log", "bank"), "--served asks for the home's own ledger"),
        (("table", "nowhere.csv"), "there is none at nowhere.csv"),
    ],
)
def test_what_cannot_be_evaluated_is_wrong_input(words: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(nextbest, ["evaluate", *words, "--home", str(tmp_path / "home")])
    assert told.exit_code == 2
    assert complaint in told.stderr


def decisions(folder: Path, target: dict[str, float], name: str = "decisions.csv") -> Path:
    """What a logging policy took that offers a or b evenly; b earns 2 and a nothing, in two regions."""
    rows = ["customer_id,region,offer,reward,propensity,target_propensity"]
    for number in range(400):
        offer = "ab"[number % 2]
        region = "north" if number % 4 < 2 else "south"
        rows.append(f"c{number},{region},{offer},{2 * (offer == 'b')},0.5,{target[offer]}")
    path = folder / name
    path.write_text("\n".join(rows), "utf-8")
    return path


def told_of(*words: str | Path) -> tuple[int, dict[str, Any]]:
    told = CliRunner().invoke(nextbest, ["evaluate", "table", *map(str, words), "--json"])
    assert told.exit_code in (0, 3), told.stderr
    return told.exit_code, json.loads(told.stdout)


def test_a_table_of_decisions_tells_what_another_policy_would_have_earned(tmp_path: Path) -> None:
    code, found = told_of(decisions(tmp_path, {"a": 0.25, "b": 0.75}), "--by", "region")
    assert code == 0
    assert set(found["estimates"]) == {"ips", "snips"}, "all that the table bears"
    assert found["estimates"]["snips"]["mean"] == pytest.approx(1.5)
    assert found["estimates"]["snips"]["low"] < 1.5 < found["estimates"]["snips"]["high"]
    assert found["logged"]["mean"] == 1.0
    assert {name: one["decisions"] for name, one in found["groups"].items()} == {"north": 200, "south": 200}


def test_a_table_that_cannot_tell_is_withheld_with_exit_code_3_and_its_picture_says_so(tmp_path: Path) -> None:
    table = decisions(tmp_path, {"a": 0.0, "b": 0.1})
    picture = tmp_path / "weights.png"
    code, found = told_of(table, "--plot", picture)
    assert code == 3
    assert found["estimates"] == {}
    assert any("mean weight is 0.100" in reason for reason in found["withheld"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found["plot"] == str(picture)


def test_people_read_the_estimates_of_each_group_and_why_one_has_none(tmp_path: Path) -> None:
    table = decisions(tmp_path, {"a": 0.25, "b": 0.75})
    text = table.read_text("utf-8").replace("c0,north", "c0,island")
    table.write_text(text, "utf-8")
    told = CliRunner().invoke(nextbest, ["evaluate", "table", str(table), "--by", "region", "--unit", "EUR"])
    assert told.exit_code == 0, told.stderr
    assert "EUR per decision" in told.stdout
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line.strip()}
    assert "withheld" in lines["island"], "one decision tells nothing"
    assert "snips" in lines["north"]


@pytest.mark.parametrize("name", ["plot.gif", "nowhere/plot.png"])
def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_estimated(name: str, tmp_path: Path) -> None:
    table = decisions(tmp_path, {"a": 0.25, "b": 0.75})
    told = CliRunner().invoke(nextbest, ["evaluate", "table", str(table), "--plot", str(tmp_path / name)])
    assert told.exit_code == 2
    assert ".png, .svg, .pdf" in told.stderr
