"""Two runs side by side: which rows count, what is found in a world whose truth is known, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from two_runs import CHALLENGER, CHAMPION, QUESTION, Shelf, TwoRuns, rows

from features.errors import InputError
from training import predictions
from training.bootstrap import Interval
from training.cli import nextbest
from training.comparison.compare_runs import (
    BETTER,
    LESS,
    MORE,
    UNSURE,
    WORSE,
    Difference,
    RunComparison,
    compare_runs,
    in_order,
)
from training.comparison.forest import Axis
from training.comparison.run_evidence import Evidence, costs, evidence
from training.comparison.shared_rows import SCORED_LATER, shared_rows
from training.evaluate import judge
from training.predictions import MODEL
from training.track import Tracking


@pytest.fixture
def runs(tmp_path: Path) -> TwoRuns:
    return TwoRuns.of(tmp_path, *rows())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> RunComparison:
    runs = TwoRuns.of(tmp_path_factory.mktemp("runs"), *rows())
    return compare_runs(runs.challenger, runs.champion, seed=1)


@pytest.fixture(scope="module")
def told(found: RunComparison) -> Evidence:
    return evidence(found, seed=1)


def test_who_knows_the_truth_is_surely_better_than_who_knows_how_usual_things_are(found: RunComparison) -> None:
    for name in ("map_at_7", "log_loss", "auc", "pr_auc", found.primary):
        assert found.differences[name].finding == BETTER, name
    assert found.differences["ece"].finding == UNSURE, "both are calibrated"


def test_turned_round_what_was_better_is_worse_by_as_much(tmp_path: Path, found: RunComparison) -> None:
    runs = TwoRuns.of(tmp_path, *rows())
    turned = compare_runs(runs.champion, runs.challenger, seed=1)
    for name, one in found.differences.items():
        other = turned.differences[name]
        assert other.interval.mean == pytest.approx(-one.interval.mean, abs=1e-12)
        assert other.interval.low == pytest.approx(-one.interval.high, abs=1e-12), name
    assert turned.differences["log_loss"].finding == WORSE
    assert turned.differences["exposure_gini"].finding in (LESS, MORE)


def test_every_metric_of_a_run_has_a_difference_with_an_interval(found: RunComparison) -> None:
    said, data = found.shared.said[0], found.shared.challenger
    assert set(found.differences) == {name for name, value in judge(said, data).values.items() if np.isfinite(value)}
    for one in found.differences.values():
        assert one.interval.low <= one.interval.mean <= one.interval.high or one.metric in ("ece", "coverage")
        assert one.interval.mean == pytest.approx(one.challenger - one.champion, abs=1e-12), one.metric


@pytest.mark.parametrize(
    ("metric", "low", "high", "finding"),
    [
        ("hr_at_3", 0.1, 0.2, BETTER),
        ("hr_at_3", -0.2, -0.1, WORSE),
        ("hr_at_3", -0.1, 0.2, UNSURE),
        ("hr_at_3", 0.0, 0.2, UNSURE),
        ("log_loss", 0.1, 0.2, WORSE),
        ("log_loss", -0.2, -0.1, BETTER),
        ("novelty", 0.1, 0.2, MORE),
        ("novelty", -0.2, -0.1, LESS),
    ],
)
def test_a_finding_is_sure_only_where_the_interval_leaves_zero_out(
    metric: str, low: float, high: float, finding: str
) -> None:
    assert Difference(metric, 0.5, 0.5, Interval((low + high) / 2, low, high)).finding == finding


def test_groups_add_up_to_everyone_and_tell_how_usual_take_ups_are(found: RunComparison) -> None:
    data = found.shared.challenger
    for name in data.slices:
        groups = [one for one in found.groups if one.name == name]
        assert sum(one.rows for one in groups) == int((~np.isnan(judged(found)[0])).sum())
    for one in found.groups:
        assert one.rate == pytest.approx(data.taken[data.slices[one.name] == one.group].any(axis=1).mean())
    cold = next(one for one in found.groups if one.group == "holds nothing")
    inside = data.slices["history"] == "holds nothing"
    gap = judged(found)[0] - judged(found)[1]
    assert cold.difference.interval.mean == pytest.approx(np.nanmean(gap[inside]))


def judged(found: RunComparison) -> list[Any]:
    return [judge(said, found.shared.challenger).per_row[found.primary] for said in found.shared.said]


def test_bands_stand_in_the_order_of_their_values_and_the_unknown_last() -> None:
    bands = ["9.547 and more", "unknown", "below 1.816", "10 to 20", "1.816 to 9.547"]
    assert sorted(bands, key=in_order) == ["below 1.816", "1.816 to 9.547", "9.547 and more", "10 to 20", "unknown"]


def test_a_candidate_gap_is_predicted_minus_happened(tmp_path: Path) -> None:
    knows, usual = rows()
    doubled = TwoRuns.of(tmp_path, replace(knows, probabilities={MODEL: usual * 2}), usual)
    found = compare_runs(doubled.challenger, doubled.champion, 0)
    for one in found.candidates:
        assert one.challenger.mean == pytest.approx(one.rate), "twice as many are expected as there were"
        assert one.challenger.above_zero
        assert one.champion.mean == pytest.approx(0.0, abs=1e-12)
    assert [one.rate for one in found.candidates] == sorted((one.rate for one in found.candidates), reverse=True)


def test_rows_of_one_run_only_are_left_out_and_counted(runs: TwoRuns) -> None:
    challenger = runs.challenger_with(lambda said: said.take(np.arange(100, 900)))
    shared = shared_rows(challenger, runs.champion)
    assert len(shared.challenger) == 800
    assert shared.left_out["tested by the champion only"] == 100
    assert shared.left_out["tested by the challenger only"] == 0
    assert (shared.challenger.customer_id == shared.champion.customer_id).all()


def test_rows_with_another_outcome_or_another_choice_do_not_count(runs: TwoRuns) -> None:
    def later(said: predictions.Predictions) -> predictions.Predictions:
        taken, available = said.taken.copy(), said.available.copy()
        row = int(np.flatnonzero(taken[:, 2])[0])
        taken[row, 2] = False
        other = int(np.flatnonzero(~taken[:, 3] & available[:, 3] & (np.arange(900) != row))[0])
        available[other, 3] = False
        return replace(said, taken=taken, available=available)

    shared = shared_rows(runs.challenger_with(later), runs.champion)
    assert shared.left_out["another outcome was known in the two runs"] == 1
    assert shared.left_out["another choice was offered in the two runs"] == 1
    assert len(shared.challenger) == 898


def test_a_champion_that_was_asked_then_is_compared_on_all_rows_it_answered(runs: TwoRuns) -> None:
    said = np.where(rows()[0].available, 0.3, np.nan)
    said[:200] = np.nan

    def asked(kept: predictions.Predictions) -> predictions.Predictions:
        return replace(kept, probabilities={**kept.probabilities, predictions.CHAMPION: said})

    challenger = runs.challenger_with(asked)
    then = {**challenger.params, "champion_run": CHAMPION, "champion_version": "3"}
    shared = shared_rows(replace(challenger, params=then), runs.champion)
    assert (len(shared.challenger), shared.source) == (700, SCORED_LATER)
    assert shared.left_out == {"the champion may have learned from them": 200}
    assert np.nanmax(np.abs(shared.said[1] - 0.3)) == 0
    of_another = replace(challenger, params={**then, "champion_run": "d" * 32})
    assert len(shared_rows(of_another, runs.champion).challenger) == 900
    beside = replace(challenger, params=then, client=Shelf(runs.folder, "artifacts/prior"))
    assert len(shared_rows(beside, runs.champion).challenger) == 900, "it was the prior of that run, not its model"


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (replace(QUESTION, model="channel-choice"), "model differs"),
        (replace(QUESTION, horizon_days=7.0), "horizon in days differs"),
        (replace(QUESTION, candidates=("card", "loan", "fund", "home", "trip")), "candidates differs"),
    ],
)
def test_runs_that_were_asked_different_questions_are_refused(runs: TwoRuns, question: Any, says: str) -> None:
    challenger = runs.challenger_with(lambda said: replace(said, question=question))
    with pytest.raises(InputError, match=says):
        compare_runs(challenger, runs.champion, 0)


def test_runs_without_a_shared_row_are_refused_with_the_next_step(runs: TwoRuns) -> None:
    challenger = runs.challenger_with(lambda said: replace(said, as_of=said.as_of + 1))
    with pytest.raises(InputError, match=r"share none .*tested by the challenger only: 900.*train both"):
        compare_runs(challenger, runs.champion, 0)


def test_rows_that_judge_nothing_are_no_ground_for_a_comparison(tmp_path: Path) -> None:
    knows, usual = rows(60)
    nothing = np.zeros(60, bool)
    silent = replace(knows, judged_for_ranking=nothing, judged_for_probability=nothing)
    runs = TwoRuns.of(tmp_path, silent, usual)
    with pytest.raises(InputError, match="none of the 60 rows that both have is judged by it"):
        compare_runs(runs.challenger, runs.champion, 0)


def test_a_model_that_ranks_nothing_is_compared_by_its_log_loss(tmp_path: Path) -> None:
    knows, usual = rows()
    channels = replace(knows, question=replace(QUESTION, model="channel-choice", block="channel"))
    runs = TwoRuns.of(tmp_path, channels, usual)
    found = compare_runs(runs.challenger, runs.champion, 0)
    assert (found.primary, found.differences["log_loss"].finding) == ("log_loss", BETTER)
    assert all(one.difference.metric == "log_loss" for one in found.groups)


def test_a_run_that_keeps_no_predictions_is_refused_by_name(runs: TwoRuns) -> None:
    (runs.folder / CHAMPION / "predictions" / "test.parquet").unlink()
    with pytest.raises(InputError, match=rf"run {CHAMPION} \(two\) keeps none"):
        compare_runs(runs.challenger, runs.champion, 0)


def test_a_run_is_not_compared_with_itself(runs: TwoRuns) -> None:
    with pytest.raises(InputError, match="name another one"):
        compare_runs(runs.challenger, runs.challenger, 0)


def test_what_a_run_did_not_keep_is_said_and_not_made_up(told: Evidence) -> None:
    assert told.drifts is None
    assert "reference" in told.left_out["drift"]
    measured = {one.name: one for one in told.costs}
    assert measured["latency_ms_p99"].challenger == 2.0
    assert np.isnan(measured["latency_ms_p99"].ratio)
    assert told.policy == ()


def test_latencies_that_were_measured_side_by_side_come_before_those_of_another_day(runs: TwoRuns) -> None:
    beside = {"cost/latency_ms_p50": 2.0, "cost/champion_latency_ms_p50": 4.0, "cost/fit_seconds": 9.0}
    challenger = replace(runs.challenger, metrics=beside)
    champion = replace(runs.champion, metrics={"cost/latency_ms_p50": 1.0, "cost/champion_latency_ms_p50": 7.0})
    apart = {one.name: one for one in costs(challenger, champion)}
    assert set(apart) == {"latency_ms_p50", "fit_seconds"}
    assert apart["latency_ms_p50"].ratio == 2.0
    timed = replace(challenger, params={"champion_run": CHAMPION})
    assert {one.name: one.ratio for one in costs(timed, champion)}["latency_ms_p50"] == 0.5


def test_parameters_that_differ_stand_first(told: Evidence) -> None:
    assert [one.name for one in told.params if one.differs] == ["chosen_family"]
    assert told.params[0].name == "chosen_family"
    assert not any(one.differs for one in told.lineage)


def test_the_verdict_is_the_gates_own(told: Evidence) -> None:
    assert told.verdict is not None
    assert (told.verdict.challenger, told.verdict.champion) == (CHALLENGER, CHAMPION)
    assert "not worse than the champion" in {check.name for check in told.verdict.checks}


def test_marks_stand_where_the_interval_does_and_right_is_better() -> None:
    axis = Axis.of([Interval(1.0, -1.0, 3.0)])
    mark = axis.mark(Interval(0.0, -axis.reach, axis.reach))
    assert (mark.low, mark.at, mark.high) == (0, 50, 100)
    assert axis.mark(Interval(-1.0, -2.0, -0.5), mirrored=True) == axis.mark(Interval(1.0, 0.5, 2.0))
    assert axis.mark(Interval(9.0, 8.0, 10.0)).at == 100, "what lies beyond stands at the end"
    assert Axis.of([Interval(1.0, 0.5, 2.0)], centre=1.0).mark(Interval(1.0, 1.0, 1.0)).at == 50
    assert Axis.of([Interval(0.0, 0.0, 0.0)]).mark(Interval(0.0, 0.0, 0.0)).at == 50


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """Two runs in a real MLflow, and its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}")
    knows, usual = rows(300)
    made = []
    for name, said in (("one", knows.probabilities[MODEL]), ("two", usual)):
        replace(knows, probabilities={MODEL: said}).save(folder / name / "test.parquet")
        with tracking.run(tracking.experiment("next-best-product"), name, {}) as run:
            run.folder(folder / name, "predictions")
        made.append(run.id)
    return tracking.uri, made


def test_the_command_writes_one_page_and_keeps_it_with_the_challenger(
    kept: tuple[str, list[str]], tmp_path: Path
) -> None:
    uri, (one, other) = kept
    page = tmp_path / "page.html"
    found = CliRunner().invoke(
        nextbest, ["compare", one, other, "--out", str(page), "--json"], env={"MLFLOW_TRACKING_URI": uri}
    )
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["finding"] == BETTER
    assert answer["metrics"]["auc"]["low"] > 0
    artefact = Tracking(uri).client.download_artifacts(one, f"comparisons/{other}.html")
    assert Path(artefact).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nonsense", CHAMPION), "an id of 32 characters"),
        ((CHALLENGER, CHAMPION), "has no run"),
        (("next-best-product@champion", CHAMPION), "next-best-product"),
        ((CHALLENGER, CHAMPION, "--out", "/no/such/folder/page.html"), "--out is a file in a folder that exists"),
        ((CHALLENGER,), "Missing argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(kept: tuple[str, list[str]], words: tuple[str, ...], says: str) -> None:
    found = CliRunner().invoke(nextbest, ["compare", *words], env={"MLFLOW_TRACKING_URI": kept[0]})
    assert found.exit_code == 2
    assert says in found.stderr
    assert found.stdout == ""


def test_help_has_an_example() -> None:
    found = CliRunner().invoke(nextbest, ["compare", "--help"])
    assert "nextbest compare" in found.output.split("Example:")[1]
