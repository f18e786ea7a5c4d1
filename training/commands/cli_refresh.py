"""`nextbest refresh MODEL`: the champion's levels, moved to what is taken of late, without a fit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from training.commands.cli_train import MODEL_NAMES, source_root
from training.edge import Edge, command, moment

if TYPE_CHECKING:
    from rich.table import Table

    from training.refresh import Refreshed


def add_refresh(group: click.Group) -> None:
    """Hang the command into the program."""

    @command(group, "refresh", "nextbest refresh channel-choice")
    @click.argument("model", type=click.Choice(MODEL_NAMES))
    @click.option("--until", metavar="TIME", help="Hide everything later; a time without zone is UTC.")
    @click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
                  help="Of the intervals: the same seed, the same verdict.")  # fmt: skip
    def refresh(edge: Edge, model: str, until: str | None, seed: int) -> None:
        """Move the champion of MODEL to what is taken of late, in seconds, and let the gate decide.

        It keeps its trees. Only how often each candidate is taken moves, by the outcomes that closed since it was
        trained, those of served decisions among them.
        """
        from training.refresh import refresh as refresh_champion
        from training.row_store import RowStore
        from training.track import Tracking, lineage

        build = edge.home.build()
        found = refresh_champion(
            model,
            moment(until, "--until"),
            build,
            Tracking(edge.tracking_uri),
            lineage(source_root()),
            seed,
            edge.terminal,
            RowStore.beside(build),
        )
        edge.answer(asdict(found), *refreshed_lines(found))


def refreshed_lines(found: Refreshed) -> list[str | Table]:
    """A refresh, for a person."""
    from training.bootstrap import Interval
    from training.terminal import table

    columns = ("", "outcomes", "taken", "expected", "log-odds moved", "from", "to")
    rows = [
        (one.candidate, one.outcomes, one.taken, round(one.expected, 1), one.shift, one.low, one.high)
        for one in found.moved
        if one.outcomes
    ]
    lines: list[str | Table] = [table(f"{found.model}: taken since, and expected by the champion", columns, rows)]
    gap = Interval.logged(found.metrics, "test/log_loss_minus_champion")
    if gap is not None:
        lines.append(
            f"log-loss on {found.judged:,} later outcomes, each before it was used: minus champion {gap.told()}"
        )
    return [
        *lines,
        f"gate: {found.verdict}",
        f"version {found.version}, from version {found.champion_version} by {found.outcomes:,} outcomes, "
        f"{found.taken:,} of them taken",
        f"run {found.run_id}, {found.seconds:.1f} s",
    ]
