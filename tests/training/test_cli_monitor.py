"""`nextbest monitor` on a small bank with a real ledger: silent without a shift, and an injected one is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from served import home_of

from features import profile
from features.assemble import assemble, row_schema
from features.columns import CUSTOMER_ID, Table
from features.home import Home
from features.packed import OnlineStates
from features.schema import States
from serving.decide import Decider
from serving.decision import Ask, Decision
from serving.entries import Entry
from serving.ledger import SqliteLedger
from serving.opening import open_serving
from serving.settings import Settings
from training.cli import nextbest
from training.monitoring import reference
from training.monitoring.reference import Reference
from training.monitoring.watched import WATCHED, scores_of
from training.track import MODEL_FOLDER, Tracking

SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Richer:
    """Customers as they are, with another income: the source has changed its unit, say."""

    customers: Any
    place: int
    times: float

    def read(self, customer_ids: Sequence[str]) -> States:
        found = dict(self.customers.read(customer_ids))
        facts = found[profile.NAME]
        numbers = facts.numbers.copy()
        numbers[:, self.place] *= self.times
        found[profile.NAME] = replace(facts, numbers=numbers)
        return found


@dataclass(frozen=True)
class Small:
    """A bank with champions whose references are of every second customer; the others can be decided for."""

    home: Home
    uri: str
    others: Sequence[str]

    def another(self, root: Path) -> Home:
        """A home on the same features, with a ledger of its own."""
        root.mkdir(exist_ok=True)
        for name in ("builds", "current"):
            (root / name).symlink_to(self.home.root / name)
        return Home(root)

    def decisions(self, decider: Decider, times: float) -> list[Decision]:
        """One about each of the others, as if every income were so many times what it is."""
        build = self.home.build()
        place = next(view for view in build.views if view.name == profile.NAME).numbers.index("income__attr")
        at, richer = build.data_end + SECOND, replace(decider, customers=Richer(decider.customers, place, times))
        return [richer.decide(Ask(customer, at), f"{number:032x}") for number, customer in enumerate(self.others)]


@pytest.fixture(scope="module")
def small(simulated_bank: Path, model_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp("monitored")
    home = home_of(simulated_bank, root / "home")
    build = home.build()
    customers = sorted(set(build.bank.tables[Table.CUSTOMERS][CUSTOMER_ID].to_pylist()))
    mine, others = customers[::2], customers[1::2]
    schema = row_schema(build.bank)
    at = np.full(len(mine), (build.data_end + SECOND).timestamp())
    rows = assemble(OnlineStates(build.online_path, build.views).read(mine), at, schema)
    tracking = Tracking(f"sqlite:///{root / 'mlflow.db'}")
    for name in WATCHED:
        model = model_of(schema, "lightgbm", 3, name)
        model.save(root / name / MODEL_FOLDER)
        said = scores_of(model, rows, build)
        Reference.of(rows, said, model.question).save(root / name / reference.FOLDER / reference.FILE)
        with tracking.run(tracking.experiment(name), "small", {}) as run:
            for folder in (MODEL_FOLDER, reference.FOLDER):
                run.folder(root / name / folder, folder)
        client = tracking.client
        client.create_registered_model(name)
        source = f"{client.get_run(run.id).info.artifact_uri}/{MODEL_FOLDER}"
        version = client.create_model_version(name, source=source, run_id=run.id).version
        client.set_registered_model_alias(name, "champion", version)
    return Small(home, tracking.uri, others)


@dataclass(frozen=True)
class Ledgers:
    """Homes with served decisions: on customers as they were, and on customers whose income is told in another unit."""

    steady: Path
    shifted: Path


@pytest.fixture(scope="module")
def ledgers(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledgers]:
    root = tmp_path_factory.mktemp("ledgers")
    steady, shifted = (small.another(root / name) for name in ("steady", "shifted"))
    serving = open_serving(Settings(steady.root, small.uri))
    other = SqliteLedger(shifted.ledger_path)
    served = [(ledger, small.decisions(serving.decider, times)) for ledger, times in ((serving.ledger, 1), (other, 6))]
    for ledger, found in served:
        for decision in found:
            ledger.record(Entry.of(decision, decision.ask.as_of, b"{}", contact=decision.contact))
    yield Ledgers(steady.root, shifted.root)
    serving.ledger.close()  # only now: until then it is open, as a server's is
    other.close()


def monitor(small: Small, home: Path, *words: str) -> Result:
    environment = {"MLFLOW_TRACKING_URI": small.uri}
    return CliRunner().invoke(nextbest, ["monitor", "--home", str(home), *words], env=environment)


def test_without_a_shift_there_is_no_alarm_while_a_server_has_the_ledger_open(small: Small, ledgers: Ledgers) -> None:
    told = monitor(small, ledgers.steady, "--json", "--fail-on-drift")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["alarms"] == []
    assert (found["decisions"], found["customers"]) == (len(small.others), len(small.others))
    assert found["champions"] == dict.fromkeys(WATCHED, "1")
    watched = found["drift"]["next-best-product"]
    assert max(one["psi"] or 0 for one in watched) > 0.1, "by the rule of thumb alone there would be an alarm"
    assert not found["not_compared"]


def test_an_injected_shift_is_found_named_and_fails_where_that_was_asked_for(small: Small, ledgers: Ledgers) -> None:
    told = monitor(small, ledgers.shifted, "--json", "--fail-on-drift")
    assert told.exit_code == 3, told.output
    found = json.loads(told.stdout)
    for model in WATCHED[:1]:
        features = [one for one in found["drift"][model] if one["drifted"] and one["what"] == "feature"]
        assert [one["name"] for one in features] == ["income"]
        assert features[0]["chance"] < 0.001
    assert any("'income' has drifted" in alarm for alarm in found["alarms"])
    assert monitor(small, ledgers.shifted).exit_code == 0, "it is told, and fails nothing, unless that is asked for"


def test_the_page_tells_every_part_by_itself_and_loads_nothing(small: Small, ledgers: Ledgers, tmp_path: Path) -> None:
    told = monitor(small, ledgers.shifted, "--out", str(tmp_path / "monitor.html"))
    assert told.exit_code == 0, told.output
    page = (tmp_path / "monitor.html").read_text()
    for section in ("drift", "calibration", "arms", "coverage", "degraded", "underserved"):
        assert f'<section id="{section}">' in page
    assert "income" in page
    assert "<svg role=" in page
    assert "<script" not in page
    assert not [part for part in ("src=", "@import", "url(http", "<link") if part in page]
    assert page.count("<th") > 50


def test_every_customer_is_under_served_by_one_layer_or_by_none(small: Small, ledgers: Ledgers) -> None:
    found = json.loads(monitor(small, ledgers.steady, "--json").stdout)["underserved"]
    assert found["customers"] == len(small.others)
    assert found["underserved"] == sum(found["none"].values()) + sum(found["tiny"].values())
    assert 0 < found["tiny"]["likelihood"] < 0.2 * len(small.others), "about a twentieth, by how the tail is defined"


def test_what_cannot_be_monitored_is_wrong_input(small: Small, ledgers: Ledgers, tmp_path: Path) -> None:
    assert "nextbest features build" in monitor(small, tmp_path / "nothing").stderr
    late = monitor(small, ledgers.steady, "--since", "2999-01-01")
    assert (late.exit_code, "must lie before the newest decision" in late.stderr) == (2, True)
    assert monitor(small, ledgers.steady, "--since", "yesterday").exit_code == 2
    assert monitor(small, ledgers.steady, "--out", str(tmp_path / "no" / "such.html")).exit_code == 2
    unused = monitor(small, small.another(tmp_path / "empty").root)
    assert (unused.exit_code, "the ledger has none yet" in unused.stderr) == (2, True)


def test_without_a_champion_everything_else_is_told(small: Small, ledgers: Ledgers, tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'none.db'}"}
    told = CliRunner().invoke(nextbest, ["monitor", "--home", str(ledgers.steady), "--json"], env=environment)
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert set(found["not_compared"]) == set(WATCHED)
    assert found["drift"] == {}
    assert found["coverage"]["products"]["used"] > 0
    assert not (tmp_path / "none.db").exists(), "looking makes no database"
