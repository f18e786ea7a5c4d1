"""`nextbest monitor`: are served decisions still those that the champion was judged for?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import GateRefused, InputError
from training.edge import Edge, command, moment

if TYPE_CHECKING:
    from rich.table import Table

    from training.monitoring.drift import Drift
    from training.monitoring.monitor import Monitored

SHOWN = 10


def add_monitor(group: click.Group) -> None:
    """Put the command into `group`."""

    @command(group, "monitor", "nextbest monitor --out monitor.html")
    @click.option("--since", metavar="TIME", help="Decisions from then on are now. Default: 30 days before the newest.")
    @click.option("--out", type=Path, metavar="FILE.html", help="Page to write.")
    @click.option("--fail-on-drift", is_flag=True, help="Exit with code 3 where something has drifted or decayed.")
    @click.option(
        "--lift",
        type=click.FloatRange(min=0, min_open=True),
        default=0.1,
        show_default=True,
        help="Smallest lift of the agent that matters: 0.1 = a tenth more take-ups.",
    )
    @click.option(
        "--horizon",
        type=click.FloatRange(min=0, min_open=True, max=3650),
        default=30,
        show_default=True,
        metavar="DAYS",
        help="In which a contact may be answered, and arms are compared.",
    )
    @click.option("--most", type=click.IntRange(min=1), default=10_000, show_default=True, help="Newest decisions.")
    def monitor(
        edge: Edge, since: str | None, out: Path | None, fail_on_drift: bool, lift: float, horizon: float, most: int
    ) -> None:
        """Drift, calibration, arms, coverage and under-served customers, from the ledger; a server may be running."""
        from training.monitoring.monitor import Asked
        from training.monitoring.monitor import monitor as watch
        from training.monitoring.monitor_page import page

        if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
            raise InputError(f"--out is a file in a folder that exists, however it is {out}; choose another")
        asked = Asked(moment(since, "--since"), most, horizon, lift)
        build = edge.home.build()
        found = watch(build, edge.settings, edge.served(), asked, edge.terminal)
        if out is not None:
            with edge.terminal.step("write the page"):
                out.write_text(page(found), encoding="utf-8")
        written = [] if out is None else [f"page: {out}"]
        edge.answer(summary(found) | {"out": None if out is None else str(out)}, *lines(found), *written)
        if fail_on_drift and found.alarms:
            sys.exit(GateRefused.exit_code)


def summary(found: Monitored) -> dict[str, Any]:
    """The answer for a machine. Numbers that are not known are null."""
    from dataclasses import asdict

    from serving.decision import rfc3339

    served = found.underserved
    return {
        "since": rfc3339(found.since),
        "until": rfc3339(found.until),
        "decisions": found.decisions,
        "customers": found.customers,
        "decisions_read": found.read,
        "champions": dict(found.versions),
        "alarms": found.alarms,
        "drift": {model: [_drift(one) for one in columns] for model, columns in found.drift.items()},
        "not_compared": dict(found.not_compared),
        "calibration": {
            one.what: {
                "all": _known(asdict(one.whole)),
                "weeks": [_known(asdict(week)) for week in one.weeks],
                "arms": [_known(asdict(arm)) for arm in one.arms],
                "open": one.open,
                "lost": one.lost,
            }
            for one in found.decay
        },
        "arms": {name: asdict(arm) for name, arm in found.arms.arms.items()},
        "lift": {name: asdict(reading) for name, reading in found.arms.readings.items()},
        "coverage": {
            one.part: _known({"used": one.used, "of": len(one.counts), "exposure_gini": one.exposure_gini})
            for one in found.coverage
        },
        "degraded": {"decisions": found.degraded_decisions, "because": dict(found.degraded)},
        "underserved": {
            "customers": served.customers,
            "underserved": served.total,
            "tiny_below": served.threshold,
            "none": dict(served.none),
            "tiny": dict(served.tiny),
        },
    }


def lines(found: Monitored) -> list[str | Table]:
    """The answer for a person: alarms first, then one table."""
    from training.monitoring.monitor_words import answers, headline, lead
    from training.terminal import table

    more = len(found.alarms) - SHOWN
    rows = [(one["question"], one["answer"], one["evidence"]) for one in answers(found)]
    return [
        headline(found),
        lead(found),
        *(f"  {alarm}" for alarm in found.alarms[:SHOWN]),
        *([f"  and {more} more, see --out or --json"] if more > 0 else []),
        table("", ("question", "answer", "what it rests on"), rows),
        *(f"not compared: {what}: {why}" for what, why in found.not_compared.items()),
    ]


def _drift(one: Drift) -> dict[str, Any]:
    return _known(
        {
            "name": one.name,
            "what": one.what,
            "psi": one.psi,
            "usual": one.usual,
            "chance": one.chance,
            "drifted": one.drifted,
            "most_moved": one.most_moved,
        }
    )


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON does not have."""
    from math import isfinite

    return {name: None if isinstance(one, float) and not isfinite(one) else one for name, one in values.items()}
