"""Folds: no customer in two, nothing later looks back, pooled metrics are those of the parts, and the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from features.errors import InputError
from features.home import Home
from training.cli import nextbest
from training.dataset import Dataset
from training.evaluate import judge
from training.finished import FinishedRun
from training.fold_rows import By, by_customer, by_time, make_folds
from training.folds import Folded, run_folds, within
from training.folds_report import auc_intervals, document, flat, keep, lines, tell
from training.metrics import auc, auc_by_candidate
from training.plan import Order, Plan
from training.predictions import MODEL
from training.prepared import Prepared
from training.spine import Spine
from training.split import by_customer as by_customers
from training.split import by_time as in_time
from training.track import Tracking

HOUR = 3_600_000_000
ORDER = Order("next-best-product", "lightgbm", split="customer")


def prepared(data: Dataset, order: Order = ORDER) -> Prepared:
    """What `prepare` would have made of these rows; no fold looks at its split."""
    plan = Plan(order, data.question, "entities", 0, 1, 1, 1)
    return Prepared(plan, data.rows.schema, data, by_customers(data.customer_id), {}, None)


def people(customers: int, each: int) -> np.ndarray:
    return np.repeat(np.array([f"c{number}" for number in range(customers)], dtype=object), each)


def rows_of(choice_world: Callable[..., Any], customers: int, each: int = 4) -> Dataset:
    """A world in which those with the flag take the card; `each` rows per customer, an hour apart, labels at once."""
    world = choice_world(customers * each, 3)
    n = customers * each
    as_of = np.arange(n, dtype=np.int64) * HOUR
    chosen = world.examples.chosen[:, :-1] > 0
    spine = Spine(
        people(customers, each), as_of, as_of + 1, np.full(n, "entity", dtype=object), world.examples.available[:, :-1],
        np.ones(n, np.bool_), chosen, np.full(n, -1, dtype=np.int64),
    )  # fmt: skip
    return Dataset(world.question, spine, world.examples.rows, world.examples.available[:, :-1])


def fingerprints(data: Dataset, each: int) -> Dataset:
    """The same rows where a column names the customer, and all rows of a customer take what a lot says.

    A model that has seen another row of the customer knows; of a customer that it has not seen nobody can.
    """
    owner = np.repeat(np.arange(len(data) // each), each)
    customer = data.rows.customer.copy()
    customer[:, 0] = 0.0
    customer[:, 1] = owner
    lot = np.random.default_rng(8).permutation(owner.max() + 1) % 2 == 0
    available = np.zeros_like(data.available)
    available[:, 1:3] = True
    taken = np.zeros_like(available)
    taken[np.arange(len(data)), np.where(lot[owner], 1, 2)] = True
    spine = replace(data.spine, customer_id=people(len(data) // each, each), offered=available, taken=taken)
    return Dataset(data.question, spine, replace(data.rows, customer=customer), available)


@pytest.fixture(scope="module")
def plain(choice_world: Callable[..., Any]) -> Dataset:
    return rows_of(choice_world, 400)


@pytest.fixture(scope="module")
def folded(plain: Dataset) -> Folded:
    return run_folds(prepared(plain), make_folds(plain, 4, "customer"))


def test_every_row_is_judged_once_and_no_customer_is_on_two_sides() -> None:
    customers = people(400, 3)
    folds = by_customer(customers, 5)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(1200))
    for fold in folds:
        sides = [set(customers[part].tolist()) for part in (fold.train, fold.valid, fold.test)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert sorted([*fold.train, *fold.valid]) == sorted(fold.learned)
        assert 0.1 < len(fold.valid) / len(fold.learned) < 0.26, "a share of 15 in 85 chooses and calibrates"


def test_who_is_in_which_fold_does_not_depend_on_who_else_is_there() -> None:
    customers = people(300, 1)
    place = {name: at for at, fold in enumerate(by_customer(customers, 5)) for name in customers[fold.test]}
    some = customers[::3]
    assert all(place[name] == at for at, fold in enumerate(by_customer(some, 5)) for name in some[fold.test])


def test_by_time_each_block_is_judged_by_what_was_known_before_it() -> None:
    as_of = np.arange(600, dtype=np.int64) * 10
    closes = as_of + 55
    folds = by_time(as_of, closes, np.full(600, "entity", dtype=object), 4)
    for fold in folds:
        begin = as_of[fold.test].min()
        assert closes[fold.learned].max() <= begin
        assert closes[fold.train].max() <= as_of[fold.valid].min()
        assert closes[fold.valid].max() <= begin
        assert len(fold.learned) == (closes <= begin).sum(), "all that was known by then is learned from"
    judged = np.concatenate([fold.test for fold in folds])
    assert judged.tolist() == list(range(judged.min(), 600))


def test_by_time_borders_lie_on_the_moments_of_snapshots() -> None:
    moments = np.arange(24, dtype=np.int64) * 100
    as_of = np.concatenate([np.repeat(moments, 5), np.arange(2400, dtype=np.int64)])
    sort = np.array(["snapshot"] * 120 + ["occasion"] * 2400, dtype=object)
    for fold in by_time(as_of, as_of + np.where(sort == "snapshot", 100, 1), sort, 3):
        assert as_of[fold.test].min() in moments
        assert (sort[fold.valid] == "snapshot").any()


@pytest.mark.parametrize("by", ["customer", "time"])
def test_inside_a_fold_the_ladder_may_ask_what_the_fold_learns_from_and_nothing_else(plain: Dataset, by: By) -> None:
    spine = plain.spine
    split = by_customers(plain.customer_id) if by == "customer" else in_time(spine.as_of, spine.closes, spine.sort)
    whole = replace(prepared(plain), split=split)
    for fold in make_folds(plain, 3, by):
        inner = replace(whole, data=plain.take(fold.learned), split=within(fold, whole, plain))
        known = fold.learned if by == "time" else np.sort(np.concatenate([fold.train, fold.valid]))
        assert inner.learned.spine.as_of.tolist() == spine.as_of[known].tolist()
        assert inner.data.take(inner.split.valid).spine.as_of.tolist() == spine.as_of[fold.valid].tolist()
        assert (inner.split.borders is None) == (by == "customer"), "folds within it are of the same sort"


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(InputError, match="--folds"):
        by_customer(people(3, 5), 10)
    with pytest.raises(InputError, match="--by customer"):
        by_time(np.zeros(50, np.int64), np.ones(50, np.int64), np.full(50, "entity", dtype=object), 5)


@pytest.mark.proof  # many fits
def test_what_is_known_of_a_customer_alone_is_worth_nothing_across_folds(plain: Dataset) -> None:
    """Split by rows, the fingerprint would tell nearly all; split by customer it tells nothing."""
    data = fingerprints(plain, 40)
    honest = run_folds(prepared(data), make_folds(data, 2, "customer"))
    every_row_alone = replace(data, spine=replace(data.spine, customer_id=people(len(data), 1)))
    leaky = run_folds(prepared(every_row_alone), make_folds(every_row_alone, 2, "customer"))
    seen, unseen = (auc_by_candidate(one.said[MODEL], data.available, data.taken) for one in (leaky, honest))
    assert seen > 0.75
    assert unseen < 0.6


def test_pooled_metrics_are_those_of_all_rows_together(plain: Dataset, folded: Folded) -> None:
    told = tell(folded, 0, resamples=20)
    values = told.pooled.judged[MODEL].values
    said, taken, available = folded.said[MODEL], plain.taken, plain.available
    assert not np.isnan(said[available]).any()
    p = said[available]
    happened = taken[available]
    first = np.nanmax(np.where(available, said, np.nan), axis=1)[:, None] == said
    judged = taken.any(axis=1)
    assert values["hr_at_1"] == pytest.approx((first & taken)[judged].any(axis=1).mean())
    per_row = [-np.where(t, np.log(q), np.log1p(-q))[a].mean() for q, t, a in zip(said, taken, available, strict=True)]
    assert values["log_loss"] == pytest.approx(np.mean(per_row))
    wins = (p[happened][:, None] > p[~happened][None, :]).mean() + (p[happened][:, None] == p[~happened]).mean() / 2
    assert values["auc"] == pytest.approx(wins)
    # means over rows, pooled, are the folds' means weighted by their rows
    sizes = np.bincount(folded.fold)
    of_folds = [one.judged[MODEL].values["log_loss"] for one in told.by_fold]
    assert values["log_loss"] == pytest.approx(np.average(of_folds, weights=sizes))


def test_the_model_of_folds_finds_what_is_there_to_find(folded: Folded) -> None:
    told = tell(folded, 0, resamples=50)
    assert told.pooled.differences["popularity"]["hr_at_1"].above_zero
    assert told.aucs_minus["prior"]["auc"].above_zero
    assert told.own["hr_at_1"].low < told.pooled.judged[MODEL].values["hr_at_1"] < told.own["hr_at_1"].high


def test_intervals_of_the_aucs_stand_about_their_values(plain: Dataset, folded: Folded) -> None:
    own, minus = auc_intervals({MODEL: folded.said[MODEL], "prior": folded.said["prior"]}, plain, 0, 50)
    judged = plain.available & plain.judged_for_probability[:, None]
    for name, said in ((MODEL, folded.said[MODEL]), ("prior", folded.said["prior"])):
        values = auc(said[judged], plain.taken[judged]), auc_by_candidate(said, judged, plain.taken)
        if name == MODEL:
            assert (own["auc"].mean, own["auc_by_candidate"].mean) == pytest.approx(values)
        else:
            assert own["auc"].mean - minus["prior"]["auc"].mean == pytest.approx(values[0])
    assert own["auc"].low < own["auc"].mean < own["auc"].high


def test_a_fold_says_nothing_that_its_own_labels_could_have_told(plain: Dataset, folded: Folded) -> None:
    """Turn over every label of the first fold: what is said of it stays, bit for bit."""
    first = folded.fold == 0
    taken = plain.taken.copy()
    taken[first] = plain.available[first] & ~taken[first] & (np.arange(4) == 1)
    turned = replace(plain, spine=replace(plain.spine, taken=taken))
    again = run_folds(prepared(turned), make_folds(plain, 4, "customer"))
    np.testing.assert_array_equal(again.said[MODEL][first], folded.said[MODEL][first])
    assert (again.said[MODEL][~first] != folded.said[MODEL][~first])[plain.available[~first]].any()


@pytest.mark.proof  # many fits
def test_with_all_families_each_fold_takes_the_one_that_its_validation_rows_chose(plain: Dataset) -> None:
    small = plain.take(np.arange(400))
    order = replace(ORDER, family="all")
    found = run_folds(prepared(small, order), make_folds(small, 2, "customer"))
    for place, how in enumerate(found.fits):
        rows = found.fold == place
        np.testing.assert_array_equal(found.said[MODEL][rows], found.said[how.family][rows])
        assert "validation" in how.reason
    told = tell(found, 0, resamples=10)
    assert {"prior", "popularity"} <= set(told.pooled.differences)


def test_the_run_has_the_schema_of_a_training_run_and_registers_nothing(folded: Folded, tmp_path: Path) -> None:
    told = tell(folded, 0, resamples=5)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = Tracking(uri)
    experiment = tracking.experiment("next-best-product")
    with tracking.run(experiment, "folds", {"nextbest.part": "folds"}) as run:
        keep(run, tracking, experiment, folded, told, ORDER, "customer")
    finished = FinishedRun.open(tracking, run.id)
    kept = finished.predictions()
    assert len(kept) == len(folded.data)
    np.testing.assert_array_equal(kept.probabilities[MODEL], folded.said[MODEL])
    assert judge(kept.probabilities[MODEL], kept).values["log_loss"] == pytest.approx(finished.metrics["test/log_loss"])
    assert {"test/auc_low", "test/worst_calibration_gap_by_chance", "test/hr_at_3_minus_popularity_low"} <= set(
        finished.metrics
    )
    children = tracking.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run.id}'")
    assert {child.data.params["fold"] for child in children} == {"1", "2", "3", "4"}
    assert all("test/log_loss" in child.data.metrics for child in children)
    assert not tracking.client.search_registered_models()
    assert flat(told) == pytest.approx({name: finished.metrics[name] for name in flat(told)})
    assert json.dumps(document(folded, told), allow_nan=False)
    assert len(lines(folded, told, "customer")) >= 5


def test_the_command_judges_a_built_home_and_leaves_a_run(
    simulated_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    asked = ["evaluate", "folds", "channel-choice", "--folds", "2", "--family", "prior", "--until", "2030-01-01"]
    done = CliRunner().invoke(nextbest, [*asked, "--home", str(simulated_home.root), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    kept = FinishedRun.open(Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"), answer["run_id"])
    assert kept.metrics["test/log_loss"] == pytest.approx(answer["metrics"]["test/log_loss"])
    assert len(answer["folds"]) == 2
    assert sum(fold["rows"]["test"] for fold in answer["folds"]) == answer["rows"] == len(kept.predictions())


def test_the_command_says_what_it_takes() -> None:
    done = CliRunner().invoke(nextbest, ["evaluate", "folds", "--help"])
    assert done.exit_code == 0
    assert {"--folds", "--by", "--family", "--entities", "--plot"} <= set(done.output.split())
    assert CliRunner().invoke(nextbest, ["evaluate", "folds", "content-choice"]).exit_code == 2
