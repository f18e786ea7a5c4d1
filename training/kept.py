"""What a run keeps beside its models: its parameters and tags, a nested run per family, and what was said of test."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from features.schema import Float64, RowSchema
from training import calibration_by, cost, plots, predictions
from training.contenders import Contender
from training.dataset import Dataset
from training.evaluate import PRIOR, Comparison, Judgement
from training.ladder import FILE as LADDER_FILE
from training.ladder import Ladder
from training.plan import Plan
from training.predictions import Predictions
from training.slices import slices
from training.split import Split
from training.track import Run, Tracking
from training.tune import keep_trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from features.home import Build


class Saveable(Protocol):
    """A model that writes itself into a folder."""

    def save(self, folder: Path) -> None: ...


def keep_models(run: Run, models: Mapping[str, Saveable]) -> dict[str, int]:
    """Save each model as an artefact folder of the run; folder → bytes."""
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            model.save(Path(folder) / name)
            run.folder(Path(folder) / name, name)
            sizes[name] = cost.folder_bytes(Path(folder) / name)
    return sizes


def describe(run: Run, plan: Plan, build: Build, schema: RowSchema, data: Dataset, split: Split) -> None:
    """Parameters and tags: what the run learned from, and how."""
    order = plan.order
    run.params(
        {
            "model": order.model,
            "family": order.family,
            "source": plan.source,
            "horizon_days": plan.question.horizon_days,
            "attribution": order.attribution,
            "until": plan.end_time.isoformat(),
            "seed": order.seed,
            "split": "time" if split.borders else "customer",
            "tune": order.tune,
            "rows": len(data),
            "rows_train": len(split.train),
            "rows_valid": len(split.valid),
            "rows_test": len(split.test),
            "rows_embargoed": split.embargoed,
        }
    )
    learned_from(run, build)
    run.tags({"nextbest.row_schema": schema.fingerprint})


def learned_from(run: Run, build: Build) -> None:
    """The data and the features that the run learned from, by their fingerprints."""
    run.tags({"nextbest.data": build.bank.fingerprint, "nextbest.features": build.fingerprint})
    run.data(build.bank_folder.parent.name, build.bank.fingerprint, str(build.bank_folder), "training")


def keep_family(
    run: Run,
    tracking: Tracking,
    experiment: str,
    name: str,
    contender: Contender,
    on_valid: Comparison,
    on_test: Comparison,
) -> None:
    """A nested run per family: what it was fitted with, how it did on valid and test."""
    tags = {"nextbest.part": "family", "nextbest.family": name}
    with tracking.run(experiment, name, tags, parent=run.id) as child:
        child.params({**contender.fitted.params, "family": name, "fitted_rounds": contender.fitted.rounds})
        child.metrics({**on_valid.flat(name, "valid"), **on_test.flat(name, "test")})
        child.metrics({f"valid/calibration/{metric}": value for metric, value in contender.calibrated.items()})
        child.params({"calibration": contender.model.calibration.kind})
        child.metrics({"cost/fit_seconds": contender.fitted.seconds})
        if contender.tuned is not None:
            keep_trials(child, tracking, experiment, contender.tuned)


def said_of_test(test: Judgement, family: str) -> dict[str, Float64]:
    """Probabilities of the test rows, float64 [n, m] each: of the chosen family (`model`), the prior and counting."""
    said = {name: test.said[name] for name in (*test.counted, PRIOR)}
    return said | {predictions.MODEL: test.said[family]}


def keep_ladder(run: Run, ladder: Ladder) -> None:
    """Every rung's difference to the one below it, with its interval."""
    run.text(ladder.to_json(), LADDER_FILE)


def keep_said(
    run: Run, test: Dataset, said: Mapping[str, Float64], importance: Mapping[str, float] | None, family: str, seed: int
) -> None:
    """Keep what was said of the test rows, its calibration by candidate, and plots.

    All is of the chosen family before it was fitted again: no model here has seen these rows.
    """
    own = said[predictions.MODEL]
    by_candidate = calibration_by.by_candidate(own, test, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Predictions.of(test, said, slices(test.rows)).save(folder / predictions.FOLDER / predictions.FILE)
        calibration_by.save(by_candidate, folder / calibration_by.FOLDER / calibration_by.FILE)
        for kept in folder.iterdir():
            run.folder(kept, kept.name)
    for picture, drawn in pictures(test, said, importance, family).items():
        run.figure(drawn, f"plots/{picture}.png")
    if any(one.pairs for one in by_candidate):
        title = f"{test.question.model}, {family}, test rows"
        run.figure(calibration_by.draw(by_candidate, title), "plots/reliability_by_candidate.png")


def pictures(
    test: Dataset, said: Mapping[str, Float64], importance: Mapping[str, float] | None, family: str
) -> dict[str, Figure]:
    """Reliability and gain on test, and importance where the family has one."""
    own = said[predictions.MODEL]
    counted = {name: said[name] for name in said if name not in (predictions.MODEL, predictions.CHAMPION, PRIOR)}
    title = f"{test.question.model}, {family}, test rows"
    drawn = {
        "reliability": plots.reliability(own, test, title),
        "gain": plots.gain({family: own, **counted}, test, title),
    }
    if importance:
        drawn["importance"] = plots.importance(importance, title)
    return drawn
