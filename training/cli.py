"""The commands. Each imports what it needs when it runs, so that `nextbest --help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.errors import InputError, NextbestError
from training.cli_campaign import campaign
from training.cli_deliver import add_deliver
from training.cli_evaluate import evaluate
from training.cli_experiment import experiment
from training.cli_features import WITHOUT_LEDGER, add_export, features
from training.edge import Edge, command

FAMILY_NAMES = ("lightgbm", "torch", "prior", "all")
ATTRIBUTIONS = ("last-touch-1", "shapley-1")
MODEL_NAMES = ("next-best-product", "channel-choice")
TIMING_NAME = "send-time"
DIRECTORY = click.argument("directory", metavar="DIR", type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nextbest")
def nextbest() -> None:
    """Decide what to offer a bank customer, through which channel, with which content and when, or nothing."""


nextbest.add_command(campaign)
nextbest.add_command(evaluate)
nextbest.add_command(experiment)
nextbest.add_command(features)
add_export(nextbest)
add_deliver(nextbest)


@nextbest.group()
def data() -> None:
    """Bank data directories: check one, or simulate one."""


@command(data, "check", "nextbest data check my-bank/")
@DIRECTORY
def data_check(edge: Edge, directory: Path) -> None:
    """Check the tables in DIR and list every problem: table, column, rule, number of rows, first rows."""
    from features.quality import check, format_problems

    with edge.terminal.step(f"check {directory}"):
        checked = check(directory)
    result = {"ok": not checked.errors, "problems": [asdict(problem) for problem in checked.problems]}
    rows = ", ".join(f"{name} {table.num_rows:,}" for name, table in checked.tables.items())
    found = [format_problems(checked.problems)] if checked.problems else []
    edge.answer(result, *found, f"{directory} can be imported: {rows}" if not checked.errors else "")
    if checked.errors:
        click.echo(f"nextbest: {directory} has {len(checked.errors)} problems; nothing was written", err=True)
        sys.exit(InputError.exit_code)


@command(data, "simulate", "nextbest data simulate demo-bank/ --customers 10000 --months 12 --seed 1")
@DIRECTORY
@click.option("--customers", type=int, default=10_000, show_default=True, help="How many customers.")
@click.option("--months", type=int, default=12, show_default=True, help="How long a history.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
def data_simulate(edge: Edge, directory: Path, customers: int, months: int, seed: int) -> None:
    """Make a simulated bank in DIR, with the truth behind it in DIR/truth."""
    from features.simulate import simulate

    simulate(directory, customers, months, seed, edge.terminal)
    result = {"directory": str(directory), "customers": customers, "months": months, "seed": seed}
    edge.answer(result, f"{directory} holds {customers:,} customers over {months} months (seed {seed})")


@command(nextbest, "train", "nextbest train next-best-product --until 2024-12-31")
@click.argument("model", type=click.Choice((*MODEL_NAMES, TIMING_NAME)))
@click.option(
    "--family",
    type=click.Choice(FAMILY_NAMES),
    default="all",
    show_default=True,
    help="all: the best that is surely better than the prior.",
)
@click.option("--entities", type=Path, help="Learn from these customers at these times (Parquet or CSV).")
@click.option(
    "--horizon",
    type=float,
    metavar="DAYS",
    help="Days in which the outcome counts. Default: 90 for products (less in short histories), 7 for messages.",
)
@click.option("--until", metavar="TIME", help="Hide everything later; a time without zone is UTC.")
@click.option(
    "--split",
    type=click.Choice(["time", "customer"]),
    default="time",
    show_default=True,
    help="How rows to learn from and rows to test on differ.",
)
@click.option(
    "--attribution",
    type=click.Choice(ATTRIBUTIONS),
    default=ATTRIBUTIONS[0],
    show_default=True,
    help="The decision that a take-up belongs to which names none: the last touch, or by the channels' Shapley shares.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)  # fmt: skip
def train(
    edge: Edge,
    model: str,
    family: str,
    entities: Path | None,
    horizon: float | None,
    until: str | None,
    split: Any,
    attribution: str,
    seed: int,
) -> None:
    """Train MODEL on the features in the home, judge it, and make it the champion in MLflow."""
    from serving.batch import check_eligible, read_entities
    from training.plan import Order
    from training.report import trained_lines
    from training.track import Tracking, lineage
    from training.train import train as train_model

    if model == TIMING_NAME:
        if (family, entities, horizon, split, attribution) != ("all", None, None, "time", ATTRIBUTIONS[0]):
            raise InputError(f"{TIMING_NAME} learns from all messages; it takes --until and --seed only")
        from training.train_timing import train_timing

        timed = train_timing(
            edge.home.build(),
            Tracking(edge.tracking_uri),
            lineage(_source_root()),
            _moment(until),
            seed,
            edge.terminal,
        )
        edge.answer(asdict(timed), *trained_lines(timed))
        return
    rows = None if entities is None else read_entities(entities)
    order = Order(model, family, rows, _days(horizon), _moment(until), seed, split, attribution)
    build = edge.home.build()
    if rows is not None:
        check_eligible(rows, build.catalog)
    trained = train_model(order, build, Tracking(edge.tracking_uri), lineage(_source_root()), edge.terminal)
    edge.answer(asdict(trained), *trained_lines(trained))


@command(nextbest, "score", "nextbest score next-best-product --entities customers.parquet --out scores.parquet")
@click.argument("model", type=click.Choice(MODEL_NAMES))
@click.option("--entities", type=Path, required=True, help="Who, as of when, and among what (Parquet or CSV).")
@click.option("--out", type=Path, required=True, help="Parquet file to write.")
@click.option("--model", "reference", default="champion", show_default=True, metavar="ALIAS_OR_RUN",
              help="Alias, version or run id of the model.")  # fmt: skip
def score(edge: Edge, model: str, entities: Path, out: Path, reference: str) -> None:
    """Score every entity with MODEL: ranked candidates with calibrated probabilities."""
    from serving.batch import check_eligible, check_fits, read_entities, score_blocks, write_scores
    from serving.registry import resolve

    build = edge.home.build()
    rows = read_entities(entities)
    check_eligible(rows, build.catalog)
    loaded = resolve(model, reference, edge.tracking_uri)
    check_fits(build, loaded.model)
    lines = write_scores(score_blocks(build, loaded.model, rows, edge.terminal), out)
    result = {"out": str(out), "entities": len(rows), "rows": lines, "version": loaded.version, "run_id": loaded.run_id}
    edge.answer(result, f"{out}: {lines:,} lines for {len(rows):,} entities, by version {loaded.version} of {model}")


@command(nextbest, "run", "nextbest run my-bank/")
@DIRECTORY
@WITHOUT_LEDGER
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def run(edge: Edge, directory: Path, without_ledger: bool, seed: int) -> None:
    """The whole job on the tables in DIR and the home's ledger: build, train, register, serve once, decide, report."""
    from training.report import report_lines
    from training.run import run_all
    from training.track import lineage

    served = None if without_ledger else edge.served()
    tags = lineage(_source_root())
    report = run_all(directory, edge.home, edge.tracking_uri, seed, tags, edge.terminal, served)
    edge.answer(asdict(report), *report_lines(report, edge.home_folder))


@command(nextbest, "serve", "nextbest serve --port 3000")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=3000, show_default=True)
@click.option("--workers", type=int, default=1, show_default=True)
def serve(edge: Edge, host: str, port: int, workers: int) -> None:
    """Answer decisions over HTTP until stopped."""
    from serving.launch import serve as serve_http
    from serving.settings import Settings

    settings = Settings.from_environment({**os.environ, "NEXTBEST_HOME": str(edge.home_folder)}, Path.cwd())
    code = serve_http(settings, host, port, workers, lambda line: click.echo(f"nextbest: {line}", err=True))
    edge.answer({"exit_code": code}, "stopped")
    if code:
        raise NextbestError(f"the server ended with code {code}")


@command(nextbest, "ui", "nextbest ui --port 5000")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65_535), default=5000, show_default=True)
def ui(edge: Edge, host: str, port: int) -> None:
    """Open MLflow on this project's runs, until stopped."""
    from training.track import Tracking

    uri = edge.tracking_uri
    Tracking(uri)  # its database exists before MLflow's workers start and race for it
    edge.answer({"url": f"http://{host}:{port}", "tracking_uri": uri}, f"MLflow on {uri}: http://{host}:{port}")
    sys.stdout.flush()
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


def _days(horizon: float | None) -> float | None:
    if horizon is not None and not 0 < horizon <= 3650:
        raise InputError(f"--horizon must lie above 0 and up to 3650 days, however it is {horizon}")
    return horizon


def _moment(text: str | None) -> Any:
    """A time from the command line; without zone it is UTC."""
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--until must be a time like 2024-12-31 or 2024-12-31T18:00:00Z, however it is {text!r}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _source_root() -> Path:
    """Where this code lies: its commit and lock file go with each run."""
    return Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    nextbest.main(arguments, prog_name="nextbest")


if __name__ == "__main__":
    main()
