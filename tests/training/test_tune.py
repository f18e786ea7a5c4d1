"""Tuning: who is looked at, that the defaults are never lost, that hopeless trials stop, and that a seed repeats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import InputError
from features.home import Home
from features.progress import SILENT
from training import fit_lightgbm, fit_torch
from training.contenders import fit
from training.dataset import Dataset
from training.examples import log_loss
from training.families import Fitted
from training.labels import DAY
from training.plan import Order
from training.rebuild import metrics_of, rebuild
from training.settings import DEFAULTS, TUNED, Range, Settings, settings_of
from training.spine import Spine
from training.split import newest
from training.track import Tracking
from training.train import train
from training.tune import STARTUP, Tuned, inner, tunable, tune

SEED, TRIALS = 3, 8


@pytest.fixture(scope="module")
def parts(choice_world: Callable[..., Any]) -> dict[str, Dataset]:
    """Three parts of one world, a day per row."""
    return {name: _dataset(choice_world(rows, seed), seed) for name, rows, seed in PARTS}


PARTS = (("train", 400, 1), ("valid", 100, 2), ("test", 100, 3))


def _dataset(world: Any, part: int) -> Dataset:
    rows = len(world.examples)
    as_of = (np.arange(rows) + 10_000 * part) * DAY
    spine = Spine(
        customer_id=np.array([f"c{row % 50}" for row in range(rows)], dtype=object),
        as_of=as_of,
        closes=as_of + 5 * DAY,
        offered=world.examples.available[:, :-1],
        outside=world.examples.available[:, -1],
        taken=world.examples.chosen[:, :-1] > 0,
        previous=np.full(rows, -1, dtype=np.int64),
        sort=np.full(rows, "snapshot", dtype=object),
    )
    return Dataset(world.question, spine, world.examples.rows, world.examples.available[:, :-1])


@pytest.fixture(scope="module")
def tuned(parts: dict[str, Dataset]) -> Tuned:
    return tune("lightgbm", parts["train"], TRIALS, SEED)


def test_the_first_trial_has_the_defaults_and_the_chosen_one_is_no_worse(
    tuned: Tuned, parts: dict[str, Dataset]
) -> None:
    older, later = (part.examples for part in inner(parts["train"]))
    first = tuned.trials[0]
    assert first.settings == pytest.approx(dict(fit_lightgbm.defaults(older)))
    plain = fit_lightgbm.fit(parts["train"].question, older, later, SEED)
    assert first.loss == log_loss(plain.scorer.utilities(later.rows), later)
    assert tuned.best.loss <= first.loss
    assert not first.stopped


def test_what_is_searched_stays_in_its_range(tuned: Tuned) -> None:
    for trial in tuned.trials:
        assert set(trial.settings) == set(fit_lightgbm.SPACE)
        for name, where in fit_lightgbm.SPACE.items():
            assert where.low <= trial.settings[name] <= where.high
            assert not where.whole or isinstance(trial.settings[name], int)


def test_hopeless_trials_are_stopped_and_never_chosen(tuned: Tuned) -> None:
    stopped = [trial for trial in tuned.trials if trial.stopped]
    assert stopped
    assert min(trial.number for trial in stopped) >= STARTUP
    assert not tuned.best.stopped
    assert len(tuned.trials) == TRIALS


def test_one_seed_searches_the_same_way_whatever_happens_in_valid_and_test(
    tuned: Tuned, parts: dict[str, Dataset]
) -> None:
    """Every outcome of valid and test is another one, and every column of their customers is noise."""
    spoilt = {name: part if name == "train" else _spoilt(part) for name, part in parts.items()}
    other = fit("lightgbm", spoilt, SEED, SILENT, TRIALS).tuned
    assert other is not None
    assert other.settings == tuned.settings
    assert [trial.loss for trial in other.trials] == [trial.loss for trial in tuned.trials]


def test_the_newest_rows_of_train_do_change_it(tuned: Tuned, parts: dict[str, Dataset]) -> None:
    train = parts["train"]
    later = newest(train.spine.as_of, train.spine.closes, train.spine.sort)[1]
    spoilt = _spoilt(train)
    taken = train.taken.copy()
    taken[later] = spoilt.taken[later]
    found = tune("lightgbm", replace(train, spine=replace(train.spine, taken=taken)), 2, SEED)
    assert found.trials[0].loss != tuned.trials[0].loss


def test_no_label_of_the_older_rows_reaches_into_the_newest(parts: dict[str, Dataset]) -> None:
    older, later = inner(parts["train"])
    assert older.spine.closes.max() <= later.spine.as_of.min()
    assert len(later) / len(parts["train"]) == pytest.approx(0.2, abs=0.02)
    assert len(older) + len(later) < len(parts["train"]), "rows whose window crosses the border are in neither"


def test_rows_of_one_moment_cannot_be_tuned_on_and_that_is_said(parts: dict[str, Dataset]) -> None:
    train = parts["train"]
    moment = np.zeros_like(train.spine.as_of)
    with pytest.raises(InputError, match=r"--tune .* however .* needs at least"):
        inner(replace(train, spine=replace(train.spine, as_of=moment, closes=moment + DAY)))


def test_the_prior_has_nothing_to_tune(parts: dict[str, Dataset]) -> None:
    assert not tunable("prior")
    assert fit("prior", parts, SEED, SILENT, 5).tuned is None


@dataclass(frozen=True)
class Learned:
    """A family fitted by settings that are not its defaults, and by its defaults. seen: what a watch was told."""

    module: Any
    settings: Settings
    seen: list[tuple[float, float]]
    fitted: Fitted
    plain: Fitted


SETTINGS: dict[Any, dict[str, float]] = {
    fit_lightgbm: {
        "learning_rate": 0.07,
        "num_leaves": 5,
        "min_data_in_leaf": 9,
        "lambda_l2": 2.0,
        "feature_fraction": 0.5,
        "candidate_gain": 3.0,
    },
    fit_torch: {
        "learning_rate": 0.01,
        "decay": 2.0,
        "hidden": 17,
        "embedding": 9,
        "dropout": 0.0,
        "input_dropout": 0.1,
    },
}


@pytest.fixture(scope="module", params=[fit_lightgbm, fit_torch], ids=["lightgbm", "torch"])
def learned(request: pytest.FixtureRequest, parts: dict[str, Dataset]) -> Learned:
    module, settings = request.param, SETTINGS[request.param]
    seen: list[tuple[float, float]] = []
    question, train, valid = parts["train"].question, parts["train"].examples, parts["valid"].examples
    watch = lambda far, loss: seen.append((far, loss))  # noqa: E731
    fitted = module.fit(question, train, valid, SEED, settings=settings, watch=watch)
    before = replace(
        fitted, rounds=1, params={**fitted.params, "learning_rate": module.defaults(train)["learning_rate"]}
    )
    untuned = replace(before, params={**before.params, TUNED: False})
    return Learned(module, settings, seen, fitted, module.refit(question, train, untuned, SEED))


def test_a_refit_takes_the_tuned_settings(learned: Learned, parts: dict[str, Dataset]) -> None:
    before, space = replace(learned.fitted, rounds=1), learned.module.SPACE
    again = learned.module.refit(parts["train"].question, parts["valid"].examples, before, SEED)
    assert settings_of(again, space) == learned.settings
    assert {name: again.params[name] for name in space} == learned.settings


def test_without_tuning_a_refit_has_its_own_defaults(learned: Learned, parts: dict[str, Dataset]) -> None:
    module, train = learned.module, parts["train"].examples
    assert settings_of(learned.plain, module.SPACE) == DEFAULTS
    assert {name: learned.plain.params[name] for name in module.SPACE} == pytest.approx(dict(module.defaults(train)))


def test_settings_reach_what_is_fitted(learned: Learned) -> None:
    scorer: Any = learned.fitted.scorer
    if learned.module is fit_torch:
        shape = scorer.architecture
        assert (shape.hidden, shape.embedding, shape.dropout, shape.input_dropout) == (17, 9, 0.0, 0.1)
    else:
        text = scorer.booster.model_to_string()
        assert max(int(line.split("=")[1]) for line in text.splitlines() if line.startswith("num_leaves=")) == 5


def test_who_watches_sees_every_step_as_far_as_it_came(learned: Learned, parts: dict[str, Dataset]) -> None:
    valid, rate = parts["valid"].examples, learned.settings["learning_rate"]
    steps = [far for far, _ in learned.seen]
    assert steps == pytest.approx(rate * np.arange(1, len(steps) + 1))
    far, loss = min(learned.seen, key=lambda one: one[1])
    assert far == pytest.approx(rate * learned.fitted.rounds)
    assert loss == pytest.approx(log_loss(learned.fitted.scorer.utilities(valid.rows), valid), rel=1e-5)


@pytest.mark.parametrize(("low", "high", "log"), [(1.0, 1.0, False), (0.0, 1.0, True), (-1.0, 1.0, False)])
def test_a_range_that_is_none_is_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="a range goes up"):
        Range(low, high, log)


def _spoilt(part: Dataset) -> Dataset:
    """The same rows with every outcome another one: the next of what was available."""
    taken = np.zeros_like(part.taken)
    for row in range(len(part)):
        available = np.flatnonzero(part.available[row])
        if not part.taken[row].any() and len(available):
            taken[row, available[0]] = True
    rows = replace(
        part.rows, customer=np.random.default_rng(0).normal(size=part.rows.customer.shape).astype(np.float32)
    )
    return replace(part, spine=replace(part.spine, taken=taken), rows=rows)


def test_a_tuned_run_keeps_its_trials_and_is_made_again_bit_for_bit(simulated_home: Home, tmp_path: Path) -> None:
    build, tracking = simulated_home.build(), Tracking(f"sqlite:///{tmp_path}/mlflow.db")
    order = Order("next-best-product", "lightgbm", None, 14.0, build.data_end, tune=2)
    run = train(order, build, tracking, {})
    assert any("trials of lightgbm" in note for note in run.notes)
    runs = tracking.client.search_runs([tracking.experiment(order.model)])
    family = next(one for one in runs if one.data.tags.get("nextbest.family") == "lightgbm")
    trials = {one.data.params["trial"]: one for one in runs if one.data.tags.get("nextbest.part") == "trial"}
    assert set(trials) == {"0", "1"}
    for trial in trials.values():
        assert trial.data.tags["mlflow.parentRunId"] == family.info.run_id
        assert set(fit_lightgbm.SPACE) <= set(trial.data.params)
        assert trial.data.metrics["inner/log_loss"] > 0
    assert "valid/calibration/log_loss" in family.data.metrics
    found = rebuild(run.run_id, build, tracking, {})
    assert found.identical, found.differences
    assert "lightgbm: trial 1: inner/log_loss" in metrics_of(tracking, run.run_id)
