"""`nextbest evaluate rolling`: a model that is fitted again and again, beside one that never is."""

from __future__ import annotations

from pathlib import Path

import click

from training.commands.cli_evaluate import PLOT, SEED, evaluate
from training.commands.cli_train import FAMILY_NAMES, days, source_root
from training.edge import Edge, command

ONE_FAMILY = tuple(name for name in FAMILY_NAMES if name != "all")
COUNT = click.IntRange(min=1)


@command(evaluate, "rolling", "nextbest evaluate rolling next-best-product --every 1000 --delay 500")
@click.argument("model", type=click.Choice(["next-best-product"]))
@click.option("--every", type=COUNT, default=1_000, show_default=True, help="Decisions in a block: refits between.")
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="So many decisions later is an outcome known.",
)
@click.option("--family", type=click.Choice(ONE_FAMILY), default="lightgbm", show_default=True)
@click.option("--first", type=COUNT, help="Score from this decision on; the frozen model learns from those before it.")
@click.option("--windows", is_flag=True, help="An outcome is not known before its response window has closed, either.")
@click.option("--calendar", is_flag=True, help="Learn from hour, weekday and day of month too.")
@click.option("--rounds", type=COUNT, help="Of each fit. Default: 30 for lightgbm; others choose on the newest rows.")
@click.option(
    "--half-life",
    type=click.FloatRange(min=1),
    default=800,
    show_default=True,
    metavar="DECISIONS",
    help="Of the online bias.",
)
@click.option("--horizon", type=float, metavar="DAYS", help="Days in which the outcome counts, as in `train`.")
@PLOT
@SEED
def evaluate_rolling(
    edge: Edge, model: str, every: int, delay: int, family: str, first: int | None, windows: bool, calendar: bool,
    rounds: int | None, half_life: float, horizon: float | None, plot: Path | None, seed: int,
) -> None:  # fmt: skip
    """Walk logged decisions in order of time: MODEL fitted again before each block, beside the frozen first fit."""
    from features.assemble import row_schema
    from training.dataset import dataset, require_take_ups
    from training.kept import learned_from
    from training.plan import Order, make_plan
    from training.rolling import Walk, require_log, roll
    from training.rolling_report import document, keep, lines, picture, tell
    from training.track import Tracking, lineage

    build = edge.home.build()
    plan, known = make_plan(Order(model, family, horizon_days=days(horizon), seed=seed), build.bank)
    require_log(plan.source)
    schema = row_schema(known, plan.end_time)
    data = dataset(build, plan.question, plan.spine(known, plan.end), schema, edge.terminal)
    require_take_ups(data, "decisions with an outcome")
    walk = Walk(family, every, delay, first, windows, calendar, rounds, half_life, seed)
    rolled = roll(data, walk, edge.terminal)
    with edge.terminal.step("judge the blocks"):
        told = tell(rolled, seed)
    drawn = picture(rolled, told, f"{model}, {family}: fitted again every {every:,} decisions, known {delay:,} late")
    if plot is not None:
        drawn.savefig(plot, dpi=150)
    tracking = Tracking(edge.tracking_uri)
    tags = {**lineage(source_root()), "nextbest.part": "rolling", "nextbest.family": family}
    with tracking.run(tracking.experiment(model), f"{model} rolling {family}", tags) as run:
        learned_from(run, build)
        run.tags({"nextbest.row_schema": schema.fingerprint})
        keep(run, rolled, told, walk, drawn)
    answer = {"model": model, "run_id": run.id, **document(rolled, told)}
    edge.answer(answer if plot is None else {**answer, "plot": str(plot)}, *lines(rolled, told, walk), f"run {run.id}")
