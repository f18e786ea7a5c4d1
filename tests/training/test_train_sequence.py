"""A run of the sequence model on a simulated bank: kept, compared and scored with, but never a champion."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from features.errors import InputError
from features.home import Build, Home
from features.schema import Rows
from training.cli import nextbest
from training.comparison.compare_runs import compare_runs
from training.finished import FinishedRun
from training.labels import cut
from training.plan import Order
from training.rebuild import metrics_of
from training.sequence.fit_sequence import Settings
from training.sequence.machine import Machine
from training.sequence.score_sequence import score_sequences
from training.sequence.sequence_model import SequenceModel
from training.sequence.tokens import Tokens
from training.sequence.train_sequence import FOLDER, learnable, train_sequence
from training.spine import moments
from training.track import Tracking
from training.train import Trained, train

PRODUCT = "next-best-product"
SMALL = Settings(length=16, width=16, layers=1, heads=2, most_epochs=2)

pytestmark = pytest.mark.proof
"""Whole trainings of two kinds of models side by side: a minute and a half. Their parts are tested in every run."""


@pytest.fixture(scope="module")
def order(build: Build) -> Order:
    return Order(PRODUCT, "sequence", horizon_days=14.0, until=build.data_end - timedelta(days=20), seed=3)


@pytest.fixture(scope="module")
def beside(build: Build, tracking: Tracking, order: Order) -> Trained:
    """A run of another family on the same rows, which serves."""
    return train(replace(order, family="prior"), build, tracking, {})


@pytest.fixture(scope="module")
def trained(build: Build, tracking: Tracking, order: Order, beside: Trained) -> Trained:
    return train_sequence(order, build, tracking, {}, settings=SMALL, machine=Machine())


@pytest.fixture(scope="module")
def model(trained: Trained, tracking: Tracking) -> SequenceModel:
    return SequenceModel.load(FinishedRun.open(tracking, trained.run_id).artefact(FOLDER))


def test_it_is_judged_beside_the_prior_the_trees_and_counting_on_the_same_rows(
    trained: Trained, beside: Trained, tracking: Tracking
) -> None:
    run = tracking.client.get_run(trained.run_id)
    for other in ("prior", "lightgbm", "popularity"):
        assert {f"test/hr_at_3_minus_{other}{end}" for end in ("", "_low", "_high")} <= set(run.data.metrics)
    assert trained.metrics["test/prior/log_loss"] == beside.metrics["test/log_loss"]
    assert trained.rows == beside.rows
    names = {name for name in run.data.metrics if name.startswith("test/") and "/lightgbm" not in name}
    assert {name for name in beside.metrics if name.startswith("test/")} <= names
    assert any("lightgbm on test" in note for note in trained.notes)


def test_its_run_tells_what_it_cost_and_what_it_is(trained: Trained, tracking: Tracking) -> None:
    run = tracking.client.get_run(trained.run_id).data
    costs = ("events_per_second", "rows_per_second", "fit_seconds", "lightgbm_fit_seconds", "peak_memory_mb")
    assert all(run.metrics[f"cost/{name}"] > 0 for name in (*costs, "model_bytes", "train_seconds"))
    assert run.params["chosen_family"] == "sequence"
    assert run.params["window_tokens"] == "16"
    assert (run.params["device"], run.params["bf16"], run.params["compiled"]) == ("cpu", "False", "False")
    assert run.tags["nextbest.gate"] == "refused"
    assert "serves batches only" in run.tags["nextbest.gate_reasons"]


def test_it_is_registered_nowhere_and_what_serves_stays(trained: Trained, beside: Trained, tracking: Tracking) -> None:
    assert not trained.promoted
    assert trained.version == ""
    versions = tracking.client.search_model_versions(f"run_id = '{trained.run_id}'")
    assert list(versions) == []
    assert tracking.named(PRODUCT, "challenger")[1] == beside.run_id
    with pytest.raises(InputError, match="registered no model"):
        tracking.promote(PRODUCT, trained.run_id)


def test_its_answers_are_compared_with_those_of_another_run(
    trained: Trained, beside: Trained, tracking: Tracking
) -> None:
    found = compare_runs(*(FinishedRun.open(tracking, run.run_id) for run in (trained, beside)), seed=0)
    assert len(found.shared.challenger) == trained.rows["test"]
    assert found.differences["log_loss"].challenger == pytest.approx(trained.metrics["test/log_loss"])


def test_it_scores_every_entity_from_what_was_known_then(model: SequenceModel, build: Build, order: Order) -> None:
    people = Tokens.of(build.bank).customers[:30]
    asked = pd.DataFrame({"customer_id": [*people, "nobody"], "as_of": pd.Series([order.until] * 31)})
    asked["as_of"] = asked["as_of"].astype("datetime64[us, UTC]")
    scores = pd.concat(score_sequences(build, model, asked, block=20))
    assert set(scores["customer_id"]) == set(asked["customer_id"])
    assert scores["score"].between(0, 1).all()
    assert (scores.groupby("customer_id")["score"].diff().dropna() <= 0).all()
    assert (scores.groupby("customer_id")["rank"].max() == scores.groupby("customer_id").size()).all()


def test_what_happens_later_changes_no_score(model: SequenceModel, build: Build, order: Order) -> None:
    assert order.until is not None
    whole = Tokens.of(build.bank)
    people = np.asarray(whole.customers[:50], dtype=object)
    moment = moments(pd.DataFrame({"as_of": pd.Series([order.until] * 50).astype("datetime64[us, UTC]")}))
    then = Tokens.of(cut(build.bank, int(moment[0])))
    assert len(then) < len(whole)
    rows = empty_rows(model, 50)
    np.testing.assert_allclose(
        model.utilities(whole, people, moment, rows), model.utilities(then, people, moment, rows), atol=1e-6
    )


def empty_rows(model: SequenceModel, count: int) -> Rows:
    schema = model.row_schema
    m, channels = len(schema.products), len(schema.channels)
    return Rows(
        np.full((count, len(schema.customer_names)), np.nan, np.float32),
        np.full((count, m, len(schema.product_names)), np.nan, np.float32),
        np.full((count, channels, len(schema.channel_names)), np.nan, np.float32),
        np.zeros((count, m), bool),
        np.zeros((count, channels), bool),
        schema,
    )


def test_words_are_learned_from_what_rows_to_learn_from_may_know(build: Build) -> None:
    class Part:
        """The two columns that say what a part may know."""

        def __init__(self, customer_id: str, as_of: int) -> None:
            self.customer_id = np.array([customer_id], dtype=object)
            self.spine = self
            self.as_of = np.array([as_of], dtype=np.int64)

    tokens = Tokens.of(build.bank)
    one = int(np.bincount(tokens.owner).argmax())
    own = np.flatnonzero(tokens.owner == one)
    moment = int(tokens.known[own[len(own) // 2]])
    found = learnable(tokens, Part(tokens.customers[one], moment))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, own[tokens.known[own] <= moment])


def test_the_same_order_gives_the_same_metrics_to_the_last_bit(
    trained: Trained, tracking: Tracking, build: Build, order: Order, tmp_path: Path
) -> None:
    apart = Tracking(f"sqlite:///{tmp_path / 'again.db'}")
    again = train_sequence(order, build, apart, {}, settings=SMALL, machine=Machine())
    assert metrics_of(apart, again.run_id) == metrics_of(tracking, trained.run_id)


def test_what_it_cannot_do_is_refused(build: Build, tracking: Tracking, order: Order) -> None:
    with pytest.raises(InputError, match="family sequence answers next-best-product"):
        train_sequence(replace(order, model="channel-choice"), build, tracking, {})
    with pytest.raises(InputError, match="however --tune 5 was asked for"):
        train_sequence(replace(order, tune=5), build, tracking, {})


def test_the_command_line_scores_with_a_run(
    trained: Trained, tracking: Tracking, simulated_home: Home, order: Order, tmp_path: Path
) -> None:
    people = Tokens.of(simulated_home.build().bank).customers[:5]
    asked = pd.DataFrame({"customer_id": list(people), "as_of": pd.Series([order.until] * 5)})
    asked["as_of"] = asked["as_of"].astype("datetime64[us, UTC]")
    asked.to_parquet(tmp_path / "asked.parquet")
    command = ["score", PRODUCT, "--entities", str(tmp_path / "asked.parquet"), "--out", str(tmp_path / "said.parquet")]
    command += ["--model", trained.run_id, "--home", str(simulated_home.root), "--json"]
    done = CliRunner().invoke(nextbest, command, env={"MLFLOW_TRACKING_URI": tracking.uri}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["run_id"] == trained.run_id
    assert set(pd.read_parquet(tmp_path / "said.parquet")["customer_id"]) == set(people)
