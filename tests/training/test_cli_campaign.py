"""`nextbest campaign plan`: what it refuses, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from training.cli import nextbest


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--days", "0"), "days"),
        (("--contacts", "0"), "contacts per customer"),
        (("--budget", "-1"), "budget"),
        (("--budget", "nan"), "budget"),
        ((), "nextbest features build DIR"),
    ],
)
def test_what_cannot_be_planned_is_exit_code_2_and_writes_nothing(
    more: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    words = ["campaign", "plan", "--entities", str(tmp_path / "e.csv"), "--out", str(tmp_path / "plan.parquet")]
    found = CliRunner().invoke(nextbest, [*words, *more, "--home", str(tmp_path / "home")])
    assert found.exit_code == 2
    assert named in found.stderr
    assert list(tmp_path.iterdir()) == []
