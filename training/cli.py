"""The commands. Each imports what it needs when it runs, so that `nextbest --help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from features.errors import InputError, NextbestError
from training.commands.cli_campaign import campaign
from training.commands.cli_compare import add_compare
from training.commands.cli_deliver import add_deliver
from training.commands.cli_evaluate import evaluate
from training.commands.cli_experiment import experiment
from training.commands.cli_features import WITHOUT_LEDGER, add_export, features
from training.commands.cli_folds import evaluate_folds as evaluate_folds
from training.commands.cli_monitor import add_monitor
from training.commands.cli_promote import add_promote
from training.commands.cli_rebuild import add_rebuild
from training.commands.cli_refresh import add_refresh
from training.commands.cli_rolling import evaluate_rolling as evaluate_rolling
from training.commands.cli_train import add_train, source_root
from training.edge import Edge, command

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
add_train(nextbest)
add_promote(nextbest)
add_compare(nextbest)
add_monitor(nextbest)
add_rebuild(nextbest)
add_refresh(nextbest)


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
    tags = lineage(source_root())
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    nextbest.main(arguments, prog_name="nextbest")


if __name__ == "__main__":
    main()
