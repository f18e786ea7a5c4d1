"""Where the program meets the outside: the options every command has, how it answers, and how it fails.

Results go to stdout (JSON with --json), everything else to stderr. Exit codes: 0 done, 2 wrong usage or input,
3 a gate refused, 1 anything else. Only here and in `training.cli` are the environment and the working folder read.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import BankDataError, InputError, NextbestError

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    from rich.table import Table

    from features.home import Home
    from serving.settings import Settings
    from training.terminal import Terminal


PAGE = 130
"""Characters of a line where results do not go to a terminal."""


@dataclass(frozen=True)
class Edge:
    """What the commands share: where things are, and how to answer."""

    home_folder: Path
    as_json: bool
    debug: bool

    @property
    def home(self) -> Home:
        from features.home import Home

        return Home(self.home_folder)

    @property
    def tracking_uri(self) -> str:
        from serving.settings import default_tracking_uri

        return default_tracking_uri(os.environ, Path.cwd())

    @property
    def settings(self) -> Settings:
        """A server's settings, with this home."""
        from serving.settings import Settings

        return Settings.from_environment({**os.environ, "NEXTBEST_HOME": str(self.home_folder)}, Path.cwd())

    @property
    def terminal(self) -> Terminal:
        from training.terminal import Terminal

        return Terminal()

    def served(self) -> pa.Table | None:
        """The events of the home's ledger, PostgreSQL where the environment says so; None where there is none yet."""
        from serving.export import served_events

        with self.terminal.step("read the ledger's timeline"):
            return served_events(self.settings.ledger_url, self.home.ledger_path)

    def answer(self, result: Mapping[str, Any], *lines: str | Table) -> None:
        """The result as JSON, or the lines for a person."""
        if self.as_json:
            click.echo(json.dumps(result, default=str, ensure_ascii=False, allow_nan=False))
            return
        from rich.console import Console

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = PAGE  # a file has no width of its own
        for line in lines:
            console.print(line, markup=False, soft_wrap=True) if isinstance(line, str) else console.print(line)


class Command(click.Command):
    """A command whose errors end as one clear line and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("FEAST_USAGE", "False")
        # OpenMP threads that spin at barriers make LightGBM ten times slower where other work shares the cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        edge = Edge(ctx.params.pop("home"), ctx.params.pop("as_json"), ctx.params.pop("debug"))
        ctx.obj = edge
        if not edge.debug:
            warnings.simplefilter("ignore")  # third parties' deprecations are not the user's business
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except NextbestError as error:
            fail(edge, error, str(error), error.exit_code)
        except Exception as error:
            fail(edge, error, f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1)


def fail(edge: Edge, error: Exception, text: str, code: int) -> None:
    if edge.debug:
        traceback.print_exception(error)
    problems = getattr(error, "problems", ()) if isinstance(error, BankDataError) else ()
    if edge.as_json:
        document = {"type": type(error).__name__, "message": text, "problems": [asdict(one) for one in problems]}
        click.echo(json.dumps({"error": document}, default=str, ensure_ascii=False))
    click.echo(f"nextbest: {text}", err=True)
    sys.exit(code)


def command(group: click.Group, name: str, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of `group` with the options that all have, and an example in its help."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        options = (
            click.option("--home", type=Path, default=".nextbest", envvar="NEXTBEST_HOME", show_default=True,
                         show_envvar=True, help="Folder for everything that is written."),
            click.option("--json", "as_json", is_flag=True, help="Answer in JSON on stdout."),
            click.option("--debug", is_flag=True, envvar="NEXTBEST_DEBUG", help="Show where an error came from."),
        )  # fmt: skip
        for option in reversed(options):
            function = option(function)
        return group.command(name, cls=Command, epilog=f"\b\nExample:\n  {example}")(click.pass_obj(function))

    return decorate


def moment(text: str | None, option: str) -> datetime | None:
    """A time from the command line, given by `option`; without zone it is UTC."""
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option} must be a time like 2024-12-31 or 2024-12-31T18:00:00Z, however it is {text!r}"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
