"""`nextbest evaluate folds`: every row judged once, by a model that has not learned from its customer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training.commands.cli_evaluate import PLOT, SEED, evaluate
from training.commands.cli_train import FAMILY_NAMES, MODEL_NAMES, days, source_root
from training.edge import Edge, command, moment


@command(evaluate, "folds", "nextbest evaluate folds channel-choice --entities customers.parquet --family lightgbm")
@click.argument("model", type=click.Choice(MODEL_NAMES))
@click.option("--folds", "count", type=click.IntRange(2, 50), default=5, show_default=True)
@click.option("--by", type=click.Choice(["customer", "time"]), default="customer", show_default=True,
              help="customer: no customer in two folds. time: each block judged by what was known before.")  # fmt: skip
@click.option("--family", type=click.Choice(FAMILY_NAMES), default="lightgbm", show_default=True,
              help="all: every family, and in each fold the one that `train` would have chosen there.")  # fmt: skip
@click.option("--entities", type=Path, help="Judge these customers at these times (Parquet or CSV).")
@click.option("--horizon", type=float, metavar="DAYS", help="Days in which the outcome counts, as in `train`.")
@click.option("--until", metavar="TIME", help="Hide everything later; a time without zone is UTC.")
@PLOT
@SEED
def evaluate_folds(
    edge: Edge, model: str, count: int, by: Any, family: str, entities: Path | None, horizon: float | None,
    until: str | None, plot: Path | None, seed: int,
) -> None:  # fmt: skip
    """Judge MODEL on every row, in folds fitted as `train` fits; a run in MLflow, nothing is registered."""
    from serving.batch import check_eligible, read_entities
    from training import plots
    from training.fold_rows import make_folds
    from training.folds import run_folds
    from training.folds_report import document, keep, lines, tell
    from training.kept import learned_from
    from training.plan import Order
    from training.predictions import MODEL
    from training.prepared import prepare
    from training.track import Tracking, lineage

    rows = None if entities is None else read_entities(entities)
    build = edge.home.build()
    if rows is not None:
        check_eligible(rows, build.catalog)
    order = Order(model, family, rows, days(horizon), moment(until, "--until"), seed, by)
    prepared = prepare(order, build, edge.terminal)
    folded = run_folds(prepared, make_folds(prepared.data, count, by), edge.terminal)
    with edge.terminal.step("judge the folds"):
        told = tell(folded, seed)
    if plot is not None:
        title = f"{model}, {family}, {count} folds by {by}"
        plots.reliability(folded.said[MODEL], folded.data, title).savefig(plot, dpi=150)
    tracking = Tracking(edge.tracking_uri)
    experiment = tracking.experiment(model)
    tags = {**lineage(source_root()), "nextbest.part": "folds", "nextbest.family": family}
    with tracking.run(experiment, f"{model} folds {family}", tags) as run:
        learned_from(run, build)
        run.tags({"nextbest.row_schema": prepared.schema.fingerprint})
        keep(run, tracking, experiment, folded, told, order, by)
    answer = {"model": model, "run_id": run.id, "by": by, "family": family, **document(folded, told)}
    edge.answer(answer if plot is None else {**answer, "plot": str(plot)}, *lines(folded, told, by), f"run {run.id}")
