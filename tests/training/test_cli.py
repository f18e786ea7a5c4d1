"""The command line: exit codes, what goes to stdout, and that help is quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from features.errors import ArtefactError, GateRefused, InputError
from features.times import micros
from serving.events import TimelineEvent
from serving.ledger import SqliteLedger
from training.attribution import RULES
from training.cli import nextbest
from training.commands.cli_train import ATTRIBUTIONS, FAMILY_NAMES, MODEL_NAMES
from training.edge import command
from training.families import FAMILIES
from training.plan import MODELS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    ("data", "check"),
    ("data", "simulate"),
    ("features", "build"),
    ("train",),
    ("score",),
    ("promote",),
    ("rebuild",),
    ("compare",),
    ("monitor",),
    ("evaluate", "policy"),
    ("evaluate", "table"),
    ("evaluate", "factors"),
    ("experiment", "plan"),
    ("campaign", "plan"),
    ("export",),
    ("run",),
    ("serve",),
    ("ui",),
)


def call(*arguments: str, home: Path | None = None) -> Result:
    where = ["--home", str(home)] if home else []
    return CliRunner().invoke(nextbest, [*arguments, *where])


@pytest.fixture
def bank_folder(tmp_path: Path) -> Path:
    """The smallest bank that can be imported: one customer who did nothing."""
    folder = tmp_path / "bank"
    folder.mkdir()
    (folder / "catalog.toml").write_text(
        'currency = "EUR"\ntime_zone = "UTC"\n[[products]]\nid = "loan"\nname = "Loan"\n', encoding="utf-8"
    )
    (folder / "customers.csv").write_text("customer_id,event_timestamp\nanna,2024-01-01T00:00:00Z\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(words: tuple[str, ...]) -> None:
    found = call(*words, "--help")
    assert found.exit_code == 0
    assert f"nextbest {' '.join(words)}" in found.output.split("Example:")[1]
    for option in ("--home", "--json", "NEXTBEST_HOME"):
        assert option in found.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from training.cli import nextbest\n"
        "try: nextbest.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pandas', 'numpy', 'mlflow', 'feast', 'torch', 'lightgbm', 'rich') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_line_names_the_models_and_families_that_can_be_trained() -> None:
    assert MODEL_NAMES == MODELS
    assert set(FAMILY_NAMES) == {*FAMILIES, "all"}
    assert ATTRIBUTIONS == RULES


@pytest.mark.parametrize(
    "words",
    [
        ("train", "no-such-model"),
        ("train", "channel-choice", "--family", "magic"),
        ("train", "channel-choice", "--seed", "x"),
        ("train", "send-time", "--family", "prior"),
        ("train", "send-time", "--horizon", "3"),
        ("train", "send-time", "--attribution", "shapley-1"),
        ("train", "next-best-product", "--attribution", "first"),
        ("export",),
        ("score", "next-best-product"),
        ("features", "build"),
        ("unknown",),
    ],
)
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...], tmp_path: Path) -> None:
    found = call(*words)
    assert found.exit_code == 2
    assert found.stdout == ""


def test_what_was_never_built_is_exit_code_2_with_the_next_step_and_nothing_written(tmp_path: Path) -> None:
    for words in (("train", "next-best-product"), ("score", "next-best-product", "--entities", "e", "--out", "o")):
        found = call(*words, home=tmp_path / "home")
        assert found.exit_code == 2
        assert "nextbest features build DIR" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bank_is_exit_code_2_and_writes_nothing(tmp_path: Path) -> None:
    for words in (("features", "build"), ("run",), ("data", "check")):
        found = call(*words, str(tmp_path / "absent"), home=tmp_path / "home")
        assert found.exit_code == 2, found.output
        assert "absent" in found.output
    assert list(tmp_path.iterdir()) == []


def test_check_lists_problems_as_json_on_stdout_and_says_so_on_stderr(bank_folder: Path) -> None:
    good = call("data", "check", str(bank_folder), "--json")
    assert (good.exit_code, json.loads(good.stdout)["ok"]) == (0, True)
    (bank_folder / "customers.csv").write_text(
        "customer_id,event_timestamp\nanna,2024-01-01T00:00:00\n", encoding="utf-8"
    )
    bad = call("data", "check", str(bank_folder), "--json")
    assert bad.exit_code == 2
    problem = json.loads(bad.stdout)["problems"][0]
    assert (problem["table"], problem["column"], problem["rows"]) == ("customers", "event_timestamp", 1)
    assert "nothing was written" in bad.stderr


def test_json_errors_are_json_on_stdout_with_all_problems(bank_folder: Path, tmp_path: Path) -> None:
    (bank_folder / "customers.csv").write_text("customer_id,event_timestamp\n,yesterday\n", encoding="utf-8")
    found = call("features", "build", str(bank_folder), "--json", home=tmp_path / "home")
    assert found.exit_code == 2
    error = json.loads(found.stdout)["error"]
    assert error["type"] == "BankDataError"
    assert {problem["column"] for problem in error["problems"]} == {"customer_id", "event_timestamp"}
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad input"), 2), (GateRefused("not better"), 3), (ArtefactError("damaged"), 1), (KeyError("x"), 1)],
)
def test_errors_end_as_one_line_and_the_right_exit_code(error: Exception, code: int) -> None:
    group = click.Group("g")

    @command(group, "fail", "nextbest fail")
    def fail(edge: Any) -> None:
        raise error

    found = CliRunner().invoke(group, ["fail"])
    assert found.exit_code == code
    assert found.stdout == ""
    assert len(found.stderr.strip().splitlines()) == 1
    assert found.stderr.startswith("nextbest: ")
    shown = CliRunner().invoke(group, ["fail", "--debug"])
    assert "Traceback" in shown.stderr
    assert shown.exit_code == code


@pytest.mark.parametrize("option", [("--horizon", "-3"), ("--horizon", "nan"), ("--until", "yesterday")])
def test_impossible_horizons_and_times_are_refused(option: tuple[str, str], tmp_path: Path) -> None:
    found = call("train", "next-best-product", *option, home=tmp_path / "home")
    assert found.exit_code == 2
    assert option[0] in found.stderr


def test_a_model_that_is_not_possible_is_exit_code_2_and_says_what_is_missing(
    tmp_path: Path, bank_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = call("run", str(bank_folder), home=tmp_path / "home")
    assert found.exit_code == 2
    assert "next-best-product is left out: next-best-product learns from take-ups" in found.stderr
    assert "channel-choice is left out" in found.stderr


def test_simulate_then_check_and_a_second_simulation_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    words = ("data", "simulate", str(folder), "--customers", "30", "--months", "2", "--seed", "1", "--json")
    first = call(*words)
    assert json.loads(first.stdout)["customers"] == 30
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert call(*words).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before
    assert call("data", "check", str(folder)).exit_code == 0


def test_the_home_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBEST_HOME", str(tmp_path / "elsewhere"))
    found = call("train", "next-best-product")
    assert "elsewhere" in found.stderr


def test_a_build_takes_the_homes_ledger_in_unless_told_not_to(bank_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    build = ("features", "build", str(bank_folder), "--json")
    alone = json.loads(call(*build, home=home).stdout)
    assert (alone["served_events"], alone["served_left_out"]) == (0, {})
    serve(home)
    joined = json.loads(call(*build, home=home).stdout)
    assert (joined["served_events"], joined["data_end"]) == (1, "2024-01-05T00:00:00+00:00")
    assert joined["served_left_out"] == {"about customers that the tables do not know": 1}
    assert json.loads(call(*build, "--without-ledger", home=home).stdout) == alone


def test_an_export_is_a_bank_data_directory_with_the_ledgers_timeline(bank_folder: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    assert call("features", "build", str(bank_folder), home=home).exit_code == 0
    serve(home)
    found = call("export", "--out", str(out), "--json", home=home)
    assert found.exit_code == 0, found.stderr
    result = json.loads(found.stdout)
    assert (result["rows"]["timeline"], result["served_events"]) == (1, 1)
    assert call("data", "check", str(out)).exit_code == 0
    assert pq.read_table(out / "timeline.parquet")["event_id"].to_pylist() == ["e1"]
    again = call("export", "--out", str(out), home=home)
    assert again.exit_code == 2
    assert "must be a folder that is empty" in again.stderr
    assert not list(tmp_path.glob("*.tmp"))


def serve(home: Path) -> None:
    """A ledger that two events were posted to, one about a customer whom the tables do not know."""
    ledger = SqliteLedger(home / "ledger.db")
    day = micros(datetime(2024, 1, 5, tzinfo=UTC))
    known = TimelineEvent("e1", "anna", day, "converted", product_id="loan", created_us=day)
    ledger.append([known, TimelineEvent("e2", "nobody", day, "visited", created_us=day)])
    ledger.close()
