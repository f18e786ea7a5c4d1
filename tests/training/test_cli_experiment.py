"""`nextbest experiment`: plans, readings, refusals."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from training.cli import nextbest
from training.experiment import size


def test_a_plan_is_what_the_planner_says() -> None:
    found = CliRunner().invoke(nextbest, ["experiment", "plan", "--baseline", "0.1", "--lift", "0.3", "--json"])
    planned = size(0.1, 0.3)
    assert found.exit_code == 0
    assert json.loads(found.stdout) == {
        "control": planned.control,
        "treated": planned.treated,
        "power": planned.power,
    }


def test_a_large_experiment_is_read_and_a_small_one_is_refused_with_code_3() -> None:
    read = ["experiment", "read", "--lift", "0.2", "--json"]
    large = CliRunner().invoke(nextbest, [*read, "--control", "50000", "1000", "--treated", "50000", "1300"])
    assert large.exit_code == 0
    assert json.loads(large.stdout)["lift"]["value"] == pytest.approx(0.3)
    small = CliRunner().invoke(nextbest, [*read, "--control", "500", "10", "--treated", "500", "13"])
    assert small.exit_code == 3
    assert json.loads(small.stdout)["lift"] is None


def test_an_impossible_plan_is_wrong_input() -> None:
    found = CliRunner().invoke(nextbest, ["experiment", "plan", "--baseline", "1.5", "--lift", "0.1"])
    assert found.exit_code == 2
    assert "correct --baseline" in found.stderr
