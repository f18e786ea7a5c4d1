"""`nextbest promote`: the alias moves where the gate lets it, and nowhere else; the run keeps why."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from features.schema import RowSchema
from serving.choice import ChoiceModel
from serving.question import Question
from serving.registry import CHAMPION, PRIOR
from training import predictions
from training.cli import nextbest
from training.finished import FinishedRun
from training.predictions import Predictions
from training.promotion.gate import Verdict, verdict_of
from training.promotion.leak import Leaks, Separation
from training.track import CHALLENGER, Run, Tracking

MODEL = "next-best-product"
PRODUCTS = ("account", "card", "loan", "fund")
SCHEMA = RowSchema(PRODUCTS, (True,) * 4, ("app",), (), (), "UTC", ("age",), ("visits",), ("touches",))
ROWS = 600


def said(sharp: float, times: float = 1.0) -> Predictions:
    """Everybody's favourite is taken three times in ten, the others one in fifty. sharp: for which share of the
    customers the model knows the favourite; of the others it says what is usual. times: too high by this factor."""
    draw = np.random.default_rng(0)
    favourite, lot = draw.integers(4, size=ROWS), draw.random((ROWS, 1))
    truth = np.where(np.arange(4) == favourite[:, None], 0.3, 0.02)
    upper = np.cumsum(truth, axis=1)
    taken = (lot < upper) & (lot >= upper - truth)
    known = draw.random((ROWS, 1)) < sharp
    every = np.ones(ROWS, np.bool_)
    return Predictions(
        Question(MODEL, PRODUCTS, "product", "joint", True, 30.0),
        np.array([f"c{place}" for place in range(ROWS)], dtype=object),
        np.zeros(ROWS, dtype=np.int64),
        np.ones((ROWS, 4), np.bool_),
        taken,
        every,
        taken.any(axis=1),
        every,
        {"model": times * np.where(known, truth, 0.09), "prior": np.full((ROWS, 4), 0.09)},
        {},
    )


class Shelf:
    """Finished runs as training leaves them, registered as challengers, in a registry of their own."""

    def __init__(self, folder: Path, model_of: Callable[..., ChoiceModel]) -> None:
        self.tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}")
        self._model_of = model_of

    def put(self, what: Predictions | None, damaged: bool = False, column: str = "age") -> str:
        """A run whose model said `what` of its test rows; its id."""
        with self.tracking.run(self.tracking.experiment(MODEL), "trained", {"git_commit": "abc"}) as run:
            run.params({"model": MODEL, "chosen_family": "lightgbm", "until": "2024-12-31"})
            run.metrics({"test/hr_at_3": 0.5, "cost/latency_ms_p99": 2.0, "cost/latency_ms_p50": 1.0})
            auc = 0.7 if column == "age" else 0.99
            tells = () if column == "age" else ("any",)
            run.text(
                Leaks((Separation(column, "any", auc, 0.6, 200, tells),), {"card": 200}).to_json(), "gate/leak.json"
            )
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for part in ("model", "prior"):
                    self._model_of(SCHEMA, "prior", 0).save(folder / part)
                if damaged:
                    (folder / "model" / "rows.json").write_text("{}", encoding="utf-8")
                if what is not None:
                    what.save(folder / predictions.FOLDER / predictions.FILE)
                run.folder(folder, "")
            self.register(run)
        return run.id

    def register(self, run: Run) -> None:
        self.tracking.register(MODEL, run)

    def alias(self, name: str) -> tuple[str, str] | None:
        """Run and folder that an alias names."""
        found = self.tracking.named(MODEL, name)
        return None if found is None else found[1:]

    def promote(self, *arguments: str) -> Result:
        environment = {"MLFLOW_TRACKING_URI": self.tracking.uri}
        return CliRunner().invoke(nextbest, ["promote", MODEL, *arguments], env=environment)

    def kept(self, run_id: str) -> FinishedRun:
        return FinishedRun.open(self.tracking, run_id)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, model_of: Callable[..., ChoiceModel]) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("registry"), model_of)


@pytest.fixture(scope="module")
def first(shelf: Shelf) -> str:
    """A run that knows four favourites of five, promoted: there was no champion."""
    run = shelf.put(said(0.8))
    assert shelf.alias(CHALLENGER) == (run, "model")
    assert shelf.alias(CHAMPION) is None
    found = shelf.promote()
    assert found.exit_code == 0, found.output
    return run


def test_the_run_trained_last_becomes_the_champion_and_its_prior_the_prior(shelf: Shelf, first: str) -> None:
    assert shelf.alias(CHAMPION) == (first, "model")
    assert shelf.alias(PRIOR) == (first, "prior")


def test_the_verdict_goes_to_the_run_with_a_model_card(shelf: Shelf, first: str) -> None:
    run = shelf.kept(first)
    verdict = verdict_of(run)
    assert verdict is not None
    assert verdict.passed
    assert (run.tags["nextbest.gate"], run.tags["nextbest.gate_reasons"]) == ("passed", "")
    card = run.artefact("card.md").read_text(encoding="utf-8")
    for part in ("# next-best-product", "The gate: passed", "hr_at_3", "Limits", "git_commit", f"rebuild {first}"):
        assert part in card


def test_a_worse_run_is_refused_with_exit_code_3_and_moves_nothing(shelf: Shelf, first: str) -> None:
    worse = shelf.put(said(0.3))
    found = shelf.promote("--json")
    assert found.exit_code == 3
    assert "not worse than the champion" in found.stderr
    assert shelf.alias(CHAMPION) == (first, "model")
    answer = json.loads(found.stdout)
    assert (answer["passed"], answer["run_id"], answer["champion"]) == (False, worse, first)
    run = shelf.kept(worse)
    assert run.tags["nextbest.gate"] == "refused"
    assert "not worse than the champion" in run.tags["nextbest.gate_reasons"]
    assert Verdict.from_json(run.artefact("gate/verdict.json").read_text(encoding="utf-8")).checks == tuple(
        verdict_of(run).checks  # type: ignore[union-attr]
    )


@pytest.mark.parametrize(
    ("trained", "rule"),
    [
        (lambda shelf: shelf.put(said(0.8, times=2.0)), "calibration"),
        (lambda shelf: shelf.put(said(0.8), damaged=True), "artefact"),
        (lambda shelf: shelf.put(said(0.8), column="result"), "leak"),
    ],
    ids=["times two", "damaged", "leaked"],
)
def test_what_may_never_serve_is_refused(shelf: Shelf, first: str, trained: Callable[[Shelf], str], rule: str) -> None:
    run = trained(shelf)
    found = shelf.promote("--run", run)
    assert found.exit_code == 3
    assert f"{rule}:" in found.stderr
    assert shelf.alias(CHAMPION) == (first, "model")


def test_a_better_run_passes_by_id_and_the_one_before_comes_back_only_if_it_is_as_good(
    shelf: Shelf, first: str
) -> None:
    better = shelf.put(said(1.0))
    shelf.put(said(0.8))  # a newer challenger, which nobody asks about
    assert shelf.promote("--run", better).exit_code == 0
    assert shelf.alias(CHAMPION) == (better, "model")
    assert shelf.promote("--run", better).exit_code == 0  # it is the champion already
    assert shelf.promote("--run", first).exit_code == 3
    assert shelf.alias(CHAMPION) == (better, "model")


def test_a_person_may_vouch_for_a_column_and_the_verdict_says_so(shelf: Shelf, first: str) -> None:
    before = shelf.alias(CHAMPION)
    assert before is not None
    run = shelf.put(said(1.0), column="result = paid")
    assert shelf.promote("--run", run, "--known-before", "age").exit_code == 3
    assert shelf.promote("--run", run, "--known-before", "result").exit_code == 0
    verdict = verdict_of(shelf.kept(run))
    assert verdict is not None
    assert "vouched for as known before the outcome: result" in next(
        check.reason for check in verdict.checks if check.name == "leak"
    )
    shelf.tracking.promote(MODEL, before[0])


def test_a_run_that_kept_no_predictions_cannot_be_judged(shelf: Shelf, first: str) -> None:
    before = shelf.alias(CHAMPION)
    run = shelf.put(None)
    found = shelf.promote("--run", run)
    assert found.exit_code == 1
    assert "train again" in found.stderr
    assert shelf.alias(CHAMPION) == before


def test_a_champion_that_kept_no_predictions_is_no_measure_and_the_verdict_says_so(shelf: Shelf, first: str) -> None:
    silent = shelf.put(None)
    shelf.tracking.promote(MODEL, silent)
    run = shelf.put(said(0.5))
    assert shelf.promote("--run", run).exit_code == 0
    verdict = verdict_of(shelf.kept(run))
    assert verdict is not None
    assert [check.name for check in verdict.not_counted if "nothing to compare" in check.reason] == ["champion"]
    shelf.tracking.promote(MODEL, first)


def test_what_is_not_there_is_exit_code_2_and_makes_no_database(shelf: Shelf, first: str, tmp_path: Path) -> None:
    assert shelf.promote("--run", "f" * 32).exit_code == 2
    database = tmp_path / "mlflow.db"
    found = CliRunner().invoke(nextbest, ["promote", MODEL], env={"MLFLOW_TRACKING_URI": f"sqlite:///{database}"})
    assert found.exit_code == 2
    assert "train with" in found.stderr
    assert not database.exists()
