"""A refresh moves levels that moved, leaves those that stayed, and says so; where it cannot, what to do instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from features.assemble import row_schema
from features.build import features_fingerprint
from features.errors import InputError
from features.home import Build, Home
from features.importing import write_bank
from features.schema import Int64, Rows, RowSchema, Texts
from serving.calibration import Calibration
from serving.choice import ChoiceModel
from serving.question import Question
from serving.registry import champion, resolve
from serving.scorers import Layout, PriorScorer
from training.cli import nextbest
from training.finished import FinishedRun
from training.kept import keep_models
from training.rebuild import rebuild
from training.refresh import Refreshed, refresh
from training.row_files import empty_rows
from training.row_store import RowStore
from training.track import MODEL_FOLDER, PRIOR_FOLDER, Tracking

MODEL = "channel-choice"
ZERO = datetime(2024, 1, 1, tzinfo=UTC)
RATES = {"app": 0.10, "sms": 0.20}
DOUBLES = 140
"""The day from which on twice as many messages on app are answered."""
LAST = 200


class Blank(RowStore):
    """Rows without any content, as nothing here reads it: spares the feature store."""

    def rows(self, build: Build, customer_id: Texts, as_of: Int64, schema: RowSchema, compute: Any) -> Rows:
        rows = empty_rows(schema, len(customer_id))
        for array in (rows.customer, rows.product, rows.channel, rows.held, rows.opted_out):
            array[...] = 0
        return rows


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, new_world: Callable[[], Any]) -> Build:
    """Thirty messages a day on app and sms; at day 140 twice as many on app are answered as before."""
    world, draw = new_world(), np.random.default_rng(5)
    world.knows(**{f"c{number}": 0.0 for number in range(300)})
    for number in range(30 * LAST):
        customer, day, channel = f"c{draw.integers(300)}", number / 30 + 0.01, ("app", "sms")[number % 2]
        world.event(customer, day, "sent", channel=channel, message_id=f"m{number}")
        if draw.random() < RATES[channel] * (2 if day >= DOUBLES and channel == "app" else 1):
            world.event(customer, day + draw.uniform(0.1, 3), "clicked", channel=channel, message_id=f"m{number}")
    bank = world.bank
    fingerprint = features_fingerprint(bank.fingerprint, ())
    folder = tmp_path_factory.mktemp("home") / "builds" / fingerprint[:16]
    made = Build(folder, fingerprint, (), ZERO + timedelta(days=LAST))
    write_bank(bank, made.bank_folder)
    made.mark_complete()
    Home(folder.parent.parent).use(made)
    return made


def model_of(build: Build, calibration: Calibration) -> ChoiceModel:
    schema = row_schema(build.bank)
    question = Question(MODEL, ("app", "web", "sms"), "channel", "each", True, 7.0)
    odds = [np.log(rate / (1 - rate)) for rate in (RATES["app"], 0.1, RATES["sms"])]
    scorer = PriorScorer(Layout.of(question, schema), np.array([*odds, 0.0], np.float32))
    return ChoiceModel(question, scorer, calibration, schema)


def crowned(tracking: Tracking, build: Build, until: float, calibration: Calibration) -> str:
    """A champion that knows the rates of the first days and was trained until a day; its run."""
    made = model_of(build, calibration)
    with tracking.run(tracking.experiment(MODEL), "trained", {}) as run:
        end = ZERO + timedelta(days=until)
        run.params({"model": MODEL, "horizon_days": 7.0, "attribution": "last-touch-1", "until": end.isoformat()})
        run.params({"chosen_family": "lightgbm", "rounds": 7})
        keep_models(run, {MODEL_FOLDER: made, PRIOR_FOLDER: made})
        tracking.register(MODEL, run, champion=True)
    return run.id


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """Of all tests here, as making one takes seconds: each crowns a champion of its own."""
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")


def refreshed(build: Build, tracking: Tracking, until: float | None = None, model: str = MODEL) -> Refreshed:
    end = None if until is None else ZERO + timedelta(days=until)
    return refresh(model, end, build, tracking, {"git_commit": "abc"}, store=Blank(build.folder / "none"))


def test_a_rate_that_doubled_is_found_and_the_new_version_serves(build: Build, tracking: Tracking) -> None:
    trained = crowned(tracking, build, DOUBLES, Calibration("identity"))
    before = champion(MODEL, tracking.uri)
    done = refreshed(build, tracking)
    app, web, sms = done.moved
    moved = np.log(0.2 / 0.8) - np.log(0.1 / 0.9)
    assert app.low < moved < app.high
    assert app.low > 0.3
    assert sms.low < 0 < sms.high
    assert web.outcomes == 0
    assert app.taken > 1.5 * app.expected
    assert done.metrics["test/log_loss_minus_champion_high"] < 0
    assert done.promoted, done.verdict
    serves = champion(MODEL, tracking.uri)
    assert serves.version == done.version != before.version
    rows = Blank(build.folder).rows(build, np.array(["c1"], object), np.array([0]), serves.model.row_schema, None)
    said = serves.model.probabilities(rows, np.ones((1, 3), bool))[0]
    assert said[0] == pytest.approx(0.2, abs=0.03)
    assert (resolve(MODEL, before.version, tracking.uri).model.probabilities(rows, np.ones((1, 3), bool))[0][0]) == (
        pytest.approx(0.1)
    ), "the version of before says what it said"
    run = FinishedRun.open(tracking, done.run_id)
    assert run.params["refreshed_from"] == trained
    assert datetime.fromisoformat(run.params["until"]) > ZERO + timedelta(days=LAST - 1)
    kept = json.loads(run.artefact("refresh/bias.json").read_text())
    assert [one["candidate"] for one in kept] == ["app", "web", "sms"]
    assert {"latency_ms_p50", "champion_latency_ms_p50", "train_seconds", "peak_memory_mb"} <= set(done.cost)


def test_a_refresh_of_a_refresh_learns_only_what_is_new_and_adds_to_it(build: Build, tracking: Tracking) -> None:
    crowned(tracking, build, DOUBLES, Calibration("beta", (1.0, 1.0, 0.0), "before"))
    first = refreshed(build, tracking, 170)
    assert first.promoted, first.verdict
    second = refreshed(build, tracking)
    assert second.champion_version == first.version
    assert second.outcomes < 30 * 32
    assert abs(second.moved[0].shift) < 0.35 < first.moved[0].shift
    last = resolve(MODEL, second.version, tracking.uri).model.calibration
    assert last.parameters == (1.0, 1.0, 0.0)
    assert last.shifts[0] == pytest.approx(first.moved[0].shift + second.moved[0].shift)


def test_where_levels_stayed_hardly_anything_moves_and_the_gate_lets_nothing_worse_serve(
    build: Build, tracking: Tracking
) -> None:
    crowned(tracking, build, 60, Calibration("identity"))
    done = refreshed(build, tracking, DOUBLES)
    for one in done.moved[::2]:
        assert one.low < 0 < one.high
        assert abs(one.shift) < 0.25
    assert not done.metrics["test/log_loss_minus_champion_low"] > 0
    assert abs(done.metrics["test/log_loss_minus_champion"]) < 0.003
    assert done.verdict


def test_a_champion_that_was_right_is_not_replaced_by_levels_of_chance(build: Build, tracking: Tracking) -> None:
    """The same twice over: what the gate judges by is no row that the bias was learned from."""
    crowned(tracking, build, 60, Calibration("identity"))
    done = refreshed(build, tracking, 100)
    rows = FinishedRun.open(tracking, done.run_id).predictions()
    assert len(rows) == done.judged < done.outcomes
    said, was = rows.probabilities["model"], rows.probabilities["champion"]
    assert np.array_equal(np.isnan(said), np.isnan(was))
    assert len(np.unique((said / was)[~np.isnan(said)].round(9))) > 3, "biases of several moments"


def test_without_a_champion_there_is_nothing_to_refresh(build: Build, tracking: Tracking) -> None:
    with pytest.raises(InputError, match=r"has none; train with `nextbest train next-best-product`"):
        refreshed(build, tracking, model="next-best-product")


def test_with_too_little_that_is_new_it_says_how_little_and_writes_nothing(build: Build, tracking: Tracking) -> None:
    crowned(tracking, build, 100, Calibration("identity"))
    experiment = tracking.experiment(MODEL)
    before = len(tracking.client.search_runs([experiment]))
    for until in (90, 100, 104, 108):
        with pytest.raises(InputError, match=r"at least 20 take-ups .* wait until more have closed, or train again"):
            refreshed(build, tracking, until)
    assert len(tracking.client.search_runs([experiment])) == before


def test_another_question_is_another_model(build: Build, tracking: Tracking) -> None:
    made = model_of(build, Calibration("identity"))
    question = replace(made.question, horizon_days=14.0)
    with tracking.run(tracking.experiment(MODEL), "trained", {}) as run:
        run.params({"until": ZERO.isoformat(), "horizon_days": 7.0, "attribution": "last-touch-1"})
        keep_models(run, {MODEL_FOLDER: replace(made, question=question)})
        tracking.register(MODEL, run, prior=False, champion=True)
    with pytest.raises(InputError, match="another question"):
        refreshed(build, tracking)


def test_a_model_of_which_one_always_happens_has_no_level(build: Build, tracking: Tracking) -> None:
    made = model_of(build, Calibration("identity"))
    question = Question(MODEL, ("app", "web", "sms"), "channel", "joint", False, 7.0)
    with tracking.run(tracking.experiment(MODEL), "trained", {}) as run:
        run.params({"until": ZERO.isoformat(), "horizon_days": 7.0, "attribution": "last-touch-1"})
        keep_models(run, {MODEL_FOLDER: replace(made, question=question)})
        tracking.register(MODEL, run, prior=False, champion=True)
    with pytest.raises(InputError, match="exactly one candidate always happens"):
        refreshed(build, tracking)


def test_a_refresh_is_not_made_again_by_training(build: Build, tracking: Tracking) -> None:
    trained = crowned(tracking, build, DOUBLES, Calibration("identity"))
    done = refreshed(build, tracking)
    with pytest.raises(InputError, match=f"the trees of run {trained}"):
        rebuild(done.run_id, build, tracking, {})


def test_the_command_refuses_with_exit_code_2_and_the_next_step(build: Build, tracking: Tracking) -> None:
    words = ["refresh", "next-best-product", "--home", str(build.folder.parent.parent)]
    found = CliRunner().invoke(nextbest, words, env={"MLFLOW_TRACKING_URI": tracking.uri})
    assert found.exit_code == 2
    assert "train with `nextbest train next-best-product`" in found.stderr
