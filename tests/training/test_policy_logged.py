"""What the ledger's records add to an evaluation: the probability of every candidate, as it was."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from features.build import build_features
from features.columns import Table
from features.errors import InputError
from features.home import Home
from features.simulate import simulate
from features.times import micros
from serving.decision import Ask
from serving.entries import Entry
from serving.events import TimelineEvent
from serving.export import served_events
from serving.opening import open_serving
from serving.records import picked_records, recent_records
from serving.settings import Settings
from training.cli import nextbest
from training.policies.off_policy import ESTIMATORS
from training.policies.overlap import Overlap
from training.policies.policy_candidates import FEATURES, Options, pooled, recorded, set_against
from training.policies.policy_cases import NO_CONTACT, Cases

LOAN, CARD = ("loan", "sms", "x"), ("card", "app", "y")
CUSTOMERS, TEMPERATURE = 110, 5.0


def some_cases(*taken: tuple[str | None, str | None, str | None]) -> Cases:
    names = [f"d{place}" for place in range(len(taken))]
    frame = pd.DataFrame({"customer_id": names, "decision_id": names, "propensity": 0.5, "reward": 10.0})
    return Cases(frame, taken, {})


def test_with_a_record_every_candidate_has_the_probability_it_was_taken_with() -> None:
    options = [Options([LOAN, NO_CONTACT], np.array([0.75, 0.25]), np.array([2.0, 0.0]))]
    logged = {"d0": {LOAN: 0.5, CARD: 0.3, NO_CONTACT: 0.2}}
    log = set_against(some_cases(LOAN), options, False, logged)
    assert log.fully_logged
    assert log.logged.tolist() == [0.5, 0.2, 0.3], "what is no candidate any more comes last"
    assert log.target.tolist() == [0.75, 0.25, 0.0]
    assert Overlap.of(log).unsupported == 0.0


def test_what_the_target_would_do_and_the_record_lacks_was_never_tried() -> None:
    options = [Options([LOAN, CARD, NO_CONTACT], np.array([0.5, 0.4, 0.1]), np.zeros(3))]
    log = set_against(some_cases(LOAN), options, False, {"d0": {LOAN: 0.5, NO_CONTACT: 0.5}})
    assert Overlap.of(log).unsupported == pytest.approx(0.4)


def test_decisions_without_a_record_know_only_what_was_taken_and_mips_says_of_how_many() -> None:
    options = [Options([LOAN, NO_CONTACT], np.array([0.75, 0.25]), np.zeros(2))] * 2
    log = set_against(some_cases(LOAN, LOAN), options, False, {"d1": {LOAN: 0.5, NO_CONTACT: 0.5}})
    assert np.isnan(log.logged).tolist() == [False, True, False, False]
    with pytest.raises(InputError, match="for 1 of 2 decisions"):
        ESTIMATORS["mips"](log)


def test_a_record_that_contradicts_the_timeline_is_not_used() -> None:
    options = [Options([LOAN, NO_CONTACT], np.array([0.75, 0.25]), np.zeros(2))]
    log = set_against(some_cases(LOAN), options, False, {"d0": {LOAN: 0.9, NO_CONTACT: 0.1}})
    assert log.logged[0] == 0.5
    assert np.isnan(log.logged[1])


@pytest.mark.parametrize(("feature", "alike"), [("channel", [0, 0, 1, 2]), ("product", [0, 1, 0, 2]),
                                                ("product-channel", [0, 1, 2, 3])])  # fmt: skip
def test_actions_share_what_they_are_said_to_share(feature: str, alike: list[int]) -> None:
    keys = [("loan", "sms", "x"), ("card", "sms", "x"), ("loan", "app", "x"), NO_CONTACT]
    options = [Options(keys, np.array([0.25] * 4), np.zeros(4))]
    log = set_against(some_cases(keys[0]), options, False, None, FEATURES[feature])
    assert log.feature is not None
    assert log.feature.tolist() == alike


def test_where_contents_are_not_told_a_records_contents_count_as_one() -> None:
    chances = {("loan", "sms", "x"): 0.25, ("loan", "sms", "y"): 0.25, NO_CONTACT: 0.5}
    assert pooled(chances) == {("loan", "sms", None): 0.5, NO_CONTACT: 0.5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that served decisions the day after the data ends, and was built again with them three weeks later."""
    folder = tmp_path_factory.mktemp("logged")
    simulate(folder / "bank", CUSTOMERS, months=2, seed=3)
    home = Home(folder / "home")
    build = build_features(folder / "bank", home)
    customers = sorted(pc.unique(build.bank.tables[Table.CUSTOMERS]["customer_id"]).to_pylist())
    day = (build.data_end + timedelta(days=1)).replace(hour=3)
    serving = open_serving(Settings(home.root, f"sqlite:///{folder}/mlflow.db", temperature=TEMPERATURE))
    try:
        for number, customer in enumerate(customers):
            decision = serving.decider.decide(Ask(customer, day), f"{number:032x}")
            serving.ledger.record(Entry.of(decision, day, b"{}"))
        later = micros(day + timedelta(days=21))
        serving.ledger.append([TimelineEvent("v", customers[0], later, "visited", "in_app", created_us=later)])
    finally:
        serving.ledger.close()
    build_features(folder / "bank", home, served=served_events("", home.ledger_path))
    return folder


def evaluated(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    told = CliRunner().invoke(
        nextbest,
        ["evaluate", "policy", "--home", str(folder / "home"), "--horizon", "14", "--json", *words],
        env={"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "NEXTBEST_TEMPERATURE": str(TEMPERATURE)},
    )
    return told.exit_code, json.loads(told.stdout)


def test_the_policy_that_decided_is_told_from_its_own_ledger_as_it_was_with_mips_too(home: Path) -> None:
    code, found = evaluated(home, "--served", "--target", "champion", "--estimators", "ips,mips")
    assert code == 0
    assert found["decisions"] == found["whole"] == CUSTOMERS
    assert found["overlap"]["effective_size"] == pytest.approx(CUSTOMERS, rel=1e-6)
    assert found["overlap"]["largest_weight"] == pytest.approx(1.0, abs=1e-3), "decided again on what was known then"
    assert found["overlap"]["unsupported"] == 0.0
    assert found["assumed"] == ["mips takes the reward to depend on what is done through its channel alone"]
    for name in ("ips", "mips"):
        assert found["estimates"][name]["mean"] == pytest.approx(found["logged"]["mean"], rel=1e-3)


def test_records_are_looked_up_by_decision_however_many_there_are(home: Path) -> None:
    path = Home(home / "home").ledger_path
    newest = {record["decision_id"]: record["propensity"] for record in recent_records("", path, CUSTOMERS)}
    asked = [f"{number:032x}" for number in range(3 * CUSTOMERS)]
    found = dict(picked_records("", path, asked * 3, lambda record: (record["decision_id"], record["propensity"])))
    assert found == newest
    assert picked_records("", home / "nowhere.db", asked, recorded) == []
    (decision, chances), *_ = picked_records("", path, [asked[0]], recorded)
    assert decision == asked[0]
    assert sum(chances.values()) == pytest.approx(1.0)
