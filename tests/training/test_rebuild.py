"""A run is made again to the last bit, or the differences are told; other data are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from features.errors import InputError
from features.home import Build, Home
from training.cli import nextbest
from training.finished import FinishedRun
from training.plan import Order
from training.rebuild import code_notes, differences, metrics_of, require_same_data
from training.row_store import RowStore
from training.track import Tracking
from training.train import Trained, train

PRODUCT = "next-best-product"


@pytest.fixture(scope="module")
def home(simulated_home: Home) -> Home:
    return simulated_home


@pytest.fixture(scope="module")
def build(home: Home) -> Build:
    return home.build()


@pytest.fixture(scope="module")
def runs(build: Build, tracking: Tracking) -> tuple[Trained, ...]:
    """Runs of the seeds 3, 3 and 4; the first is the champion that the others are compared with."""
    order = Order(PRODUCT, "prior", horizon_days=14.0, until=build.data_end - timedelta(days=20), seed=3)
    code = {"git_commit": "abc"}
    return tuple(train(replace(order, seed=seed), build, tracking, code) for seed in (3, 3, 4))


def call(home: Home, tracking: Tracking, run: str) -> Result:
    words = ["rebuild", run, "--home", str(home.root), "--json"]
    return CliRunner().invoke(nextbest, words, env={"MLFLOW_TRACKING_URI": tracking.uri})


def test_one_seed_gives_one_result_and_another_seed_another(runs: tuple[Trained, ...], tracking: Tracking) -> None:
    first, again, other = (metrics_of(tracking, run.run_id) for run in runs)
    told = {one.metric for one in differences(first, again)}
    assert all("champion" in name for name in told), "the first had no champion to be compared with"
    assert runs[0].metrics == runs[1].metrics
    changed = {one.metric for one in differences(again, other)}
    assert "test/log_loss_minus_popularity_low" in changed
    assert "test/log_loss" not in changed, "the prior itself draws no lots, only its intervals do"


def test_rows_of_the_store_change_no_metric_and_the_second_time_none_is_computed(
    runs: tuple[Trained, ...], build: Build, tracking: Tracking, tmp_path: Path
) -> None:
    order = Order(PRODUCT, "prior", horizon_days=14.0, until=build.data_end - timedelta(days=20), seed=3)
    cold, warm = (train(order, build, tracking, {}, store=RowStore(tmp_path / "rows")) for _ in range(2))
    assert cold.metrics == warm.metrics == runs[0].metrics
    assert (cold.cost["rows_reused"], warm.cost["rows_computed"]) == (0, 0)
    assert cold.cost["rows_computed"] == warm.cost["rows_reused"] > 1_000


def test_a_run_is_made_again_bit_for_bit_and_nothing_moves(
    runs: tuple[Trained, ...], home: Home, tracking: Tracking
) -> None:
    again = runs[1]
    aliases = {alias: tracking.named(PRODUCT, alias) for alias in ("challenger", "champion", "prior")}
    experiment = tracking.experiment(PRODUCT)
    count = len(tracking.client.search_runs([experiment]))
    done = call(home, tracking, again.run_id)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert found["compared"] == len(metrics_of(tracking, again.run_id)) > 100
    assert [note for note in found["notes"] if "the code is not the run's: abc" in note]
    assert {alias: tracking.named(PRODUCT, alias) for alias in aliases} == aliases
    assert len(tracking.client.search_runs([experiment])) == count
    compared = metrics_of(tracking, again.run_id)
    assert "test/log_loss_minus_champion" in compared, "the champion of that time is asked again"
    assert "prior: test/log_loss" in compared, "nested runs count as well"
    assert not [name for name in compared if "cost/" in name]


def test_a_metric_that_differs_is_told_with_exit_code_3(
    runs: tuple[Trained, ...], home: Home, tracking: Tracking
) -> None:
    told = runs[2].metrics["test/log_loss"]
    tracking.client.log_metric(runs[2].run_id, "test/log_loss", told * (1 + 1e-15), step=1)
    done = call(home, tracking, runs[2].run_id)
    assert done.exit_code == 3, done.stdout
    found = json.loads(done.stdout)
    assert not found["identical"]
    assert [one["metric"] for one in found["differences"]] == ["test/log_loss"]
    assert found["differences"][0]["found"] == told
    assert "1 of" in done.stderr


@pytest.mark.parametrize(("tag", "what"), [("nextbest.data", "data"), ("nextbest.features", "features")])
def test_other_data_or_features_are_refused(
    runs: tuple[Trained, ...], build: Build, tracking: Tracking, tag: str, what: str
) -> None:
    run = FinishedRun.open(tracking, runs[0].run_id)
    require_same_data(run, build)
    with pytest.raises(InputError, match=f"made again from the {what} that it learned from"):
        require_same_data(replace(run, tags={**run.tags, tag: "0" * 64}), build)


def test_a_run_without_an_order_or_of_no_name_is_wrong_input(home: Home, tracking: Tracking) -> None:
    with tracking.run(tracking.experiment(PRODUCT), "by hand", {}) as run:
        pass
    for name, why in ((run.id, "made again from its order"), ("0" * 32, "has no run")):
        done = call(home, tracking, name)
        assert done.exit_code == 2
        assert why in done.stderr


def test_another_code_or_lock_file_is_told() -> None:
    run = {"git_commit": "a" * 40, "lock_sha256": "b" * 64}
    assert code_notes(run, run) == ()
    notes = code_notes(run, {"git_commit": "c" * 40, "lock_sha256": "d" * 64})
    assert [note.split(" is not")[0] for note in notes] == ["the code", "the lock file"]
    changed = {**run, "git_commit": f"{'a' * 40}+changes"}
    assert "nobody can say" in code_notes(changed, changed)[0]
