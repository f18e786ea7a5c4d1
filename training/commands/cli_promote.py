"""`nextbest promote`: the gate, asked by a person."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from features.errors import GateRefused
from training.edge import Edge, command

PROMOTED = ("next-best-product", "channel-choice", "content-choice")


def add_promote(group: click.Group) -> None:
    """Give `group` the command."""

    @command(group, "promote", "nextbest promote next-best-product --run 0123456789abcdef0123456789abcdef")
    @click.argument("model", type=click.Choice(PROMOTED))
    @click.option("--run", "reference", metavar="RUN", help="Run id or version. Default: the one trained last.")
    @click.option("--known-before", multiple=True, metavar="COLUMN",
                  help="A column or attribute that is known before the outcome: no leak, though it tells.")  # fmt: skip
    @click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
                  help="Of the bootstrap: the same seed, the same verdict.")  # fmt: skip
    def promote(edge: Edge, model: str, reference: str | None, known_before: tuple[str, ...], seed: int) -> None:
        """Make a trained model the champion of MODEL if the gate lets it; exit code 3 with the reasons if not.

        It is judged from what its run keeps, alone and beside the present champion. The verdict goes to its run.
        """
        from serving.registry import CHAMPION, Registry
        from training.promotion.gate import decide
        from training.terminal import table
        from training.track import CHALLENGER, Tracking

        found = Registry(edge.tracking_uri).find(model, reference or CHALLENGER)
        tracking = Tracking(edge.tracking_uri)
        with edge.terminal.step(f"judge run {found.run_id}"):
            verdict = decide(tracking, model, found.run_id, seed, known_before)
        if verdict.passed:
            tracking.promote(model, found.run_id)
        serving = tracking.named(model, CHAMPION)
        now = f"version {serving[0]} of {model} is the champion" if serving else f"{model} has no champion"
        result = {"model": model, "run_id": found.run_id, "champion_version": serving[0] if serving else None}
        rows = [(one.name, one.word, one.reason) for one in verdict.checks]
        edge.answer(
            result | asdict(verdict),
            table(f"the gate on run {found.run_id}", ("rule", "", "what was found"), rows, numbers_from=3),
            f"{verdict.word}: {now}",
        )
        if not verdict.passed:
            click.echo(f"nextbest: refused, {verdict.reasons}", err=True)
            sys.exit(GateRefused.exit_code)
