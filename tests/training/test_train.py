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
from click.testing import CliRunner

from features.home import Build
from features.times import micros
from serving.batch import score_entities
from serving.registry import champion, resolve
from training.cli import nextbest
from training.dataset import rows_at
from training.finished import FinishedRun
from training.plan import Order
from training.process import Process
from training.track import Tracking
from training.train import Trained, train

PRODUCT = "next-best-product"


@pytest.fixture(scope="module")
def order(build: Build) -> Order:
    return Order(PRODUCT, "prior", horizon_days=14.0, until=build.data_end - timedelta(days=20), seed=3)


@pytest.fixture(scope="module")
def trained(build: Build, tracking: Tracking, order: Order) -> Trained:
    return train(replace(order, family="lightgbm"), build, tracking, {"git_commit": "abc"})


@pytest.fixture(scope="module")
def later(trained: Trained, build: Build, tracking: Tracking, order: Order) -> Trained:
    """A run on twenty days more, when what was trained before them serves."""
    tracking.promote(PRODUCT, trained.run_id)
    return train(replace(order, until=None), build, tracking, {})


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


def test_artefacts_lie_where_readers_look_for_them_and_nothing_is_pickled(trained: Trained, tracking: Tracking) -> None:
    folders = [item.path for item in tracking.client.list_artifacts(trained.run_id)]
    files = [item.path for folder in folders for item in tracking.client.list_artifacts(trained.run_id, folder)]
    plots = {f"plots/{name}.png" for name in ("reliability", "reliability_by_candidate", "gain", "importance")}
    kept = {"order/order.json", "predictions/test.parquet", "calibration/by_candidate.json"}
    kept |= {"reference/reference.json", "gate/verdict.json"}
    assert plots | kept | {"model/manifest.json", "prior/manifest.json"} <= set(files)
    assert "card.md" in folders
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_what_depends_on_the_machine_is_kept_apart(trained: Trained, tracking: Tracking) -> None:
    found = tracking.client.get_run(trained.run_id).data.metrics
    costs = {name.removeprefix("cost/"): value for name, value in found.items() if name.startswith("cost/")}
    named = {"train_seconds", "fit_seconds", "peak_memory_mb", "model_bytes", "latency_ms_p50", "latency_ms_p99"}
    named |= {"rows_seconds", "rows_reused", "rows_computed", "refit_seconds", "ladder_seconds"}
    assert set(costs) == named
    assert costs.pop("rows_reused") == 0
    assert min(costs.values()) > 0
    assert costs["latency_ms_p50"] <= costs["latency_ms_p99"]
    assert not [name for name in trained.metrics if "seconds" in name or name.startswith("cost/")]


def test_the_aliases_and_the_tags_say_what_the_gate_said(trained: Trained, later: Trained, tracking: Tracking) -> None:
    for run in (trained, later):
        tags = tracking.client.get_run(run.run_id).data.tags
        assert tags["nextbest.gate"] == ("passed" if run.promoted else "refused")
        assert run.verdict.startswith(tags["nextbest.gate"])
    serves = tracking.named(PRODUCT, "champion")
    assert serves is not None
    assert (serves[1] == later.run_id) == later.promoted


def test_the_champion_answers_for_what_came_after_it_and_for_what_both_were_tested_on(
    trained: Trained, later: Trained, build: Build, tracking: Tracking, order: Order
) -> None:
    assert order.until is not None
    until = micros(order.until)
    mine, theirs = (FinishedRun.open(tracking, run.run_id).predictions() for run in (later, trained))
    said = mine.probabilities["champion"]
    answered = ~np.isnan(said).all(axis=1)
    after = mine.as_of > until
    assert answered[after].all()
    assert 0 < after.sum() < len(mine)
    shared, there = mine.shared_with(theirs)
    assert set(np.flatnonzero(answered & ~after)) <= set(shared)
    np.testing.assert_array_equal(said[shared], theirs.probabilities["model"][there])
    model = resolve(PRODUCT, trained.version, tracking.uri).model
    rows = rows_at(build, mine.customer_id[after], mine.as_of[after], model.row_schema)
    np.testing.assert_array_equal(said[after], model.probabilities(rows, mine.available[after]))
    params = tracking.client.get_run(later.run_id).data.params
    assert params["champion_run"] == trained.run_id
    assert int(params["champion_rows"]) == answered.sum()
    assert {"test/log_loss_minus_champion", "test/log_loss_minus_champion_low"} <= set(later.champion)
    assert "champion_latency_ms_p50" in later.cost, "both are measured side by side"


def test_the_champion_scores_and_the_prior_stands_by(trained: Trained, tracking: Tracking, build: Build) -> None:
    tracking.promote(PRODUCT, trained.run_id)
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
    again = train(replace(order, family="lightgbm"), build, tracking, {})
    assert again.metrics == trained.metrics
    assert again.version != trained.version
    assert resolve(PRODUCT, "challenger", tracking.uri).run_id == again.run_id


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


def test_scores_are_those_of_the_version_trained_last_and_say_when_it_does_not_serve(
    trained: Trained, later: Trained, build: Build, tracking: Tracking, tmp_path: Path
) -> None:
    tracking.promote(PRODUCT, trained.run_id)
    (tmp_path / "asked.csv").write_text(f"customer_id,as_of\nnobody,{build.data_end.isoformat()}\n")
    words = ["score", PRODUCT, "--entities", str(tmp_path / "asked.csv"), "--out", str(tmp_path / "scores.parquet")]
    words += ["--home", str(build.folder.parents[1])]
    newest = tracking.named(PRODUCT, "challenger")
    assert newest is not None
    for more, version in (([], newest[0]), (["--model", "champion"], trained.version)):
        done = CliRunner().invoke(nextbest, [*words, *more, "--json"], env={"MLFLOW_TRACKING_URI": tracking.uri})
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["version"], told["champion_version"]) == (version, trained.version)
    said = CliRunner().invoke(nextbest, words, env={"MLFLOW_TRACKING_URI": tracking.uri}).stdout
    assert f"which is not the champion (version {trained.version})" in said


def test_metrics_are_finite_numbers(trained: Trained) -> None:
    assert all(np.isfinite(value) for value in trained.metrics.values())
    assert json.dumps(trained.metrics, allow_nan=False)
