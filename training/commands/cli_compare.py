"""`nextbest compare`: two runs side by side, as one page that a reviewer can read, print and keep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import InputError
from training.edge import Edge, command

if TYPE_CHECKING:
    from rich.table import Table

    from training.comparison.compare_runs import RunComparison
    from training.comparison.run_evidence import Evidence
    from training.track import Tracking

FOLDER = "comparisons"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_NAMED = re.compile(r"(?P<model>[\w.-]+)@(?P<alias>[\w.-]+)")


def add_compare(group: click.Group) -> None:
    """Put the command into `group`."""

    @command(group, "compare", "nextbest compare next-best-product@challenger next-best-product@champion")
    @click.argument("challenger", metavar="RUN")
    @click.argument("champion", metavar="RUN")
    @click.option("--out", type=Path, metavar="FILE.html", help="Page to write. Default: only into the first run.")
    @click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the intervals.")
    def compare(edge: Edge, challenger: str, champion: str, out: Path | None, seed: int) -> None:
        """Set the first RUN, the challenger, against the second on the rows that both can be judged on.

        A RUN is an id of 32 characters, or MODEL@ALIAS. The page is also kept with the challenger, as an artefact.
        """
        from training.comparison.compare_runs import compare_runs
        from training.comparison.comparison_page import page
        from training.comparison.run_evidence import evidence
        from training.finished import FinishedRun
        from training.track import Tracking

        if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
            raise InputError(f"--out is a file in a folder that exists, however it is {out}; choose another")
        tracking = Tracking(edge.tracking_uri)
        one, other = (FinishedRun.open(tracking, run_id(tracking, named)) for named in (challenger, champion))
        with edge.terminal.step("judge both on the same rows"):
            found = compare_runs(one, other, seed)
        with edge.terminal.step("gather cost, drift, fairness, lineage and the verdict"):
            told = evidence(found, seed)
        with edge.terminal.step("write the page"):
            html = page(found, told)
            kept = f"{FOLDER}/{found.champion.id}.html"
            tracking.client.log_text(found.challenger.id, html, kept)
            if out is not None:
                out.write_text(html, encoding="utf-8")
        result = summary(found, told) | {"artefact": kept, "out": None if out is None else str(out)}
        edge.answer(result, *lines(found, told), f"page: {out or f'artefact {kept} of run {found.challenger.id}'}")


def run_id(tracking: Tracking, named: str) -> str:
    """The run that an id, or MODEL@ALIAS, names; InputError where it names none."""
    from serving.registry import Registry

    if _RUN_ID.fullmatch(named):
        return named
    parts = _NAMED.fullmatch(named)
    if parts is None:
        raise InputError(
            f"a run is an id of 32 characters 0-9 and a-f, or MODEL@ALIAS, however it is {named!r}; `nextbest ui` "
            "lists the runs"
        )
    return Registry(tracking.uri).find(parts["model"], parts["alias"]).run_id


def summary(found: RunComparison, told: Evidence) -> dict[str, object]:
    """The answer for a machine. Numbers that are not known are null."""
    from math import isfinite

    def known(value: float) -> float | None:
        return value if isfinite(value) else None

    verdict = told.verdict
    return {
        "challenger": found.challenger.id,
        "champion": found.champion.id,
        "rows": len(found.shared.challenger),
        "customers": found.shared.customers,
        "left_out": dict(found.shared.left_out),
        "primary": found.primary,
        "finding": found.differences[found.primary].finding,
        "metrics": {
            name: {
                "challenger": one.challenger,
                "champion": one.champion,
                "difference": known(one.interval.mean),
                "low": known(one.interval.low),
                "high": known(one.interval.high),
                "finding": one.finding,
            }
            for name, one in found.differences.items()
        },
        "verdict": None if verdict is None else verdict.word,
        "reasons": [] if verdict is None else [f"{one.name}: {one.reason}" for one in verdict.refusals],
    }


def lines(found: RunComparison, told: Evidence) -> list[str | Table]:
    """The answer for a person: the headline, the main metrics, the gate's word."""
    from training.comparison import metric_names
    from training.comparison.comparison_numbers import interval_text, metric_text
    from training.comparison.comparison_words import headline, verdict
    from training.terminal import table

    shown = [
        found.differences[name]
        for family in metric_names.families(found.differences)
        for name in family.names
        if name not in metric_names.NEUTRAL
    ]
    rows = [
        (
            metric_names.label(one.metric),
            metric_text(one.challenger),
            metric_text(one.champion),
            interval_text(one.interval),
            one.finding,
        )
        for one in shown
    ]
    judged = verdict(told)
    title = f"{len(found.shared.challenger):,} rows of {found.shared.customers:,} customers, {found.shared.source}"
    return [
        f"{headline(found.differences[found.primary])}",
        table(title, ("", "challenger", "champion", "difference, 95 % interval", "finding"), rows),
        f"{judged['title']}: {judged['text']}",
        *(f"  {one.name}: {one.reason}" for one in judged["refusals"]),
    ]
