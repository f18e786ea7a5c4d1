"""The gate on a simulated bank, through the commands: six models as they happen to a bank, one of which may serve.

A champion is trained, then: a worse model, one whose probabilities are too high, a slower one, one that learned from
records in which half of a segment's take-ups were lost, one with a column that was exported after the fact, and a truly
better one. Where a command cannot make such a model, a copy of the champion's run gets one: real artefacts, judged by
`nextbest promote` as any other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from features.assemble import row_schema
from features.home import Home
from features.progress import SILENT
from features.schema import Bool, Float64
from serving.calibration import Calibration
from serving.choice import ChoiceModel
from serving.registry import CHAMPION
from serving.scorers import LightGBMScorer
from training import cost, predictions
from training.cli import nextbest
from training.contenders import fit
from training.dataset import Dataset, dataset
from training.finished import FinishedRun
from training.plan import NEXT_BEST_PRODUCT, Order, make_plan
from training.predictions import MODEL, Predictions
from training.promotion.gate import Verdict, verdict_of
from training.promotion.model_card import LINEAGE
from training.slices import slices
from training.stable import hashes
from training.track import Tracking

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

CUSTOMERS, MONTHS, SEED = 4000, 12, 0
SEGMENT = "affluent"
MORE_TREES = 4000


@dataclass(frozen=True)
class Setting:
    """A home with features of a bank, and a registry of its own."""

    home: Path
    tracking: Tracking

    def call(self, *arguments: str) -> Result:
        environment = {"MLFLOW_TRACKING_URI": self.tracking.uri, "NEXTBEST_HOME": str(self.home)}
        return CliRunner().invoke(nextbest, [*arguments], env=environment)

    def train(self, *arguments: str) -> dict[str, Any]:
        found = self.call("train", NEXT_BEST_PRODUCT, "--json", *arguments)
        assert found.exit_code == 0, found.stderr
        return dict(json.loads(found.stdout))

    def promote(self, run_id: str) -> tuple[int, Verdict]:
        found = self.call("promote", NEXT_BEST_PRODUCT, "--run", run_id)
        verdict = verdict_of(FinishedRun.open(self.tracking, run_id))
        assert verdict is not None
        print(f"\n{verdict.word}: {verdict.reasons or 'by every rule'}")
        return found.exit_code, verdict

    @property
    def champion(self) -> str | None:
        named = self.tracking.named(NEXT_BEST_PRODUCT, CHAMPION)
        return named[1] if named else None

    def copy(
        self,
        run_id: str,
        change: Callable[[ChoiceModel], ChoiceModel] | None = None,
        said: Callable[[Predictions], Float64] | None = None,
        costs: Mapping[str, float] | None = None,
    ) -> str:
        """A new run with the artefacts of `run_id`, but for another model, other probabilities, other costs."""
        like = FinishedRun.open(self.tracking, run_id)
        lineage = {name: like.tags[name] for name in LINEAGE if name in like.tags}
        with self.tracking.run(self.tracking.experiment(NEXT_BEST_PRODUCT), "a copy", lineage) as run:
            standing = self.tracking.named(NEXT_BEST_PRODUCT, CHAMPION)
            assert standing is not None
            run.params({**like.params, "champion_version": standing[0], "champion_run": standing[1]})
            run.metrics(dict(like.metrics) | {f"cost/{name}": value for name, value in (costs or {}).items()})
            for part in ("prior", "gate"):
                run.folder(like.artefact(part), part)
            folder = self.home / "copies" / run.id
            model = ChoiceModel.load(like.artefact("model"))
            (change(model) if change else model).save(folder / "model")
            rows = like.predictions()
            told = {**rows.probabilities, MODEL: said(rows)} if said else dict(rows.probabilities)
            told.pop(predictions.CHAMPION, None)  # that was another champion
            replace(rows, probabilities=told).save(folder / predictions.FOLDER / predictions.FILE)
            run.folder(folder, "")
            self.tracking.register(NEXT_BEST_PRODUCT, run)
        return run.id


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "bank"
    words = ("--customers", str(CUSTOMERS), "--months", str(MONTHS), "--seed", str(SEED))
    assert CliRunner().invoke(nextbest, ["data", "simulate", str(folder), *words]).exit_code == 0
    return folder


def setting(bank: Path, root: Path) -> Setting:
    made = Setting(root / "home", Tracking(f"sqlite:///{root / 'mlflow.db'}"))
    assert made.call("features", "build", str(bank)).exit_code == 0
    return made


@pytest.fixture(scope="module")
def at_work(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting(bank, tmp_path_factory.mktemp("at_work"))


@pytest.fixture(scope="module")
def before(at_work: Setting) -> str:
    """The first champion: the prior."""
    found = at_work.train("--family", "prior")
    assert found["promoted"], found["verdict"]
    return str(found["run_id"])


@pytest.fixture(scope="module")
def better(at_work: Setting, before: str) -> dict[str, Any]:
    return at_work.train("--family", "lightgbm")


@pytest.fixture
def champion(at_work: Setting, better: Mapping[str, Any]) -> Iterator[str]:
    """The champion of every scenario, and afterwards again."""
    run_id = str(better["run_id"])
    at_work.tracking.promote(NEXT_BEST_PRODUCT, run_id)
    yield run_id
    at_work.tracking.promote(NEXT_BEST_PRODUCT, run_id)


@pytest.fixture(scope="module")
def parts(at_work: Setting, better: Mapping[str, Any]) -> dict[str, Dataset]:
    """The rows of the champion's run, made as its training made them."""
    build = Home(at_work.home).build()
    plan, known = make_plan(Order(NEXT_BEST_PRODUCT, "lightgbm"), build.bank)
    rows = dataset(build, plan.question, plan.spine(known, plan.end), row_schema(known, plan.end_time))
    split = plan.split(rows)
    return {name: rows.take(getattr(split, name)) for name in ("train", "valid", "test")}


def refused(found: tuple[int, Verdict]) -> set[str]:
    exit_code, verdict = found
    assert exit_code == (0 if verdict.passed else 3)
    return {check.name for check in verdict.refusals}


def test_a_truly_better_model_is_let_through(at_work: Setting, better: Mapping[str, Any], before: str) -> None:
    assert better["promoted"], better["verdict"]
    verdict = verdict_of(FinishedRun.open(at_work.tracking, better["run_id"]))
    assert verdict is not None
    assert verdict.champion == before
    gain = next(check.measured for check in verdict.checks if check.name == "not worse than the champion")
    assert gain is not None
    assert gain > 0.05


def test_a_copy_of_the_champion_is_let_through(at_work: Setting, champion: str) -> None:
    """So what the others are refused for is what was changed."""
    assert refused(at_work.promote(at_work.copy(champion))) == set()


def test_a_worse_model_is_refused(at_work: Setting, champion: str) -> None:
    found = at_work.train("--family", "prior", "--seed", "1")
    assert not found["promoted"]
    assert "not worse than the champion" in refused(at_work.promote(found["run_id"]))
    assert at_work.champion == champion


def test_probabilities_that_are_twice_too_high_are_refused(at_work: Setting, champion: str) -> None:
    """The odds of the calibrated probabilities times two: the order of the candidates stays."""

    def doubled(model: ChoiceModel) -> ChoiceModel:
        slope, other, shift = model.calibration.parameters
        calibration = Calibration("beta", (slope, other, shift + float(np.log(2))), "times two")
        return replace(model, calibration=calibration)

    def said(rows: Predictions) -> Float64:
        odds = 2 * rows.probabilities[MODEL] / (1 - rows.probabilities[MODEL])
        return np.asarray(odds / (1 + odds))

    found = refused(at_work.promote(at_work.copy(champion, doubled, said)))
    assert {"calibration", "calibration beside the champion"} <= found
    assert "not worse than the champion" not in found
    assert at_work.champion == champion


def test_a_slower_model_is_refused(at_work: Setting, champion: str, parts: Mapping[str, Dataset]) -> None:
    """Thousands of trees that change nothing: the same answers, later."""

    def longer(model: ChoiceModel) -> ChoiceModel:
        scorer = model.scorer
        assert isinstance(scorer, LightGBMScorer)
        draw = np.random.default_rng(0)
        lines = draw.normal(size=(500, len(scorer.layout.pair_names)))
        options = {"objective": "regression", "learning_rate": 1e-12, "num_leaves": 31, "verbosity": -1}
        data = lightgbm.Dataset(lines, draw.normal(size=500), free_raw_data=False)
        more = lightgbm.train(options, data, MORE_TREES, init_model=scorer.booster)
        trees = lightgbm.Booster(model_str=more.model_to_string())
        return replace(model, scorer=LightGBMScorer(scorer.layout, scorer.prior, trees))

    quick = ChoiceModel.load(FinishedRun.open(at_work.tracking, champion).artefact("model"))
    slow, some = longer(quick), parts["test"].take(np.arange(cost.CALLS))
    rows = {"": some.rows, "champion_": some.rows}
    taken = cost.latency_metrics(cost.latencies({"": slow, "champion_": quick}, rows, some.available))
    print(f"a customer waits {taken}")
    found = refused(at_work.promote(at_work.copy(champion, lambda model: slow, costs=taken)))
    assert found == {"latency beside the champion"}
    assert at_work.champion == champion


def test_a_model_that_learned_half_of_a_segment_s_take_ups_is_refused(
    at_work: Setting, champion: str, parts: Mapping[str, Dataset]
) -> None:
    known = {name: half_lost(part) if name != "test" else part for name, part in parts.items()}
    contender = fit("lightgbm", known, 0, SILENT)
    test = parts["test"]
    told = contender.model.probabilities(test.rows, test.available)
    found = refused(at_work.promote(at_work.copy(champion, lambda model: contender.model, lambda rows: told)))
    assert found & {"calibration in groups beside the champion", "targeted rates"}
    assert at_work.champion == champion


def half_lost(part: Dataset) -> Dataset:
    """The rows as they are where the take-ups of every second customer of the segment were never booked."""
    lost: Bool = (slices(part.rows)["segment"] == SEGMENT) & (hashes(part.customer_id) % 2 == 0)
    taken = part.taken & ~lost[:, None]
    kept = part.spine.outside | taken.any(axis=1)  # an occasion without its take-up never was one
    spine = replace(part.spine, taken=taken).take(np.asarray(kept, np.bool_))
    return Dataset(part.question, spine, part.rows.take(kept), part.available[kept])


def test_a_model_with_a_leaked_column_is_refused(bank: Path, tmp_path: Path) -> None:
    """An attribute `applied_for` that the bank learns with the take-up, but exports as known since the one before."""
    leaky = tmp_path / "leaky"
    shutil.copytree(bank, leaky, ignore=shutil.ignore_patterns("truth"))
    dated_back(leaky).to_parquet(leaky / "customers.parquet", index=False)
    made = setting(leaky, tmp_path)
    found = made.train("--family", "lightgbm")
    assert not found["promoted"]
    exit_code, verdict = made.promote(found["run_id"])
    assert exit_code == 3
    assert "leak" in {check.name for check in verdict.refusals}
    assert "applied_for" in verdict.reasons


def dated_back(folder: Path) -> pd.DataFrame:
    """The customers; `applied_for` is what they take up next, from the moment of the take-up before on."""
    customers, holdings = (pd.read_parquet(folder / f"{name}.parquet") for name in ("customers", "holdings"))
    known = customers.groupby("customer_id")["event_timestamp"].min().rename("known")
    opened = holdings[holdings["action"] == "opened"].merge(known, on="customer_id")
    opened = opened[opened["event_timestamp"] > opened["known"]].sort_values("event_timestamp")
    taken = opened[["customer_id", "event_timestamp", "product_id"]].drop_duplicates(["customer_id", "event_timestamp"])
    first = customers.sort_values("event_timestamp").drop_duplicates("customer_id")
    moments = pd.concat(
        [customers, first.drop(columns="event_timestamp").merge(taken[["customer_id", "event_timestamp"]])]
    )
    moments = moments.drop_duplicates(["customer_id", "event_timestamp"]).sort_values("event_timestamp")
    following = taken.rename(columns={"product_id": "applied_for"})
    rows = pd.merge_asof(moments, following, on="event_timestamp", by="customer_id", direction="forward",
                         allow_exact_matches=False)  # fmt: skip
    rows["applied_for"] = rows["applied_for"].fillna("nothing")
    rows["event_timestamp"] = rows["event_timestamp"].astype("datetime64[us, UTC]")
    return rows.sort_values(["event_timestamp", "customer_id"])
