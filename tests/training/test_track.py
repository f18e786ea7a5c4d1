"""The MLflow backend is usable however its first use ended, and aliases name what they should."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from features.errors import InputError
from serving.registry import CHAMPION, PRIOR
from training.track import CHALLENGER, MODEL_FOLDER, PRIOR_FOLDER, Tracking


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")


def registered(tracking: Tracking, model: str, prior: bool = True, champion: bool = False) -> tuple[str, str]:
    """A finished run of `model` and the version of its model."""
    with tracking.run(tracking.experiment(model), "run", {}) as run:
        pass
    return run.id, tracking.register(model, run, prior, champion)


def named(tracking: Tracking, model: str) -> dict[str, tuple[str, str, str] | None]:
    return {alias: tracking.named(model, alias) for alias in (CHALLENGER, CHAMPION, PRIOR)}


def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db.new")) as half:
        half.execute("CREATE TABLE guardrails (guardrail_id TEXT)")  # one of the tables that migrations create
        half.commit()
    Tracking(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / "mlflow.db.new").exists()
    assert Tracking(f"sqlite:///{tmp_path}/mlflow.db").experiment("again")


def test_what_is_registered_is_the_challenger_and_does_not_serve(tracking: Tracking) -> None:
    first, one = registered(tracking, "a", champion=True)
    second, two = registered(tracking, "a")
    found = named(tracking, "a")
    assert found[CHALLENGER] == (two, second, MODEL_FOLDER)
    assert found[CHAMPION] == (one, first, MODEL_FOLDER)
    assert found[PRIOR] is not None
    assert found[PRIOR][1:] == (first, PRIOR_FOLDER)


def test_promoting_lets_the_champion_and_the_prior_name_one_run(tracking: Tracking) -> None:
    registered(tracking, "b", champion=True)
    older, version = registered(tracking, "b")
    newest, _ = registered(tracking, "b")
    assert tracking.promote("b", older) == version
    found = named(tracking, "b")
    assert found[CHAMPION] == (version, older, MODEL_FOLDER)
    assert found[PRIOR] is not None
    assert found[PRIOR][1] == older
    assert found[CHALLENGER] is not None
    assert found[CHALLENGER][1] == newest, "promoting does not change which one is the newest"


def test_the_prior_of_a_run_may_serve_in_place_of_its_model(tracking: Tracking) -> None:
    run, version = registered(tracking, "c")
    prior = tracking.promote("c", run, PRIOR_FOLDER)
    found = named(tracking, "c")
    assert found[CHAMPION] == found[PRIOR] == (prior, run, PRIOR_FOLDER)
    assert prior != version


def test_a_run_without_a_prior_leaves_that_alias_alone(tracking: Tracking) -> None:
    run, version = registered(tracking, "d", prior=False, champion=True)
    assert named(tracking, "d") == {CHALLENGER: (version, run, "model"), CHAMPION: (version, run, "model"), PRIOR: None}


def test_a_run_that_registered_nothing_cannot_be_promoted(tracking: Tracking) -> None:
    registered(tracking, "e")
    with pytest.raises(InputError, match="registered no model of e"):
        tracking.promote("e", "0" * 32)
