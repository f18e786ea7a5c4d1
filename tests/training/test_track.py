"""The MLflow backend is usable however its first use ended."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from training.track import Tracking


def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db.new")) as half:
        half.execute("CREATE TABLE guardrails (guardrail_id TEXT)")  # one of the tables that migrations create
        half.commit()
    Tracking(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / "mlflow.db.new").exists()
    assert Tracking(f"sqlite:///{tmp_path}/mlflow.db").experiment("again")
