"""`nextbest deliver`: what it refuses before anything is sent, and what it says where the service is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.launch import free_port
from training.cli import nextbest

TARGETS = '[channels.push]\nurl = "json://127.0.0.1/{customer_id}"\n'


@pytest.mark.parametrize(
    ("jobs", "targets", "named"),
    [
        ('{"id": "1"}', TARGETS, "line 1"),
        ('{"id": "1", "customer_id": "a"}', "[channels.push]\n", "channel push needs a url"),
        ('{"id": "1", "customer_id": "a"}', None, "targets.toml"),
    ],
)
def test_wrong_files_are_exit_code_2(jobs: str, targets: str | None, named: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text(jobs)
    if targets is not None:
        (tmp_path / "targets.toml").write_text(targets)
    words = ["deliver", str(tmp_path / "jobs.jsonl"), "--targets", str(tmp_path / "targets.toml"), "--once"]
    found = CliRunner().invoke(nextbest, words)
    assert found.exit_code == 2
    assert named in found.stderr


def test_no_jobs_are_done_at_once_and_a_service_that_is_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text("")
    (tmp_path / "targets.toml").write_text(TARGETS)
    words = ["deliver", str(tmp_path / "jobs.jsonl"), "--targets", str(tmp_path / "targets.toml"), "--json"]
    found = CliRunner().invoke(nextbest, words)
    assert (found.exit_code, json.loads(found.stdout)) == (0, {"jobs": 0, "outcomes": {}, "invalid": {}})
    (tmp_path / "jobs.jsonl").write_text('{"id": "1", "customer_id": "a"}')
    away = CliRunner().invoke(nextbest, [*words, "--once", "--url", f"http://127.0.0.1:{free_port()}"])
    assert away.exit_code == 1
    assert "is it running?" in away.stderr
