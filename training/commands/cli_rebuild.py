"""`nextbest rebuild RUN`: make a run again and see whether its metrics come out bit for bit."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import GateRefused
from training.edge import Edge, command

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 30
"""Differences that a person is shown; --json has all."""


def add_rebuild(group: click.Group) -> None:
    """Hang the command into the program."""

    @command(group, "rebuild", "nextbest rebuild 0f3c9a…")
    @click.argument("run", metavar="RUN")
    def rebuild(edge: Edge, run: str) -> None:
        """Train RUN again from its order and compare every metric; exit code 3 where one differs. Moves no alias."""
        from training.rebuild import rebuild as again
        from training.terminal import table
        from training.track import Tracking, lineage

        code = lineage(Path(__file__).resolve().parents[2])
        found = again(run, edge.home.build(), Tracking(edge.tracking_uri), code, edge.terminal)
        count = len(found.differences)
        lines: list[str | Table] = [f"note: {note}" for note in found.notes]
        if found.identical:
            lines.append(f"identical: {found.compared} metrics of run {run}, in {found.seconds:.0f} s")
        else:
            rows = [(one.metric, repr(one.was), repr(one.found)) for one in found.differences[:SHOWN]]
            lines.append(table(f"{count} of {found.compared} metrics differ", ("metric", "was", "is now"), rows))
        edge.answer({"identical": found.identical, **asdict(found)}, *lines)
        if not found.identical:
            click.echo(f"nextbest: {count} of {found.compared} metrics are not those of run {run}", err=True)
            sys.exit(GateRefused.exit_code)
