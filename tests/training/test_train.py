"""A whole training run on a simulated bank: what is logged, what becomes champion, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.build import build_features
from features.home import Build, Home
from serving.batch import score_entities
from serving.registry import champion, resolve
from training.plan import Order
from training.track import Process, Tracking
from training.train import Trained, train

PRODUCT = "next-best-product"


@pytest.fixture(scope="module")
def build(simulated_bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return build_features(simulated_bank, Home(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")


@pytest.fixture(scope="module")
def order(build: Build) -> Order:
    return Order(PRODUCT, "prior", horizon_days=14.0, until=build.data_end - timedelta(days=20), seed=3)


@pytest.fixture(scope="module")
def trained(build: Build, tracking: Tracking, order: Order) -> Trained:
    return train(replace(order, family="lightgbm"), build, tracking, {"git_commit": "abc"})


def test_the_run_records_what_is_needed_to_make_it_again(trained: Trained, tracking: Tracking, build: Build) -> None:
    run = tracking.client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["horizon_days"] == "14.0"
    assert run.data.params["seed"] == "3"
    assert run.data.tags["nextbest.data"] == build.bank.fingerprint
    assert run.data.tags["git_commit"] == "abc"
    assert run.inputs.dataset_inputs[0].dataset.digest == build.bank.fingerprint[:36]


def test_every_family_has_a_nested_run_with_the_same_metric_names(trained: Trained, tracking: Tracking) -> None:
    experiment = tracking.experiment(PRODUCT)
    nested = tracking.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{trained.run_id}'")
    names = {run.data.tags["nextbest.family"]: set(run.data.metrics) for run in nested}
    assert set(names) == {"prior", "lightgbm"}
    assert {"test/hr_at_3", "test/log_loss", "test/ece", "test/hr_at_3_minus_popularity_low"} <= names["prior"]
    against_prior = {name for name in names["lightgbm"] if "_minus_prior" in name or "/prior/" in name}
    assert names["lightgbm"] - against_prior == names["prior"] - {n for n in names["prior"] if "/prior/" in n}


def test_pictures_and_the_model_are_artefacts_and_nothing_is_pickled(trained: Trained, tracking: Tracking) -> None:
    files = [
        item.path for folder in ("plots", "model") for item in tracking.client.list_artifacts(trained.run_id, folder)
    ]
    assert {"plots/reliability.png", "plots/gain.png", "plots/importance.png", "model/manifest.json"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_the_champion_scores_and_the_prior_stands_by(trained: Trained, tracking: Tracking, build: Build) -> None:
    loaded = champion(PRODUCT, tracking.uri)
    assert (loaded.version, loaded.run_id) == (trained.version, trained.run_id)
    assert loaded.model.scorer.family == "lightgbm"
    assert resolve(PRODUCT, "prior", tracking.uri).model.scorer.family == "prior"
    asked = pd.DataFrame(
        {"customer_id": ["nobody"], "as_of": pd.Series([build.data_end]).astype("datetime64[us, UTC]")}
    )
    found = score_entities(build, loaded.model, asked)
    assert len(found) == len(build.catalog.products)
    assert found["score"].between(0, 1).all()


def test_what_lies_beyond_until_is_judged_with_the_model_frozen(trained: Trained) -> None:
    assert trained.metrics["unseen/rows"] > 0
    assert {"unseen/hr_at_3", "unseen/hr_at_3_minus_popularity_low"} <= set(trained.metrics)


def test_running_again_gives_identical_metrics(
    trained: Trained, build: Build, tracking: Tracking, order: Order
) -> None:
    first, again = (train(order, build, tracking, {}) for _ in range(2))
    assert again.metrics == first.metrics
    assert len({trained.version, first.version, again.version}) == 3
    assert champion(PRODUCT, tracking.uri).run_id == again.run_id


def test_a_run_that_fails_leaves_the_champion_alone(
    trained: Trained, build: Build, tracking: Tracking, order: Order
) -> None:
    class Full(Tracking):
        def register(self, model: str, run: Any) -> str:
            raise OSError("disk full")

    before = champion(PRODUCT, tracking.uri).version
    broken = Full(tracking.uri)
    with pytest.raises(OSError, match="disk full"):
        train(order, build, broken, {})
    assert champion(PRODUCT, tracking.uri).version == before
    failed = tracking.client.search_runs([tracking.experiment(PRODUCT)], "attributes.status = 'FAILED'")
    assert len(failed) == 1


def test_the_next_start_marks_a_killed_run_and_no_other(tracking: Tracking, tmp_path: Path) -> None:
    code = (
        "import sys, time; from training.track import Tracking; t = Tracking(sys.argv[1]); "
        "e = t.experiment('killed'); c = t.run(e, 'r', {}); r = c.__enter__(); print(r.id, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, tracking.uri]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        experiment = tracking.experiment("killed")
        assert tracking.mark_killed(experiment) == 0, "it still runs"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with tracking.run(experiment, "mine", {}) as mine:
        assert tracking.mark_killed(experiment) == 1
        assert tracking.client.get_run(run_id).info.status == "KILLED"
        assert tracking.client.get_run(mine.id).info.status == "RUNNING"


def test_a_process_of_another_host_is_never_called_gone() -> None:
    assert not replace(Process.this(), host="elsewhere", pid=2**22 + 1).is_gone
    assert replace(Process.this(), started="1").is_gone, "the number was given to another process"
    assert not Process.this().is_gone


def test_several_processes_may_open_a_fresh_backend_at_once(tmp_path: Path) -> None:
    code = "import sys; from training.track import Tracking; Tracking(sys.argv[1]).experiment('one')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0, 0, 0]


def test_metrics_are_finite_numbers(trained: Trained) -> None:
    assert all(np.isfinite(value) for value in trained.metrics.values())
    assert json.dumps(trained.metrics, allow_nan=False)
